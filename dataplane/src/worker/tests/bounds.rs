//! Denials, room, and a kernel that refuses to write.

use super::frames::{echo_request, other, tcp, udp};
use super::world::{Dropped, Forwarded, Outcome, SECOND, WEB, World, egress, ingress, isolate};
use crate::kernel::flow_of;
use sluice_bpf::abi::CACHE_ALLOW;
use sluice_flow::Direction::{Egress, Ingress};
use sluice_flow::limits::{BATCH_MAX, CONNECTIONS_PER_PORT_MAX};
use sluice_flow::{DropReason, FlowKey, Protocol};

const CLIENT: &str = "10.0.1.1:4000";
const SERVER: &str = "10.0.0.1:80";
const DENIED: Outcome = Dropped(DropReason::PolicyDenied);

#[test]
fn a_denial_covers_its_own_direction_and_every_source_port() {
    for (frame, what) in [
        (tcp(CLIENT, SERVER, "S"), "TCP"),
        (udp(CLIENT, SERVER), "UDP"),
        (udp("[fd00::9]:1", "[fd00::1]:53"), "UDP over IPv6"),
        (echo_request("10.0.1.1", "10.0.0.1", 7), "an echo request"),
        (other("10.0.1.1", "10.0.0.1", 47), "GRE"),
    ] {
        let asked = super::frames::flow(WEB, Ingress, &frame);
        let everything = FlowKey { protocol: Protocol(0), sport: 0, dport: 65535, ..asked };
        let some = [ingress("10.0.1.0/24", "TCP 443"), ingress("fd00::/64", "TCP 443"), isolate(&["Egress"])];
        for (policies, covered) in [(&[isolate(&["Ingress", "Egress"])][..], everything), (&some, FlowKey { sport: 0, ..asked })] {
            let mut world = World::under(policies);
            assert_eq!(world.enters(&frame), DENIED, "{what}");
            let denials: Vec<FlowKey> = world.denials().iter().map(|key| flow_of(key).unwrap()).collect();
            assert_eq!(denials, [covered], "{what}");
            assert_eq!((world.entries(), world.worker.connections().len()), (0, 0), "it takes no room from flows");
        }
    }
}

/// Where some port of some protocol is allowed, no denial covers it.
#[test]
fn a_denial_of_everything_is_only_made_where_nothing_is_allowed() {
    let mut world = World::under(&[ingress("10.0.1.0/24", "TCP 443"), isolate(&["Egress"])]);
    assert_eq!(world.enters(&tcp(CLIENT, SERVER, "S")), DENIED);
    assert_eq!(world.enters(&other("10.0.1.1", "10.0.0.1", 0)), DENIED, "protocol 0, which a denial of everything has too");
    assert_eq!(world.enters(&tcp(CLIENT, "10.0.0.1:443", "S")), Forwarded);
    for key in world.denials() {
        assert!(key.protocol != 0 || key.dport != 65535, "{key:?}");
    }
}

#[test]
fn both_ends_on_one_worker_are_judged_at_once() {
    let allowed = [egress("10.0.0.2/32", "any"), isolate(&["Ingress"])];
    let mut world = World::under(&allowed);
    // x/second is not isolated: nothing is tracked there
    assert_eq!(world.leaves(&tcp("10.0.0.1:4000", "10.0.0.2:80", "S")), Forwarded);
    assert_eq!(world.worker.connections().count(SECOND), 0);
    let isolated = |port: &str| {
        let rule = serde_json::json!({"from": [{"ipBlock": {"cidr": "10.0.0.1/32"}}], "ports": [{"port": port.parse::<u16>().unwrap()}]});
        serde_json::json!({"podSelector": {"matchLabels": {"app": "second"}}, "policyTypes": ["Ingress"], "ingress": [rule]})
    };
    world.adopt(&[allowed[0].clone(), allowed[1].clone(), isolated("80")]);
    for (port, tracked) in [(80, 1), (81, 1)] {
        assert_eq!(world.leaves(&tcp("10.0.0.1:4001", &format!("10.0.0.2:{port}"), "S")), Forwarded, "its own policy allows it");
        assert_eq!(world.worker.connections().count(SECOND), tracked, "{port}: only what both ends allow");
    }
    world.assert_cache_agrees();
    // what a service may be translated to is not known yet
    assert_eq!(world.leaves(&tcp("10.0.0.1:4002", "10.96.0.10:80", "S")), super::world::Deferred);
    assert_eq!(world.worker.connections().count(SECOND), 1);
}

#[test]
fn only_openers_leave_a_denial() {
    let mut world = World::under(&[isolate(&["Ingress", "Egress"])]);
    for flags in ["", "A", "SA", "R", "F"] {
        assert_eq!(world.enters(&tcp(CLIENT, SERVER, flags)), Dropped(DropReason::MidFlowUnknown));
    }
    world.enters(&super::frames::echo_reply("10.0.1.1", "10.0.0.1", 7));
    world.leaves(&super::frames::unreachable("10.0.0.1", "10.0.1.1", &tcp(CLIENT, SERVER, "S")));
    assert!(world.denials().is_empty());
}

#[test]
fn the_answers_of_a_cut_connection_are_judged_as_flows_of_their_own() {
    let mut world = World::under(&[isolate(&["Ingress"]), egress("10.0.9.9/32", "UDP 53")]);
    let (query, answer) = (udp("10.0.0.1:4000", "10.0.9.9:53"), udp("10.0.9.9:53", "10.0.0.1:4000"));
    assert_eq!(world.leaves(&query), Forwarded);
    world.adopt(&[isolate(&["Ingress", "Egress"])]);
    assert_eq!(world.enters(&answer), DENIED);
    assert_eq!(world.leaves(&query), DENIED);
    assert_eq!(world.denials().len(), 1, "of the answer alone: the query's own entry denies it");
    // a policy that allows them the other way round lets them in, although the connection stays cut
    world.adopt(&[isolate(&["Ingress", "Egress"]), ingress("10.0.9.9/32", "UDP 4000")]);
    assert_eq!(world.enters(&answer), Forwarded);
}

/// Fills x/web with so many connections from 10.0.1.1.
fn fill(world: &mut World, count: usize) {
    let frames: Vec<_> = (0..count).map(|port| udp(&format!("10.0.1.1:{}", 1000 + port), SERVER)).collect();
    for frames in frames.chunks(BATCH_MAX) {
        let sent: Vec<_> = frames.iter().map(|frame| world.punt(WEB, Ingress, frame)).collect();
        assert_eq!(world.batch(sent).forwarded.len(), frames.len());
    }
}

#[test]
fn a_full_port_refuses_new_connections_by_name_and_no_other_port_notices() {
    let mut world = World::under(&[ingress("10.0.1.0/24", "any")]);
    fill(&mut world, CONNECTIONS_PER_PORT_MAX);
    assert_eq!(world.entries(), 2 * CONNECTIONS_PER_PORT_MAX);
    assert_eq!(world.enters(&tcp(CLIENT, SERVER, "S")), Dropped(DropReason::ConnectionsFull));
    assert_eq!(world.leaves(&udp("10.0.0.1:9", "10.0.1.9:9")), Dropped(DropReason::ConnectionsFull), "both directions share the room");
    assert!(world.denials().is_empty(), "a lack of room is no denial");
    assert_eq!(world.entries(), 2 * CONNECTIONS_PER_PORT_MAX);
    assert_eq!(world.enters(&udp("10.0.1.1:1000", SERVER)), Forwarded, "known ones go on");
    assert_eq!(world.leaves(&udp(SERVER, "10.0.1.1:1000")), Forwarded);
    assert_eq!(world.punted(SECOND, Ingress, &udp("10.0.1.1:1000", "10.0.0.2:80")), Forwarded, "another port has its own room");
    world.advance(121);
    assert_eq!(world.enters(&udp("10.0.1.1:1000", SERVER)), Forwarded, "one that ended gives its room to its successor");
    world.assert_cache_agrees();
}

/// Replacing takes no room: the same two entries.
#[test]
fn a_full_port_still_serves_openers_of_connections_it_has() {
    let mut world = World::under(&[ingress("10.0.1.0/24", "any"), egress("10.0.1.0/24", "any")]);
    assert_eq!(world.enters(&tcp(CLIENT, SERVER, "S")), Forwarded);
    fill(&mut world, CONNECTIONS_PER_PORT_MAX - 1);
    assert_eq!(world.enters(&tcp(CLIENT, SERVER, "S")), Forwarded, "a repeated SYN");
    assert_eq!(world.leaves(&tcp(SERVER, CLIENT, "S")), Forwarded, "its reverse");
    assert_eq!(world.worker.connections().len(), CONNECTIONS_PER_PORT_MAX);
}

#[test]
fn a_restart_at_full_room_keeps_every_entry() {
    let mut world = World::under(&[ingress("10.0.1.0/24", "any")]);
    fill(&mut world, CONNECTIONS_PER_PORT_MAX);
    world.restart();
    assert_eq!(world.worker.connections().len(), CONNECTIONS_PER_PORT_MAX);
    assert_eq!(world.entries(), 2 * CONNECTIONS_PER_PORT_MAX);
}

/// Three connections in one batch, a write that stops after each number of entries.
#[test]
fn what_the_kernel_refuses_to_remember_is_dropped_and_forgotten() {
    let frames: Vec<_> = (1..4).map(|port| udp(&format!("10.0.1.1:{port}"), SERVER)).collect();
    for done in 0..6 {
        let mut world = World::under(&[ingress("10.0.1.0/24", "any")]);
        world.hooks.0.fail_after.set(Some(done));
        let sent: Vec<_> = frames.iter().map(|frame| world.punt(WEB, Ingress, frame)).collect();
        let batch = world.batch(sent);
        let whole = done / 2;
        assert_eq!(batch.forwarded.len(), whole, "after {done} entries");
        assert_eq!(batch.dropped.get(&DropReason::CacheWriteFailed), Some(&(3 - whole as u64)));
        assert_eq!(
            (world.worker.connections().len(), world.entries()),
            (whole, 2 * whole),
            "no half pair, no connection unknown to the hooks"
        );
        world.assert_cache_agrees();
        for frame in &frames {
            assert_eq!(world.enters(frame), Forwarded, "the next packet tries again");
        }
        assert_eq!(world.entries(), 6);
    }
}

#[test]
fn packets_that_wait_for_a_refused_entry_are_dropped_with_it() {
    let mut world = World::under(&[ingress("10.0.1.0/24", "TCP 80")]);
    world.hooks.0.fail_after.set(Some(1));
    let frames = [(Ingress, tcp(CLIENT, SERVER, "S")), (Egress, tcp(SERVER, CLIENT, "SA")), (Ingress, tcp(CLIENT, SERVER, "A"))];
    let sent: Vec<_> = frames.iter().map(|(direction, frame)| world.punt(WEB, *direction, frame)).collect();
    let batch = world.batch(sent);
    assert_eq!(batch.dropped.get(&DropReason::CacheWriteFailed), Some(&3));
    assert_eq!((world.worker.connections().len(), world.entries()), (0, 0));
}

/// A connection that is forgotten is no longer revalidated by swaps, so nothing of it may stay in the kernel.
#[test]
fn a_refused_rewrite_leaves_no_entry_without_its_connection() {
    for done in [0, 1] {
        let mut world = World::under(&[ingress("10.0.1.0/24", "TCP 80"), egress("10.0.1.0/24", "any")]);
        assert_eq!(world.enters(&tcp(CLIENT, SERVER, "S")), Forwarded);
        // the next packet is asked about although its entries are there
        world.hooks.0.fail_after.set(Some(done));
        assert_eq!(world.leaves(&tcp(SERVER, CLIENT, "SA")), Dropped(DropReason::CacheWriteFailed));
        assert_eq!(world.worker.connections().len(), 0);
        world.assert_cache_agrees();
        world.adopt(&[isolate(&["Ingress", "Egress"])]);
        for (direction, frame) in [(Ingress, tcp(CLIENT, SERVER, "A")), (Egress, tcp(SERVER, CLIENT, "A"))] {
            assert_ne!(
                world.entry(direction, &frame).map(|entry| entry.verdict),
                Some(CACHE_ALLOW),
                "{done}: out of reach of every later swap"
            );
        }
    }
}

#[test]
fn a_refused_takeover_leaves_no_entry_without_its_connection() {
    for done in [0, 1] {
        let mut world = World::under(&[ingress("10.0.1.0/24", "any"), egress("10.0.1.0/24", "any")]);
        assert_eq!(world.enters(&tcp(CLIENT, SERVER, "S")), Forwarded);
        world.hooks.0.fail_after.set(Some(done));
        assert_eq!(world.leaves(&tcp(SERVER, CLIENT, "S")), Dropped(DropReason::CacheWriteFailed));
        world.assert_cache_agrees();
    }
}

#[test]
fn a_full_transmit_ring_is_counted_by_name() {
    let mut world = World::under(&[]);
    world.room(1);
    let sent = (1..4).map(|port| world.punt(WEB, Ingress, &udp(&format!("10.0.1.1:{port}"), SERVER))).collect();
    let batch = world.batch(sent);
    assert_eq!((batch.forwarded.len(), batch.dropped.get(&DropReason::TransmitFull)), (1, Some(&2)));
}

#[test]
fn a_mixed_batch_adds_up() {
    let mut world = World::under(&[ingress("10.0.1.0/24", "TCP 80")]);
    let frames = [
        tcp(CLIENT, SERVER, "S"),
        tcp(CLIENT, SERVER, "A"),
        tcp("10.0.2.1:1", SERVER, "S"),
        udp(CLIENT, SERVER),
        tcp("10.0.2.1:1", SERVER, "A"),
        vec![0; 9],
    ];
    let sent = frames.iter().map(|frame| world.punt(WEB, Ingress, frame)).collect();
    let batch = world.batch(sent);
    assert_eq!(batch.forwarded.len(), 2);
    let expected = [(DropReason::PolicyDenied, 2), (DropReason::Malformed, 1), (DropReason::MidFlowUnknown, 1)];
    assert_eq!(batch.dropped, expected.into());
}
