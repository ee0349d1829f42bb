//! The promise that everything else rests on: on any cluster, the compiled table says what the oracle says, and names
//! the same rule. Clusters are small and made of few values, so that selectors, blocks and ports keep meeting.

mod cluster;

use cluster::{address, snapshot};
use proptest::prelude::*;
use sluice_flow::{Addr, Direction, Protocol, Verdict};
use sluice_policy::check::{CheckBudget, check};
use sluice_policy::oracle::RuleRef;
use sluice_policy::{Oracle, Snapshot, compile};
use sluice_table::Table;
use std::net::IpAddr;

/// A question apart from the pod.
fn question() -> impl Strategy<Value = (IpAddr, Protocol, u16)> {
    let protocol = prop::sample::select(vec![Protocol::TCP, Protocol::UDP, Protocol::SCTP, Protocol::ICMP, Protocol(47)]);
    (address(), protocol, prop_oneof![3 => 78..86u16, 1 => any::<u16>()])
}

/// Does what `check` does not: asks at random places, and through the oracle's public question alone.
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn the_table_says_what_the_oracle_says(snapshot in snapshot(), questions in prop::collection::vec(question(), 64)) {
        let image = compile(&snapshot, 1).unwrap();
        let table = Table::from_bytes(&image).unwrap();
        assert_agree(&snapshot, &table, &questions);
        let budget = CheckBudget { checks_max: 20_000, ..CheckBudget::default() };
        check(&snapshot, &table, budget).unwrap_or_else(|mismatch| panic!("{mismatch}"));
    }

    #[test]
    fn the_same_snapshot_gives_the_same_bytes(snapshot in snapshot()) {
        prop_assert_eq!(compile(&snapshot, 7).unwrap(), compile(&snapshot.clone(), 7).unwrap());
    }
}
