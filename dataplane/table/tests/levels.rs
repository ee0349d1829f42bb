//! Every form of a batch against the scalar one and against single lookups, verdict by verdict, in every width that a
//! table may be stored in. A form that this processor lacks is named on the terminal, not passed over in silence.

use proptest::prelude::*;
use sluice_flow::{Addr, Direction, Incarnation, ObjectName, PortIndex, Protocol, RuleId, Verdict};
use sluice_table::{
    Action, EndpointRow, Image, Names, PortParts, ProfileParts, Query, RuleName, SimdLevel, Table, TableParts, build_image,
    build_packed_image,
};

/// What a table is made of: sizes that give it its form, and a seed for everything else.
#[derive(Debug, Clone, Copy)]
struct Shape {
    seed: u64,
    /// More than two bytes hold, if there are many.
    rules: u32,
    /// More than one byte holds, if there are many.
    rows: usize,
    window: bool,
    /// Port indexes below it have an endpoint, or none, at random.
    endpoints: u16,
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn wide(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }
}

const PORT_CLASSES: usize = 12;
const POD_NET: u32 = 10 << 24;

fn parts(shape: Shape) -> TableParts {
    let random = &mut Random(shape.seed);
    let classes = shape.rows + 40;
    let class = |random: &mut Random| random.below(classes) as u32;
    // single addresses side by side, blocks of every size, both ends of the space
    let mut v4 = std::collections::BTreeMap::from([(0, class(random)), (u32::MAX, class(random))]);
    for start in 0..if shape.window { 2000 } else { 3 } {
        v4.insert(POD_NET + start, class(random));
    }
    for _ in 0..60 {
        let shift = [0, 4, 8, 12, 16, 20][random.below(6)];
        v4.insert((random.next() as u32) >> shift << shift, class(random));
    }
    let mut v6 = std::collections::BTreeMap::from([(0, class(random))]);
    for _ in 0..40 {
        let shift = [0, 8, 64, 80, 96][random.below(5)];
        v6.insert(random.wide() >> shift << shift, class(random));
    }
    let mut exact = std::collections::BTreeMap::new();
    for low in 0..60u128 {
        exact.insert(0xfd << 120 | low, class(random));
        exact.insert(0xfd << 120 | random.wide() >> 64, class(random));
    }
    let ports = |random: &mut Random| {
        let mut starts = std::collections::BTreeMap::from([(0, 0)]);
        for _ in 0..30 {
            starts.insert(random.next() as u16, random.below(PORT_CLASSES) as u16);
        }
        starts.into_iter().collect()
    };
    let action = |random: &mut Random| match random.below(3) {
        0 => Action::Deny,
        1 => Action::Allow(RuleId(shape.rules - 1)),
        _ => Action::Allow(RuleId(random.below(shape.rules as usize) as u32)),
    };
    // all port classes are told apart in one profile, and few in another
    let profile = |stride: usize, random: &mut Random| ProfileParts {
        rows: (0..classes).map(|class| if class < shape.rows { class } else { random.below(shape.rows) } as u16).collect(),
        ports: (0..PORT_CLASSES).map(|class| (class % stride) as u16).collect(),
        stride,
        actions: (0..shape.rows * stride).map(|_| action(random)).collect(),
    };
    let side = |random: &mut Random| [None, Some(0), Some(1), Some(2)][random.below(4)];
    let endpoint = |port: u16, random: &mut Random| EndpointRow {
        port: PortIndex(port),
        incarnation: Incarnation(1),
        profiles: [side(random), side(random)],
    };
    let present: Vec<u16> = (0..shape.endpoints).filter(|_| random.below(4) != 0).collect();
    let rule = |index| RuleName { policy: ObjectName::new("x", "p"), direction: Direction::Ingress, index };
    TableParts {
        classes,
        ports: PortParts {
            classes: PORT_CLASSES,
            intervals: [ports(random), ports(random), ports(random)],
            others: random.below(PORT_CLASSES) as u16,
        },
        profiles: [PORT_CLASSES, 2, PORT_CLASSES].into_iter().map(|stride| profile(stride, random)).collect(),
        endpoints: present.into_iter().map(|port| endpoint(port, random)).collect(),
        v4_intervals: v4.into_iter().collect(),
        v6_intervals: v6.into_iter().collect(),
        v6_exact: exact.into_iter().collect(),
        services: Vec::new(),
        names: Names { rules: (0..shape.rules).map(rule).collect(), ..Names::default() },
    }
}

/// Queries of all kinds: edges of intervals from both sides, any address, any protocol, any port index.
fn queries(parts: &TableParts, count: usize, v6_percent: usize, random: &mut Random) -> Vec<Query> {
    let near = |start: u32, random: &mut Random| start.wrapping_add(random.below(3) as u32).wrapping_sub(1);
    let query = |random: &mut Random| {
        let remote = if random.below(100) < v6_percent {
            let remote = match random.below(3) {
                0 => parts.v6_exact[random.below(parts.v6_exact.len())].0,
                1 => parts.v6_intervals[random.below(parts.v6_intervals.len())].0.wrapping_sub(random.below(2) as u128),
                _ => random.wide(),
            };
            Addr(remote.to_be_bytes())
        } else {
            let remote = match random.below(6) {
                0 => 0,
                1 => u32::MAX,
                2 => random.next() as u32,
                3 => POD_NET + random.below(3000) as u32,
                _ => near(parts.v4_intervals[random.below(parts.v4_intervals.len())].0, random),
            };
            Addr::v4(remote.to_be_bytes())
        };
        let port = match random.below(8) {
            0 => random.next() as u16,
            1 => u16::MAX,
            _ => random.below(12) as u16,
        };
        let protocol = match random.below(3) {
            0 => Protocol(random.next() as u8),
            _ => Protocol::WITH_PORTS[random.below(3)],
        };
        let intervals = &parts.ports.intervals[random.below(3)];
        let dport = match random.below(3) {
            0 => random.next() as u16,
            1 => [0, u16::MAX][random.below(2)],
            _ => intervals[random.below(intervals.len())].0.wrapping_sub(random.below(2) as u16),
        };
        Query { remote, port: PortIndex(port), dport, protocol, direction: Direction::BOTH[random.below(2)] }
    };
    (0..count).map(|_| query(random)).collect()
}

/// Every level, in batches of `len`, against single lookups; the verdicts there were.
fn check(table: &Table, queries: &[Query], len: usize) -> Vec<Verdict> {
    let one = |query: &Query| table.lookup(query.port, query.direction, query.remote, query.protocol, query.dport);
    let expected: Vec<Verdict> = queries.iter().map(one).collect();
    let batched = |lookup: &dyn Fn(&[Query], &mut [Verdict])| {
        let mut verdicts = vec![Verdict::NotIsolated; queries.len()];
        queries.chunks(len).zip(verdicts.chunks_mut(len)).for_each(|(queries, verdicts)| lookup(queries, verdicts));
        verdicts
    };
    let wrong = |found: &[Verdict]| {
        let at = found.iter().zip(&expected).position(|(found, expected)| found != expected);
        at.map(|at| format!("{:?}: {:?}, one by one {:?}, lane {}", queries[at], found[at], expected[at], at % len))
    };
    for level in SimdLevel::available() {
        let found = batched(&|queries, verdicts| table.lookup_batch_with(level, queries, verdicts));
        assert_eq!(wrong(&found), None, "{level}, batches of {len}");
    }
    let found = batched(&|queries, verdicts| table.lookup_batch(queries, verdicts));
    assert_eq!(wrong(&found), None, "the level that was chosen, batches of {len}");
    expected
}

#[test]
fn a_level_that_is_missing_is_said_to_be() {
    for level in SimdLevel::ALL {
        if !level.is_available() {
            eprintln!("SKIPPED: this processor has no {level}, which was not compared with anything");
            let table = Table::from_bytes(&build_image(&parts(NARROW), 1)).unwrap();
            let asked = std::panic::catch_unwind(|| table.lookup_batch_with(level, &[], &mut []));
            assert!(asked.is_err(), "{level} must not be tried");
        }
    }
    assert!(SimdLevel::available().any(|level| level == SimdLevel::Scalar));
    assert_eq!(SimdLevel::available().last(), Some(SimdLevel::best()));
}

/// Both forms of profiles.
const BUILDS: [fn(&TableParts, u64) -> Image; 2] = [build_image, build_packed_image];

const NARROW: Shape = Shape { seed: 1, rules: 10, rows: 5, window: true, endpoints: 12 };

/// Whatever a table may look like, and whatever the length of a batch.
#[test]
fn all_levels_agree_on_every_form_of_table() {
    let (many_rules, many_rows) = (70_000, 300);
    for (rules, rows) in [(10, 5), (10, many_rows), (many_rules, 5), (many_rules, many_rows)] {
        for (window, endpoints) in [(true, 12), (false, 12), (true, 0)] {
            let parts = parts(Shape { seed: u64::from(rules) + rows as u64, rules, rows, window, endpoints });
            for (v6_percent, build) in [0, 3, 50, 100].into_iter().flat_map(|percent| BUILDS.map(|build| (percent, build))) {
                let table = Table::from_bytes(&build(&parts, 1)).unwrap();
                let queries = queries(&parts, 2000, v6_percent, &mut Random(7));
                let verdicts = check(&table, &queries, 64);
                check(&table, &queries, queries.len());
                let kinds = [Verdict::Deny, Verdict::NotIsolated, Verdict::Allow(RuleId(rules - 1))];
                let seen = kinds.map(|kind| verdicts.contains(&kind));
                let expected = if endpoints == 0 { [true, false, false] } else { [true; 3] };
                assert_eq!(seen, expected, "deny, not isolated, the last rule; {rules} rules, {rows} rows, {endpoints} endpoints");
            }
        }
    }
}

/// Lanes that have nothing to do write nothing, and every lane does its own work.
#[test]
fn all_levels_agree_on_every_length_of_batch() {
    let parts = parts(NARROW);
    let table = Table::from_bytes(&build_image(&parts, 1)).unwrap();
    for len in 0..=70 {
        let queries = queries(&parts, len, 20, &mut Random(len as u64));
        check(&table, &queries, len.max(1));
    }
}

/// The case that is taken together: one pod and direction in all lanes, and in all but one.
#[test]
fn all_levels_agree_on_packets_of_one_pod() {
    let parts = parts(NARROW);
    let table = Table::from_bytes(&build_image(&parts, 1)).unwrap();
    for (port, direction) in (0..13).chain([u16::MAX]).flat_map(|port| Direction::BOTH.map(|direction| (port, direction))) {
        for other in 0..33 {
            let mut queries = queries(&parts, 32, 0, &mut Random(u64::from(port)));
            queries.iter_mut().for_each(|query| (query.port, query.direction) = (PortIndex(port), direction));
            if let Some(query) = queries.get_mut(other) {
                query.port = PortIndex(other as u16 % 13);
            }
            check(&table, &queries, 32);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_levels_agree_on_random_tables(
        seed in any::<u64>(),
        rules in prop_oneof![1..100u32, Just(70_000)],
        rows in prop_oneof![1..40usize, Just(300)],
        window in any::<bool>(),
        endpoints in 0..20u16,
        v6_percent in 0..100usize,
        len in 1..=70usize,
    ) {
        let parts = parts(Shape { seed, rules, rows, window, endpoints });
        let queries = queries(&parts, 500, v6_percent, &mut Random(seed));
        let verdicts = BUILDS.map(|build| check(&Table::from_bytes(&build(&parts, 1)).unwrap(), &queries, len));
        prop_assert_eq!(&verdicts[0], &verdicts[1], "packed profiles say the same");
    }
}

/// Ports in a row of which the same is said: each of them has the same verdict by the same rule, and the next ones have not, unless
/// the row is long.
#[test]
fn ports_alike_have_the_same_verdict_each() {
    let (mut wide, mut bounded) = (0, 0);
    for (seed, build) in (0..6).flat_map(|seed| BUILDS.map(|build| (seed, build))) {
        let parts = parts(Shape { seed, endpoints: 6, ..NARROW });
        let table = Table::from_bytes(&build(&parts, 1)).unwrap();
        for Query { port, direction, remote, protocol, dport } in queries(&parts, 60, 30, &mut Random(seed)) {
            let ports = table.ports_alike(port, direction, remote, protocol, dport);
            let verdict = |dport| table.lookup(port, direction, remote, protocol, dport);
            assert!(ports.contains(&dport) && ports.clone().all(|other| verdict(other) == verdict(dport)), "{ports:?} around {dport}");
            if ![Protocol::TCP, Protocol::UDP, Protocol::SCTP].contains(&protocol) {
                assert_eq!(ports, dport..=dport);
                continue;
            }
            let ends_before = ports.start().checked_sub(1).is_none_or(|before| verdict(before) != verdict(dport));
            let ends_behind = ports.end().checked_add(1).is_none_or(|behind| verdict(behind) != verdict(dport));
            let all = ports.len();
            assert!((ends_before && ends_behind) || all > 64, "{ports:?} around {dport} could be longer");
            wide += usize::from(all > 1);
            bounded += usize::from(all <= usize::from(u16::MAX));
        }
    }
    assert!(wide > 50 && bounded > 50, "{wide} {bounded}");
}

/// What is said of every port is what is said of each: wherever all is said to be denied, all packets are asked for. Nothing is said
/// of pods that no policy isolates, of ports without endpoint, and where profiles are packed.
#[test]
fn what_denies_all_denies_each() {
    let mut found = 0;
    for seed in 0..12 {
        let mut parts = parts(Shape { seed, endpoints: 6, ..NARROW });
        for profile in &mut parts.profiles {
            // every other row allows nothing
            profile.actions.chunks_mut(2 * profile.stride).for_each(|rows| rows[..profile.stride].fill(Action::Deny));
        }
        let table = Table::from_bytes(&build_image(&parts, 1)).unwrap();
        let packed = Table::from_bytes(&build_packed_image(&parts, 1)).unwrap();
        for Query { port, direction, remote, .. } in queries(&parts, 60, 30, &mut Random(seed)) {
            assert!(!packed.denies_all(port, direction, remote));
            let protocols = [Protocol::TCP, Protocol::UDP, Protocol::SCTP].into_iter();
            let packets = protocols.flat_map(|protocol| (0..=u16::MAX).map(move |dport| (protocol, dport))).chain([(Protocol(47), 0)]);
            let mut verdicts = packets.map(|(protocol, dport)| table.lookup(port, direction, remote, protocol, dport));
            let each = verdicts.all(|verdict| verdict == Verdict::Deny);
            if table.denies_all(port, direction, remote) {
                assert!(each && table.endpoint(port).is_some() && table.isolated(port, direction), "{port:?} {direction} {remote:?}");
                found += 1;
            }
        }
    }
    assert!(found > 50, "{found}");
}
