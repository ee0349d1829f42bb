//! Connections to services where they depart: their answers cross another hook.

use super::frames::tcp;
use super::world::{Forwarded, WEB, World, egress};
use crate::kernel::{flow_of, key_of};
use crate::worker::Command;
use sluice_bpf::abi::DEPARTURE;
use sluice_flow::{FlowKey, Incarnation, TcpFlags};

/// The departing connection, after the kernel saw these flags of it.
fn departed(world: &mut World, sport: u16, tcp_flags: u8) -> (FlowKey, Incarnation) {
    assert_eq!(world.departs(&tcp(&format!("10.0.0.1:{sport}"), "10.0.0.7:8080", "S")), Forwarded);
    let mut cache = world.hooks.0.memory.cache.borrow_mut();
    let (key, value) = cache.iter_mut().find(|(key, _)| key.direction == DEPARTURE && key.sport == sport).unwrap();
    value.tcp_flags = tcp_flags;
    (flow_of(key).unwrap(), Incarnation(key.incarnation))
}

#[test]
fn who_acknowledges_has_been_answered() {
    let mut world = World::under(&[egress("10.0.0.7/32", "any")]);
    let answered = departed(&mut world, 4000, TcpFlags::SYN | TcpFlags::ACK);
    let unanswered = departed(&mut world, 4001, TcpFlags::SYN);
    assert_eq!(answered.0.port, WEB);
    world.advance(120);
    world.command(Command::Expire(vec![answered, unanswered]));
    let is_known = |world: &World, (flow, incarnation): (FlowKey, Incarnation)| {
        let key = key_of(&flow, incarnation);
        (world.worker.connections().find(&flow).is_some(), world.hooks.0.memory.cache.borrow().contains_key(&key))
    };
    assert_eq!(is_known(&world, answered), (true, true), "idle, as TCP may be");
    assert_eq!(is_known(&world, unanswered), (false, false));
    world.advance(7440);
    world.command(Command::Expire(vec![answered]));
    assert_eq!(is_known(&world, answered), (false, false));
}
