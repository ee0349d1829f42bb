//! Traffic between a pod and its own node: always allowed, but only as far as the node itself.

use super::frames::{echo_reply, echo_request, flow, tcp, udp, unreachable};
use super::world::{Deferred, Dropped, Forwarded, SECOND_NS, WEB, World, egress, isolate};
use crate::worker::Command;
use sluice_bpf::abi::{CACHE_ALLOW, CACHE_ALLOW_DEFERRED, CACHE_REPLY, TRUNK_BACK, TrunkHeader};
use sluice_flow::Direction::{Egress, Ingress};
use sluice_flow::{Addr, DropReason};
use std::mem::offset_of;
use std::net::IpAddr;

fn node() -> Vec<Addr> {
    ["192.168.0.1", "fd00:1::1"].map(|address| Addr::from(address.parse::<IpAddr>().unwrap())).to_vec()
}

fn world() -> World {
    let mut world = World::new();
    world.command(Command::NodeAddresses(node()));
    world.adopt(&[isolate(&["Ingress", "Egress"])]);
    world
}

#[test]
fn an_isolated_pod_reaches_its_node_and_nothing_behind_its_addresses() {
    for (web, node) in [("10.0.0.1:4000", "192.168.0.1:443"), ("[fd00::1]:4000", "[fd00:1::1]:443")] {
        let mut world = world();
        let syn = tcp(web, node, "S");
        assert_eq!(world.leaves(&syn), Deferred);
        assert_eq!(world.leaves(&tcp(web, node, "A")), Deferred);
        let entry = world.entry(Egress, &syn).unwrap();
        assert_eq!((entry.verdict, entry.flags, entry.rule), (CACHE_ALLOW_DEFERRED, 0, u32::MAX));
        let reply = world.entry(Ingress, &tcp(node, web, "SA")).unwrap();
        assert_eq!((reply.verdict, reply.flags), (CACHE_ALLOW, CACHE_REPLY), "an answer arrives here anyway");
    }
}

/// The hook of the entering side drops whatever carries the mark, so an answer must not.
#[test]
fn only_the_original_direction_is_deferred() {
    let mut world = world();
    let query = udp("10.0.0.1:4000", "192.168.0.1:53");
    assert_eq!(world.leaves(&query), Deferred);
    assert_eq!(world.enters(&udp("192.168.0.1:53", "10.0.0.1:4000")), Forwarded);
    assert_eq!(world.enters(&unreachable("192.168.0.1", "10.0.0.1", &query)), Forwarded);
}

/// The node's own packets enter without being judged, so their answers meet no connection.
#[test]
fn answers_to_the_node_always_leave() {
    for (web, node) in [("10.0.0.1", "192.168.0.1"), ("fd00::1", "fd00:1::1")] {
        let mut world = world();
        let socket = |address: &str, port: u16| match address.contains(':') {
            true => format!("[{address}]:{port}"),
            false => format!("{address}:{port}"),
        };
        assert_eq!(world.leaves(&tcp(&socket(web, 80), &socket(node, 4000), "SA")), Deferred, "a probe's TCP");
        let tracked = |world: &World, port: u16, origin: [u8; 16]| {
            let mut sent = world.punt(WEB, Egress, &tcp(&socket(web, 80), &socket(node, port), "SA"));
            sent[offset_of!(TrunkHeader, flags)] |= TRUNK_BACK;
            sent[offset_of!(TrunkHeader, origin)..][..16].copy_from_slice(&origin);
            sent
        };
        let probe = tracked(&world, 4001, [0; 16]);
        assert_eq!(world.received(probe), Deferred, "a probe's that the kernel tracks");
        let asked = Addr::from(IpAddr::from([203, 0, 113, 9])).0;
        let masqueraded = tracked(&world, 4002, asked);
        assert_eq!(world.received(masqueraded), Dropped(DropReason::PolicyDenied), "{web}: somebody else's, behind the node's address");
        assert_eq!(world.leaves(&udp(&socket(web, 53), &socket(node, 4000))), Deferred, "UDP");
        assert_eq!(world.leaves(&unreachable(web, node, &udp(&socket(node, 4000), &socket(web, 9)))), Deferred, "an ICMP error");
        assert_eq!(world.leaves(&echo_request(web, node, 1)), Deferred, "a ping of its own");
        assert_eq!(world.leaves(&echo_reply(web, node, 2)), Deferred, "the answer to the node's ping");
    }
}

/// The commonest policies isolate for ingress only: probes by the node are answered all the same, and by nobody else.
#[test]
fn a_pod_isolated_for_ingress_only_answers_its_node() {
    let mut world = World::new();
    world.command(Command::NodeAddresses(node()));
    world.adopt(&[isolate(&["Ingress"])]);
    let answer = tcp("10.0.0.1:80", "192.168.0.1:4000", "SA");
    assert_eq!(world.leaves(&answer), Forwarded);
    assert_eq!(world.leaves(&tcp("10.0.0.1:80", "192.168.0.9:4000", "SA")), Dropped(DropReason::MidFlowUnknown));
    world.adopt(&[isolate(&["Ingress"])]);
    assert_eq!(world.entry(Egress, &answer).unwrap().verdict, CACHE_ALLOW, "a swap does not cut it");
    world.adopt(&[isolate(&["Ingress", "Egress"])]);
    assert_eq!(world.entry(Egress, &answer).unwrap().verdict, CACHE_ALLOW_DEFERRED);
}

/// A pod that is not isolated for egress may use the node's NodePorts; only the hooks' state tells the two cases apart.
#[test]
fn a_pod_not_isolated_for_egress_is_not_deferred() {
    let mut world = World::new();
    world.command(Command::NodeAddresses(node()));
    world.adopt(&[isolate(&["Ingress"])]);
    let syn = tcp("10.0.0.1:4000", "192.168.0.1:30080", "S");
    assert_eq!(world.leaves(&syn), Forwarded);
    assert_eq!(world.entry(Egress, &syn).unwrap().verdict, CACHE_ALLOW);
}

/// What was allowed as another host's address and is now the node's goes on as the node's: deferred.
#[test]
fn an_adoption_defers_what_is_now_the_nodes() {
    let mut world = World::under(&[egress("192.168.0.1/32", "UDP 53")]);
    let query = udp("10.0.0.1:4000", "192.168.0.1:53");
    assert_eq!(world.leaves(&query), Forwarded);
    world.command(Command::NodeAddresses(node()));
    world.adopt(&[isolate(&["Egress"])]);
    assert_eq!(world.entry(Egress, &query).unwrap().verdict, CACHE_ALLOW_DEFERRED);
    world.restart();
    assert_eq!(world.leaves(&query), Dropped(DropReason::NoTable));
    world.adopt(&[isolate(&["Egress"])]);
    assert_eq!(world.leaves(&query), Deferred);
}

#[test]
fn connections_to_the_node_survive_a_swap_and_end_in_time() {
    let mut world = world();
    let query = udp("10.0.0.1:4000", "192.168.0.1:53");
    assert_eq!(world.leaves(&query), Deferred);
    world.forget_writes();
    world.adopt(&[isolate(&["Ingress", "Egress"])]);
    assert_eq!(world.writes(), 0);
    world.now_ns += 121 * SECOND_NS;
    world.command(Command::Expire(vec![(flow(WEB, Egress, &query), super::world::INCARNATION)]));
    assert_eq!(world.entries(), 0);
}
