//! Packed profiles in memory, and the lookup over them: two loads more than plain ones take, in a fraction of the room.
//!
//! With hundreds of policies on each pod, rows times ports are too many cells to write down. But few of a group of ports'
//! columns differ from row to row, so that a row says for each group of 8 ports which *variant* it has.

use crate::addresses::Addresses;
use crate::arrays::{read, read_from};
use crate::batch::Query;
use crate::format::{CHUNK, EndpointEntry, Half, PACKED_SEGMENT, PACKED_TRIE_BITS};
use crate::memory::{Array, Memory, room};
use crate::sections::{PackedProfiles, Spaces};
use crate::sides::{Side, Sides, Tail};
use crate::width::{Large, Small, Width};
use sluice_flow::Verdict;

/// See the module. What [`super::load`] checked is what the `SAFETY` comments of the lookup rest on.
#[derive(Debug)]
pub(crate) struct PackedArrays<L, S> {
    pub(crate) addresses: Addresses<L, PACKED_TRIE_BITS>,
    pub(crate) endpoints: Box<[EndpointEntry]>,
    pub(crate) sides: Sides,
    pub(crate) directory: Array<L>,
    pub(crate) row_bases: Array<u16>,
    pub(crate) segments: Array<u16>,
    pub(crate) port_chunks: Array<L>,
    pub(crate) local_ports: Array<S>,
    pub(crate) variants: Array<S>,
    pub(crate) variant_bases: Array<u32>,
    pub(crate) ranks: Array<S>,
    pub(crate) palettes: Array<L>,
    /// All of the above but the endpoints.
    pub(crate) whole: Array<u8>,
}

impl<L: Large, S: Small> PackedArrays<L, S> {
    /// The sections in the form that lookups read, all checked.
    pub(crate) fn of(
        spaces: &Spaces<'_, L>,
        endpoints: Box<[EndpointEntry]>,
        profiles: &PackedProfiles<'_, L, S>,
        sizes: [usize; 2],
    ) -> Self {
        let [classes, port_classes] = sizes;
        let PackedProfiles { directory, row_bases, segments, port_chunks, local_ports, variants, variant_bases, ranks, palettes } =
            profiles;
        // one profile for all that need none: one port, and whatever the row, one variant that denies
        let closed = Half {
            directory: directory.len() as u32,
            ports: port_chunks.len() as u32,
            actions: variants.len() as u32,
            stride: 0,
            bases: variant_bases.len() as u32,
            palette: palettes.len() as u32,
        };
        let open = Half { actions: closed.actions + 1, ..closed };
        let runs = classes.div_ceil(PACKED_SEGMENT);
        let zeros = [S::ZERO; CHUNK];
        let directory: [&[L]; 2] = [directory, &vec![L::write(0); runs]];
        let row_bases: [&[u16]; 2] = [row_bases, &vec![0; runs]];
        let segments: [&[u16]; 2] = [segments, if segments.is_empty() { &[0; PACKED_SEGMENT] } else { &[] }];
        let port_chunks: [&[L]; 2] = [port_chunks, &vec![L::write(local_ports.len() / CHUNK); port_classes.div_ceil(CHUNK)]];
        let local_ports: [&[S]; 2] = [local_ports, &zeros];
        let variants: [&[S]; 2] = [variants, &zeros[..2]];
        let variant_bases: [&[u32]; 2] = [variant_bases, &[(ranks.len() / CHUNK) as u32]];
        let ranks: [&[S]; 2] = [ranks, &zeros];
        let palettes: [&[L]; 2] = [palettes, &[L::write(0)]];
        let of_classes = room(&directory) + room(&row_bases) + room(&segments);
        let of_ports = room(&port_chunks) + room(&local_ports);
        let of_actions = room(&variants) + room(&variant_bases) + room(&ranks) + room(&palettes);
        let own = of_classes + of_ports + of_actions;
        let memory = &mut Memory::of(own + Addresses::<L, PACKED_TRIE_BITS>::room(spaces) + Sides::room(&endpoints));
        Self {
            addresses: Addresses::of(spaces, memory),
            sides: Sides::of(&endpoints, closed, open, true, memory),
            endpoints,
            directory: memory.place(&directory),
            row_bases: memory.place(&row_bases),
            segments: memory.place(&segments),
            port_chunks: memory.place(&port_chunks),
            local_ports: memory.place(&local_ports),
            variants: memory.place(&variants),
            variant_bases: memory.place(&variant_bases),
            ranks: memory.place(&ranks),
            palettes: memory.place(&palettes),
            whole: memory.whole(),
        }
    }

    /// See [`crate::Table::lookup`].
    #[inline(always)]
    pub(crate) fn lookup(&self, query: &Query) -> Verdict {
        let index = self.sides.index(query.port, query.direction);
        // SAFETY: the index is at most that of the last two sides.
        let side: &Side = unsafe { self.sides.all.get_unchecked(index) };
        // SAFETY: each side has a tail.
        let tail: &Tail = unsafe { self.sides.tails.get_unchecked(index) };
        let class = self.addresses.class_of(query.remote);
        let port_class = self.addresses.port_class_of(query.protocol, query.dport);
        let entry = side.directory as usize + class / PACKED_SEGMENT;
        // SAFETY: each side has a directory entry for every 16 classes, and classes are below their number.
        let segment = unsafe { read(&self.directory, entry) }.read();
        // SAFETY: each directory entry has a row base.
        let base = unsafe { read(&self.row_bases, entry) }.read();
        // SAFETY: every directory entry is a segment, and a segment has a row for each of its classes.
        let row = base + unsafe { read_from(&self.segments, class % PACKED_SEGMENT, segment * PACKED_SEGMENT) }.read();
        // SAFETY: each side has a chunk for every 8 port classes.
        let chunk = unsafe { read_from(&self.port_chunks, side.ports as usize, port_class / CHUNK) }.read();
        // SAFETY: every such entry is a chunk.
        let local_port = unsafe { read_from(&self.local_ports, port_class % CHUNK, chunk * CHUNK) }.read();
        let (group, in_group) = (local_port / CHUNK, local_port % CHUNK);
        let first_row = side.actions as usize + group;
        // SAFETY: each row that a side's segments name has `stride` variants, and the groups of its local ports are below that.
        let variant = unsafe { read_from(&self.variants, first_row, row * side.stride as usize) }.read();
        // SAFETY: each group of a side has a base.
        let first = unsafe { read(&self.variant_bases, tail.bases as usize + group) }.read();
        // SAFETY: each variant of a group is so many chunks behind its base.
        let rank = unsafe { read_from(&self.ranks, first * CHUNK + in_group, variant * CHUNK) }.read();
        // SAFETY: each rank of a side's variants is in its palette.
        let action = unsafe { read_from(&self.palettes, tail.palette as usize, rank) }.read();
        self.sides.verdict(first_row, action)
    }

    /// See [`crate::Table::lookup_batch`]. The processor itself works at many of them at a time.
    pub(crate) fn lookup_batch(&self, queries: &[Query], verdicts: &mut [Verdict]) {
        for (query, verdict) in queries.iter().zip(verdicts) {
            *verdict = self.lookup(query);
        }
    }

    /// The number of a port class in a profile.
    pub(crate) fn local_port(&self, half: &Half, port_class: usize) -> usize {
        let chunk = self.port_chunks[half.ports as usize..][port_class / CHUNK].read();
        self.local_ports[chunk * CHUNK + port_class % CHUNK].read()
    }

    /// What a row says about such a number, 0 where nothing.
    pub(crate) fn action_of(&self, half: &Half, row: usize, local_port: usize) -> usize {
        let (group, in_group) = (local_port / CHUNK, local_port % CHUNK);
        let variant = self.variants[half.actions as usize + row * half.stride as usize + group].read();
        let chunk = self.variant_bases[half.bases as usize + group] as usize + variant;
        self.palettes[half.palette as usize + self.ranks[chunk * CHUNK + in_group].read()].read()
    }

    /// The same about a port class.
    pub(crate) fn action(&self, half: &Half, row: usize, port_class: usize) -> usize {
        self.action_of(half, row, self.local_port(half, port_class))
    }
}
