//! The sections of an image as they stand in it, for the checks of [`crate::load`].

use crate::format::{EndpointEntry, V6Slot};

/// In one width of each kind.
pub(crate) struct Sections<L, S> {
    /// The window's first address.
    pub(crate) flat_first: u32,
    pub(crate) v4_flat: Box<[L]>,
    pub(crate) v4_l1: Box<[L]>,
    pub(crate) v4_l2: Box<[L]>,
    pub(crate) v4_l3: Box<[L]>,
    pub(crate) v6_block_slots: Box<[V6Slot]>,
    pub(crate) v6_blocks: Box<[L]>,
    pub(crate) v6_exact: Box<[V6Slot]>,
    pub(crate) v6_starts: Box<[u128]>,
    pub(crate) v6_classes: Box<[L]>,
    pub(crate) port_pages: Box<[u16]>,
    pub(crate) port_class: Box<[u16]>,
    pub(crate) endpoints: Box<[EndpointEntry]>,
    pub(crate) directory: Box<[L]>,
    pub(crate) segments: Box<[S]>,
    pub(crate) local_ports: Box<[S]>,
    pub(crate) actions: Box<[L]>,
}
