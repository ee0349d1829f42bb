//! The Rust parser takes every named frame for what it is; and the generator makes what it promises.

use sluice_flow::{Kind, Packet, Protocol, parse_frame};
use sluice_frames::{frame, named, random_bytes};
use std::collections::BTreeSet;

fn ports(protocol: Protocol, sport: u16, dport: u16) -> String {
    format!("{protocol} {sport} {dport}")
}

fn said(frame: &[u8]) -> String {
    match parse_frame(frame) {
        Err(error) => error.0.name().to_owned(),
        Ok(Packet { kind: Kind::IcmpError(quoted), .. }) => format!("error {}", ports(quoted.protocol, quoted.sport, quoted.dport)),
        Ok(packet) => ports(packet.protocol, packet.sport, packet.dport),
    }
}

#[test]
fn every_named_frame_is_dropped_by_name_or_judged_as_the_plain_packet() {
    for case in named() {
        assert_eq!(said(&case.frame), case.becomes, "{} (row {}): {:02x?}", case.name, case.row, case.frame);
    }
}

#[test]
fn names_are_unique() {
    let cases = named();
    let names: BTreeSet<_> = cases.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), cases.len());
}

#[test]
fn cut_anywhere_a_plain_frame_is_malformed() {
    for case in named().into_iter().filter(|case| case.row == 0 && !case.name.starts_with("padded")) {
        for len in 0..case.frame.len() {
            assert_eq!(said(&case.frame[..len]), "malformed", "{} cut to {len}", case.name);
        }
    }
}

const KINDS: [&str; 6] = ["tcp", "udp", "icmp", "icmp error", "sctp", "other"];

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Tcp(_) => "tcp",
        Kind::Udp => "udp",
        Kind::Icmp(_) => "icmp",
        Kind::IcmpError(_) => "icmp error",
        Kind::Sctp(_) => "sctp",
        Kind::Other => "other",
    }
}

/// The generator reaches every outcome of the parser, and most of what it makes is understood.
#[test]
fn generated_frames_reach_every_outcome() {
    let mut outcomes = BTreeSet::new();
    let (mut understood, count) = (0u32, 20_000);
    for seed in 0..count {
        let frame = frame(&random_bytes(seed, 192));
        let packet = parse_frame(&frame);
        understood += u32::from(packet.is_ok());
        outcomes.insert(packet.map_or_else(|error| error.0.name(), |packet| kind(packet.kind)));
    }
    for wanted in ["malformed", "extension_chain", "vlan_unsupported", "ethertype_unsupported"].into_iter().chain(KINDS) {
        assert!(outcomes.contains(wanted), "{wanted} is missing in {outcomes:?}");
    }
    assert!(u64::from(understood) > count / 2, "{understood} of {count} frames were understood");
    assert_eq!(frame(&random_bytes(7, 192)), frame(&random_bytes(7, 192)));
    assert_eq!(said(&frame(&[])), "TCP 80 80", "no bytes: the plainest frame");
}
