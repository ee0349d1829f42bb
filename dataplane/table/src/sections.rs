//! The sections of an image as they stand in it, for the checks of [`crate::load`].

use crate::format::V6Slot;

/// What says the class of each address and port.
pub(crate) struct Spaces<L> {
    /// The window's first address.
    pub(crate) flat_first: u32,
    pub(crate) v4_flat: Box<[L]>,
    pub(crate) v4_trie: Box<[L]>,
    pub(crate) v6_block_slots: Box<[V6Slot]>,
    pub(crate) v6_blocks: Box<[L]>,
    pub(crate) v6_exact: Box<[V6Slot]>,
    pub(crate) v6_starts: Box<[u128]>,
    pub(crate) v6_classes: Box<[L]>,
    /// Of every port of TCP, then of UDP, of SCTP, and of all other protocols together. Not as in the image: the room is
    /// hardly read, and a search would cost every lookup its loads.
    pub(crate) port_class: Box<[u16]>,
}

/// Plain profiles.
pub(crate) struct Profiles<L, S> {
    pub(crate) directory: Box<[L]>,
    pub(crate) segments: Box<[S]>,
    pub(crate) local_ports: Box<[S]>,
    pub(crate) actions: Box<[L]>,
}

/// Packed ones.
pub(crate) struct PackedProfiles<L, S> {
    pub(crate) directory: Box<[L]>,
    pub(crate) row_bases: Box<[u16]>,
    pub(crate) segments: Box<[u16]>,
    pub(crate) port_chunks: Box<[L]>,
    pub(crate) local_ports: Box<[S]>,
    pub(crate) variants: Box<[S]>,
    pub(crate) variant_bases: Box<[u32]>,
    pub(crate) ranks: Box<[S]>,
    pub(crate) palettes: Box<[L]>,
}
