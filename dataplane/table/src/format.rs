//! The layout of an image: a header, then 64-byte aligned little-endian sections.
//!
//! ```text
//!  0   magic "SLUICETB" · format u32 · header_bytes u32
//! 16   generation u64 · image_bytes u64 · checksum u64 (of all other bytes)
//! 40   port_classes u32 · reserved u32
//! 48   section table: (offset u64, bytes u64) for each Section, in order
//! ```

use bytemuck::{Pod, Zeroable};

/// The version of the layout; another one is refused.
pub const FORMAT_VERSION: u32 = 1;
pub(crate) const MAGIC: [u8; 8] = *b"SLUICETB";
pub(crate) const ALIGNMENT: usize = 64;

/// The sections, in file order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Section {
    /// `u32[65536]`: by the upper 16 bits of an IPv4 address, a leaf or a block of `V4L2`.
    V4L1,
    /// `u32[256]` blocks: by bits 8..16, a leaf or a block of `V4L3`.
    V4L2,
    /// `u16[256]` blocks: the class.
    V4L3,
    /// Open-addressed exact IPv6 addresses: [`V6Slot`], a power of two of them.
    V6Exact,
    /// Sorted starts of IPv6 intervals, the first being `::`; 16 bytes each in network order.
    V6Starts,
    /// `u16`: the class of each interval.
    V6Classes,
    /// `u16[3 * 65536 + 1]`: the port class of TCP, UDP, SCTP ports; the last for every other protocol.
    PortClasses,
    /// [`EndpointEntry`] by port index.
    Endpoints,
    /// `u16`: the row of each class; one run of `classes` entries for each isolated (endpoint, direction).
    RowOfClass,
    /// `u32[port_classes]` rows: the action.
    Actions,
    /// Sorted service addresses, 16 bytes each.
    Services,
    /// JSON: names for people. Never read by a worker.
    Names,
}

impl Section {
    pub(crate) const ALL: [(Section, &'static str); 12] = [
        (Section::V4L1, "v4 level 1"),
        (Section::V4L2, "v4 level 2"),
        (Section::V4L3, "v4 level 3"),
        (Section::V6Exact, "v6 addresses"),
        (Section::V6Starts, "v6 starts"),
        (Section::V6Classes, "v6 classes"),
        (Section::PortClasses, "port classes"),
        (Section::Endpoints, "endpoints"),
        (Section::RowOfClass, "row of class"),
        (Section::Actions, "actions"),
        (Section::Services, "services"),
        (Section::Names, "names"),
    ];

    pub(crate) fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// Bit 31 of a level-1 or level-2 entry: the rest is a class, not a block.
pub(crate) const LEAF: u32 = 1 << 31;
/// `EndpointEntry::rows` of a direction that no policy isolates.
pub(crate) const NOT_ISOLATED: u32 = u32::MAX;
/// Entries of the port class section.
pub(crate) const PORT_CLASS_ENTRIES: usize = 3 * 65536 + 1;

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Header {
    pub(crate) magic: [u8; 8],
    pub(crate) format: u32,
    pub(crate) header_bytes: u32,
    pub(crate) generation: u64,
    pub(crate) image_bytes: u64,
    pub(crate) checksum: u64,
    pub(crate) port_classes: u32,
    pub(crate) classes: u32,
    pub(crate) sections: [[u64; 2]; Section::ALL.len()],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct EndpointEntry {
    /// 0 where no endpoint stands.
    pub(crate) present: u32,
    pub(crate) incarnation: u32,
    /// First entry of each direction's run in `RowOfClass`, or [`NOT_ISOLATED`].
    pub(crate) rows: [u32; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct V6Slot {
    pub(crate) address: [u8; 16],
    /// Class + 1; 0 marks an empty slot.
    pub(crate) class_plus_one: u32,
}

/// Where an exact IPv6 address is looked for first. Both halves count, so that neither a common prefix nor a common
/// interface part piles up.
pub(crate) fn v6_slot(address: u128, slots: usize) -> usize {
    let folded = (address >> 64) as u64 ^ (address as u64).rotate_left(32);
    ((folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize) & (slots - 1)
}

/// FNV-1a over 8-byte words: finds damage; it is no defence against forgery, which seals and permissions are.
pub(crate) fn checksum(image: &[u8]) -> u64 {
    const AT: usize = std::mem::offset_of!(Header, checksum);
    let mut sum = 0xcbf2_9ce4_8422_2325u64;
    let mut add = |word: u64| sum = (sum ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
    for (index, chunk) in image.chunks(8).enumerate() {
        if index * 8 == AT {
            continue;
        }
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        add(u64::from_le_bytes(word));
    }
    sum
}

/// Why an image was refused. The previous generation stays live in every case.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ImageError {
    #[error("not a Sluice table: wrong magic")]
    /// The first bytes are not ours.
    Magic,
    #[error("image format v{found}, this build reads v{expected}")]
    /// Made by another build.
    Version {
        /// [`FORMAT_VERSION`].
        expected: u32,
        /// In the header.
        found: u32,
    },
    #[error("image is {found} bytes long, its header says {expected}")]
    /// Truncated or padded.
    Length {
        /// In the header.
        expected: u64,
        /// As given.
        found: u64,
    },
    #[error("checksum {found:#018x} does not match the header's {expected:#018x}")]
    /// Damaged or torn.
    Checksum {
        /// In the header.
        expected: u64,
        /// Of the bytes.
        found: u64,
    },
    #[error("section {section} is misplaced, misaligned or of a wrong size")]
    /// The section table lies.
    Section {
        /// Which.
        section: &'static str,
    },
    #[error("{section}: index {index} out of bounds (len {len})")]
    /// An entry points outside its target.
    Index {
        /// Which section holds the entry.
        section: &'static str,
        /// The entry.
        index: u64,
        /// The target's length.
        len: u64,
    },
    #[error("{section}: not sorted")]
    /// A sorted section is not.
    Order {
        /// Which.
        section: &'static str,
    },
    #[error("names do not fit the table: {reason}")]
    /// The cold section is not JSON of the expected form, or lacks a name.
    Names {
        /// What is wrong.
        reason: String,
    },
    #[error("the memfd is not fully sealed (seals {found:#x}): its writer could still change it")]
    /// Sharing demands immutability.
    Seals {
        /// `F_GET_SEALS`.
        found: u32,
    },
    #[error("cannot read the image: {0}")]
    /// The system's reason.
    Read(String),
}
