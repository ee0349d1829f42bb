//! The sections of a table in memory, in one width of each kind, and the lookup over them.

use crate::batch::Query;
use crate::format::{BLOCK, EndpointEntry, Half, PAGE, PORT_PAGES, SEGMENT, V6Slot, v6_slot};
use crate::width::{Large, Small};
use sluice_flow::{Addr, Direction, PortIndex, Protocol, RuleId, Verdict};

/// See the module. What [`super::validate`] promises is what the `SAFETY` comments of the lookup rest on.
#[derive(Debug)]
pub(crate) struct Arrays<L, S> {
    pub(crate) flat_first: u32,
    /// Addresses of the window. Its array, and those of levels 2 and 3, have an entry even where there is nothing to say,
    /// so that a lookup may read the first one and not use it.
    pub(crate) flat_len: u32,
    pub(crate) l2_blocks: u32,
    pub(crate) l3_blocks: u32,
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
    /// Some isolated direction, if there is one: whose steps a batch takes for those that need none.
    pub(crate) anybody: Option<Half>,
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
    /// A node over `blocks` blocks.
    pub(crate) fn node(node: L, blocks: usize) -> Node {
        let node = node.read();
        if node < blocks { Node::Block(node) } else { Node::Class(node - blocks) }
    }

    /// A direction of an endpoint, `None` where no endpoint stands.
    #[inline(always)]
    pub(crate) fn half(&self, port: PortIndex, direction: Direction) -> Option<&Half> {
        let entry = self.endpoints.get(usize::from(port.0)).filter(|entry| entry.present != 0)?;
        Some(&entry.halves[direction as usize])
    }

    /// See [`crate::Table::lookup`].
    #[inline(always)]
    pub(crate) fn lookup(&self, query: &Query) -> Verdict {
        match self.half(query.port, query.direction) {
            None => Verdict::Deny,
            Some(half) if !half.is_isolated() => Verdict::NotIsolated,
            Some(half) => verdict_of(self.action(half, query.remote, query.protocol, query.dport)),
        }
    }

    /// The action for an isolated half: 0 denies, n + 1 is rule n.
    #[inline(always)]
    pub(crate) fn action(&self, half: &Half, remote: Addr, protocol: Protocol, dport: u16) -> usize {
        let class = self.class_of(remote);
        let port_class = self.port_class_of(protocol, dport);
        // SAFETY: validation: each half has a directory entry for every 32 classes, and classes are below their number.
        let segment = unsafe { read(&self.directory, half.directory as usize + class / SEGMENT) }.read();
        // SAFETY: validation: every directory entry is a segment, and a segment has a row for each of its classes.
        let row = unsafe { read(&self.segments, segment * SEGMENT + class % SEGMENT) }.read();
        // SAFETY: validation: each half has a local port for every port class.
        let local_port = unsafe { read(&self.local_ports, half.ports as usize + port_class) }.read();
        // SAFETY: validation: each row that a half's segments name has `stride` actions, and its local ports are below that.
        unsafe { read(&self.actions, half.actions as usize + row * half.stride as usize + local_port) }.read()
    }

    /// The class of a remote address.
    #[inline(always)]
    pub(crate) fn class_of(&self, address: Addr) -> usize {
        match address.to_v4() {
            Some(v4) => self.v4_class(v4),
            None => self.v6_class(address.to_u128()),
        }
    }

    /// Reads the window and all levels of the trie, each at its first entry where it is not asked, and takes what counts:
    /// which it is changes from packet to packet, and a branch guessed wrong costs more than all these loads.
    #[inline(always)]
    pub(crate) fn v4_class(&self, v4: u32) -> usize {
        let at = v4.wrapping_sub(self.flat_first);
        let in_flat = at < self.flat_len;
        // SAFETY: below the window's length, or the first entry.
        let flat = unsafe { read(&self.v4_flat, select(in_flat, at as usize, 0)) }.read();
        // SAFETY: validation: level 1 has 65536 nodes.
        let node = unsafe { read(&self.v4_l1, (v4 >> 16) as usize) }.read();
        let (l2_blocks, l3_blocks) = (self.l2_blocks as usize, self.l3_blocks as usize);
        let in_l2 = node < l2_blocks;
        // SAFETY: in a block of level 2, or the first entry.
        let second = unsafe { read(&self.v4_l2, select(in_l2, node * BLOCK + (v4 >> 8 & 0xff) as usize, 0)) }.read();
        let in_l3 = second < l3_blocks;
        // SAFETY: in a block of level 3, or the first entry.
        let third = unsafe { read(&self.v4_l3, select(in_l3, second * BLOCK + (v4 & 0xff) as usize, 0)) }.read();
        let of_l2 = select(in_l3, third, second.wrapping_sub(l3_blocks));
        let trie = select(in_l2, of_l2, node.wrapping_sub(l2_blocks));
        select(in_flat, flat, trie)
    }

    #[inline(always)]
    pub(crate) fn v6_class(&self, v6: u128) -> usize {
        if let Some(block) = find(&self.v6_block_slots, v6 >> 8) {
            // SAFETY: validation: each value of a block slot is a block.
            return unsafe { read(&self.v6_blocks, block * BLOCK + (v6 & 0xff) as usize) }.read();
        }
        find(&self.v6_exact, v6).unwrap_or_else(|| self.v6_interval_class(v6))
    }

    #[inline(always)]
    pub(crate) fn v6_interval_class(&self, v6: u128) -> usize {
        // the first start is 0, so at least one is not above
        let interval = self.v6_starts.partition_point(|&start| start <= v6) - 1;
        // SAFETY: validation: there is a class for each start.
        unsafe { read(&self.v6_classes, interval) }.read()
    }

    #[inline(always)]
    pub(crate) fn port_class_of(&self, protocol: Protocol, dport: u16) -> usize {
        // SAFETY: validation: there are 769 pages, and a port's index is below that by construction.
        let page = unsafe { read(&self.port_pages, port_index(protocol, dport) / PAGE) };
        // SAFETY: validation: each entry is a page, and a page has 256 classes.
        usize::from(unsafe { read(&self.port_class, usize::from(page) * PAGE + usize::from(dport) % PAGE) })
    }
}

/// One of two, without a branch.
#[inline(always)]
pub(crate) fn select(condition: bool, yes: usize, no: usize) -> usize {
    let mask = usize::from(condition).wrapping_neg();
    yes & mask | no & !mask
}

/// What an action says.
#[inline(always)]
pub(crate) fn verdict_of(action: usize) -> Verdict {
    match action {
        0 => Verdict::Deny,
        action => Verdict::Allow(RuleId(action as u32 - 1)),
    }
}

/// Where a port stands among TCP's, UDP's, SCTP's, and what has none.
#[inline(always)]
pub(crate) fn port_index(protocol: Protocol, dport: u16) -> usize {
    match protocol {
        Protocol::TCP => usize::from(dport),
        Protocol::UDP => 65536 + usize::from(dport),
        Protocol::SCTP => 2 * 65536 + usize::from(dport),
        _ => (PORT_PAGES - 1) * PAGE,
    }
}

/// The value of a key.
#[inline(always)]
pub(crate) fn find(slots: &[V6Slot], key: u128) -> Option<usize> {
    let mut at = v6_slot(key, slots.len());
    loop {
        // SAFETY: validation: slots are a power of two, and `at` is masked by it.
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
