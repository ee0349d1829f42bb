//! A port changes its worker.

use super::frames::{tcp, udp};
use super::world::{Dropped, Forwarded, WEB, World, egress, ingress, isolate};
use crate::worker::{Command, Given};
use sluice_flow::{DropReason, Incarnation};

const CLIENT: &str = "10.0.1.1:4000";
const POD: &str = "10.0.0.1:80";

fn world() -> World {
    let mut world = World::new();
    world.hooks.0.memory.open_ring(0);
    world.adopt(&[isolate(&["Ingress", "Egress"]), ingress("10.0.1.0/24", "TCP 80"), egress("10.0.9.9/32", "UDP 53")]);
    world
}

fn give(world: &mut World) -> Given {
    let incarnation = Incarnation(world.port(WEB).incarnation);
    world.command(Command::GiveAway(WEB, incarnation));
    let given = world.shared.given.pop().expect("it was given");
    assert_eq!((given.port, given.incarnation), (WEB, incarnation));
    given
}

#[test]
fn connections_move_with_their_port_and_nothing_is_judged_in_between() {
    let mut world = world();
    assert_eq!(world.enters(&tcp(CLIENT, POD, "S")), Forwarded);
    assert_eq!(world.leaves(&udp("10.0.0.1:4000", "10.0.9.9:53")), Forwarded);
    let (entries, epoch) = (world.entries(), world.port(WEB).deny_epoch);
    let given = give(&mut world);
    assert_eq!((given.connections.len(), world.entries()), (2, entries), "the cache goes on");
    assert!(world.worker.connections().is_empty() && world.port(WEB).deny_epoch != epoch, "and allowances are void");
    for frame in [tcp(CLIENT, POD, "A"), tcp("10.0.1.1:4001", POD, "S")] {
        assert_eq!(world.enters(&frame), Dropped(DropReason::WrongWorker));
    }

    // the other worker, which is the same here
    world.command(Command::TakeOver(given));
    assert_eq!(world.leaves(&tcp(POD, CLIENT, "SA")), Forwarded, "an answer");
    assert_eq!(world.enters(&udp("10.0.9.9:53", "10.0.0.1:4000")), Forwarded);
    assert_eq!(world.leaves(&tcp(POD, "10.0.1.7:4000", "SA")), Dropped(DropReason::MidFlowUnknown), "to nothing");
    assert_eq!(world.enters(&tcp("10.0.1.1:4001", POD, "S")), Forwarded, "a new one");
    world.assert_cache_agrees();
}

#[test]
fn what_another_table_forbids_is_cut_when_it_arrives() {
    let mut world = world();
    assert_eq!(world.enters(&tcp(CLIENT, POD, "S")), Forwarded);
    let given = give(&mut world);
    world.adopt(&[isolate(&["Ingress", "Egress"])]);
    world.command(Command::TakeOver(given));
    assert_eq!(world.enters(&tcp(CLIENT, POD, "A")), Dropped(DropReason::PolicyDenied));
    world.assert_cache_agrees();
}

#[test]
fn what_was_begun_in_the_kernel_moves_too() {
    let mut world = world();
    assert_eq!(world.enters(&tcp(CLIENT, POD, "S")), Forwarded);
    world.worker.run_commands(world.now_ns);
    let alike = tcp("10.0.1.1:4002", POD, "S");
    world.change_port(WEB, |port| port.mac = super::frames::FRAME_MAC);
    assert!(matches!(world.shown(sluice_flow::Direction::Ingress, &alike), crate::kernel::hooks::Action::Pass { .. }));
    assert_eq!(give(&mut world).connections.len(), 2, "heard before it is given");
}

#[test]
fn a_port_that_went_on_its_way_leaves_nothing() {
    let mut world = world();
    assert_eq!(world.enters(&tcp(CLIENT, POD, "S")), Forwarded);
    let given = give(&mut world);
    world.change_port(WEB, |port| port.incarnation += 1);
    world.command(Command::TakeOver(given));
    assert_eq!((world.worker.connections().len(), world.entries()), (0, 0));
    // and one that is not this worker's any more is given without anything
    let incarnation = Incarnation(world.port(WEB).incarnation);
    world.change_port(WEB, |port| port.worker = 1);
    world.command(Command::GiveAway(WEB, incarnation));
    assert!(world.shared.given.pop().unwrap().connections.is_empty());
}

#[test]
fn nothing_is_judged_of_a_port_that_is_expected_and_a_later_use_of_one_that_went_is_served() {
    let mut world = world();
    let incarnation = Incarnation(world.port(WEB).incarnation);
    world.command(Command::Expect(WEB, incarnation));
    assert!(world.shared.given.pop().is_some_and(|given| given.connections.is_empty()), "it says so");
    assert_eq!(world.enters(&tcp(CLIENT, POD, "S")), Dropped(DropReason::WrongWorker));
    world.command(Command::TakeOver(Given { port: WEB, incarnation, connections: Vec::new() }));
    assert_eq!(world.enters(&tcp(CLIENT, POD, "S")), Forwarded);

    let _ = give(&mut world);
    assert_eq!(world.enters(&tcp("10.0.1.1:4001", POD, "S")), Dropped(DropReason::WrongWorker));
    // another pod, for which no table speaks yet
    world.change_port(WEB, |port| port.incarnation += 1);
    assert_eq!(world.enters(&tcp("10.0.1.1:4001", POD, "S")), Dropped(DropReason::EndpointUnknown));
}

#[test]
fn an_idle_scan_of_before_ends_nothing_of_a_port_that_went() {
    let mut world = world();
    let opener = tcp(CLIENT, POD, "S");
    assert_eq!(world.enters(&opener), Forwarded);
    let entries = world.entries();
    let given = give(&mut world);
    let flow = super::frames::flow(WEB, sluice_flow::Direction::Ingress, &opener);
    world.advance(100);
    world.command(Command::Expire(vec![(flow, given.incarnation)]));
    assert_eq!(world.entries(), entries);
}
