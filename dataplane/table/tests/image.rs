//! Images: what goes in comes out, what is damaged is refused, and what is accepted can be asked anything.
//!
//! The checksum is written down here a second time, from the format's description, so that damage can be made that it
//! does not find, and so that it does not change unnoticed.

use proptest::prelude::*;
use sluice_flow::{Addr, Direction, Incarnation, ObjectName, PortIndex, Protocol, RuleId, Verdict};
use sluice_table::{
    Action, Dump, EndpointName, EndpointRow, FORMAT_VERSION, ImageError, Names, PodName, PortParts, ProfileParts, Query, RuleName, Table,
    TableParts, build_image, build_packed_image,
};
use std::net::IpAddr;
use std::sync::OnceLock;

const CHECKSUM_AT: usize = 32;
const SECTIONS_AT: usize = 64;
const SECTIONS: usize = 20;
const HEADER_BYTES: usize = SECTIONS_AT + SECTIONS * 16;

fn checksum(image: &[u8]) -> u64 {
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

fn with_checksum(mut image: Vec<u8>) -> Vec<u8> {
    let sum = checksum(&image);
    image[CHECKSUM_AT..CHECKSUM_AT + 8].copy_from_slice(&sum.to_le_bytes());
    image
}

fn number(image: &[u8], at: usize) -> usize {
    u64::from_le_bytes(image[at..at + 8].try_into().unwrap()) as usize
}

/// Offset and length of each section.
fn sections(image: &[u8]) -> Vec<(usize, usize)> {
    (0..SECTIONS).map(|index| SECTIONS_AT + index * 16).map(|at| (number(image, at), number(image, at + 8))).collect()
}

fn v4(text: &str) -> u32 {
    text.parse::<std::net::Ipv4Addr>().unwrap().into()
}

fn v6(text: &str) -> u128 {
    text.parse::<std::net::Ipv6Addr>().unwrap().into()
}

fn names(endpoints: &[(u16, &str)]) -> Names {
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
fn profile(rows: &[u16]) -> ProfileParts {
    let actions = [
        [Action::Deny; 3],
        [Action::Deny, Action::Allow(RuleId(0)), Action::Deny],
        [Action::Deny, Action::Allow(RuleId(0)), Action::Allow(RuleId(1))],
    ];
    ProfileParts { rows: rows.to_vec(), ports: vec![0, 1, 2], stride: 3, actions: actions.concat() }
}

/// Every level of the trie, both ways to a class in IPv6, two endpoints with a gap before each.
fn parts() -> TableParts {
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
fn images() -> &'static [Vec<u8>; 2] {
    static IMAGES: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    IMAGES.get_or_init(|| [build_image, build_packed_image].map(|build| build(&parts(), 7).to_vec()))
}

fn image() -> &'static [u8] {
    &images()[0]
}

fn ask(table: &Table, port: u16, direction: Direction, remote: &str, protocol: Protocol, dport: u16) -> Verdict {
    table.lookup(PortIndex(port), direction, Addr::from(remote.parse::<IpAddr>().unwrap()), protocol, dport)
}

/// Everything a table can be asked must be answered.
fn ask_everything(table: &Table, remotes: &[u128]) {
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

#[test]
fn what_goes_in_comes_out() {
    images().iter().for_each(|image| check_what_comes_out(image));
}

fn check_what_comes_out(image: &[u8]) {
    let table = Table::from_bytes(image).unwrap();
    assert_eq!((table.generation(), table.image_bytes()), (7, image.len() as u64));
    assert_eq!(table.names(), &parts().names);
    let deny = Verdict::Deny;
    let (first, second) = (Verdict::Allow(RuleId(0)), Verdict::Allow(RuleId(1)));
    let (ingress, egress) = (Direction::Ingress, Direction::Egress);
    for (port, direction, remote, protocol, dport, verdict) in [
        (1, ingress, "10.0.1.7", Protocol::TCP, 80, first),
        (1, ingress, "10.0.1.7", Protocol::TCP, 79, deny),
        (1, ingress, "10.0.1.7", Protocol::TCP, 81, deny),
        (1, ingress, "10.0.1.7", Protocol::UDP, 80, deny),
        (1, ingress, "10.0.1.6", Protocol::TCP, 80, deny),
        (1, ingress, "10.0.1.8", Protocol::TCP, 80, deny),
        (1, ingress, "10.1.255.255", Protocol::UDP, 53, second),
        (1, ingress, "10.2.0.0", Protocol::UDP, 53, deny),
        (1, ingress, "10.1.0.0", Protocol(47), 0, second),
        (1, ingress, "10.1.0.0", Protocol::SCTP, 80, deny),
        (1, ingress, "fd00::7", Protocol::TCP, 80, first),
        (1, ingress, "fd00::7", Protocol::UDP, 53, deny),
        (1, ingress, "fd00::6", Protocol::UDP, 53, second),
        (1, ingress, "fd00::ffff", Protocol::UDP, 53, second),
        (1, ingress, "fd00::1:0", Protocol::UDP, 53, deny),
        (1, egress, "192.0.2.1", Protocol::TCP, 1, Verdict::NotIsolated),
        (3, egress, "192.0.2.1", Protocol::TCP, 80, first),
        (3, ingress, "192.0.2.1", Protocol::TCP, 1, Verdict::NotIsolated),
        (0, ingress, "10.0.1.7", Protocol::TCP, 80, deny),
        (2, egress, "10.0.1.7", Protocol::TCP, 80, deny),
        (4, egress, "10.0.1.7", Protocol::TCP, 80, deny),
    ] {
        assert_eq!(ask(&table, port, direction, remote, protocol, dport), verdict, "{port} {direction} {remote} {protocol} {dport}");
    }
    for (port, incarnation) in [(0, None), (1, Some(2)), (2, None), (3, Some(4)), (4, None), (u16::MAX, None)] {
        assert_eq!(table.endpoint(PortIndex(port)), incarnation.map(Incarnation));
        assert_eq!(table.isolated(PortIndex(port), ingress), port != 3, "an unknown endpoint counts as isolated");
    }
    for (address, service) in [("10.96.0.10", true), ("10.96.0.11", false), ("fd00:96::10", true), ("::a60:a", false)] {
        assert_eq!(table.is_service(Addr::from(address.parse::<IpAddr>().unwrap())), service, "{address}");
    }
}

#[test]
fn an_empty_table_knows_nobody_and_denies_everything() {
    let parts = TableParts { classes: 1, v4_intervals: vec![(0, 0)], v6_intervals: vec![(0, 0)], ..TableParts::default() };
    for build in [build_image, build_packed_image] {
        let table = Table::from_bytes(&build(&parts, 1)).unwrap();
        ask_everything(&table, &[0, u128::MAX]);
        assert_eq!(ask(&table, 0, Direction::Egress, "::", Protocol::TCP, 0), Verdict::Deny);
        assert!(Dump::of(&table).endpoints.is_empty());
    }
}

#[test]
fn the_same_parts_give_the_same_bytes_and_a_generation_changes_only_the_header() {
    assert_eq!(build_image(&parts(), 7)[..], *image());
    let next = build_image(&parts(), 8);
    assert_eq!(next[sections(&next)[0].0..], image()[sections(image())[0].0..]);
    assert_ne!(next[..], *image());
}

#[test]
fn sections_are_aligned_and_do_not_overlap() {
    let mut end = HEADER_BYTES;
    for (offset, bytes) in sections(image()) {
        assert!(offset.is_multiple_of(64) && offset >= end, "{offset} {end}");
        end = offset + bytes;
    }
    assert!(image().len() - end < 64);
    assert_eq!(with_checksum(image().to_vec()), image(), "the checksum is the one described");
}

/// What a word adds to the checksum is another for another word, so one changed word always changes the sum; samples of it:
/// every bit of the header, and bytes all over the sections and between them.
#[test]
fn every_changed_byte_is_refused() {
    let mut at: Vec<usize> = (0..HEADER_BYTES).collect();
    at.extend(sections(image()).iter().flat_map(|&(offset, bytes)| [offset.saturating_sub(1), offset, offset + bytes.max(1) - 1]));
    at.extend((0..image().len()).step_by(image().len() / 150 + 1));
    at.push(image().len() - 1);
    let mut damaged = image().to_vec();
    for (index, at) in at.into_iter().enumerate() {
        for bit in [index % 8, (index + 3) % 8] {
            damaged[at] ^= 1 << bit;
            let refused = Table::from_bytes(&damaged).unwrap_err();
            match at {
                0..8 => assert_eq!(refused, ImageError::Magic),
                8..16 => assert!(matches!(refused, ImageError::Version { expected: FORMAT_VERSION, .. }), "{at}: {refused}"),
                24..32 => assert!(matches!(refused, ImageError::Length { .. }), "{at}: {refused}"),
                _ => assert!(matches!(refused, ImageError::Checksum { .. }), "{at}: {refused}"),
            }
            damaged[at] ^= 1 << bit;
        }
    }
    Table::from_bytes(&damaged).unwrap();
}

#[test]
fn truncated_and_padded_images_are_refused() {
    for len in (0..300).chain((300..image().len()).step_by(image().len() / 50)) {
        assert!(matches!(Table::from_bytes(&image()[..len]), Err(ImageError::Magic | ImageError::Length { .. })), "{len} bytes");
    }
    let mut padded = image().to_vec();
    padded.push(0);
    assert!(matches!(Table::from_bytes(&padded), Err(ImageError::Length { .. })));
    // even if the header is made to agree
    for len in [0, 64, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 32, 1000, image().len() - 64] {
        let mut cut = image()[..len].to_vec();
        if let Some(field) = cut.get_mut(24..32) {
            field.copy_from_slice(&(len as u64).to_le_bytes());
        }
        if len > 40 {
            cut = with_checksum(cut);
        }
        assert!(Table::from_bytes(&cut).is_err(), "{len} bytes");
    }
}

#[test]
fn another_version_is_refused_whatever_else_it_holds() {
    for version in [0, FORMAT_VERSION + 1, u32::MAX] {
        let mut other = image().to_vec();
        other[8..12].copy_from_slice(&version.to_le_bytes());
        assert_eq!(Table::from_bytes(&with_checksum(other)).unwrap_err(), ImageError::Version { expected: FORMAT_VERSION, found: version });
    }
}

/// The sections by number, as `dataplane/table/src/format.rs` has them.
mod section {
    pub(crate) const V4_FLAT: usize = 0;
    pub(crate) const V4_TRIE: usize = 1;
    pub(crate) const V6_BLOCK_SLOTS: usize = 2;
    pub(crate) const V6_BLOCKS: usize = 3;
    pub(crate) const V6_EXACT: usize = 4;
    pub(crate) const V6_STARTS: usize = 5;
    pub(crate) const V6_CLASSES: usize = 6;
    pub(crate) const PORT_STARTS: usize = 7;
    pub(crate) const ENDPOINTS: usize = 8;
    pub(crate) const DIRECTORY: usize = 9;
    pub(crate) const ROW_BASES: usize = 10;
    pub(crate) const SEGMENTS: usize = 11;
    pub(crate) const PORT_CHUNKS: usize = 12;
    pub(crate) const LOCAL_PORTS: usize = 13;
    pub(crate) const VARIANTS: usize = 14;
    pub(crate) const VARIANT_BASES: usize = 15;
    pub(crate) const ACTIONS: usize = 16;
    pub(crate) const PALETTES: usize = 17;
    pub(crate) const SERVICES: usize = 18;
    pub(crate) const NAMES: usize = 19;
}

/// Writes into a section and says what the image is refused for.
fn forged(image: &[u8], section: usize, at: usize, value: &[u8]) -> Option<ImageError> {
    let mut forged = image.to_vec();
    let (offset, bytes) = sections(&forged)[section];
    assert!(at + value.len() <= bytes, "inside the section");
    forged[offset + at..][..value.len()].copy_from_slice(value);
    Table::from_bytes(&with_checksum(forged)).err()
}

/// Where a field of the first endpoint's ingress half is.
fn half(field: usize) -> usize {
    64 + 8 + 4 * field
}

#[test]
fn an_index_that_points_outside_is_refused() {
    use section::*;
    let outside = u16::MAX.to_le_bytes().to_vec();
    let beyond = 99u32.to_le_bytes().to_vec();
    let three = 3u16.to_le_bytes().to_vec();
    let nearly_not_isolated = (u32::MAX - 1).to_le_bytes().to_vec();
    for (what, section, at, value) in [
        ("flat: a class", V4_FLAT, 0, outside.clone()),
        ("a root of the trie", V4_TRIE, 0, outside.clone()),
        ("a node of a block", V4_TRIE, 2 * 65536, outside.clone()),
        ("a class in an IPv6 block", V6_BLOCKS, 2 * 255, three.clone()),
        ("a class of an IPv6 interval", V6_CLASSES, 0, three.clone()),
        ("a port class", PORT_STARTS, 2, three.clone()),
        ("a directory", ENDPOINTS, half(0), beyond.clone()),
        ("a directory, nearly not isolated", ENDPOINTS, half(0), nearly_not_isolated.clone()),
        ("local ports", ENDPOINTS, half(1), beyond.clone()),
        ("actions", ENDPOINTS, half(2), beyond.clone()),
        ("no actions for a local port", ENDPOINTS, half(3), 1u32.to_le_bytes().to_vec()),
        ("more actions than there are", ENDPOINTS, half(3), 50u32.to_le_bytes().to_vec()),
        ("a segment", DIRECTORY, 0, outside.clone()),
        ("a row", SEGMENTS, 1, vec![200]),
        ("a local port", LOCAL_PORTS, 0, vec![200]),
        ("a rule", ACTIONS, 0, three.clone()),
    ] {
        assert!(matches!(forged(image(), section, at, &value), Some(ImageError::Index { .. })), "{what}");
    }
    for (what, section, at, value) in [
        ("a directory", ENDPOINTS, half(0), beyond.clone()),
        ("a directory, nearly not isolated", ENDPOINTS, half(0), nearly_not_isolated),
        ("port chunks", ENDPOINTS, half(1), beyond.clone()),
        ("variants", ENDPOINTS, half(2), beyond.clone()),
        ("no group for a local port", ENDPOINTS, half(3), vec![0; 4]),
        ("more groups than there are", ENDPOINTS, half(3), 50u32.to_le_bytes().to_vec()),
        ("variant bases", ENDPOINTS, half(4), beyond.clone()),
        ("a palette", ENDPOINTS, half(5), beyond.clone()),
        ("a segment", DIRECTORY, 0, outside.clone()),
        ("a row base", ROW_BASES, 0, three.clone()),
        ("a row base, as far as it goes", ROW_BASES, 0, outside.clone()),
        ("a row", SEGMENTS, 2, three.clone()),
        ("a chunk", PORT_CHUNKS, 0, three.clone()),
        ("a local port of another group", LOCAL_PORTS, 0, vec![8]),
        ("a variant", VARIANTS, 0, vec![200]),
        ("a chunk of ranks", VARIANT_BASES, 0, beyond),
        ("a rank", ACTIONS, 0, vec![200]),
        ("a rule", PALETTES, 0, three),
    ] {
        assert!(matches!(forged(&images()[1], section, at, &value), Some(ImageError::Index { .. })), "packed: {what}");
    }
    for (what, section, at, value) in [
        ("the first IPv6 interval does not start at ::", V6_STARTS, 0, vec![1]),
        ("a block that leads to itself", V4_TRIE, 2 * 65536, 0u16.to_le_bytes().to_vec()),
    ] {
        assert!(matches!(forged(image(), section, at, &value), Some(ImageError::Section { .. })), "{what}");
    }
    for (what, section, at, value) in [
        ("IPv6 starts", V6_STARTS, 16, vec![0xff; 16]),
        ("services", SERVICES, 0, vec![0xff; 16]),
        ("ports that do not begin at 0", PORT_STARTS, 0, vec![1]),
        ("ports that do not ascend", PORT_STARTS, 8, 80u16.to_le_bytes().to_vec()),
        ("more ports than three protocols have", PORT_STARTS, 8, vec![0; 2]),
    ] {
        assert!(matches!(forged(image(), section, at, &value), Some(ImageError::Order { .. })), "{what}");
    }
    assert!(matches!(forged(image(), NAMES, 0, b"x"), Some(ImageError::Names { .. })), "names that are no JSON");
    assert_eq!(forged(image(), SEGMENTS, 0, &[1]), None, "another row of this profile is another table, not a damaged one");
}

/// Lists that belong together have one length each.
#[test]
fn packed_sections_that_do_not_fit_each_other_are_refused() {
    use section::*;
    let packed = &images()[1];
    for (what, section, shorter) in
        [("row bases", ROW_BASES, 2), ("segments", SEGMENTS, 2), ("local ports", LOCAL_PORTS, 1), ("ranks", ACTIONS, 1)]
    {
        let mut forged = packed.clone();
        let bytes = sections(packed)[section].1 - shorter;
        forged[SECTIONS_AT + section * 16 + 8..][..8].copy_from_slice(&(bytes as u64).to_le_bytes());
        assert!(matches!(Table::from_bytes(&with_checksum(forged)), Err(ImageError::Section { .. })), "{what}");
    }
}

/// A walk that would take more steps than an address has bits for.
#[test]
fn a_trie_that_is_too_deep_is_refused() {
    let deep = TableParts { v4_intervals: vec![(0, 0), (1, 1), (2, 0)], ..parts() };
    let image = build_packed_image(&deep, 1);
    // four blocks lead to the first address; the last of them says that there is one more behind it
    let blocks = (sections(&image)[section::V4_TRIE].1 / 2 - 65536) / 16;
    assert_eq!(blocks, 4);
    let mut longer = image.to_vec();
    let (offset, bytes) = sections(&longer)[section::V4_TRIE];
    let mut trie: Vec<u16> = longer[offset..offset + bytes].chunks(2).map(|node| u16::from_le_bytes([node[0], node[1]])).collect();
    // with one block more every class is one higher
    trie.iter_mut().filter(|node| usize::from(**node) >= blocks).for_each(|node| *node += 1);
    trie[65536 + 3 * 16] = 4;
    trie.extend([5; 16]);
    let trie: Vec<u8> = trie.iter().flat_map(|node| node.to_le_bytes()).collect();
    let at = longer.len();
    longer.extend(&trie);
    longer.resize(longer.len().next_multiple_of(64), 0);
    longer[SECTIONS_AT + section::V4_TRIE * 16..][..8].copy_from_slice(&(at as u64).to_le_bytes());
    longer[SECTIONS_AT + section::V4_TRIE * 16 + 8..][..8].copy_from_slice(&(trie.len() as u64).to_le_bytes());
    let len = longer.len() as u64;
    longer[24..32].copy_from_slice(&len.to_le_bytes());
    let refused = Table::from_bytes(&with_checksum(longer)).unwrap_err();
    assert!(matches!(refused, ImageError::Index { section: "v4 trie", index: 4, len: 4 }), "{refused:?}");
}

/// Found by fuzzing: a table of nobody is not contradicted by its rows, however many classes it claims.
#[test]
fn more_classes_than_an_image_can_tell_apart_are_refused() {
    let nobody = TableParts { profiles: Vec::new(), endpoints: Vec::new(), names: names(&[]), ..parts() };
    for at in [40, 44] {
        let mut forged = build_image(&nobody, 1).to_vec();
        forged[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(Table::from_bytes(&with_checksum(forged)), Err(ImageError::Index { .. })), "{at}");
    }
}

#[test]
fn a_window_beyond_the_address_space_is_refused() {
    let mut forged = image().to_vec();
    forged[48..52].copy_from_slice(&((1u32 << 24) - 3).to_le_bytes());
    assert!(matches!(Table::from_bytes(&with_checksum(forged)), Err(ImageError::Section { section: "v4 flat" })));
}

#[test]
fn a_hash_table_without_an_empty_slot_is_refused() {
    for section in [section::V6_BLOCK_SLOTS, section::V6_EXACT] {
        let (_, bytes) = sections(image())[section];
        let slots: Vec<u8> = (0..bytes / 24).flat_map(|slot| [[slot as u8; 16].as_slice(), &1u64.to_le_bytes()].concat()).collect();
        assert!(matches!(forged(image(), section, 0, &slots), Some(ImageError::Section { .. })), "a search would never end");
        assert!(matches!(forged(image(), section, 16, &4u32.to_le_bytes()), Some(ImageError::Index { .. })), "a value beyond the last");
    }
}

#[test]
fn a_section_table_that_lies_is_refused() {
    for section in 0..SECTIONS {
        let (offset, bytes) = sections(image())[section];
        for (what, offset, bytes) in [
            ("beyond the end", image().len() as u64, 64),
            ("across the end", offset as u64, image().len() as u64),
            ("beyond every number", u64::MAX - 63, 128),
            ("of every number's length", offset as u64, u64::MAX),
            ("unaligned", offset as u64 + 1, bytes as u64),
        ] {
            let mut forged = image().to_vec();
            let at = SECTIONS_AT + section * 16;
            forged[at..at + 8].copy_from_slice(&offset.to_le_bytes());
            forged[at + 8..at + 16].copy_from_slice(&bytes.to_le_bytes());
            assert!(matches!(Table::from_bytes(&with_checksum(forged)), Err(ImageError::Section { .. })), "section {section} {what}");
        }
    }
}

#[test]
fn the_dump_speaks_in_names() {
    let table = Table::from_bytes(image()).unwrap();
    let dump = Dump::of(&table);
    let text = dump.to_string();
    for words in [
        "generation 7",
        "ENDPOINT x/web · port 1 · incarnation 2 · 10.0.0.1",
        "ENDPOINT x/second · port 3",
        "isolated by x/deny-all, x/allow-client",
        "not isolated: everything is allowed",
        "y/client (10.0.1.7)",
        "x/allow-client ingress[0]",
        "TCP 80",
        "UDP 53",
        "other protocols",
        "10.1.0.0-10.1.255.255",
        "10.3.5.0-10.3.7.2",
        "fd00::-fd00::ffff",
        "deny   everything else",
    ] {
        assert!(text.contains(words), "{words:?} is missing in\n{text}");
    }
    let json = serde_json::to_value(&dump).unwrap();
    assert_eq!(json["endpoints"][0]["pod"]["name"], "web");
    assert_eq!(json["endpoints"][0]["directions"][1]["isolated"], false);
}

/// A name without a row: either refused, or dumped without a panic.
#[test]
fn names_that_the_table_does_not_know_are_refused() {
    for named in [vec![(1, "web"), (9, "ghost")], vec![(1, "web"), (2, "absent")], vec![(u16::MAX, "ghost")]] {
        let image = build_image(&TableParts { names: names(&named), ..parts() }, 1);
        assert!(matches!(Table::from_bytes(&image), Err(ImageError::Names { .. })), "{named:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// A writer that lies but sums up correctly: whatever is accepted answers every question.
    #[test]
    fn whatever_is_accepted_answers_every_question(
        packed in any::<bool>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..6),
        remotes in prop::collection::vec(any::<u128>(), 4),
    ) {
        let image = &images()[usize::from(packed)];
        let mut forged = image.clone();
        let mut places: Vec<(usize, usize)> = sections(image).into_iter().filter(|place| place.1 > 0).collect();
        places.push((0, HEADER_BYTES));
        for (place, at, value) in edits {
            let (offset, bytes) = places[place.index(places.len())];
            forged[offset + at.index(bytes)] = value;
        }
        if let Ok(table) = Table::from_bytes(&with_checksum(forged)) {
            ask_everything(&table, &remotes);
            ask_everything(&table, &parts().v6_intervals.iter().map(|&(start, _)| start).collect::<Vec<_>>());
            Dump::of(&table).to_string();
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Table::from_bytes(&bytes).is_err());
        let mut headed = [b"SLUICETB".as_slice(), &bytes].concat();
        headed.resize(headed.len().max(64), 0);
        headed[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        headed[12..16].copy_from_slice(&(HEADER_BYTES as u32).to_le_bytes());
        let len = headed.len() as u64;
        headed[24..32].copy_from_slice(&len.to_le_bytes());
        prop_assert!(Table::from_bytes(&with_checksum(headed)).is_err());
    }
}
