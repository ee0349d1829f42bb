//! Packets whose source the node translated: judged by the source before.

use super::frames::{flow, tcp, udp};
use super::world::{Dropped, Forwarded, WEB, World, ingress, isolate};
use sluice_bpf::abi::CACHE_TRANSLATED;
use sluice_flow::{Addr, Direction, DropReason};

const NODE: &str = "192.168.0.1";

/// Only 203.0.113.0/24 may come in; the node is not in it.
fn world() -> World {
    World::under(&[ingress("203.0.113.0/24", "any")])
}

#[test]
fn what_came_from_outside_is_judged_by_where_it_came_from() {
    let mut world = world();
    let syn = tcp("192.168.0.1:40000", "10.0.0.1:80", "S");
    assert_eq!(world.enters(&syn), Dropped(DropReason::PolicyDenied), "the node's address as such");
    assert_eq!(world.enters_from("198.51.100.1", &syn), Dropped(DropReason::PolicyDenied));
    assert_eq!(world.denials().len(), 1, "no denial covers others on the node's address");
    assert_eq!(world.enters_from("203.0.113.9", &syn), Forwarded);
    let key = flow(WEB, Direction::Ingress, &syn);
    let (_, connection, _) = world.worker.connections().find(&key).unwrap();
    assert_eq!(connection.origin, Some(Addr::v4([203, 0, 113, 9])));
    let entry = world.entry(Direction::Ingress, &syn).unwrap();
    assert_eq!((entry.flags & CACHE_TRANSLATED, Addr(entry.origin)), (CACHE_TRANSLATED, Addr::v4([203, 0, 113, 9])));
    assert_eq!(world.leaves(&tcp("10.0.0.1:80", "192.168.0.1:40000", "SA")), Forwarded, "the answer");
    // the same port of the node, given to somebody else
    assert_eq!(world.enters_from("198.51.100.1", &syn), Dropped(DropReason::PolicyDenied));
}

#[test]
fn a_swap_and_a_restart_judge_by_the_origin_too() {
    let mut world = world();
    let syn = tcp("192.168.0.1:40000", "10.0.0.1:80", "S");
    let ack = tcp("192.168.0.1:40000", "10.0.0.1:80", "A");
    assert_eq!(world.enters_from("203.0.113.9", &syn), Forwarded);
    world.restart();
    world.adopt(&[ingress("203.0.113.9/32", "any")]);
    assert_eq!(world.enters(&ack), Forwarded, "known, though nobody tells its origin any more");
    world.adopt(&[ingress("192.168.0.0/16", "any")]);
    assert_eq!(world.enters(&ack), Dropped(DropReason::PolicyDenied), "the node's own address is not where it comes from");
    world.adopt(&[isolate(&["Egress"])]);
    assert_eq!(world.enters(&syn), Forwarded);
}

#[test]
fn a_pod_reaches_itself_through_a_service() {
    let mut world = World::under(&[isolate(&["Ingress", "Egress"])]);
    let hairpin = tcp("192.168.0.1:40000", "10.0.0.1:80", "S");
    assert_eq!(world.departs(&hairpin), Forwarded, "masqueraded, to itself");
    assert_eq!(world.enters_from("10.0.0.1", &hairpin), Forwarded);
    assert_eq!(
        world.enters(&tcp("192.168.0.1:40001", "10.0.0.1:80", "S")),
        Dropped(DropReason::PolicyDenied),
        "the node as such is not it"
    );
    assert_eq!(world.departs(&tcp("[fd00::aa]:4000", "[fd00::1]:80", "S")), Forwarded);
    assert_eq!(world.departs(&tcp("192.168.0.1:40000", "10.0.0.2:80", "S")), Dropped(DropReason::PolicyDenied));
}

#[test]
fn datagrams_of_translated_sources_are_forgotten_before_the_kernel_gives_the_port_away() {
    let mut world = world();
    let query = udp(&format!("{NODE}:40000"), "10.0.0.1:53");
    assert_eq!(world.enters_from("203.0.113.9", &query), Forwarded);
    assert_eq!(world.entry(Direction::Ingress, &query).unwrap().timeout_ns, world.config.timeouts.translated_ns);
    assert_eq!(world.enters_from("198.51.100.1", &query), Dropped(DropReason::PolicyDenied), "while it is known");
    assert_eq!(world.enters_from("203.0.113.9", &query), Forwarded);
    world.advance(26);
    assert_eq!(world.enters_from("198.51.100.1", &query), Dropped(DropReason::PolicyDenied), "and when it is not");
}
