//! The sections of a table in memory, in one width of each kind, and the lookup over them.

use crate::batch::Query;
use crate::format::{BLOCK, EndpointEntry, Half, PAGE, PORT_PAGES, SEGMENT, V6Slot, v6_slot};
use crate::sections::Sections;
use crate::sides::Sides;
use crate::v4::V4;
use crate::width::{Large, Small};
use sluice_flow::{Addr, Direction, PortIndex, Protocol, RuleId, Verdict};

/// See the module. What [`super::load`] checked is what the `SAFETY` comments of the lookup rest on.
#[derive(Debug)]
pub(crate) struct Arrays<L, S> {
    pub(crate) v4: V4<L>,
    pub(crate) v6_block_slots: Box<[V6Slot]>,
    pub(crate) v6_blocks: Box<[L]>,
    pub(crate) v6_exact: Box<[V6Slot]>,
    pub(crate) v6_starts: Box<[u128]>,
    pub(crate) v6_classes: Box<[L]>,
    pub(crate) port_pages: Box<[u16]>,
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
        let mut port_pages = Vec::from(sections.port_pages);
        port_pages.resize(PROTOCOLS * PAGES_OF_PROTOCOL, port_pages[PORT_PAGES - 1]);
        Self {
            v4: V4::of(sections.flat_first, [&sections.v4_flat, &sections.v4_l1, &sections.v4_l2, &sections.v4_l3]),
            v6_block_slots: sections.v6_block_slots,
            v6_blocks: sections.v6_blocks,
            v6_exact: sections.v6_exact,
            v6_starts: sections.v6_starts,
            v6_classes: sections.v6_classes,
            port_pages: port_pages.into(),
            port_class: sections.port_class,
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
        let row = self.row(side, class);
        let local_port = self.local_port(side, port_class);
        self.verdict(action_at(side, row, local_port))
    }

    #[inline(always)]
    pub(crate) fn side(&self, port: PortIndex, direction: Direction) -> &Half {
        // SAFETY: the index is at most that of the last two sides.
        &unsafe { self.sides.all.get_unchecked(self.sides.index(port, direction)) }.0
    }

    #[inline(always)]
    fn row(&self, side: &Half, class: usize) -> usize {
        // SAFETY: each side has a directory entry for every 32 classes, and classes are below their number.
        let segment = unsafe { read(&self.directory, side.directory as usize + class / SEGMENT) }.read();
        // SAFETY: every directory entry is a segment, and a segment has a row for each of its classes.
        unsafe { read(&self.segments, segment * SEGMENT + class % SEGMENT) }.read()
    }

    #[inline(always)]
    fn local_port(&self, side: &Half, port_class: usize) -> usize {
        // SAFETY: each side has a local port for every port class.
        unsafe { read(&self.local_ports, side.ports as usize + port_class) }.read()
    }

    /// What is said at a place of the actions that [`action_at`] gave.
    #[inline(always)]
    pub(crate) fn verdict(&self, at: usize) -> Verdict {
        // SAFETY: each row that a side's segments name has `stride` actions, and its local ports are below that.
        let action = unsafe { read(&self.actions, at) }.read();
        match action {
            _ if at == self.sides.open_at as usize => Verdict::NotIsolated,
            0 => Verdict::Deny,
            action => Verdict::Allow(RuleId(action as u32 - 1)),
        }
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
        // SAFETY: there are 256 entries for each of four protocols.
        let page = unsafe { read(&self.port_pages, page_index(protocol, dport)) };
        // SAFETY: each entry is a page, and a page has 256 classes.
        usize::from(unsafe { read(&self.port_class, usize::from(page) * PAGE + usize::from(dport) % PAGE) })
    }
}

/// One of two, without a branch.
#[inline(always)]
pub(crate) fn select(condition: bool, yes: usize, no: usize) -> usize {
    let mask = usize::from(condition).wrapping_neg();
    yes & mask | no & !mask
}

/// Where an action stands.
#[inline(always)]
pub(crate) fn action_at(side: &Half, row: usize, local_port: usize) -> usize {
    side.actions as usize + row * side.stride as usize + local_port
}

/// Protocols that have pages: TCP, UDP, SCTP, and all others together.
const PROTOCOLS: usize = 4;
const PAGES_OF_PROTOCOL: usize = 65536 / PAGE;

/// The first page of each protocol.
static FIRST_PAGE: [u16; 256] = {
    let mut first = [3 * PAGES_OF_PROTOCOL as u16; 256];
    first[Protocol::TCP.0 as usize] = 0;
    first[Protocol::UDP.0 as usize] = PAGES_OF_PROTOCOL as u16;
    first[Protocol::SCTP.0 as usize] = 2 * PAGES_OF_PROTOCOL as u16;
    first
};

/// Which entry of the pages a port has.
#[inline(always)]
pub(crate) fn page_index(protocol: Protocol, dport: u16) -> usize {
    usize::from(FIRST_PAGE[usize::from(protocol.0)]) + usize::from(dport) / PAGE
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
