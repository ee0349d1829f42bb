//! The layout of an image: a header, then 64-byte aligned little-endian sections.
//!
//! ```text
//!  0   magic "SLUICETB" · format u32 · header_bytes u32
//! 16   generation u64 · image_bytes u64 · checksum u64 (of all other bytes)
//! 40   classes u32 · port_classes u32 · flat_first u32 · widths u32 · reserved u64
//! 64   section table: (offset u64, bytes u64) for each Section, in order
//! ```
//!
//! *L* below is 2 bytes, 4 in tables with [`LARGE_WIDE`]; *S* is 1 byte, 2 with [`SMALL_WIDE`]. What addresses and profiles say stands in
//! one of two forms: *plain*, the fewest loads, or *packed* ([`PACKED`]), the least room.
//!
//! ```text
//!  plain    class ─▶ segment ─▶ row                port class ─▶ local port
//!           row, local port ─▶ action
//!  packed   class ─▶ segment, first row ─▶ row     port class ─▶ chunk ─▶ local port
//!           row, group of 8 local ports ─▶ variant ─▶ rank ─▶ action
//! ```

use bytemuck::{Pod, Zeroable};

/// The version of the layout; another one is refused.
pub const FORMAT_VERSION: u32 = 4;
pub(crate) const MAGIC: [u8; 8] = *b"SLUICETB";
pub(crate) const ALIGNMENT: usize = 64;

/// The sections, in file order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Section {
    /// `L`: the class of each address of a window of /24s, from /24 number `flat_first`. Goes before the trie.
    V4Flat,
    /// `L[65536]`: by the upper 16 bits of an IPv4 address, a *node*; then `L[256]`, packed `L[16]`, blocks of nodes by the
    /// next 8, packed 4, bits, down to the last. A node below the number of blocks is such a block, otherwise a class plus
    /// that number.
    V4Trie,
    /// Open-addressed /120s of IPv6: [`V6Slot`] with the upper 120 bits as the key and a block of `V6Blocks`.
    V6BlockSlots,
    /// `L[256]` blocks, ascending by address: the class of each address of such a /120.
    V6Blocks,
    /// Open-addressed single IPv6 addresses outside of those: [`V6Slot`] with a class.
    V6Exact,
    /// Sorted starts of IPv6 intervals, the first being `::`; 16 bytes each in network order.
    V6Starts,
    /// `L`: the class of each interval.
    V6Classes,
    /// [`PortStart`]s of TCP, UDP and SCTP, each ascending from port 0, then one at port 0 for all other protocols.
    PortStarts,
    /// [`EndpointEntry`] by port index.
    Endpoints,
    /// `L`: for each run of classes a segment; one such list for each profile, equal ones shared. Runs have 32 classes,
    /// packed 16.
    Directory,
    /// Packed, `u16`: for each entry of `Directory` what is added to the rows of its segment.
    RowBases,
    /// `S`, packed `u16`: segments of 32, packed 16: the row of each class, numbered within the profile.
    Segments,
    /// Packed, `L`: for each 8 port classes a chunk of `LocalPorts`; one list for each profile, equal ones shared.
    PortChunks,
    /// `S`: of each port class its number within the profile: one list of `port_classes` for each profile, equal ones
    /// shared; packed, chunks of 8, each distinct one once.
    LocalPorts,
    /// Packed, `S`: the variant of each group of 8 local ports, row by row; one such field for each profile, equal ones
    /// shared.
    Variants,
    /// Packed, `u32`: of each group of a profile the chunk of `Actions` that is its first variant.
    VariantBases,
    /// `L`: the actions of each profile, row by row: 0 denies, n + 1 is rule n; equal ones shared. Packed, `S[8]`: chunks
    /// of ranks, an action's place in the profile's palette.
    Actions,
    /// Packed, `L`: the actions of each profile, equal lists shared.
    Palettes,
    /// Sorted service addresses, 16 bytes each.
    Services,
    /// JSON: names for people. Never read by a worker.
    Names,
}

impl Section {
    pub(crate) const ALL: [(Section, &'static str); 20] = [
        (Section::V4Flat, "v4 flat"),
        (Section::V4Trie, "v4 trie"),
        (Section::V6BlockSlots, "v6 block slots"),
        (Section::V6Blocks, "v6 blocks"),
        (Section::V6Exact, "v6 addresses"),
        (Section::V6Starts, "v6 starts"),
        (Section::V6Classes, "v6 classes"),
        (Section::PortStarts, "port starts"),
        (Section::Endpoints, "endpoints"),
        (Section::Directory, "directory"),
        (Section::RowBases, "row bases"),
        (Section::Segments, "segments"),
        (Section::PortChunks, "port chunks"),
        (Section::LocalPorts, "local ports"),
        (Section::Variants, "variants"),
        (Section::VariantBases, "variant bases"),
        (Section::Actions, "actions"),
        (Section::Palettes, "palettes"),
        (Section::Services, "services"),
        (Section::Names, "names"),
    ];

    pub(crate) fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// Addresses of a /24, or of an IPv6 block.
pub(crate) const BLOCK: usize = 256;
/// Nodes of the trie's first level.
pub(crate) const ROOTS: usize = 1 << 16;
/// Bits of an address that a block of the trie is indexed by.
pub(crate) const TRIE_BITS: u32 = 8;
/// The same where it is packed.
pub(crate) const PACKED_TRIE_BITS: u32 = 4;
/// Classes of a segment: if all shift by so many, their rows are stored as before.
pub const SEGMENT: usize = 32;
/// The same where it is packed.
pub(crate) const PACKED_SEGMENT: usize = 16;
/// Port classes, local ports and ranks of a chunk.
pub(crate) const CHUNK: usize = 8;
/// `Half::directory` of a direction that no policy isolates.
pub(crate) const NOT_ISOLATED: u32 = u32::MAX;
/// Bit of `Header::widths`: classes, blocks, segments, chunks or actions need 4 bytes.
pub(crate) const LARGE_WIDE: u32 = 1;
/// Bit of `Header::widths`: rows or port classes of some profile need 2 bytes; packed, port classes, variants or ranks.
pub(crate) const SMALL_WIDE: u32 = 2;
/// Bit of `Header::widths`: profiles are packed.
pub(crate) const PACKED: u32 = 4;
/// Port classes that a header may claim: there are fewer numbers for them.
pub(crate) const PORT_CLASSES_MAX: u64 = 1 << 16;

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Header {
    pub(crate) magic: [u8; 8],
    pub(crate) format: u32,
    pub(crate) header_bytes: u32,
    pub(crate) generation: u64,
    pub(crate) image_bytes: u64,
    pub(crate) checksum: u64,
    pub(crate) classes: u32,
    pub(crate) port_classes: u32,
    pub(crate) flat_first: u32,
    pub(crate) widths: u32,
    pub(crate) reserved: u64,
    pub(crate) sections: [[u64; 2]; Section::ALL.len()],
}

/// One line of a cache for each endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct EndpointEntry {
    /// 0 where no endpoint stands.
    pub(crate) present: u32,
    pub(crate) incarnation: u32,
    pub(crate) halves: [Half; 2],
    pub(crate) reserved: [u32; 2],
}

/// A direction of an endpoint: where its profile is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Half {
    /// First entry in `Directory`, or [`NOT_ISOLATED`].
    pub(crate) directory: u32,
    /// First entry in `LocalPorts`; packed, in `PortChunks`.
    pub(crate) ports: u32,
    /// First entry in `Actions`; packed, in `Variants`.
    pub(crate) actions: u32,
    /// Actions of each row; packed, groups.
    pub(crate) stride: u32,
    /// Packed: first entry in `VariantBases`.
    pub(crate) bases: u32,
    /// Packed: first entry in `Palettes`.
    pub(crate) palette: u32,
}

impl Half {
    pub(crate) const OPEN: Self = Self { directory: NOT_ISOLATED, ports: 0, actions: 0, stride: 0, bases: 0, palette: 0 };

    #[inline(always)]
    pub(crate) fn is_isolated(&self) -> bool {
        self.directory != NOT_ISOLATED
    }
}

/// From this port on, ports are of this class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct PortStart {
    pub(crate) port: u16,
    pub(crate) class: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct V6Slot {
    /// The key's halves, the upper first.
    pub(crate) key: [u64; 2],
    /// Value + 1; 0 marks an empty slot.
    pub(crate) value_plus_one: u32,
    pub(crate) reserved: u32,
}

impl V6Slot {
    pub(crate) fn key(&self) -> u128 {
        u128::from(self.key[0]) << 64 | u128::from(self.key[1])
    }

    #[inline(always)]
    pub(crate) fn is(&self, key: u128) -> bool {
        (self.key[0] ^ (key >> 64) as u64) | (self.key[1] ^ key as u64) == 0
    }
}

/// Where a key is looked for first, in so many slots. Both halves count, so that neither a common prefix nor a common
/// interface part piles up.
#[inline(always)]
pub(crate) fn v6_slot(key: u128, slots: usize) -> usize {
    let folded = (key >> 64) as u64 ^ (key as u64).rotate_left(32);
    ((folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize) & (slots - 1)
}

/// The sum of all 8-byte words but its own, each mixed with its position, so that no changed word, and hardly a moved one,
/// leaves the sum as it was; and where few words change, it follows them. Finds damage; it is no defence against forgery,
/// which seals and permissions are.
pub(crate) fn checksum(image: &[u8]) -> u64 {
    let (words, rest) = image.as_chunks::<8>();
    let sum = (0..).zip(words).fold(0u64, |sum, (index, word)| sum.wrapping_add(mixed(index, u64::from_le_bytes(*word))));
    let own = words.get(CHECKSUM_WORD).map_or(0, |word| mixed(CHECKSUM_WORD, u64::from_le_bytes(*word)));
    let last = match rest {
        [] => 0,
        rest => {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            mixed(words.len(), u64::from_le_bytes(word))
        }
    };
    sum.wrapping_add(last).wrapping_sub(own)
}

/// The word that a checksum leaves out.
pub(crate) const CHECKSUM_WORD: usize = std::mem::offset_of!(Header, checksum) / 8;

/// What a word at this position adds to a checksum; different for different words.
#[inline(always)]
pub(crate) fn mixed(index: usize, word: u64) -> u64 {
    let product = (word ^ (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    product ^ product >> 32
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
