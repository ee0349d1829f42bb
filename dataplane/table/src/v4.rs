//! The class of an IPv4 address: a window over the pods' own range, else a trie of 16, then four times 4 bits.
//!
//! ```text
//!  entries   window: classes │ roots: nodes │ blocks of 16 nodes
//! ```
//!
//! All stand in one array, so that the first load is the window's entry or the root, whichever counts, without a branch
//! about it. Blocks are small because few blocks of addresses lie in one /16: the deepest walk takes four loads more, and
//! the whole trie fits a near cache.

use crate::arrays::read;
use crate::format::{LEVELS, NODES, ROOTS};
use crate::memory::{Array, Memory};
use crate::width::Large;
use std::hint::select_unpredictable;

/// See the module.
#[derive(Debug)]
pub(crate) struct V4<L> {
    pub(crate) entries: Array<L>,
    /// The window's first address.
    pub(crate) flat_first: u32,
    /// Addresses of the window; the roots begin at this index.
    pub(crate) flat_len: u32,
    pub(crate) blocks_at: u32,
    pub(crate) blocks: u32,
}

/// What a node of the trie says.
pub(crate) enum Node {
    Block(usize),
    Class(usize),
}

/// A node over `blocks` blocks.
pub(crate) fn node(node: impl Large, blocks: usize) -> Node {
    let node = node.read();
    if node < blocks { Node::Block(node) } else { Node::Class(node - blocks) }
}

impl<L: Large> V4<L> {
    /// Of the sections as they were loaded. Their lengths add up to less than 2^31.
    pub(crate) fn of(flat_first: u32, flat: &[L], trie: &[L], memory: &mut Memory) -> Self {
        assert!(trie.len() >= ROOTS, "checked when it was loaded");
        Self {
            entries: memory.place(&[flat, trie]),
            flat_first,
            flat_len: flat.len() as u32,
            blocks_at: (flat.len() + ROOTS) as u32,
            blocks: ((trie.len() - ROOTS) / NODES) as u32,
        }
    }

    /// The class of each address of the window.
    pub(crate) fn flat(&self) -> &[L] {
        &self.entries[..self.flat_len as usize]
    }

    /// The nodes of the first level.
    pub(crate) fn roots(&self) -> &[L] {
        &self.entries[self.flat_len as usize..][..ROOTS]
    }

    /// What a node says.
    pub(crate) fn node(&self, number: L) -> Node {
        node(number, self.blocks as usize)
    }

    /// The nodes of a block.
    pub(crate) fn block(&self, block: usize) -> &[L] {
        &self.entries[self.blocks_at as usize + block * NODES..][..NODES]
    }

    /// Where an address is looked for first, and whether that is in the window.
    #[inline(always)]
    pub(crate) fn first(&self, v4: u32) -> (usize, bool) {
        let at = v4.wrapping_sub(self.flat_first);
        let root = self.flat_len + (v4 >> 16);
        let in_flat = at < self.flat_len;
        (select_unpredictable(in_flat, at, root) as usize, in_flat)
    }

    /// The class of an address. Most are known after the first load, so that the others are worth a branch.
    #[inline(always)]
    pub(crate) fn class(&self, v4: u32) -> usize {
        let (at, in_flat) = self.first(v4);
        // the window has no blocks
        let blocks = select_unpredictable(in_flat, 0, self.blocks as usize);
        // SAFETY: below the window's length, or one of the 65536 roots.
        let mut node = unsafe { read(&self.entries, at) }.read();
        for level in LEVELS {
            if node >= blocks {
                break;
            }
            let at = self.blocks_at as usize + node * NODES + (v4 >> level) as usize % NODES;
            // SAFETY: in a block.
            node = unsafe { read(&self.entries, at) }.read();
        }
        // what stands below the last level is a class, as was checked
        node - blocks
    }
}
