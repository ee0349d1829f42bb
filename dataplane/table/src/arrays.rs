//! The sections of a table in memory, in one width of each kind, and the lookup over them.

use crate::batch::Query;
use crate::format::{BLOCK, EndpointEntry, Half, PAGE, SEGMENT, V6Slot, v6_slot};
use crate::sections::Sections;
use crate::sides::Sides;
use crate::v4::V4;
use crate::width::{Large, Small};
use sluice_flow::{Addr, Direction, PortIndex, Protocol, Verdict};
use std::hint::select_unpredictable;
use std::mem::transmute;

/// See the module. What [`super::load`] checked is what the `SAFETY` comments of the lookup rest on.
#[derive(Debug)]
pub(crate) struct Arrays<L, S> {
    pub(crate) v4: V4<L>,
    pub(crate) v6_block_slots: Box<[V6Slot]>,
    pub(crate) v6_blocks: Box<[L]>,
    pub(crate) v6_exact: Box<[V6Slot]>,
    pub(crate) v6_starts: Box<[u128]>,
    pub(crate) v6_classes: Box<[L]>,
    /// Of every port of TCP, then of UDP, of SCTP, and of all other protocols together. Not in pages as in the image: they
    /// would save memory that is hardly read, and cost every lookup a load.
    pub(crate) port_class: Box<[u16]>,
    pub(crate) endpoints: Box<[EndpointEntry]>,
    pub(crate) sides: Sides,
    pub(crate) directory: Box<[L]>,
    pub(crate) segments: Box<[S]>,
    pub(crate) local_ports: Box<[S]>,
    pub(crate) actions: Box<[L]>,
}

/// What a node of the trie says.
pub(crate) enum Node {
    Block(usize),
    Class(usize),
}

impl<L: Large, S: Small> Arrays<L, S> {
    /// The sections in the form that lookups read, all checked.
    pub(crate) fn of(sections: Sections<L, S>, classes: usize, port_classes: usize) -> Self {
        let Sections { directory, segments, local_ports, actions, endpoints, .. } = sections;
        let (mut directory, mut segments) = (Vec::from(directory), Vec::from(segments));
        let (mut local_ports, mut actions) = (Vec::from(local_ports), Vec::from(actions));
        // one profile for all that need none: its only row has two actions, and no step away from the first
        let closed = Half { directory: directory.len() as u32, ports: local_ports.len() as u32, actions: actions.len() as u32, stride: 0 };
        let open = Half { actions: closed.actions + 1, ..closed };
        directory.resize(directory.len() + classes.div_ceil(SEGMENT), L::write(0));
        local_ports.resize(local_ports.len() + port_classes, S::write(0));
        actions.extend([L::write(0); 2]);
        if segments.is_empty() {
            segments.resize(SEGMENT, S::write(0));
        }
        let page = |&page: &u16| &sections.port_class[usize::from(page) * PAGE..][..PAGE];
        let mut port_class: Vec<u16> = sections.port_pages.iter().flat_map(page).copied().collect();
        port_class.truncate(PORTS);
        Self {
            v4: V4::of(sections.flat_first, [&sections.v4_flat, &sections.v4_l1, &sections.v4_l2, &sections.v4_l3]),
            v6_block_slots: sections.v6_block_slots,
            v6_blocks: sections.v6_blocks,
            v6_exact: sections.v6_exact,
            v6_starts: sections.v6_starts,
            v6_classes: sections.v6_classes,
            port_class: port_class.into(),
            sides: Sides::of(&endpoints, closed, open),
            endpoints,
            directory: directory.into(),
            segments: segments.into(),
            local_ports: local_ports.into(),
            actions: actions.into(),
        }
    }

    /// A node over `blocks` blocks.
    pub(crate) fn node(node: L, blocks: usize) -> Node {
        let node = node.read();
        if node < blocks { Node::Block(node) } else { Node::Class(node - blocks) }
    }

    /// See [`crate::Table::lookup`].
    #[inline(always)]
    pub(crate) fn lookup(&self, query: &Query) -> Verdict {
        let side = self.side(query.port, query.direction);
        let (class, port_class) = (self.class_of(query.remote), self.port_class_of(query.protocol, query.dport));
        // Each load waits for the one before it, so that every step between them counts: what is known earlier is added
        // to the place where an array begins, not to the index that comes late.
        // SAFETY: each side has a directory entry for every 32 classes, and classes are below their number.
        let segment = unsafe { read_from(&self.directory, side.directory as usize, class / SEGMENT) }.read();
        // SAFETY: every directory entry is a segment, and a segment has a row for each of its classes.
        let row = unsafe { read_from(&self.segments, class % SEGMENT, segment * SEGMENT) }.read();
        // SAFETY: each side has a local port for every port class.
        let local_port = unsafe { read(&self.local_ports, side.ports as usize + port_class) }.read();
        let first_row = side.actions as usize + local_port;
        // SAFETY: each row that a side's segments name has `stride` actions, and its local ports are below that.
        let action = unsafe { read_from(&self.actions, first_row, row * side.stride as usize) }.read();
        // the place for who is not isolated is in the first row, which is the only one there: known before the row is
        self.verdict(first_row, action)
    }

    #[inline(always)]
    pub(crate) fn side(&self, port: PortIndex, direction: Direction) -> &Half {
        // SAFETY: the index is at most that of the last two sides.
        &unsafe { self.sides.all.get_unchecked(self.sides.index(port, direction)) }.0
    }

    /// What the action at a place says. Without a branch: no two packets need have the same verdict.
    #[inline(always)]
    pub(crate) fn verdict(&self, at: usize, action: usize) -> Verdict {
        let nothing = select_unpredictable(at == self.sides.open_at as usize, 0, 2);
        let which: u32 = select_unpredictable(action == 0, nothing, 1);
        // SAFETY: `Verdict` promises this form: its variants are 0, 1 and 2, and after 1 comes the rule.
        unsafe { transmute::<[u32; 2], Verdict>([which, (action as u32).wrapping_sub(1)]) }
    }

    /// The class of a remote address.
    #[inline(always)]
    pub(crate) fn class_of(&self, address: Addr) -> usize {
        match address.to_v4() {
            Some(v4) => self.v4.class(v4),
            None => self.v6_class(address.to_u128()),
        }
    }

    #[inline(always)]
    pub(crate) fn v6_class(&self, v6: u128) -> usize {
        if let Some(block) = find(&self.v6_block_slots, v6 >> 8) {
            // SAFETY: each value of a block slot is a block.
            return unsafe { read(&self.v6_blocks, block * BLOCK + (v6 & 0xff) as usize) }.read();
        }
        find(&self.v6_exact, v6).unwrap_or_else(|| self.v6_interval_class(v6))
    }

    #[inline(always)]
    pub(crate) fn v6_interval_class(&self, v6: u128) -> usize {
        // the first start is 0, so at least one is not above
        let interval = self.v6_starts.partition_point(|&start| start <= v6) - 1;
        // SAFETY: there is a class for each start.
        unsafe { read(&self.v6_classes, interval) }.read()
    }

    #[inline(always)]
    pub(crate) fn port_class_of(&self, protocol: Protocol, dport: u16) -> usize {
        // SAFETY: an index of ports is one of these.
        usize::from(unsafe { read(&self.port_class, port_index(protocol, dport)) })
    }
}

/// Where an action stands.
#[inline(always)]
pub(crate) fn action_at(side: &Half, row: usize, local_port: usize) -> usize {
    side.actions as usize + row * side.stride as usize + local_port
}

/// Ports of TCP, UDP and SCTP, and one for all other protocols.
const PORTS: usize = 3 * 65536 + 1;

/// Of each protocol, where its first port stands, and the bits of a port that count.
static FIRST_PORT: [(u32, u32); 256] = {
    let mut first = [(3 << 16, 0); 256];
    first[Protocol::TCP.0 as usize] = (0, 0xffff);
    first[Protocol::UDP.0 as usize] = (1 << 16, 0xffff);
    first[Protocol::SCTP.0 as usize] = (2 << 16, 0xffff);
    first
};

/// Where a port stands.
#[inline(always)]
pub(crate) fn port_index(protocol: Protocol, dport: u16) -> usize {
    let (first, bits) = FIRST_PORT[usize::from(protocol.0)];
    (first + (u32::from(dport) & bits)) as usize
}

/// The value of a key.
#[inline(always)]
pub(crate) fn find(slots: &[V6Slot], key: u128) -> Option<usize> {
    let mut at = v6_slot(key, slots.len());
    loop {
        // SAFETY: slots are a power of two, and `at` is masked by it.
        let slot = unsafe { slots.get_unchecked(at) };
        if slot.value_plus_one == 0 {
            return None;
        }
        if slot.is(key) {
            return Some(slot.value_plus_one as usize - 1);
        }
        at = (at + 1) & (slots.len() - 1);
    }
}

/// # Safety
/// `at` is below the length.
#[inline(always)]
pub(crate) unsafe fn read<T: Copy>(entries: &[T], at: usize) -> T {
    debug_assert!(at < entries.len(), "{at} of {}", entries.len());
    // SAFETY: the caller's promise.
    *unsafe { entries.get_unchecked(at) }
}

/// The entry that stands `at` behind the one at `first`.
///
/// # Safety
/// Their sum is below the length.
#[inline(always)]
unsafe fn read_from<T: Copy>(entries: &[T], first: usize, at: usize) -> T {
    debug_assert!(first + at < entries.len(), "{first} + {at} of {}", entries.len());
    // SAFETY: the caller's promise.
    let rest = unsafe { entries.get_unchecked(first..) };
    // SAFETY: the caller's promise.
    *unsafe { rest.get_unchecked(at) }
}
