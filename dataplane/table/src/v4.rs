//! The class of an IPv4 address: a window over the pods' own range, else a 16-8-8 trie.
//!
//! ```text
//!  entries   window: classes │ level 1: nodes │ level 2: nodes │ level 3: classes
//! ```
//!
//! All four stand in one array, so that the first load is the window's entry or level 1's, whichever counts, without a
//! branch about it.

use crate::arrays::{read, select};
use crate::format::BLOCK;
use crate::width::Large;

/// See the module.
#[derive(Debug)]
pub(crate) struct V4<L> {
    pub(crate) entries: Box<[L]>,
    /// The window's first address.
    pub(crate) flat_first: u32,
    /// Addresses of the window; level 1 begins at this index.
    pub(crate) flat_len: u32,
    pub(crate) l2_at: u32,
    pub(crate) l2_blocks: u32,
    pub(crate) l3_at: u32,
    pub(crate) l3_blocks: u32,
}

/// Nodes of level 1.
const L1: usize = 1 << 16;

impl<L: Large> V4<L> {
    /// Of the sections as they were loaded. Their lengths add up to less than 2^31.
    pub(crate) fn of(flat_first: u32, [flat, l1, l2, l3]: [&[L]; 4]) -> Self {
        assert_eq!(l1.len(), L1, "checked when it was loaded");
        Self {
            entries: [flat, l1, l2, l3].concat().into(),
            flat_first,
            flat_len: flat.len() as u32,
            l2_at: (flat.len() + L1) as u32,
            l2_blocks: (l2.len() / BLOCK) as u32,
            l3_at: (flat.len() + L1 + l2.len()) as u32,
            l3_blocks: (l3.len() / BLOCK) as u32,
        }
    }

    /// The class of each address of the window.
    pub(crate) fn flat(&self) -> &[L] {
        &self.entries[..self.flat_len as usize]
    }

    /// The nodes of level 1, over the blocks of level 2.
    pub(crate) fn l1(&self) -> &[L] {
        &self.entries[self.flat_len as usize..][..L1]
    }

    /// A block of level 2: nodes over the blocks of level 3.
    pub(crate) fn l2(&self, block: usize) -> &[L] {
        &self.entries[self.l2_at as usize + block * BLOCK..][..BLOCK]
    }

    /// A block of level 3: classes.
    pub(crate) fn l3(&self, block: usize) -> &[L] {
        &self.entries[self.l3_at as usize + block * BLOCK..][..BLOCK]
    }

    /// Where an address is looked for first.
    #[inline(always)]
    pub(crate) fn first(&self, v4: u32) -> usize {
        let at = v4.wrapping_sub(self.flat_first);
        let l1 = self.flat_len as usize + (v4 >> 16) as usize;
        select(at < self.flat_len, at as usize, l1)
    }

    /// The class of an address. Most end at the first load; which do not changes too little from packet to packet for the
    /// other two levels to be read in any case.
    #[inline(always)]
    pub(crate) fn class(&self, v4: u32) -> usize {
        let (l2_blocks, l3_blocks) = (self.l2_blocks as usize, self.l3_blocks as usize);
        let in_flat = v4.wrapping_sub(self.flat_first) < self.flat_len;
        // SAFETY: below the window's length, or one of level 1's 65536 nodes.
        let first = unsafe { read(&self.entries, self.first(v4)) }.read();
        // a class of the window as level 1 would say it
        let node = first + select(in_flat, l2_blocks, 0);
        if node >= l2_blocks {
            return node - l2_blocks;
        }
        // SAFETY: in a block of level 2.
        let node = unsafe { read(&self.entries, self.l2_at as usize + node * BLOCK + (v4 >> 8 & 0xff) as usize) }.read();
        if node >= l3_blocks {
            return node - l3_blocks;
        }
        // SAFETY: in a block of level 3.
        unsafe { read(&self.entries, self.l3_at as usize + node * BLOCK + (v4 & 0xff) as usize) }.read()
    }
}
