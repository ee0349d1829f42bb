//! The class of an IPv4 address: a window over the pods' own range, else a 16-8-8 trie.
//!
//! ```text
//!  entries   window: classes │ level 1: nodes │ level 2: nodes │ level 3: classes
//! ```
//!
//! All four stand in one array, so that the first load is the window's entry or level 1's, whichever counts, without a
//! branch about it.

use crate::arrays::read;
use crate::format::BLOCK;
use crate::width::Large;
use std::hint::select_unpredictable;

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

    /// Where an address is looked for first, and whether that is in the window.
    #[inline(always)]
    pub(crate) fn first(&self, v4: u32) -> (usize, bool) {
        let at = v4.wrapping_sub(self.flat_first);
        let l1 = self.flat_len + (v4 >> 16);
        let in_flat = at < self.flat_len;
        (select_unpredictable(in_flat, at, l1) as usize, in_flat)
    }

    /// The class of an address. Nearly all are known after the first load, so that the other two are worth a branch.
    #[inline(always)]
    pub(crate) fn class(&self, v4: u32) -> usize {
        let (at, in_flat) = self.first(v4);
        // the window has no blocks
        let l2_blocks = select_unpredictable(in_flat, 0, self.l2_blocks as usize);
        // SAFETY: below the window's length, or one of level 1's 65536 nodes.
        let node = unsafe { read(&self.entries, at) }.read();
        if node >= l2_blocks {
            return node - l2_blocks;
        }
        // SAFETY: in a block of level 2.
        let node = unsafe { read(&self.entries, self.l2_at as usize + node * BLOCK + (v4 >> 8 & 0xff) as usize) }.read();
        let l3_blocks = self.l3_blocks as usize;
        if node >= l3_blocks {
            return node - l3_blocks;
        }
        // SAFETY: in a block of level 3.
        unsafe { read(&self.entries, self.l3_at as usize + node * BLOCK + (v4 & 0xff) as usize) }.read()
    }
}
