//! Damage and lies, each of which is refused by name.

use super::tables::{HEADER_BYTES, SECTIONS, SECTIONS_AT, image, images, names, parts, sections, with_checksum};
use sluice_table::{FORMAT_VERSION, ImageError, Table, TableParts, build_image, build_packed_image};

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

/// A name without a row: either refused, or dumped without a panic.
#[test]
fn names_that_the_table_does_not_know_are_refused() {
    for named in [vec![(1, "web"), (9, "ghost")], vec![(1, "web"), (2, "absent")], vec![(u16::MAX, "ghost")]] {
        let image = build_image(&TableParts { names: names(&named), ..parts() }, 1);
        assert!(matches!(Table::from_bytes(&image), Err(ImageError::Names { .. })), "{named:?}");
    }
}
