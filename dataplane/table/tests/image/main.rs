//! Images: what goes in comes out, what is damaged is refused, and what is accepted can be asked anything.

mod refused;
mod tables;

use proptest::prelude::*;
use sluice_flow::{Addr, Direction, Incarnation, PortIndex, Protocol, RuleId, Verdict};
use sluice_table::{Dump, FORMAT_VERSION, Table, TableParts, build_image, build_packed_image};
use std::net::IpAddr;
use tables::{HEADER_BYTES, ask, ask_everything, image, images, parts, sections, with_checksum};

#[test]
fn what_goes_in_comes_out() {
    images().iter().for_each(|image| check_what_comes_out(image));
}

#[test]
fn a_table_is_the_same_wherever_its_image_lies_in_memory() {
    for image in images() {
        let mut room = vec![0u64; image.len() / 8 + 2];
        for shift in [0, 1, 2, 4] {
            let place = &mut bytemuck::cast_slice_mut::<u64, u8>(&mut room)[shift..shift + image.len()];
            place.copy_from_slice(image);
            check_what_comes_out(place);
        }
    }
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
