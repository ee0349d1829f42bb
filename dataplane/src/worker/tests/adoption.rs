//! A swap touches what it changes and nothing else.

use super::frames::{flow, tcp, udp};
use super::world::{Dropped, Forwarded, Outcome, SECOND, WEB, World, egress, ingress, isolate};
use crate::worker::{Command, Established};
use sluice_bpf::abi::{CACHE_ALLOW, CACHE_DENY, CACHE_REPLY, PORT_OPEN};
use sluice_flow::Direction::{Egress, Ingress};
use sluice_flow::{DropReason, Incarnation};

const CLIENT: &str = "10.0.1.1:4000";
const SERVER: &str = "10.0.0.1:80";
const DENIED: Outcome = Dropped(DropReason::PolicyDenied);

/// Two connections under one rule each.
fn world() -> World {
    let mut world = World::under(&[ingress("10.0.1.0/24", "TCP 80"), ingress("10.0.2.0/24", "TCP 80"), isolate(&["Egress"])]);
    assert_eq!(world.enters(&tcp(CLIENT, SERVER, "S")), Forwarded);
    assert_eq!(world.enters(&tcp("10.0.2.1:4000", SERVER, "S")), Forwarded);
    world.forget_writes();
    world
}

fn verdicts(world: &World, client: &str) -> [u8; 2] {
    [(Ingress, tcp(client, SERVER, "A")), (Egress, tcp(SERVER, client, "A"))]
        .map(|(direction, frame)| world.entry(direction, &frame).unwrap().verdict)
}

#[test]
fn a_swap_writes_nothing_of_connections_whose_verdict_stays() {
    let mut world = world();
    world.adopt(&[ingress("10.0.1.0/24", "TCP 80"), ingress("10.0.2.0/24", "TCP 80"), isolate(&["Egress"])]);
    assert_eq!(world.writes(), 0, "the same policy");
    world.adopt(&[ingress("10.0.0.0/8", "any"), isolate(&["Egress"])]);
    assert_eq!(world.writes(), 0, "another rule, the same verdict");
    world.adopt(&[]);
    assert_eq!(world.writes(), 0, "no longer isolated");
    assert_eq!(world.shared.counts()[3], 0, "none cut");
}

#[test]
fn a_swap_flips_what_it_forbids_in_both_directions_and_back() {
    let mut world = world();
    let before = world.entry(Ingress, &tcp(CLIENT, SERVER, "A")).unwrap();
    world.adopt(&[ingress("10.0.2.0/24", "TCP 80"), isolate(&["Egress"])]);
    assert_eq!(verdicts(&world, CLIENT), [CACHE_DENY, CACHE_DENY]);
    assert_eq!(verdicts(&world, "10.0.2.1:4000"), [CACHE_ALLOW, CACHE_ALLOW]);
    assert_eq!(world.writes(), 2, "one pair");
    assert_eq!(world.shared.counts()[3], 1);
    let cut = world.entry(Ingress, &tcp(CLIENT, SERVER, "A")).unwrap();
    assert_eq!(
        (cut.packets, cut.bytes, cut.last_seen_ns, cut.timeout_ns),
        (before.packets, before.bytes, before.last_seen_ns, before.timeout_ns)
    );
    assert_eq!(world.entry(Egress, &tcp(SERVER, CLIENT, "A")).unwrap().flags, CACHE_REPLY);
    // frames that were on their way
    assert_eq!(world.enters(&tcp(CLIENT, SERVER, "A")), DENIED);
    assert_eq!(world.leaves(&tcp(SERVER, CLIENT, "A")), DENIED);
    assert_eq!(world.enters(&tcp(CLIENT, SERVER, "S")), DENIED);
    assert_eq!(verdicts(&world, CLIENT), [CACHE_DENY, CACHE_DENY]);
    world.assert_cache_agrees();

    world.forget_writes();
    world.adopt(&[ingress("10.0.1.0/24", "TCP 80"), ingress("10.0.2.0/24", "TCP 80"), isolate(&["Egress"])]);
    assert_eq!(verdicts(&world, CLIENT), [CACHE_ALLOW, CACHE_ALLOW]);
    assert_eq!(world.writes(), 2);
    assert_eq!(world.shared.counts()[3], 1, "nothing more was cut");
    let back = world.entry(Ingress, &tcp(CLIENT, SERVER, "A")).unwrap();
    assert_eq!(back.generation, 3);
    assert!(world.worker.table().unwrap().rule(sluice_flow::RuleId(back.rule)).is_some());
    assert_eq!(world.leaves(&tcp(SERVER, CLIENT, "A")), Forwarded);
    world.assert_cache_agrees();
}

#[test]
fn a_table_is_adopted_when_all_of_it_is_near_and_until_then_the_one_before_it_judges() {
    let mut world = world();
    let before = world.shared.generation();
    let coming = world.compile(&[ingress("10.0.2.0/24", "TCP 80"), isolate(&["Egress"])]);
    let lines = coming.lines();
    world.shared.commands.push(Command::Adopt(coming)).unwrap();
    world.worker.run_commands(world.now_ns);
    let mut calls = 1;
    while world.shared.generation() == before {
        assert_eq!(world.enters(&tcp(CLIENT, SERVER, "S")), Forwarded, "the table before allows it");
        world.worker.run_commands(world.now_ns);
        calls += 1;
    }
    assert!(calls > 2 && calls == lines.div_ceil(128), "{lines} lines in {calls} slices");
    assert_eq!(world.enters(&tcp(CLIENT, SERVER, "S")), DENIED);
    assert_eq!(verdicts(&world, CLIENT), [CACHE_DENY, CACHE_DENY]);
}

#[test]
fn of_tables_in_quick_succession_the_newest_is_adopted_and_none_delays_it() {
    let mut world = world();
    let tables = [ingress("10.0.1.0/24", "TCP 80"), ingress("10.0.2.0/24", "TCP 80")].map(|policy| world.compile(&[policy]));
    let (newest, lines) = (tables[1].generation(), tables[1].lines());
    let [older, newer] = tables;
    world.shared.commands.push(Command::Adopt(older)).unwrap();
    world.worker.run_commands(world.now_ns);
    assert!(world.worker.approach(lines / 2), "half of it is near");
    world.shared.commands.push(Command::Adopt(newer)).unwrap();
    world.worker.run_commands(world.now_ns);
    assert!(!world.worker.approach(lines / 2), "what is left is no more than that");
    assert_eq!(world.shared.generation(), newest);
    assert!(!world.worker.approach(1), "nothing comes any more");
}

#[test]
fn an_entry_written_after_a_swap_names_the_rule_in_force() {
    let mut world = world();
    let named = |world: &World| {
        let entry = world.entry(Ingress, &tcp(CLIENT, SERVER, "A")).unwrap();
        let table = world.worker.table().unwrap();
        assert_eq!(u64::from(entry.generation), table.generation());
        table.rule(sluice_flow::RuleId(entry.rule)).unwrap().policy.name.clone()
    };
    assert_eq!(named(&world), "p0");
    world.adopt(&[isolate(&["Egress"]), isolate(&["Ingress"]), ingress("10.0.2.0/24", "any"), ingress("10.0.1.0/24", "any")]);
    assert_eq!(world.enters(&tcp(CLIENT, SERVER, "A")), Forwarded);
    assert_eq!(named(&world), "p3");
}

#[test]
fn a_connection_is_judged_in_its_original_direction() {
    // x/web may be asked by the client; whether it may ask the client does not matter to this connection
    let mut world = world();
    world.adopt(&[ingress("10.0.1.0/24", "TCP 80"), egress("10.0.1.0/24", "any")]);
    assert_eq!(world.shared.counts()[3], 1, "only 10.0.2.1's");
    world.adopt(&[isolate(&["Ingress"]), egress("10.0.1.0/24", "any")]);
    assert_eq!(verdicts(&world, CLIENT), [CACHE_DENY, CACHE_DENY], "egress alone does not keep it");
}

#[test]
fn established_keep_lets_connections_live_and_refuses_new_ones() {
    let mut world = World::with(Established::Keep);
    world.adopt(&[ingress("10.0.1.0/24", "TCP 80"), isolate(&["Egress"])]);
    assert_eq!(world.enters(&tcp(CLIENT, SERVER, "S")), Forwarded);
    world.forget_writes();
    world.adopt(&[isolate(&["Ingress", "Egress"])]);
    assert_eq!((world.writes(), world.shared.counts()[3]), (0, 0));
    assert_eq!(world.enters(&tcp(CLIENT, SERVER, "A")), Forwarded);
    assert_eq!(world.leaves(&tcp(SERVER, CLIENT, "A")), Forwarded);
    assert_eq!(world.enters(&tcp("10.0.1.1:4001", SERVER, "S")), DENIED);
    assert_eq!(world.enters(&tcp(CLIENT, SERVER, "S")), DENIED, "a new connection with the same ports");
    world.restart();
    world.adopt(&[isolate(&["Ingress", "Egress"])]);
    assert_eq!(world.leaves(&tcp(SERVER, CLIENT, "A")), Forwarded, "after a restart too");
}

/// Keeping is about policy; a pod that is gone keeps nothing, and whoever gets its port inherits nothing.
#[test]
fn connections_of_a_pod_that_is_gone_are_cut_whatever_established_says() {
    for established in [Established::Enforce, Established::Keep] {
        let mut world = World::with(established);
        world.adopt(&[ingress("10.0.1.0/24", "TCP 80")]);
        assert_eq!(world.enters(&tcp(CLIENT, SERVER, "S")), Forwarded);
        world.snapshot.endpoints.retain(|endpoint| endpoint.port != WEB);
        world.adopt(&[ingress("10.0.1.0/24", "TCP 80")]);
        assert_eq!(world.port(WEB).state_bits(), 0, "closed");
        assert_eq!(verdicts(&world, CLIENT), [CACHE_DENY, CACHE_DENY], "{established:?}");
        world.assert_cache_agrees();
    }
}

#[test]
fn a_reused_port_inherits_no_connection() {
    for established in [Established::Enforce, Established::Keep] {
        for forgotten in [false, true] {
            let mut world = World::with(established);
            let policies = [isolate(&["Ingress"]), egress("10.0.1.0/24", "UDP 53")];
            world.adopt(&policies);
            let (query, answer) = (udp("10.0.0.1:4000", "10.0.1.1:53"), udp("10.0.1.1:53", "10.0.0.1:4000"));
            assert_eq!(world.leaves(&query), Forwarded);
            if forgotten {
                world.command(Command::ForgetPort(WEB));
                assert_eq!((world.worker.connections().len(), world.entries()), (0, 0));
            }
            world.change_port(WEB, |port| port.incarnation = 8);
            let row = world.snapshot.endpoints.iter_mut().find(|endpoint| endpoint.port == WEB).unwrap();
            row.incarnation = Incarnation(8);
            world.adopt(&policies);
            assert_eq!(world.port(WEB).state_bits() & PORT_OPEN, PORT_OPEN);
            let about = super::frames::unreachable("10.0.1.1", "10.0.0.1", &query);
            assert_eq!(world.enters(&about), Dropped(DropReason::IcmpErrorUntracked), "{established:?} {forgotten}");
            assert_eq!(world.enters(&answer), DENIED, "{established:?} {forgotten}");
            world.advance(1);
            assert_eq!(world.enters(&answer), DENIED, "{established:?} {forgotten}");
            assert_eq!(world.leaves(&query), Forwarded, "{established:?} {forgotten}: the new pod may ask for itself");
            assert_eq!(world.enters(&answer), Forwarded);
            world.assert_cache_agrees();
        }
    }
}

#[test]
fn an_adoption_voids_cached_denials() {
    let mut world = World::under(&[isolate(&["Ingress"])]);
    assert_eq!(world.enters(&tcp(CLIENT, SERVER, "S")), DENIED);
    assert_eq!(world.denials().len(), 1);
    let before = [WEB, SECOND].map(|port| world.port(port).deny_epoch);
    world.adopt(&[ingress("10.0.1.0/24", "TCP 80")]);
    assert!(world.denials().is_empty(), "none is in force");
    assert_ne!([WEB, SECOND].map(|port| world.port(port).deny_epoch), before);
    assert_eq!(world.port(WEB).epoch, 5, "the verdict cache is not voided");
}

#[test]
fn flips_that_the_kernel_refuses_leave_no_entry_behind() {
    for done in 0..4 {
        let mut world = world();
        world.hooks.0.fail_after.set(Some(done));
        world.adopt(&[isolate(&["Ingress", "Egress"])]);
        for client in [CLIENT, "10.0.2.1:4000"] {
            for (direction, frame) in [(Ingress, tcp(client, SERVER, "A")), (Egress, tcp(SERVER, client, "A"))] {
                let verdict = world.entry(direction, &frame).map(|entry| entry.verdict);
                assert_ne!(verdict, Some(CACHE_ALLOW), "{done} written: nothing old may go on");
                assert_ne!(world.punted(WEB, direction, &frame), Forwarded);
            }
        }
    }
}

#[test]
fn lost_entries_are_not_written_by_a_flip() {
    let mut world = world();
    world.lose_entry(Egress, &tcp(SERVER, CLIENT, "A"));
    world.adopt(&[isolate(&["Ingress", "Egress"])]);
    assert_eq!(world.writes(), 3);
    assert_eq!(world.leaves(&tcp(SERVER, CLIENT, "A")), DENIED, "asked again, answered by the connection");
    world.assert_cache_agrees();
}

#[test]
fn many_flips_are_written_in_full() {
    let mut world = World::under(&[ingress("10.0.1.0/24", "any"), isolate(&["Egress"])]);
    let frames: Vec<_> = (0..600u16).map(|port| udp(&format!("10.0.1.1:{}", 1000 + port), SERVER)).collect();
    for frames in frames.chunks(64) {
        let sent: Vec<_> = frames.iter().map(|frame| world.punt(WEB, Ingress, frame)).collect();
        assert_eq!(world.batch(sent).forwarded.len(), frames.len());
    }
    world.forget_writes();
    world.adopt(&[isolate(&["Ingress", "Egress"])]);
    assert_eq!((world.writes(), world.shared.counts()[3]), (1200, 600));
    world.assert_cache_agrees();
}

#[test]
fn forgetting_a_port_disturbs_no_other() {
    let mut world = world();
    let second = udp("10.0.0.2:4000", "10.0.1.1:53");
    assert_eq!(world.punted(SECOND, Egress, &second), Forwarded);
    world.command(Command::ForgetPort(WEB));
    assert_eq!((world.worker.connections().len(), world.entries()), (1, 2));
    assert!(world.worker.connections().find(&flow(SECOND, Egress, &second)).is_some());
    assert_eq!(world.leaves(&tcp(SERVER, CLIENT, "A")), Dropped(DropReason::MidFlowUnknown));
}
