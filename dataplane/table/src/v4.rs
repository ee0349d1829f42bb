//! The class of an IPv4 address: a window over the pods' own range, else a trie of 16, then `BITS` and `BITS` more bits.
//!
//! ```text
//!  entries   window: classes │ roots: nodes │ blocks of nodes
//! ```
//!
//! All stand in one array, so that the first load is the window's entry or the root, whichever counts, without a branch
//! about it. Blocks of 8 bits take two loads more at the deepest, blocks of 4 bits four, in a tenth of the room where few
//! blocks of addresses lie in one /16.

use crate::arrays::read;
use crate::format::ROOTS;
use crate::memory::{Array, Memory};
use crate::width::Large;
use std::hint::select_unpredictable;
use std::ops::Range;

/// See the module.
#[derive(Debug)]
pub(crate) struct V4<L, const BITS: u32> {
    pub(crate) entries: Array<L>,
    /// The window's first address.
    pub(crate) flat_first: u32,
    /// Addresses of the window; the roots begin at this index.
    pub(crate) flat_len: u32,
    pub(crate) blocks_at: u32,
    pub(crate) blocks: u32,
}

/// What a node of the trie says.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Node {
    Block(usize),
    Class(usize),
}

/// A node over `blocks` blocks.
pub(crate) fn node(node: impl Large, blocks: usize) -> Node {
    let node = node.read();
    if node < blocks { Node::Block(node) } else { Node::Class(node - blocks) }
}

impl<L: Large, const BITS: u32> V4<L, BITS> {
    /// Nodes of a block.
    pub(crate) const NODES: usize = 1 << BITS;
    /// Levels of blocks.
    pub(crate) const LEVELS: u32 = 16 / BITS;

    /// Of the sections as they were loaded. Their lengths add up to less than 2^31.
    pub(crate) fn of(flat_first: u32, flat: &[L], trie: &[L], memory: &mut Memory) -> Self {
        assert!(trie.len() >= ROOTS, "checked when it was loaded");
        Self {
            entries: memory.place(&[flat, trie]),
            flat_first,
            flat_len: flat.len() as u32,
            blocks_at: (flat.len() + ROOTS) as u32,
            blocks: ((trie.len() - ROOTS) / Self::NODES) as u32,
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

    /// Where a walk from a node gets by these bits of an address, whole levels of them.
    pub(crate) fn below(&self, mut node: Node, v4: u32, bits: Range<u32>) -> Node {
        for level in (bits.start / BITS..bits.end / BITS).rev() {
            let Node::Block(block) = node else { break };
            node = self.node(self.block(block)[(v4 >> (level * BITS)) as usize % Self::NODES]);
        }
        node
    }

    /// The nodes of a block.
    fn block(&self, block: usize) -> &[L] {
        &self.entries[self.blocks_at as usize + block * Self::NODES..][..Self::NODES]
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
        for level in (0..Self::LEVELS).rev() {
            if node >= blocks {
                break;
            }
            let at = self.blocks_at as usize + node * Self::NODES + (v4 >> (level * BITS)) as usize % Self::NODES;
            // SAFETY: in a block.
            node = unsafe { read(&self.entries, at) }.read();
        }
        // what stands below the last level is a class, as was checked
        node - blocks
    }
}
