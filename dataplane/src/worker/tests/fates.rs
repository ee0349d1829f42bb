//! Which packets are judged at all, and what a first packet comes to.

use super::frames::{echo_request, other, tcp, udp, unpunt};
use super::world::{Deferred, Dropped, FOREIGN, Forwarded, SECOND, WEB, World, egress, ingress, isolate};
use sluice_bpf::abi::{CACHE_ALLOW, CACHE_REPLY, KIND_VERDICT, PORT_ISOLATED_EGRESS, PORT_ISOLATED_INGRESS, PORT_OPEN, TRUNK_BYTES};
use sluice_flow::{Direction, DropReason, Incarnation};

const SYN: (&str, &str) = ("10.0.1.1:4000", "10.0.0.1:80");

fn syn() -> Vec<u8> {
    tcp(SYN.0, SYN.1, "S")
}

#[test]
fn without_a_table_nothing_passes() {
    let mut world = World::new();
    for direction in Direction::BOTH {
        assert_eq!(world.punted(WEB, direction, &syn()), Dropped(DropReason::NoTable));
    }
    assert_eq!(world.entries(), 0);
    assert!(world.denials().is_empty());
}

#[test]
fn an_endpoint_that_the_table_does_not_know_is_dropped_by_name() {
    let mut world = World::under(&[]);
    world.change_port(WEB, |port| port.incarnation += 1);
    assert_eq!(world.enters(&syn()), Dropped(DropReason::EndpointUnknown), "another incarnation");
    world.change_port(WEB, |port| port.incarnation -= 1);
    world.snapshot.endpoints.retain(|endpoint| endpoint.port != WEB);
    world.adopt(&[]);
    assert_eq!(world.enters(&syn()), Dropped(DropReason::EndpointUnknown), "no row");
    assert_eq!(world.punted(SECOND, Direction::Egress, &syn()), Forwarded, "others are not disturbed");
}

#[test]
fn frames_of_another_workers_port_are_dropped() {
    let mut world = World::under(&[]);
    assert_eq!(world.punted(FOREIGN, Direction::Ingress, &syn()), Dropped(DropReason::WrongWorker));
}

#[test]
fn a_frame_from_before_its_port_was_reused_is_dropped() {
    let mut world = World::under(&[]);
    let sent = world.punt(WEB, Direction::Ingress, &syn());
    world.change_port(WEB, |port| port.incarnation += 1);
    assert_eq!(world.received(sent.clone()), Dropped(DropReason::StalePort));
    world.change_port(WEB, |port| (port.incarnation, port.ifindex) = (port.incarnation - 1, 0));
    assert_eq!(world.received(sent), Dropped(DropReason::StalePort), "a free slot");
}

#[test]
fn only_whole_trunk_headers_of_this_version_that_ask_are_judged() {
    let mut world = World::under(&[]);
    let good = world.punt(WEB, Direction::Ingress, &syn());
    assert_eq!(world.received(good.clone()), Forwarded);
    let edits: [(usize, u8, &str); 6] = [
        (14, 0, "magic"),
        (16, 99, "version"),
        (17, KIND_VERDICT, "a verdict"),
        (17, 0, "no kind"),
        (18, 2, "direction"),
        (21, 1, "port beyond the last"),
    ];
    for (at, value, what) in edits {
        let mut bad = good.clone();
        bad[at] = value;
        assert_eq!(world.received(bad), Dropped(DropReason::TrunkHeader), "{what}");
    }
    for len in [0, 1, 14, TRUNK_BYTES - 1] {
        assert_eq!(world.received(good[..len].to_vec()), Dropped(DropReason::TrunkHeader), "{len} bytes");
    }
    for len in TRUNK_BYTES..good.len() {
        assert_eq!(world.received(good[..len].to_vec()), Dropped(DropReason::Malformed), "{len} bytes");
    }
}

#[test]
fn a_pod_that_no_policy_isolates_may_do_everything() {
    let mut world = World::under(&[]);
    assert_eq!(world.enters(&syn()), Forwarded);
    assert_eq!(world.leaves(&udp("10.0.0.1:53", "192.0.2.1:53")), Forwarded);
    assert_eq!(world.leaves(&other("fd00::1", "fd00::9", 47)), Forwarded);
    assert_eq!(world.leaves(&echo_request("fd00::1", "fd00::9", 1)), Forwarded);
}

#[test]
fn isolation_is_by_direction() {
    let mut world = World::under(&[isolate(&["Ingress"])]);
    assert_eq!(world.enters(&syn()), Dropped(DropReason::PolicyDenied));
    assert_eq!(world.leaves(&tcp("10.0.0.1:4000", "10.0.1.1:80", "S")), Forwarded);
    world.adopt(&[isolate(&["Egress"])]);
    assert_eq!(world.enters(&syn()), Forwarded);
    assert_eq!(world.leaves(&tcp("10.0.0.1:4001", "10.0.1.1:80", "S")), Dropped(DropReason::PolicyDenied));
}

#[test]
fn rules_allow_by_peer_port_and_protocol() {
    let mut world = World::under(&[ingress("10.0.1.0/24", "TCP 80"), ingress("fd00::1:0/112", "UDP 53")]);
    let denied = Dropped(DropReason::PolicyDenied);
    for (frame, outcome) in [
        (tcp("10.0.1.1:1", "10.0.0.1:80", "S"), Forwarded),
        (tcp("10.0.1.255:1", "10.0.0.1:80", "S"), Forwarded),
        (tcp("10.0.2.0:1", "10.0.0.1:80", "S"), denied),
        (tcp("10.0.1.1:1", "10.0.0.1:81", "S"), denied),
        (udp("10.0.1.1:1", "10.0.0.1:80"), denied),
        (echo_request("10.0.1.1", "10.0.0.1", 1), denied),
        (other("10.0.1.1", "10.0.0.1", 47), denied),
        (udp("[fd00::1:1]:1", "[fd00::1]:53"), Forwarded),
        (udp("[fd00::1:1]:1", "[fd00::1]:80"), denied),
        (tcp("[fd00::1:1]:1", "[fd00::1]:53", "S"), denied),
        (udp("[fd00::2:1]:1", "[fd00::1]:53"), denied),
    ] {
        assert_eq!(world.enters(&frame), outcome, "{:?}", sluice_flow::parse_frame(&frame));
    }
    world.assert_cache_agrees();
}

/// What is written for an allowed connection, and that it stands in the kernel before the frame leaves the worker.
#[test]
fn an_allowed_connection_has_exactly_two_entries_before_its_first_packet_goes_on() {
    for (src, dst) in [SYN, ("[fd00::1:1]:4000", "[fd00::1]:80")] {
        let mut world = World::under(&[ingress("10.0.1.0/24", "TCP 80"), ingress("fd00::1:0/112", "TCP 80")]);
        let (first, reply) = (tcp(src, dst, "S"), tcp(dst, src, "SA"));
        let sent = world.punt(WEB, Direction::Ingress, &first);
        let batch = world.batch(vec![sent.clone()]);
        let (header, inner) = unpunt(&batch.forwarded[0]);
        assert_eq!((header.kind, header.flags, inner), (KIND_VERDICT, 0, &first[..]));

        let at_commit = world.worker.io.cache_at_commit.clone();
        assert_eq!(at_commit.len(), 2, "both directions, nothing else");
        let original = at_commit[&world.key(Direction::Ingress, &first)];
        let answer = at_commit[&world.key(Direction::Egress, &reply)];
        assert_eq!((original.verdict, original.flags, original.packets, original.bytes), (CACHE_ALLOW, 0, 1, first.len() as u64));
        assert_eq!((answer.verdict, answer.flags, answer.packets, answer.bytes), (CACHE_ALLOW, CACHE_REPLY, 0, 0));
        for value in [original, answer] {
            assert_eq!((value.epoch, value.last_seen_ns), (5, world.now_ns));
            assert_eq!(value.timeout_ns, world.config.timeouts.tcp_ns);
            assert_eq!(value.generation, 1);
            assert!(world.worker.table().unwrap().rule(sluice_flow::RuleId(value.rule)).is_some());
        }
        assert_eq!(world.worker.connections().len(), 1);
    }
}

#[test]
fn the_epoch_is_the_one_read_before_judging() {
    let mut world = World::under(&[ingress("10.0.1.0/24", "TCP 80")]);
    let sent = world.punt(WEB, Direction::Ingress, &syn());
    world.change_port(WEB, |port| port.epoch += 1);
    assert_eq!(world.received(sent), Forwarded);
    assert_eq!(world.entry(Direction::Ingress, &syn()).unwrap().epoch, 5, "void already: the hook will ask again");
}

#[test]
fn what_is_not_served_is_dropped_by_name() {
    let mut world = World::under(&[isolate(&["Ingress"])]);
    let mut vlan = syn();
    vlan[12..14].copy_from_slice(&[0x81, 0]);
    assert_eq!(world.enters(&vlan), Dropped(DropReason::Vlan));
    let mut chain = tcp("[fd00::1:1]:1", "[fd00::1]:80", "S");
    chain[20] = 60;
    chain[54] = 0;
    assert_eq!(world.enters(&chain), Dropped(DropReason::ExtensionChain), "hop-by-hop options behind others");
    assert_eq!(world.entries(), 0);
}

#[test]
fn a_packet_to_a_service_is_judged_where_it_departs() {
    let mut world = World::under(&[egress("10.0.0.7/32", "any")]);
    let to_service = tcp("10.0.0.1:4000", "10.96.0.10:80", "S");
    assert_eq!(world.leaves(&to_service), Deferred);
    assert_eq!(world.enters(&tcp("10.96.0.10:80", "10.0.0.1:4000", "SA")), Forwarded, "the answer, translated back");
    assert_eq!(world.departs(&tcp("10.0.0.1:4000", "10.0.0.7:8080", "S")), Forwarded, "the backend is allowed");
    assert_eq!(world.departs(&tcp("10.0.0.1:4000", "10.0.0.8:8080", "S")), Dropped(DropReason::PolicyDenied), "this one is not");
    assert_eq!(world.departs(&to_service), Dropped(DropReason::PolicyDenied), "nobody translated it: an address like others");
    assert_eq!(world.departs(&tcp("10.0.0.1:4000", "10.0.0.7:8080", "A")), Forwarded, "in mid-flow too: its direction is known");
    // the source port that the node chose says nothing
    assert_eq!(world.departs(&tcp("192.168.0.1:9999", "10.0.0.7:8080", "S")), Forwarded, "masqueraded");
    world.adopt(&[isolate(&["Egress"])]);
    assert_eq!(world.leaves(&to_service), Deferred, "although policy denies everything");
    assert_eq!(world.departs(&tcp("10.0.0.1:4000", "10.0.0.7:8080", "A")), Dropped(DropReason::PolicyDenied), "cut by the swap");
    world.adopt(&[isolate(&["Ingress"])]);
    assert_eq!(world.leaves(&to_service), Forwarded, "not isolated for egress");
    assert_eq!(world.enters(&tcp("10.96.0.10:80", "10.0.0.1:4000", "SA")), Forwarded);
}

#[test]
fn a_port_is_open_while_the_table_knows_its_pod() {
    let mut world = World::new();
    let state = |world: &World| world.port(WEB).state_bits();
    assert_eq!(state(&world), 0, "closed from the start");
    for (policies, expected) in [
        (vec![], PORT_OPEN),
        (vec![isolate(&["Ingress"])], PORT_OPEN | PORT_ISOLATED_INGRESS),
        (vec![isolate(&["Egress"])], PORT_OPEN | PORT_ISOLATED_EGRESS),
        (vec![isolate(&["Egress"]), isolate(&["Ingress"])], PORT_OPEN | PORT_ISOLATED_INGRESS | PORT_ISOLATED_EGRESS),
    ] {
        world.adopt(&policies);
        assert_eq!(state(&world), expected, "{policies:?}");
        assert_eq!(world.port(SECOND).state_bits(), PORT_OPEN, "only x/web is selected");
        assert_eq!(world.port(FOREIGN).state_bits(), 0, "another worker's");
    }
    let row = world.snapshot.endpoints[0].clone();
    assert_eq!(row.port, WEB);
    world.snapshot.endpoints[0].incarnation = Incarnation(8);
    world.adopt(&[]);
    assert_eq!(state(&world), 0, "the table speaks of another incarnation");
    world.snapshot.endpoints[0] = row;
    world.adopt(&[]);
    assert_eq!(state(&world), PORT_OPEN);
    world.snapshot.endpoints.remove(0);
    world.adopt(&[]);
    assert_eq!(state(&world), 0, "the pod is gone");
}
