//! The sections of an image as they stand in it, for the checks of [`crate::load`].

use crate::format::V6Slot;
use bytemuck::Pod;
use std::borrow::Cow;

/// Entries of a section: those of the image itself where its bytes are aligned for them, else a copy.
pub(crate) type Entries<'a, T> = Cow<'a, [T]>;

/// What says the class of each address and port.
pub(crate) struct Spaces<'a, L: Pod> {
    /// The window's first address.
    pub(crate) flat_first: u32,
    pub(crate) v4_flat: Entries<'a, L>,
    pub(crate) v4_trie: Entries<'a, L>,
    pub(crate) v6_block_slots: Entries<'a, V6Slot>,
    pub(crate) v6_blocks: Entries<'a, L>,
    pub(crate) v6_exact: Entries<'a, V6Slot>,
    pub(crate) v6_starts: Box<[u128]>,
    pub(crate) v6_classes: Entries<'a, L>,
    /// Of every port of TCP, then of UDP, of SCTP, and of all other protocols together. Not as in the image: the room is
    /// hardly read, and a search would cost every lookup its loads.
    pub(crate) port_class: Box<[u16]>,
}

/// Plain profiles.
pub(crate) struct Profiles<'a, L: Pod, S: Pod> {
    pub(crate) directory: Entries<'a, L>,
    pub(crate) segments: Entries<'a, S>,
    pub(crate) local_ports: Entries<'a, S>,
    pub(crate) actions: Entries<'a, L>,
}

/// Packed ones.
pub(crate) struct PackedProfiles<'a, L: Pod, S: Pod> {
    pub(crate) directory: Entries<'a, L>,
    pub(crate) row_bases: Entries<'a, u16>,
    pub(crate) segments: Entries<'a, u16>,
    pub(crate) port_chunks: Entries<'a, L>,
    pub(crate) local_ports: Entries<'a, S>,
    pub(crate) variants: Entries<'a, S>,
    pub(crate) variant_bases: Entries<'a, u32>,
    pub(crate) ranks: Entries<'a, S>,
    pub(crate) palettes: Entries<'a, L>,
}
