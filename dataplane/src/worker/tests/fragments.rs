//! Packets in pieces.

use super::frames::{FRAME_MAC, udp};
use super::world::{Dropped, Forwarded, SECOND, WEB, World, egress, ingress, isolate};
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
    assert_eq!(world.enters(&piece(7, 1, true)), Dropped(DropReason::FragmentUnmatched), "before its first");
    assert_eq!(world.enters(&piece(7, 0, true)), Forwarded);
    for offset in [1, 2, 180] {
        assert_eq!(world.enters(&piece(7, offset, offset < 180)), Forwarded, "offset {offset}");
    }
    assert_eq!(world.enters(&piece(8, 1, false)), Dropped(DropReason::FragmentUnmatched), "of another packet");
    assert_eq!(world.leaves(&piece(7, 1, false)), Dropped(DropReason::FragmentUnmatched), "the other way");
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
    assert_eq!(world.enters(&piece(1, 1, false)), Dropped(DropReason::FragmentUnmatched), "too late");
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
    assert_eq!(world.enters(&piece(2, 1, false)), Dropped(DropReason::FragmentUnmatched), "the oldest went");
    world.command(crate::worker::Command::ForgetPort(WEB));
    assert_eq!(world.enters(&piece(200, 1, false)), Dropped(DropReason::FragmentUnmatched), "with its port");
}
