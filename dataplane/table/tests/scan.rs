//! Lookups against a plain scan of what the compiler handed over, in every width that a table may be stored in.

use proptest::prelude::*;
use sluice_flow::{Addr, Direction, Incarnation, ObjectName, PortIndex, Protocol, RuleId, Verdict};
use sluice_table::{Action, EndpointRow, Names, PortParts, ProfileParts, RuleName, Table, TableParts, build_image, build_packed_image};

fn v6(text: &str) -> u128 {
    text.parse::<std::net::Ipv6Addr>().unwrap().into()
}

/// Rules, rows of one profile and classes beyond what two bytes or one hold: the same answers in every width.
#[test]
fn every_width_gives_the_same_answers() {
    let (many_rules, many_rows) = (70_000, 300);
    for (rules, rows) in [(10, 5), (10, many_rows), (many_rules, 5), (many_rules, many_rows)] {
        let rule = |class: usize| RuleId(if class.is_multiple_of(2) { rules - 1 } else { (class % rules as usize) as u32 });
        let classes = rows;
        let name = |index| RuleName { policy: ObjectName::new("x", "p"), direction: Direction::Ingress, index };
        let parts = TableParts {
            classes,
            v4_intervals: (0..classes as u32).map(|class| (class * 77, class)).collect(),
            v6_intervals: vec![(0, 0)],
            v6_exact: (1..classes as u32).map(|class| (u128::from(class) * 9, class)).collect(),
            ports: PortParts { classes: 2, intervals: [vec![(0, 0), (80, 1)], vec![(0, 0)], vec![(0, 0)]], others: 0 },
            profiles: vec![ProfileParts {
                rows: (0..classes as u16).collect(),
                ports: vec![0, 1],
                stride: 2,
                actions: (0..classes).flat_map(|class| [Action::Deny, Action::Allow(rule(class))]).collect(),
            }],
            endpoints: vec![EndpointRow { port: PortIndex(0), incarnation: Incarnation(1), profiles: [Some(0), None] }],
            names: Names { rules: (0..rules).map(name).collect(), ..Names::default() },
            ..TableParts::default()
        };
        let tables = [build_image, build_packed_image].map(|build| Table::from_bytes(&build(&parts, 1)).unwrap());
        for (class, table) in (1..classes).flat_map(|class| tables.each_ref().map(|table| (class, table))) {
            let (v4, v6) = (Addr::v4((class as u32 * 77 + 5).to_be_bytes()), Addr((class as u128 * 9).to_be_bytes()));
            for remote in [v4, v6] {
                let ask = |dport| table.lookup(PortIndex(0), Direction::Ingress, remote, Protocol::TCP, dport);
                assert_eq!((ask(79), ask(80)), (Verdict::Deny, Verdict::Allow(rule(class))), "{rules} rules, {rows} rows, class {class}");
            }
        }
    }
}

/// Ascending intervals over a family: few starts, many of them on the edges of the trie's levels.
fn intervals_v4(classes: u32) -> impl Strategy<Value = Vec<(u32, u32)>> {
    let start = (any::<u32>(), prop::sample::select(vec![0u32, 8, 16, 24, 31])).prop_map(|(value, shift)| value >> shift << shift);
    let near = (0..4u32, 0..3u32, 0..300u32).prop_map(|(a, b, c)| 10 << 24 | a << 16 | b << 8 | c);
    prop::collection::btree_map(prop_oneof![start, near], 0..classes, 0..30).prop_map(move |mut starts| {
        starts.entry(0).or_insert(0);
        starts.into_iter().collect()
    })
}

fn intervals_v6(classes: u32) -> impl Strategy<Value = Vec<(u128, u32)>> {
    let start = (any::<u128>(), prop::sample::select(vec![0u32, 8, 64, 80, 120])).prop_map(|(value, shift)| value >> shift << shift);
    let near = (0..40u128).prop_map(|low| v6("fd00::") + low);
    prop::collection::btree_map(prop_oneof![start, near], 0..classes, 0..30).prop_map(move |mut starts| {
        starts.entry(0).or_insert(0);
        starts.into_iter().collect()
    })
}

fn naive<A: Copy + PartialOrd, C: Copy>(intervals: &[(A, C)], address: A) -> C {
    intervals.iter().filter(|(start, _)| *start <= address).last().unwrap().1
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Lookup against a plain scan of what the compiler handed over: each class's row allows by a rule of its own.
    #[test]
    fn lookups_find_what_a_plain_scan_finds(
        v4_intervals in intervals_v4(5),
        v6_intervals in intervals_v6(5),
        exact in prop::collection::btree_map((any::<u128>(), 0..100u128, any::<bool>()).prop_map(|(any, near, pick)| if pick { any } else { v6("fd00::") + near }), 0..5u32, 0..120),
        tcp in prop::collection::btree_map(any::<u16>(), 0..3u16, 0..8),
        asked in prop::collection::vec(any::<u128>(), 20),
        packed in any::<bool>(),
    ) {
        // a mapped address is IPv4
        let v6_exact: Vec<(u128, u32)> = exact.into_iter().filter(|(address, _)| address >> 32 != 0xffff).collect();
        let mut tcp_starts = tcp;
        tcp_starts.entry(0).or_insert(0);
        let tcp: Vec<(u16, u16)> = tcp_starts.into_iter().collect();
        let parts = TableParts {
            classes: 5,
            v4_intervals,
            v6_intervals,
            v6_exact,
            ports: PortParts { classes: 4, intervals: [tcp, vec![(0, 3)], vec![(0, 3)]], others: 3 },
            // rule = class * 4 + port class
            profiles: vec![ProfileParts {
                rows: (0..5).collect(),
                ports: (0..4).collect(),
                stride: 4,
                actions: (0..20).map(|rule| Action::Allow(RuleId(rule))).collect(),
            }],
            endpoints: vec![EndpointRow { port: PortIndex(0), incarnation: Incarnation(1), profiles: [Some(0), None] }],
            services: Vec::new(),
            names: Names { rules: (0..20).map(|index| RuleName { policy: ObjectName::new("x", "p"), direction: Direction::Ingress, index }).collect(), ..Names::default() },
        };
        let image = if packed { build_packed_image(&parts, 1) } else { build_image(&parts, 1) };
        let table = Table::from_bytes(&image).unwrap();
        let class = |remote: Addr| match table.lookup(PortIndex(0), Direction::Ingress, remote, Protocol(1), 0) {
            Verdict::Allow(RuleId(rule)) => {
                assert_eq!(rule % 4, 3);
                rule / 4
            }
            other => panic!("{other:?}"),
        };
        // every edge from both sides, and anything
        let edges = parts.v4_intervals.iter().flat_map(|&(start, _)| [start.wrapping_sub(1), start, start.wrapping_add(1)]);
        for address in edges.chain([u32::MAX]).chain(asked.iter().map(|&asked| asked as u32)) {
            prop_assert_eq!(class(Addr::v4(address.to_be_bytes())), naive(&parts.v4_intervals, address), "{:x}", address);
        }
        let starts = parts.v6_intervals.iter().chain(&parts.v6_exact).map(|&(start, _)| start);
        let edges = starts.flat_map(|start| [start.wrapping_sub(1), start, start.wrapping_add(1)]);
        for address in edges.chain([u128::MAX]).chain(asked.iter().copied()).filter(|address| address >> 32 != 0xffff) {
            let exact = parts.v6_exact.iter().find(|(exact, _)| *exact == address).map(|(_, class)| *class);
            prop_assert_eq!(class(Addr(address.to_be_bytes())), exact.unwrap_or_else(|| naive(&parts.v6_intervals, address)), "{:x}", address);
        }
        let tcp = &parts.ports.intervals[0];
        for port in tcp.iter().flat_map(|&(start, _)| [start.wrapping_sub(1), start, start.wrapping_add(1)]).chain([u16::MAX]) {
            match table.lookup(PortIndex(0), Direction::Ingress, Addr::v4([0; 4]), Protocol::TCP, port) {
                Verdict::Allow(RuleId(rule)) => prop_assert_eq!((rule % 4) as u16, naive(tcp, port), "{}", port),
                other => panic!("{other:?}"),
            }
        }
    }
}
