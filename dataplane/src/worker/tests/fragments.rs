//! Packets in pieces.

use super::frames::{FRAME_MAC, udp, unpunt};
use super::world::{Dropped, Forwarded, Held, SECOND, WEB, World, egress, ingress, isolate};
use crate::kernel::hooks::Action;
use sluice_flow::{Direction, DropReason};

/// A piece of a datagram from 10.0.1.1:4000 to x/web, port 53: the first with the header, the others without.
fn piece(id: u16, offset: u16, more: bool) -> Vec<u8> {
    let mut frame = udp("10.0.1.1:4000", "10.0.0.1:53");
    assert_eq!(frame[..6], [4; 6], "an Ethernet header, then IPv4");
    assert_eq!(frame[6..12], FRAME_MAC);
    frame[18..20].copy_from_slice(&id.to_be_bytes());
    frame[20..22].copy_from_slice(&(offset | u16::from(more) << 13).to_be_bytes());
    if offset > 0 {
        frame[34..].fill(0xee);
    }
    frame
}

fn world() -> World {
    World::under(&[ingress("10.0.1.0/24", "UDP 53")])
}

#[test]
fn later_pieces_meet_what_their_first_met() {
    let mut world = world();
    assert_eq!(world.enters(&piece(7, 0, true)), Forwarded);
    for offset in [1, 2, 180] {
        assert_eq!(world.enters(&piece(7, offset, offset < 180)), Forwarded, "offset {offset}");
    }
    assert_eq!(world.enters(&piece(8, 1, false)), Held, "of another packet");
    assert_eq!(world.leaves(&piece(7, 1, false)), Held, "the other way");
    assert_eq!(world.entries(), 2, "of the first alone");
    world.adopt(&[isolate(&["Ingress"])]);
    assert_eq!(world.enters(&piece(9, 0, true)), Dropped(DropReason::PolicyDenied));
    assert_eq!(world.enters(&piece(9, 1, false)), Dropped(DropReason::PolicyDenied), "as its first");
    world.adopt(&[egress("10.0.1.0/24", "any")]);
    world.adopt(&[]);
    assert_eq!(world.enters(&piece(10, 1, false)), Forwarded, "nobody is asked any more");
}

#[test]
fn what_first_pieces_said_is_kept_for_a_moment_and_so_many_for_each_port() {
    let mut world = world();
    assert_eq!(world.enters(&piece(1, 0, true)), Forwarded);
    world.advance(29);
    assert_eq!(world.enters(&piece(1, 1, false)), Forwarded);
    world.advance(2);
    assert_eq!(world.enters(&piece(1, 1, false)), Held, "too late");
    assert_eq!(world.enters(&piece(2, 0, true)), Forwarded);
    for id in 100..163 {
        assert_eq!(world.enters(&piece(id, 0, true)), Forwarded);
    }
    assert_eq!(world.enters(&piece(2, 1, false)), Forwarded, "the oldest of 64");
    // another port's are its own
    for id in 1000..1100 {
        world.punted(SECOND, Direction::Ingress, &piece(id, 0, true));
    }
    assert_eq!(world.enters(&piece(2, 1, false)), Forwarded);
    assert_eq!(world.enters(&piece(200, 0, true)), Forwarded);
    assert_eq!(world.enters(&piece(2, 1, false)), Held, "the oldest went");
    world.command(crate::worker::Command::ForgetPort(WEB));
    assert_eq!(world.enters(&piece(200, 1, false)), Held, "with its port");
}

/// What the worker sends of these, offset by offset, when they come in one batch.
fn sent(world: &mut World, frames: &[Vec<u8>]) -> Vec<u16> {
    let punts = frames.iter().map(|frame| world.punt(WEB, Direction::Ingress, frame)).collect();
    let offset = |frame: &Vec<u8>| u16::from_be_bytes([unpunt(frame).1[20], unpunt(frame).1[21]]) & 0x1fff;
    world.batch(punts).forwarded.iter().map(offset).collect()
}

#[test]
fn pieces_before_their_first_wait_for_it_and_go_behind_it() {
    let mut world = world();
    assert_eq!(sent(&mut world, &[piece(7, 2, false), piece(7, 1, true)]), [0; 0]);
    assert_eq!(sent(&mut world, &[piece(8, 0, true)]), [0], "another packet's first");
    assert_eq!(sent(&mut world, &[piece(7, 0, true)]), [0, 2, 1]);
    assert_eq!(sent(&mut world, &[piece(9, 3, false), piece(9, 0, true)]), [0, 3], "in one batch");

    // what the first may not do, none may
    assert_eq!(world.enters(&piece(10, 1, false)), Held);
    world.adopt(&[isolate(&["Ingress"])]);
    let punt = world.punt(WEB, Direction::Ingress, &piece(10, 0, true));
    let batch = world.batch(vec![punt]);
    assert_eq!((batch.forwarded.len(), batch.dropped), (0, [(DropReason::PolicyDenied, 2)].into()));
}

#[test]
fn pieces_follow_a_first_that_a_hook_let_pass() {
    let mut world = world();
    let first = piece(7, 0, true);
    assert_eq!(world.enters(&first), Forwarded);
    assert_eq!(world.enters(&piece(8, 2, false)), Held);
    // its connection is in the cache by now
    let action = world.shown(Direction::Ingress, &piece(8, 0, true));
    assert_eq!(action, Action::Pass { mark: 0 });
    world.now_ns += 3_000_000;
    world.worker.run_commands(world.now_ns);
    assert_eq!(world.worker.fragments.held(), 0);
    assert_eq!(world.worker.io.memory.outgoing.drain(..).count(), 1);
}

#[test]
fn who_waits_waits_a_second_and_so_many_of_each_port_do() {
    let mut world = world();
    for offset in 1..=64 {
        assert_eq!(world.enters(&piece(7, offset, true)), Held);
    }
    assert_eq!(world.enters(&piece(7, 65, true)), Dropped(DropReason::FragmentUnmatched));
    assert_eq!(world.enters(&piece(8, 1, true)), Dropped(DropReason::FragmentUnmatched), "of whatever packet");
    let before = world.shared.drops(DropReason::FragmentUnmatched);
    world.advance(2);
    world.worker.run_commands(world.now_ns);
    assert_eq!((world.worker.fragments.held(), world.shared.drops(DropReason::FragmentUnmatched) - before), (0, 64));
    assert_eq!(world.enters(&piece(7, 1, false)), Held);
    world.command(crate::worker::Command::ForgetPort(WEB));
    assert_eq!(world.worker.fragments.held(), 0);
}
