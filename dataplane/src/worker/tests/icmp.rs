//! ICMP errors pass if they quote a tracked connection, and only then.

use super::frames::{echo_request, tcp, udp, unreachable};
use super::world::{Dropped, Forwarded, Outcome, SECOND_NS, World, egress, ingress, isolate};
use sluice_flow::DropReason;

const UNTRACKED: Outcome = Dropped(DropReason::IcmpErrorUntracked);

fn world() -> World {
    let blocks = ["10.0.1.0/24", "fd00::1:0/112"];
    let mut policies = vec![isolate(&["Ingress", "Egress"])];
    policies.extend(blocks.map(|block| ingress(block, "TCP 80")));
    policies.extend(blocks.map(|block| egress(block, "UDP 53")));
    World::under(&policies)
}

#[test]
fn an_error_about_what_the_pod_sent_enters_from_any_router() {
    for (web, peer, router) in [("10.0.0.1", "10.0.1.1", "192.0.2.1"), ("fd00::1", "fd00::1:1", "2001:db8::1")] {
        let socket = |address: &str, port: u16| match address.contains(':') {
            true => format!("[{address}]:{port}"),
            false => format!("{address}:{port}"),
        };
        let mut world = world();
        let query = udp(&socket(web, 4000), &socket(peer, 53));
        assert_eq!(world.enters(&unreachable(peer, web, &query)), UNTRACKED, "before the connection");
        assert_eq!(world.leaves(&query), Forwarded);
        assert_eq!(world.enters(&unreachable(peer, web, &query)), Forwarded);
        assert_eq!(world.enters(&unreachable(router, web, &query)), Forwarded, "a router on the way");
        // the pod's own answers may meet an error too
        let (syn, answer) = (tcp(&socket(peer, 4000), &socket(web, 80), "S"), tcp(&socket(web, 80), &socket(peer, 4000), "SA"));
        assert_eq!(world.enters(&syn), Forwarded);
        assert_eq!(world.enters(&unreachable(router, web, &answer)), Forwarded);
        assert_eq!(world.leaves(&unreachable(web, peer, &syn)), Forwarded, "the pod complains to the client");
        assert_eq!(world.entries(), 4, "errors are never tracked");
    }
}

#[test]
fn a_forged_inner_header_is_dropped() {
    let mut world = world();
    let query = udp("10.0.0.1:4000", "10.0.1.1:53");
    assert_eq!(world.leaves(&query), Forwarded);
    for (what, quoted) in [
        ("another source port", udp("10.0.0.1:4001", "10.0.1.1:53")),
        ("another destination port", udp("10.0.0.1:4000", "10.0.1.1:54")),
        ("another peer", udp("10.0.0.1:4000", "10.0.1.2:53")),
        ("another protocol", tcp("10.0.0.1:4000", "10.0.1.1:53", "A")),
        ("somebody else's packet", udp("10.0.0.2:4000", "10.0.1.1:53")),
        ("the answer, which did not leave the pod", udp("10.0.1.1:53", "10.0.0.1:4000")),
        ("a request never made", echo_request("10.0.0.1", "10.0.1.1", 9)),
    ] {
        assert_eq!(world.enters(&unreachable("10.0.1.1", "10.0.0.1", &quoted)), UNTRACKED, "{what}");
    }
    let mut cut = unreachable("10.0.1.1", "10.0.0.1", &query);
    cut.truncate(14 + 20 + 8 + 20 + 2);
    cut[16..18].copy_from_slice(&(20 + 8 + 20 + 2u16).to_be_bytes());
    assert_eq!(world.enters(&cut), Dropped(DropReason::Malformed), "the quoted ports are missing");
}

#[test]
fn a_pod_complains_only_to_whom_it_heard_from() {
    let mut world = world();
    let syn = tcp("10.0.1.1:4000", "10.0.0.1:80", "S");
    assert_eq!(world.enters(&syn), Forwarded);
    assert_eq!(world.leaves(&unreachable("10.0.0.1", "10.0.1.9", &syn)), UNTRACKED, "to a third party");
    assert_eq!(world.leaves(&unreachable("10.0.0.1", "10.0.1.1", &tcp("10.0.1.1:4001", "10.0.0.1:80", "S"))), UNTRACKED, "about nothing");
}

#[test]
fn errors_about_a_connection_that_a_swap_has_cut_are_dropped() {
    let mut world = world();
    let query = udp("10.0.0.1:4000", "10.0.1.1:53");
    assert_eq!(world.leaves(&query), Forwarded);
    world.adopt(&[isolate(&["Ingress", "Egress"])]);
    assert_eq!(world.enters(&unreachable("10.0.1.1", "10.0.0.1", &query)), UNTRACKED);
}

/// Errors say nothing about whether a connection lives, so they do not prolong it.
#[test]
fn errors_about_a_connection_that_has_timed_out_are_dropped() {
    let mut world = world();
    let query = udp("10.0.0.1:4000", "10.0.1.1:53");
    let error = unreachable("192.0.2.1", "10.0.0.1", &query);
    assert_eq!(world.leaves(&query), Forwarded);
    world.now_ns += 119 * SECOND_NS;
    assert_eq!(world.enters(&error), Forwarded);
    world.now_ns += 2 * SECOND_NS;
    assert_eq!(world.enters(&error), UNTRACKED);
    assert_eq!(world.worker.connections().len(), 1, "it is still there: no scan has come by");
    assert_eq!(world.leaves(&query), Forwarded);
    assert_eq!(world.enters(&error), Forwarded, "about the one that has begun since");
}

#[test]
fn where_the_pod_is_not_isolated_errors_pass() {
    let mut world = World::under(&[isolate(&["Egress"])]);
    assert_eq!(world.enters(&unreachable("10.0.1.1", "10.0.0.1", &udp("10.0.0.1:1", "10.0.1.1:2"))), Forwarded);
    assert_eq!(world.entries(), 0);
}
