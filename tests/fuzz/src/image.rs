//! Target `image`: a table's bytes from a writer that lies but sums up correctly.
//!
//! Random bytes end at the magic, random edits at the checksum. So the fuzzer's bytes are edits of a valid image, after
//! which length and checksum are made right again, and what is tested is everything behind them.

use crate::manifests::with_every_pod_attached;
use sluice_flow::limits::PORTS_MAX;
use sluice_flow::{Addr, Direction, Incarnation, ObjectName, PortIndex, Protocol, RuleId, Verdict};
use sluice_frames::Choices;
use sluice_policy::{compile, load};
use sluice_table::{
    Action, Dump, EndpointRow, Names, PortParts, ProfileParts, RuleName, Table, TableParts, build_image, build_packed_image,
};
use std::sync::OnceLock;

// dataplane/table/src/format.rs, written down a second time
const LENGTH_AT: usize = 24;
const CHECKSUM_AT: usize = 32;
const SECTIONS_AT: usize = 64;
const SECTIONS: usize = 20;
const NAMES: usize = 19;

/// What a refused image may have made the loader allocate: its sections once, and the edited copy.
const MEMORY_MAX: usize = 64 << 20;

const MANIFESTS: [&str; 2] = [include_str!("../../lab/demo/0-pods.yaml"), include_str!("../../lab/demo/3-backend.yaml")];

/// The demo's table, one that knows nobody, and one with every section and rows of two bytes, plain and packed.
fn images() -> &'static [Vec<u8>; 4] {
    static IMAGES: OnceLock<[Vec<u8>; 4]> = OnceLock::new();
    IMAGES.get_or_init(|| {
        let snapshot = with_every_pod_attached(load::load_str("demo.yaml", &MANIFESTS.join("\n---\n")).snapshot);
        let nobody = TableParts { classes: 1, v4_intervals: vec![(0, 0)], v6_intervals: vec![(0, 0)], ..TableParts::default() };
        let demo = compile(&snapshot, 7).expect("the demo compiles");
        [demo, build_image(&nobody, 1), build_image(&full(), 1), build_packed_image(&full(), 1)].map(|image| image.to_vec())
    })
}

const CLASSES: u32 = 300;

/// A row for each class.
fn profile(rows: Vec<u16>) -> ProfileParts {
    let actions = (0..CLASSES).flat_map(|row| [Action::Deny, Action::Allow(RuleId(row % 50)), Action::Deny]).collect();
    ProfileParts { rows, ports: vec![0, 1, 2], stride: 3, actions }
}

fn full() -> TableParts {
    let rule = |index| RuleName { policy: ObjectName::new("x", "p"), direction: Direction::Ingress, index };
    TableParts {
        classes: CLASSES as usize,
        // classes change within neighbouring /24s, and then apart
        v4_intervals: (0..CLASSES).map(|class| (class * if class < 100 { 13 } else { 70_001 }, class)).collect(),
        v6_intervals: vec![(0, 0), (1 << 100, 1)],
        v6_exact: (1..CLASSES).map(|class| (u128::from(class) << if class < 100 { 0 } else { 40 }, class)).collect(),
        ports: PortParts { classes: 3, intervals: [vec![(0, 0), (80, 1)], vec![(0, 0)], vec![(0, 2)]], others: 0 },
        profiles: vec![profile((0..CLASSES as u16).collect()), profile((0..CLASSES as u16).rev().collect())],
        endpoints: vec![EndpointRow { port: PortIndex(1), incarnation: Incarnation(1), profiles: [Some(0), Some(1)] }],
        names: Names { rules: (0..50).map(rule).collect(), ..Names::default() },
        ..TableParts::default()
    }
}

/// Reads an image made of these bytes and asks it everything.
pub fn check(data: &[u8]) {
    let mut choices = Choices::new(data);
    let image = forged(&mut choices);
    crate::memory::bounded(MEMORY_MAX, || {
        if let Ok(table) = Table::from_bytes(&image) {
            ask(&table, &mut choices);
        }
    });
}

fn forged(c: &mut Choices<'_>) -> Vec<u8> {
    if c.rarely() {
        return c.rest().to_vec();
    }
    let mut image = c.pick(&images().each_ref()).clone();
    for _ in 0..c.below(6) {
        edit(c, &mut image);
    }
    if !c.rarely() {
        let length = image.len() as u64;
        write(&mut image, LENGTH_AT, &length.to_le_bytes());
        let sum = checksum(&image);
        write(&mut image, CHECKSUM_AT, &sum.to_le_bytes());
    }
    image
}

/// Numbers that are wrong in most places: small ones, the edges of each width, and any.
fn number(c: &mut Choices<'_>) -> u64 {
    let small = u64::from(c.byte());
    let edges = [0x7f, 0xff, 0x100, 0xffff, 0x1_0000, 0x8000_0000, 0x8000_0001, 0xffff_fffe, 0xffff_ffff, u64::MAX, u64::MAX - 63];
    match c.below(4) {
        0 => small,
        1 => c.pick(&edges),
        2 => small << 6,
        _ => u64::from(c.word()) << 16 | u64::from(c.word()),
    }
}

fn edit(c: &mut Choices<'_>, image: &mut Vec<u8>) {
    let section = c.below(SECTIONS);
    match c.below(8) {
        0 => {
            let (at, value) = (c.below(SECTIONS_AT), number(c));
            write(image, at, &value.to_le_bytes()[..c.pick(&[1, 4, 8])]);
        }
        // a section's offset or length
        1 => {
            let (at, value) = (SECTIONS_AT + section * 16 + c.pick(&[8, 0]), number(c));
            write(image, at, &value.to_le_bytes());
        }
        // other names
        2 => {
            let (text, at, end) = (c.rest(), SECTIONS_AT + NAMES * 16, image.len() as u64);
            write(image, at, &end.to_le_bytes());
            write(image, at + 8, &(text.len() as u64).to_le_bytes());
            image.extend(text);
        }
        3 => {
            let len = usize::from(c.word()) * 16;
            image.truncate(len);
        }
        // any other section's content
        _ => {
            let (Some(offset), Some(len)) = (read(image, SECTIONS_AT + section * 16), read(image, SECTIONS_AT + section * 16 + 8)) else {
                return;
            };
            let at = (usize::from(c.word()) * len.min(image.len())) >> 16;
            let value = number(c);
            write(image, offset.saturating_add(at), &value.to_le_bytes()[..c.pick(&[4, 2, 1, 8])]);
        }
    }
}

fn read(image: &[u8], at: usize) -> Option<usize> {
    image.get(at..at + 8).and_then(|bytes| bytes.first_chunk()).map(|bytes| u64::from_le_bytes(*bytes) as usize)
}

/// Writes what fits.
fn write(image: &mut [u8], at: usize, value: &[u8]) {
    let end = at.saturating_add(value.len()).min(image.len());
    if let Some(target) = image.get_mut(at.min(end)..end) {
        target.copy_from_slice(&value[..target.len()]);
    }
}

/// The format's checksum.
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

/// Every port and direction, addresses on both sides of whatever the choices say; and now and then the whole as text.
fn ask(table: &Table, c: &mut Choices<'_>) {
    let mut addresses = vec![Addr::v4([0; 4]), Addr::v4([255; 4]), Addr([0; 16]), Addr([0xff; 16])];
    for host in [sluice_frames::POD, sluice_frames::PEER] {
        addresses.extend([Addr::v4(host.v4), Addr(host.v6)]);
    }
    addresses.extend((0..4).map(|_| Addr::v4([c.byte(), c.byte(), c.byte(), c.byte()])));
    addresses.extend((0..4).map(|_| Addr(std::array::from_fn(|_| c.byte()))));
    for &remote in &addresses {
        table.is_service(remote);
        for port in (0..=PORTS_MAX as u16).chain([u16::MAX]).map(PortIndex) {
            table.endpoint(port);
            for direction in Direction::BOTH {
                table.isolated(port, direction);
                for (protocol, dport) in [(Protocol::TCP, 80), (Protocol::UDP, u16::MAX), (Protocol::SCTP, u16::MAX), (Protocol(255), 0)] {
                    if let Verdict::Allow(rule) = table.lookup(port, direction, remote, protocol, dport) {
                        assert!(table.rule(rule).is_some(), "{rule:?} has no name");
                    }
                }
            }
        }
    }
    for endpoint in &table.names().endpoints {
        assert_eq!(table.endpoint(endpoint.port), Some(endpoint.incarnation), "a name without a row");
    }
    if c.sometimes() {
        let dump = Dump::of(table);
        assert!(!dump.to_string().is_empty());
        serde_json::to_vec(&dump).expect("plain data");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_written_down_here_is_the_real_one() {
        for image in images() {
            let mut again = image.clone();
            assert_eq!(read(&again, LENGTH_AT), Some(image.len()));
            let sum = checksum(&again);
            write(&mut again, CHECKSUM_AT, &sum.to_le_bytes());
            assert_eq!(&again, image);
            assert_eq!(read(image, SECTIONS_AT).unwrap(), (SECTIONS_AT + SECTIONS * 16).next_multiple_of(64));
            Table::from_bytes(image).unwrap();
        }
    }

    #[test]
    fn no_forged_image_gets_further_than_it_should() {
        (0..300).for_each(|seed| check(&sluice_frames::random_bytes(seed, 128)));
    }
}
