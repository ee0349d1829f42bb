//! Tables and their images, for all that is asked of them here.
//!
//! The checksum is written down a second time, from the format's description, so that damage can be made that it does not
//! find, and so that it does not change unnoticed.

use sluice_flow::{Addr, Direction, Incarnation, ObjectName, PortIndex, Protocol, RuleId, Verdict};
use sluice_table::{
    Action, EndpointName, EndpointRow, Names, PodName, PortParts, ProfileParts, Query, RuleName, Table, TableParts, build_image,
    build_packed_image,
};
use std::net::IpAddr;
use std::sync::OnceLock;

pub(crate) const CHECKSUM_AT: usize = 32;
pub(crate) const SECTIONS_AT: usize = 64;
pub(crate) const SECTIONS: usize = 20;
pub(crate) const HEADER_BYTES: usize = SECTIONS_AT + SECTIONS * 16;

pub(crate) fn checksum(image: &[u8]) -> u64 {
    let mut sum = 0u64;
    for (index, chunk) in (0u64..).zip(image.chunks(8)).filter(|(index, _)| *index as usize * 8 != CHECKSUM_AT) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        let mixed = u64::from_le_bytes(word) ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let product = mixed.wrapping_mul(0xd6e8_feb8_6659_fd93);
        sum = sum.wrapping_add(product ^ product >> 32);
    }
    sum
}

pub(crate) fn with_checksum(mut image: Vec<u8>) -> Vec<u8> {
    let sum = checksum(&image);
    image[CHECKSUM_AT..CHECKSUM_AT + 8].copy_from_slice(&sum.to_le_bytes());
    image
}

pub(crate) fn number(image: &[u8], at: usize) -> usize {
    u64::from_le_bytes(image[at..at + 8].try_into().unwrap()) as usize
}

/// Offset and length of each section.
pub(crate) fn sections(image: &[u8]) -> Vec<(usize, usize)> {
    (0..SECTIONS).map(|index| SECTIONS_AT + index * 16).map(|at| (number(image, at), number(image, at + 8))).collect()
}

pub(crate) fn v4(text: &str) -> u32 {
    text.parse::<std::net::Ipv4Addr>().unwrap().into()
}

pub(crate) fn v6(text: &str) -> u128 {
    text.parse::<std::net::Ipv6Addr>().unwrap().into()
}

pub(crate) fn names(endpoints: &[(u16, &str)]) -> Names {
    let isolating = vec![ObjectName::new("x", "deny-all"), ObjectName::new("x", "allow-client")];
    let endpoint = |&(port, pod): &(u16, &str)| EndpointName {
        port: PortIndex(port),
        incarnation: Incarnation(u32::from(port) + 1),
        pod: ObjectName::new("x", pod),
        uid: String::new(),
        addresses: vec!["10.0.0.1".parse().unwrap()],
        isolating_ingress: isolating.clone(),
        isolating_egress: Vec::new(),
    };
    let rule = |index| RuleName { policy: ObjectName::new("x", "allow-client"), direction: Direction::Ingress, index };
    Names {
        endpoints: endpoints.iter().map(endpoint).collect(),
        rules: (0..2).map(rule).collect(),
        pods: vec![PodName { address: "10.0.1.7".parse().unwrap(), pod: ObjectName::new("y", "client") }],
    }
}

/// Of these rows, over three port classes that are told apart, what each class has.
pub(crate) fn profile(rows: &[u16]) -> ProfileParts {
    let actions = [
        [Action::Deny; 3],
        [Action::Deny, Action::Allow(RuleId(0)), Action::Deny],
        [Action::Deny, Action::Allow(RuleId(0)), Action::Allow(RuleId(1))],
    ];
    ProfileParts { rows: rows.to_vec(), ports: vec![0, 1, 2], stride: 3, actions: actions.concat() }
}

/// Every level of the trie, both ways to a class in IPv6, two endpoints with a gap before each.
pub(crate) fn parts() -> TableParts {
    TableParts {
        classes: 3,
        v4_intervals: vec![
            (0, 0),
            (v4("10.0.1.7"), 1),
            (v4("10.0.1.8"), 0),
            (v4("10.1.0.0"), 2),
            (v4("10.2.0.0"), 0),
            (v4("10.3.5.0"), 1),
            (v4("10.3.7.3"), 0),
            // four /24s with more than one class side by side: a flat window
            (v4("10.9.0.5"), 1),
            (v4("10.9.0.6"), 0),
            (v4("10.9.1.5"), 1),
            (v4("10.9.1.6"), 2),
            (v4("10.9.2.0"), 0),
            (v4("10.9.2.9"), 1),
            (v4("10.9.3.255"), 0),
        ],
        v6_intervals: vec![(0, 0), (v6("fd00::"), 2), (v6("fd00::1:0"), 0)],
        // two apart, and a /120 full of them
        v6_exact: [(v6("fd00::7"), 1), (v6("fd01::7"), 1)].into_iter().chain((0..16).map(|low| (v6("fd02::") + low, 1))).collect(),
        ports: PortParts {
            classes: 3,
            intervals: [vec![(0, 0), (80, 1), (81, 0)], vec![(0, 0), (53, 2), (54, 0)], vec![(0, 0)]],
            others: 2,
        },
        profiles: vec![profile(&[0, 1, 2]), profile(&[2, 0, 0])],
        endpoints: vec![
            EndpointRow { port: PortIndex(1), incarnation: Incarnation(2), profiles: [Some(0), None] },
            EndpointRow { port: PortIndex(3), incarnation: Incarnation(4), profiles: [None, Some(1)] },
        ],
        services: vec![Addr::from("10.96.0.10".parse::<IpAddr>().unwrap()).to_u128(), v6("fd00:96::10")],
        names: names(&[(1, "web"), (3, "second")]),
    }
}

/// With plain profiles, and with packed ones.
pub(crate) fn images() -> &'static [Vec<u8>; 2] {
    static IMAGES: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    IMAGES.get_or_init(|| [build_image, build_packed_image].map(|build| build(&parts(), 7).to_vec()))
}

pub(crate) fn image() -> &'static [u8] {
    &images()[0]
}

pub(crate) fn ask(table: &Table, port: u16, direction: Direction, remote: &str, protocol: Protocol, dport: u16) -> Verdict {
    table.lookup(PortIndex(port), direction, Addr::from(remote.parse::<IpAddr>().unwrap()), protocol, dport)
}

/// Everything a table can be asked must be answered.
pub(crate) fn ask_everything(table: &Table, remotes: &[u128]) {
    let mut asked = Vec::new();
    let v4 = remotes.iter().map(|&remote| Addr::v4((remote as u32).to_be_bytes()));
    let v6 = remotes.iter().map(|&remote| Addr(remote.to_be_bytes()));
    for remote in v4.chain(v6) {
        table.is_service(remote);
        for port in [0, 1, 2, 3, 255, 256, u16::MAX] {
            let port = PortIndex(port);
            table.endpoint(port);
            for direction in Direction::BOTH {
                table.isolated(port, direction);
                for (protocol, dport) in [(Protocol::TCP, 80), (Protocol::UDP, 65535), (Protocol::SCTP, 65535), (Protocol(255), 0)] {
                    let verdict = table.lookup(port, direction, remote, protocol, dport);
                    if let Verdict::Allow(rule) = verdict {
                        table.rule(rule).expect("a rule has a name");
                    }
                    asked.push((Query { remote, port, dport, protocol, direction }, verdict));
                }
            }
        }
    }
    // the same in batches of every length
    for len in [1, 2, 31, 32, 33, 100, asked.len()] {
        for asked in asked.chunks(len) {
            let (queries, expected): (Vec<Query>, Vec<Verdict>) = asked.iter().copied().unzip();
            let mut verdicts = vec![Verdict::NotIsolated; queries.len()];
            table.lookup_batch(&queries, &mut verdicts);
            assert_eq!(verdicts, expected);
        }
    }
}
