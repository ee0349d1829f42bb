//! What lookups read of addresses and ports: the class of each.

use crate::arrays::read;
use crate::format::{BLOCK, V6Slot, v6_slot};
use crate::memory::{Array, Memory, room};
use crate::sections::Spaces;
use crate::v4::V4;
use crate::width::Large;
use sluice_flow::{Addr, Protocol};

/// See the module. What [`super::load`] checked is what the `SAFETY` comments of the lookup rest on.
#[derive(Debug)]
pub(crate) struct Addresses<L, const BITS: u32> {
    pub(crate) v4: V4<L, BITS>,
    pub(crate) v6_block_slots: Array<V6Slot>,
    pub(crate) v6_blocks: Array<L>,
    pub(crate) v6_exact: Array<V6Slot>,
    pub(crate) v6_starts: Array<u128>,
    pub(crate) v6_classes: Array<L>,
    /// Of every port of TCP, then of UDP, of SCTP, and of all other protocols together.
    pub(crate) port_class: Array<u16>,
}

impl<L: Large, const BITS: u32> Addresses<L, BITS> {
    /// Bytes that [`Self::of`] places.
    pub(crate) fn room(spaces: &Spaces<'_, L>) -> usize {
        let v4 = room(&[&spaces.v4_flat, &spaces.v4_trie]);
        let v6 = room(&[&spaces.v6_block_slots]) + room(&[&spaces.v6_blocks]) + room(&[&spaces.v6_exact]);
        v4 + v6 + room(&[&spaces.v6_starts]) + room(&[&spaces.v6_classes]) + room(&[&spaces.port_class])
    }

    /// The sections in the form that lookups read, all checked.
    pub(crate) fn of(spaces: &Spaces<'_, L>, memory: &mut Memory) -> Self {
        Self {
            v4: V4::of(spaces.flat_first, &spaces.v4_flat, &spaces.v4_trie, memory),
            v6_block_slots: memory.place(&[&spaces.v6_block_slots]),
            v6_blocks: memory.place(&[&spaces.v6_blocks]),
            v6_exact: memory.place(&[&spaces.v6_exact]),
            v6_starts: memory.place(&[&spaces.v6_starts]),
            v6_classes: memory.place(&[&spaces.v6_classes]),
            port_class: memory.place(&[&spaces.port_class]),
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
        // SAFETY: an index of ports is one of these.
        usize::from(unsafe { read(&self.port_class, port_index(protocol, dport)) })
    }
}

/// Ports of TCP, UDP and SCTP, and one for all other protocols.
pub(crate) const PORTS: usize = 3 * 65536 + 1;

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
