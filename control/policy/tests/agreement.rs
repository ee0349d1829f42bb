//! The promise that everything else rests on: on any cluster, the compiled table says what the oracle says, and names
//! the same rule. Clusters are small and made of few values, so that selectors, blocks and ports keep meeting.

mod cluster;

use cluster::{address, snapshot};
use proptest::prelude::*;
use proptest::sample::Index;
use sluice_flow::{Addr, Direction, Protocol, RuleId, Verdict};
use sluice_policy::compile::{Compiler, compile_parts};
use sluice_policy::oracle::RuleRef;
use sluice_policy::prove::{Counterexample, Prover};
use sluice_policy::{Objects, Oracle, Snapshot, compile};
use sluice_table::{Action, Table, TableParts, build_image};
use std::net::IpAddr;
use std::sync::Arc;

/// A question apart from the pod.
fn question() -> impl Strategy<Value = (IpAddr, Protocol, u16)> {
    let protocol = prop::sample::select(vec![Protocol::TCP, Protocol::UDP, Protocol::SCTP, Protocol::ICMP, Protocol(47)]);
    (address(), protocol, prop_oneof![3 => 78..86u16, 1 => any::<u16>()])
}

/// Does what the proof does not: asks at random places, and through the oracle's public question alone.
fn assert_agree(snapshot: &Snapshot, table: &Table, questions: &[(IpAddr, Protocol, u16)]) {
    let oracle = Oracle::new(snapshot);
    for endpoint in snapshot.endpoints.iter().filter(|endpoint| oracle.knows(endpoint)) {
        for direction in Direction::BOTH {
            for &(remote, protocol, port) in questions {
                let judgement = oracle.judge(&endpoint.pod, direction, remote, protocol, port);
                let verdict = table.lookup(endpoint.port, direction, Addr::from(remote), protocol, port);
                let by = match verdict {
                    Verdict::Allow(id) => table.rule(id).map(|rule| {
                        let (policy, direction, index) = (rule.policy.clone(), rule.direction, rule.index as usize);
                        RuleRef { policy, direction, index }
                    }),
                    Verdict::NotIsolated | Verdict::Deny => None,
                };
                let asked = format!("{} {direction} {remote} {port}/{protocol}: {judgement:?}", endpoint.pod);
                assert_eq!(verdict.is_allow(), judgement.allowed, "{asked}");
                assert_eq!(verdict != Verdict::NotIsolated, judgement.isolated, "{asked}");
                assert_eq!(by, judgement.allowed_by, "{asked}");
            }
        }
    }
}

/// A walk between two random clusters: each state has some objects of the one, some of the other, and some of neither.
fn states() -> impl Strategy<Value = Vec<Snapshot>> {
    (snapshot(), snapshot(), prop::collection::vec(any::<u64>(), 2..6))
        .prop_map(|(one, other, seeds)| seeds.into_iter().map(|seed| mix(&one, &other, seed)).collect())
}

/// One wrong number somewhere in a table.
#[derive(Debug, Clone)]
enum Damage {
    V4Class(Index, Index),
    V6Class(Index, Index),
    Single(Index, Index),
    Row(Index, Index),
    Action(Index, Index, Option<Index>),
    PortClass(usize, Index, Index),
    OtherProtocols(Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let index = any::<Index>;
    prop_oneof![
        (index(), index()).prop_map(|(at, class)| Damage::V4Class(at, class)),
        (index(), index()).prop_map(|(at, class)| Damage::V6Class(at, class)),
        (index(), index()).prop_map(|(at, class)| Damage::Single(at, class)),
        (index(), index()).prop_map(|(at, row)| Damage::Row(at, row)),
        (index(), index(), any::<Option<Index>>()).prop_map(|(row, class, rule)| Damage::Action(row, class, rule)),
        (0..3usize, index(), index()).prop_map(|(protocol, at, class)| Damage::PortClass(protocol, at, class)),
        index().prop_map(Damage::OtherProtocols),
    ]
}

impl Damage {
    fn apply(&self, parts: &mut TableParts) {
        match self {
            Self::V4Class(at, to) => at.get_mut(&mut parts.v4_intervals).1 = to.index(parts.classes) as u32,
            Self::V6Class(at, to) => at.get_mut(&mut parts.v6_intervals).1 = to.index(parts.classes) as u32,
            Self::Single(_, _) if parts.v6_exact.is_empty() => {}
            Self::Single(at, to) => at.get_mut(&mut parts.v6_exact).1 = to.index(parts.classes) as u32,
            Self::Row(at, to) => {
                if !parts.profiles.is_empty() {
                    let profile = at.get_mut(&mut parts.profiles);
                    let rows = profile.actions.len() / profile.stride;
                    *at.get_mut(&mut profile.rows) = to.index(rows) as u16;
                }
            }
            Self::Action(row, class, rule) => {
                if parts.profiles.is_empty() {
                    return;
                }
                let rules = parts.names.rules.len();
                let profile = row.get_mut(&mut parts.profiles);
                *class.get_mut(&mut profile.actions) = match rule {
                    Some(rule) if rules > 0 => Action::Allow(RuleId(rule.index(rules) as u32)),
                    _ => Action::Deny,
                };
            }
            Self::PortClass(protocol, at, to) => {
                at.get_mut(&mut parts.ports.intervals[*protocol]).1 = to.index(parts.ports.classes) as u16;
            }
            Self::OtherProtocols(to) => parts.ports.others = to.index(parts.ports.classes) as u16,
        }
    }
}

fn mix(one: &Snapshot, other: &Snapshot, mut seed: u64) -> Snapshot {
    // mostly the first cluster, so that neighbours in the walk differ in little
    let mut choose = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % 8
    };
    let mut mixed = Snapshot::default();
    merge(&one.namespaces, &other.namespaces, &mut mixed.namespaces, &mut choose);
    merge(&one.pods, &other.pods, &mut mixed.pods, &mut choose);
    merge(&one.policies, &other.policies, &mut mixed.policies, &mut choose);
    for endpoint in &one.endpoints {
        let same_port = other.endpoints.iter().find(|candidate| candidate.port == endpoint.port);
        mixed.endpoints.extend(match choose() {
            0 => None,
            1 => same_port.cloned(),
            _ => Some(endpoint.clone()),
        });
    }
    mixed
}

fn merge<K: Ord + Clone, V>(one: &Objects<K, V>, other: &Objects<K, V>, mixed: &mut Objects<K, V>, choose: &mut impl FnMut() -> u64) {
    for key in one.keys().chain(other.keys()) {
        let object = match choose() {
            0 => None,
            1 => other.get(key),
            _ => one.get(key),
        };
        mixed.extend(object.map(|object| (key.clone(), Arc::clone(object))));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn the_table_says_what_the_oracle_says(snapshot in snapshot(), questions in prop::collection::vec(question(), 64)) {
        let image = compile(&snapshot, 1).unwrap();
        let table = Table::from_bytes(&image).unwrap();
        assert_agree(&snapshot, &table, &questions);
        let proof = Prover::new().prove(&snapshot, &table).unwrap_or_else(|counterexample| panic!("{counterexample}"));
        assert_eq!(proof.done(), proof.required());
    }

    #[test]
    fn the_same_snapshot_gives_the_same_bytes(snapshot in snapshot()) {
        prop_assert_eq!(compile(&snapshot, 7).unwrap(), compile(&snapshot.clone(), 7).unwrap());
    }

    #[test]
    fn after_any_edits_the_table_is_the_one_made_from_scratch_and_proved_as_from_scratch(
        states in states(),
        questions in prop::collection::vec(question(), 16),
    ) {
        let (mut compiler, mut prover) = (Compiler::new(), Prover::new());
        let mut last: Option<Table> = None;
        for (generation, snapshot) in (1u64..).zip(&states) {
            let image = compiler.compile(snapshot, generation).unwrap();
            prop_assert!(image == compile(snapshot, generation).unwrap(), "state {generation}: bytes differ from those made from scratch");
            let table = Table::from_bytes(&image).unwrap();
            let proof = prover.prove(snapshot, &table).unwrap_or_else(|counterexample| panic!("state {generation}: {counterexample}"));
            let fresh = Prover::new().prove(snapshot, &table).unwrap();
            // one that remembers may ask at ports that a pod named earlier, so it may ask more
            prop_assert!(proof.verdicts.required >= fresh.verdicts.required);
            prop_assert_eq!((proof.endpoints, proof.units), (fresh.endpoints, fresh.units));
            assert_agree(snapshot, &table, &questions);
            // an old table passes exactly if a proof from scratch lets it
            if let Some(stale) = last.replace(table) {
                let known = prover.prove(snapshot, &stale);
                prop_assert_eq!(known.is_ok(), Prover::new().prove(snapshot, &stale).is_ok());
                if known.is_ok() {
                    assert_agree(snapshot, &stale, &questions);
                }
            }
        }
    }

    #[test]
    fn no_packet_finds_a_difference_that_the_proof_missed(
        snapshot in snapshot(),
        damage in damage(),
        questions in prop::collection::vec(question(), 64),
    ) {
        let mut parts = compile_parts(&snapshot).unwrap();
        damage.apply(&mut parts);
        let Ok(table) = Table::from_bytes(&build_image(&parts, 1)) else { return Ok(()) };
        match Prover::new().prove(&snapshot, &table) {
            Ok(_) => assert_agree(&snapshot, &table, &questions),
            // the class of an IPv6 interval counts even where single addresses hide all of it from lookups
            Err(Counterexample::Verdict(wrong)) if wrong.remote.is_ipv6() && !wrong.remote_pods.is_empty() => {}
            Err(Counterexample::Verdict(wrong)) => prop_assert_ne!(&wrong.expected, &wrong.found, "{}", wrong),
            Err(_) => {}
        }
    }
}
