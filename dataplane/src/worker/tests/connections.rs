//! Replies are only replies; time ends connections.

use super::frames::{echo_reply, echo_request, other, sctp, tcp, udp};
use super::world::{Dropped, Forwarded, World, egress, ingress, isolate};
use sluice_bpf::abi::{CACHE_ALLOW, CACHE_REPLY};
use sluice_flow::Direction::{Egress, Ingress};
use sluice_flow::DropReason;

const CLIENT: &str = "10.0.1.1:4000";
const WEB: &str = "10.0.0.1:80";
const DENIED: super::world::Outcome = Dropped(DropReason::PolicyDenied);

/// Both directions isolated; the block 10.0.1.0/24 may reach TCP 80, and x/web may ask 10.0.9.9 UDP 53.
fn world() -> World {
    World::under(&[isolate(&["Ingress", "Egress"]), ingress("10.0.1.0/24", "TCP 80"), egress("10.0.9.9/32", "UDP 53")])
}

#[test]
fn replies_of_an_allowed_connection_are_allowed() {
    let mut world = world();
    assert_eq!(world.enters(&tcp(CLIENT, WEB, "S")), Forwarded);
    assert_eq!(world.leaves(&tcp(WEB, CLIENT, "SA")), Forwarded);
    assert_eq!(world.enters(&tcp(CLIENT, WEB, "A")), Forwarded);
    assert_eq!(world.leaves(&tcp(WEB, CLIENT, "AF")), Forwarded);
    assert_eq!(world.leaves(&udp("10.0.0.1:4000", "10.0.9.9:53")), Forwarded);
    assert_eq!(world.enters(&udp("10.0.9.9:53", "10.0.0.1:4000")), Forwarded);
    assert_eq!((world.worker.connections().len(), world.entries()), (2, 4));
    world.assert_cache_agrees();
}

#[test]
fn replies_are_known_within_the_batch_of_their_first_packet() {
    let mut world = world();
    let frames = [(Ingress, tcp(CLIENT, WEB, "S")), (Egress, tcp(WEB, CLIENT, "SA")), (Ingress, tcp(CLIENT, WEB, "A"))];
    let sent = frames.iter().map(|(direction, frame)| world.punt(super::world::WEB, *direction, frame)).collect();
    let batch = world.batch(sent);
    assert_eq!(batch.forwarded.len(), 3);
    let original = world.entry(Ingress, &frames[0].1).unwrap();
    let reply = world.entry(Egress, &frames[1].1).unwrap();
    assert_eq!((original.packets, original.bytes), (2, (frames[0].1.len() + frames[2].1.len()) as u64));
    assert_eq!((reply.packets, reply.flags), (1, CACHE_REPLY));
    assert_eq!(world.writes(), 2, "one pair, written once");
}

#[test]
fn the_reverse_connection_is_a_connection_of_its_own() {
    let mut world = world();
    assert_eq!(world.enters(&tcp(CLIENT, WEB, "S")), Forwarded);
    assert_eq!(world.leaves(&tcp(WEB, CLIENT, "S")), DENIED, "an opener is no reply");
    assert_eq!(world.leaves(&tcp(WEB, CLIENT, "SF")), DENIED, "whatever stands beside its SYN");
    assert_eq!(world.leaves(&tcp(WEB, CLIENT, "SA")), Forwarded, "the first connection goes on");
    world.assert_cache_agrees();
}

#[test]
fn an_allowed_reverse_opener_takes_the_entries_over() {
    let mut world = World::under(&[ingress("10.0.1.0/24", "any"), egress("10.0.1.0/24", "any")]);
    assert_eq!(world.enters(&tcp(CLIENT, WEB, "S")), Forwarded);
    assert_eq!(world.leaves(&tcp(WEB, CLIENT, "S")), Forwarded);
    assert_eq!((world.worker.connections().len(), world.entries()), (1, 2));
    assert_eq!(world.entry(Egress, &tcp(WEB, CLIENT, "S")).unwrap().flags, 0, "now the original direction");
    world.assert_cache_agrees();
}

#[test]
fn a_repeated_opener_is_judged_again_and_tracked_once() {
    let mut world = world();
    for _ in 0..3 {
        assert_eq!(world.enters(&tcp(CLIENT, WEB, "S")), Forwarded);
    }
    let syn = world.punt(super::world::WEB, Ingress, &tcp(CLIENT, WEB, "S"));
    assert_eq!(world.batch(vec![syn.clone(), syn]).forwarded.len(), 2);
    assert_eq!((world.worker.connections().len(), world.entries()), (1, 2));
}

#[test]
fn an_echo_request_is_no_reply_although_it_uses_an_allowed_identifier() {
    for (web, peer, block) in [("10.0.0.1", "10.0.1.1", "10.0.1.0/24"), ("fd00::1", "fd00::1:1", "fd00::1:0/112")] {
        let mut world = World::under(&[isolate(&["Ingress"]), egress(block, "any")]);
        assert_eq!(world.leaves(&echo_request(web, peer, 77)), Forwarded);
        assert_eq!(world.enters(&echo_request(peer, web, 77)), DENIED);
        assert_eq!(world.enters(&echo_reply(peer, web, 77)), Forwarded);
        assert_eq!(world.enters(&echo_reply(peer, web, 78)), Dropped(DropReason::ReplyToNothing), "another identifier");
        assert_eq!(world.leaves(&echo_reply(web, peer, 77)), Dropped(DropReason::ReplyToNothing), "nobody asked x/web");
        world.assert_cache_agrees();
    }
}

#[test]
fn an_echo_reply_without_a_request_is_dropped_where_isolated_and_never_tracked() {
    let mut world = World::under(&[ingress("0.0.0.0/0", "any")]);
    assert_eq!(world.enters(&echo_reply("10.0.1.1", "10.0.0.1", 5)), Dropped(DropReason::ReplyToNothing), "allowed peers too");
    assert_eq!(world.leaves(&echo_reply("10.0.0.1", "10.0.1.1", 5)), Forwarded, "not isolated for egress");
    assert_eq!((world.worker.connections().len(), world.entries()), (0, 0));
}

#[test]
fn protocols_without_ports_have_replies_too() {
    let mut world = World::under(&[isolate(&["Ingress"]), egress("10.0.1.0/24", "any")]);
    assert_eq!(world.enters(&other("10.0.1.1", "10.0.0.1", 47)), DENIED);
    assert_eq!(world.leaves(&other("10.0.0.1", "10.0.1.1", 47)), Forwarded);
    assert_eq!(world.enters(&other("10.0.1.1", "10.0.0.1", 47)), Forwarded);
    assert_eq!(world.enters(&other("10.0.1.1", "10.0.0.1", 50)), DENIED, "another protocol");
}

#[test]
fn after_its_time_a_reversed_datagram_is_a_new_connection() {
    let mut world = world();
    let (query, answer) = (udp("10.0.0.1:4000", "10.0.9.9:53"), udp("10.0.9.9:53", "10.0.0.1:4000"));
    assert_eq!(world.leaves(&query), Forwarded);
    world.advance(120);
    assert_eq!(world.enters(&answer), Forwarded, "the last moment");
    world.advance(121);
    assert_eq!(world.enters(&answer), DENIED);
    assert_eq!((world.worker.connections().len(), world.entries()), (0, 0), "and nothing of it stays");
    assert_eq!(world.leaves(&query), Forwarded, "its own direction may begin anew");
}

#[test]
fn what_the_kernel_saw_last_counts_for_both_directions() {
    let mut world = world();
    let (query, answer) = (udp("10.0.0.1:4000", "10.0.9.9:53"), udp("10.0.9.9:53", "10.0.0.1:4000"));
    assert_eq!(world.leaves(&query), Forwarded);
    world.advance(1000);
    let now_ns = world.now_ns;
    world.change_entry(Egress, &query, |entry| (entry.last_seen_ns, entry.packets) = (now_ns - 1, 50));
    assert_eq!(world.enters(&answer), Forwarded, "the reply's entry is stale, the connection is not");
    let [original, reply] = [world.entry(Egress, &query), world.entry(Ingress, &answer)].map(Option::unwrap);
    assert_eq!((original.packets, reply.packets), (50, 1), "what the kernel counted is kept");
    assert_eq!((original.last_seen_ns, reply.last_seen_ns), (now_ns, now_ns));
    assert_eq!((original.verdict, reply.flags), (CACHE_ALLOW, CACHE_REPLY));
}

#[test]
fn an_association_is_opened_by_init_and_by_nothing_else() {
    let [init, init_ack, data, abort]: [&[u8]; 4] = [&[1], &[2], &[0], &[6]];
    let mut world = World::under(&[ingress("10.0.1.0/24", "SCTP 3868"), isolate(&["Egress"])]);
    let (client, web) = ("10.0.1.1:4000", "10.0.0.1:3868");
    for stray in [init_ack, data, abort, &[0, 1], &[]] {
        assert_eq!(world.enters(&sctp(client, web, stray)), Dropped(DropReason::MidFlowUnknown), "{stray:?}");
    }
    assert_eq!(world.enters(&sctp(client, web, init)), Forwarded);
    assert_eq!(world.leaves(&sctp(web, client, init_ack)), Forwarded);
    assert_eq!(world.enters(&sctp(client, web, data)), Forwarded);
    assert_eq!(world.leaves(&sctp(web, client, init)), DENIED, "a reply is only a reply");
    assert_eq!(world.leaves(&sctp(web, client, &[1, 0])), DENIED, "whatever stands behind it");
    assert_eq!(world.leaves(&sctp(web, client, data)), Forwarded, "and harms nothing");
    let entry = world.entry(Ingress, &sctp(client, web, data)).unwrap();
    assert_eq!((entry.verdict, entry.timeout_ns), (CACHE_ALLOW, world.config.timeouts.other_ns));
    assert_eq!(world.enters(&sctp("10.0.1.1:4000", "10.0.0.1:3869", init)), DENIED, "another port");
    assert_eq!(world.enters(&udp("10.0.1.1:4000", "10.0.0.1:3868")), DENIED, "another protocol");
}

#[test]
fn a_shortened_timeout_stays_short() {
    let mut world = world();
    let (syn, answer) = (tcp(CLIENT, WEB, "S"), tcp(WEB, CLIENT, "A"));
    assert_eq!(world.enters(&syn), Forwarded);
    // RST in the kernel
    world.change_entry(Ingress, &syn, |entry| (entry.timeout_ns, entry.tcp_flags) = (10_000_000_000, 0x04));
    assert_eq!(world.leaves(&answer), Forwarded);
    let entry = world.entry(Ingress, &syn).unwrap();
    assert_eq!((entry.timeout_ns, entry.tcp_flags), (10_000_000_000, 0x04));
    assert_eq!(world.enters(&syn), Forwarded);
    assert_eq!(world.entry(Ingress, &syn).unwrap().timeout_ns, world.config.timeouts.tcp_ns, "a new SYN begins anew");
}

#[test]
fn an_entry_of_an_old_epoch_is_written_again() {
    let mut world = world();
    assert_eq!(world.enters(&tcp(CLIENT, WEB, "S")), Forwarded);
    world.change_port(super::world::WEB, |port| port.epoch += 1);
    assert_eq!(world.leaves(&tcp(WEB, CLIENT, "A")), Forwarded, "still the reply of a known connection");
    assert_eq!(world.entry(Ingress, &tcp(CLIENT, WEB, "S")).unwrap().epoch, 6);
    assert_eq!(world.entry(Egress, &tcp(WEB, CLIENT, "A")).unwrap().epoch, 6);
}

/// The hooks ask for an entry that the kernel lost, and the connection answers.
#[test]
fn a_lost_entry_is_written_again() {
    let (query, answer) = (udp("10.0.0.1:4000", "10.0.9.9:53"), udp("10.0.9.9:53", "10.0.0.1:4000"));
    for lost in [vec![(Ingress, &answer)], vec![(Egress, &query)], vec![(Egress, &query), (Ingress, &answer)]] {
        let mut world = world();
        assert_eq!(world.leaves(&query), Forwarded);
        for (direction, frame) in &lost {
            world.lose_entry(*direction, frame);
        }
        world.advance(1);
        assert_eq!(world.enters(&answer), Forwarded, "{} lost", lost.len());
        assert_eq!(world.entries(), 2);
    }
}

#[test]
fn expiry_forgets_idle_connections_only() {
    let mut world = world();
    let frames = [udp("10.0.0.1:4000", "10.0.9.9:53"), udp("10.0.0.1:4001", "10.0.9.9:53")];
    for frame in &frames {
        assert_eq!(world.leaves(frame), Forwarded);
    }
    assert_eq!(world.enters(&udp("10.0.9.9:53", "10.0.0.1:4001")), Forwarded);
    world.advance(119);
    let now_ns = world.now_ns;
    world.change_entry(Egress, &frames[1], |entry| entry.last_seen_ns = now_ns);
    world.advance(2);
    let flows = || frames.iter().map(|frame| (super::frames::flow(super::world::WEB, Egress, frame), super::world::INCARNATION)).collect();
    world.command(crate::worker::Command::Expire(flows()));
    assert_eq!((world.worker.connections().len(), world.entries()), (1, 2));
    assert!(world.entry(Egress, &frames[1]).is_some(), "the kernel saw it lately");
    world.assert_cache_agrees();
}

#[test]
fn tcp_without_an_answer_is_forgotten_soon() {
    let mut world = world();
    assert_eq!(world.enters(&tcp(CLIENT, WEB, "S")), Forwarded);
    let flow = super::frames::flow(super::world::WEB, Ingress, &tcp(CLIENT, WEB, "S"));
    world.advance(60);
    world.command(crate::worker::Command::Expire(vec![(flow, super::world::INCARNATION)]));
    assert_eq!(world.worker.connections().len(), 1, "not yet");
    world.advance(1);
    world.command(crate::worker::Command::Expire(vec![(flow.reversed(), super::world::INCARNATION)]));
    assert_eq!((world.worker.connections().len(), world.entries()), (0, 0));
}
