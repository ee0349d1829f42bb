//! Intervals → the IPv4 sections.
//!
//! Pods' addresses lie side by side in the cluster's own range. There a flat window, one load for an address, costs hardly
//! more room than a trie's blocks do; the rest of the space is a trie. Where intervals begin decides which is
//! which, and never what they say, so that the layout stays while pods come and go beside others.

use crate::format::{BLOCK, ROOTS, TRIE_BITS};
use crate::width::Large;
use std::collections::BTreeMap;
use std::ops::Range;

/// The IPv4 space: of each address its column.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct V4 {
    /// Number of the window's first /24.
    pub(super) flat_first: u32,
    pub(super) flat: Vec<u32>,
    /// The intervals outside of the window.
    outside: Vec<(u32, u32)>,
    /// Of them: the roots, then blocks for so many bits.
    trie: Vec<u32>,
    trie_bits: u32,
    /// /24s inside of which intervals begin, and how many do.
    cut: BTreeMap<u32, u32>,
}

/// Another column from `first` to `last`, which is the end of an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct V4Change {
    /// Where it begins.
    pub first: u32,
    /// Where it ends.
    pub last: u32,
    /// Its column now.
    pub column: u32,
    /// Whether an interval began at `first` before.
    pub began: bool,
    /// Whether one begins there now.
    pub begins: bool,
}

/// The rest is a column, not a block.
const LEAF: u32 = 1 << 31;
/// A window is worth its name from so many /24s inside of which intervals begin.
const WINDOW_MIN: i64 = 4;

type Intervals = [(u32, u32)];

impl V4 {
    /// Each interval fills whole leaves where it covers them and opens a block where it does not.
    pub(super) fn of(intervals: &Intervals) -> Self {
        assert!(intervals.first().is_some_and(|first| first.0 == 0), "intervals start at 0.0.0.0");
        assert!(intervals.is_sorted_by(|a, b| a.0 < b.0), "intervals ascend");
        let mut v4 = Self::default();
        for starts in intervals.chunk_by(|a, b| a.0 >> 8 == b.0 >> 8) {
            let inside = starts.iter().filter(|start| start.0 & 0xff != 0).count() as u32;
            if inside > 0 {
                v4.cut.insert(starts[0].0 >> 8, inside);
            }
        }
        match window(v4.cut.keys().copied()) {
            None => v4.outside = intervals.to_vec(),
            Some((first, last)) => {
                v4.flat_first = first / BLOCK as u32;
                v4.flat = flat(intervals, first, last);
                v4.outside = without(intervals, first, last);
            }
        }
        v4.shape(TRIE_BITS);
        v4
    }

    /// Makes blocks of the trie for so many bits. Returns whether that is another form.
    pub(super) fn shape(&mut self, bits: u32) -> bool {
        let is_other = self.trie_bits != bits;
        if is_other {
            self.trie_bits = bits;
            self.trie = vec![0; ROOTS];
            let outside = std::mem::take(&mut self.outside);
            self.fill(&outside);
            self.outside = outside;
        }
        is_other
    }

    /// Follows changes inside the window, and says which of its entries are others. `None`: some are outside, or another
    /// window would be right.
    pub(super) fn change(&mut self, changes: &[V4Change]) -> Option<Vec<Range<usize>>> {
        let (from, len) = (self.flat_first * BLOCK as u32, self.flat.len());
        let inside = |change: &V4Change| {
            let at = change.first.wrapping_sub(from) as usize;
            // beyond the window it may go on as it did before
            at < len && (((change.last - from) as usize) < len || self.flat[len - 1] == change.column)
        };
        if !changes.iter().all(inside) {
            return None;
        }
        let mut counts: BTreeMap<u32, u32> = BTreeMap::new();
        for change in changes.iter().filter(|change| change.first & 0xff != 0 && change.began != change.begins) {
            let block = change.first >> 8;
            let count = counts.entry(block).or_insert_with(|| self.cut.get(&block).copied().unwrap_or(0));
            *count = if change.begins { *count + 1 } else { *count - 1 };
        }
        if counts.iter().any(|(block, &count)| self.cut.contains_key(block) != (count > 0)) {
            return None;
        }
        self.cut.extend(counts.into_iter().filter(|&(_, count)| count > 0));
        let patch = |change: &V4Change| {
            let range = (change.first - from) as usize..((change.last - from) as usize + 1).min(len);
            self.flat[range.clone()].fill(change.column);
            range
        };
        Some(changes.iter().map(patch).collect())
    }

    /// The highest number that has to be stored.
    pub(super) fn max(&self, classes: usize) -> usize {
        classes + self.blocks()
    }

    fn blocks(&self) -> usize {
        (self.trie.len() - ROOTS) >> self.trie_bits
    }

    /// Blocks by their numbers, classes behind them.
    pub(super) fn trie<L: Large>(&self, class: impl Fn(u32) -> L) -> impl ExactSizeIterator<Item = L> {
        let blocks = self.blocks();
        let node = move |&node: &u32| if node & LEAF == 0 { node as usize } else { class(node & !LEAF).read() + blocks };
        self.trie.iter().map(move |number| L::write(node(number)))
    }

    fn fill(&mut self, intervals: &Intervals) {
        for (index, &(start, class)) in intervals.iter().enumerate() {
            let end = intervals.get(index + 1).map_or(1u64 << 32, |next| u64::from(next.0));
            let mut at = u64::from(start);
            while at < end {
                at += self.fill_node(at, end - at, class);
            }
        }
    }

    /// Gives the largest node that begins at an address, and is no larger than `len`, a class; returns its size. Comes to
    /// all nodes in ascending order.
    fn fill_node(&mut self, at: u64, len: u64, class: u32) -> u64 {
        let (mut slot, mut bits) = ((at >> 16) as usize, 16);
        for level in (0..16 / self.trie_bits).rev().map(|level| level * self.trie_bits) {
            let begins = at & ((1 << bits) - 1) == 0;
            if begins && len >= 1 << bits {
                break;
            }
            if begins {
                self.trie[slot] = self.blocks() as u32;
                self.trie.resize(self.trie.len() + (1 << self.trie_bits), 0);
            }
            slot = ROOTS + ((self.trie[slot] as usize) << self.trie_bits) + ((at >> level) as usize & ((1 << self.trie_bits) - 1));
            bits = level;
        }
        self.trie[slot] = LEAF | class;
        1 << bits
    }
}

/// First and last address of the /24s that go flat: where cut ones are at least as many as others, the run in which they
/// outnumber them most.
fn window(cut: impl Iterator<Item = u32>) -> Option<(u32, u32)> {
    let (mut best, mut best_run) = (0, None);
    let (mut score, mut first) = (0, 0);
    let mut before: Option<u32> = None;
    for block in cut {
        let gap = before.map_or(0, |before| i64::from(block - before - 1));
        before = Some(block);
        if score - gap <= 0 {
            (score, first) = (0, block);
        } else {
            score -= gap;
        }
        score += 1;
        if score > best {
            (best, best_run) = (score, Some((first, block)));
        }
    }
    best_run.filter(|_| best >= WINDOW_MIN).map(|(first, last)| (first << 8, last << 8 | 0xff))
}

/// The column of each address between the two.
fn flat(intervals: &Intervals, first: u32, last: u32) -> Vec<u32> {
    let mut classes = Vec::with_capacity((last - first) as usize + 1);
    let from = intervals.partition_point(|interval| interval.0 <= first) - 1;
    for (index, &(_, class)) in intervals.iter().enumerate().skip(from) {
        let end = intervals.get(index + 1).map_or(last, |next| (next.0 - 1).min(last));
        classes.resize((end - first) as usize + 1, class);
        if end == last {
            break;
        }
    }
    classes
}

/// The intervals for the trie, which nobody asks about the window: what stands before it goes on through it.
fn without(intervals: &Intervals, first: u32, last: u32) -> Vec<(u32, u32)> {
    let mut rest: Vec<(u32, u32)> = intervals.iter().copied().filter(|interval| interval.0 < first).collect();
    if let Some(behind) = last.checked_add(1) {
        let at = intervals.partition_point(|interval| interval.0 <= behind) - 1;
        rest.push((if first == 0 { 0 } else { behind }, intervals[at].1));
        rest.extend_from_slice(&intervals[at + 1..]);
    }
    if rest.is_empty() {
        rest.push((0, intervals[0].1));
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_where_pods_are() {
        let at = |block: u32, low: u32| (10 << 24 | block << 8 | low, low);
        let node = |block: u32| [at(block, 1), at(block, 2)];
        let intervals =
            |blocks: &[u32]| -> Vec<(u32, u32)> { [(0, 0)].into_iter().chain(blocks.iter().flat_map(|&block| node(block))).collect() };
        for (blocks, expected) in [
            (vec![1, 2, 3], None),
            (vec![1, 2, 3, 4], Some((1, 4))),
            (vec![1, 100, 101, 102, 104, 105, 3000], Some((100, 105))),
            (vec![1, 2, 3, 4, 50, 51, 52, 53, 54], Some((50, 54))),
            (vec![1, 2, 3, 4, 6, 7], Some((1, 7))),
        ] {
            let expected = expected.map(|(first, last): (u32, u32)| (10 << 24 | first << 8, 10 << 24 | last << 8 | 0xff));
            let cut = V4::of(&intervals(&blocks)).cut;
            assert_eq!(window(cut.keys().copied()), expected, "{blocks:?}");
        }
    }

    #[test]
    fn a_window_at_either_end_of_the_space_leaves_a_whole_trie() {
        let low: Vec<(u32, u32)> = (0..2000).map(|start| (start, start % 7)).collect();
        let v4 = V4::of(&low);
        assert_eq!((v4.flat_first, v4.flat.len()), (0, 2048));
        let high: Vec<(u32, u32)> = [(0, 3)].into_iter().chain((0..2000).map(|start| (u32::MAX - 1999 + start, start % 7))).collect();
        let v4 = V4::of(&high);
        assert_eq!((v4.flat_first, v4.flat.len()), ((u32::MAX >> 8) - 7, 2048));
        assert!(v4.trie.len() == ROOTS && v4.trie.iter().all(|&node| node == LEAF | 3));
    }

    #[test]
    fn following_changes_is_as_good_as_being_told_all() {
        // pods in six /24s, and cuts outside of them
        let mut now: BTreeMap<u32, u32> = [(0, 0), (9 << 24, 1), (10 << 24 | 0x0603, 2), (11 << 24 | 77, 3)].into_iter().collect();
        now.extend((0..6).map(|block| (10 << 24 | block << 8 | 128, 4)));
        let all = |now: &BTreeMap<u32, u32>| V4::of(&now.iter().map(|(&start, &column)| (start, column)).collect::<Vec<_>>());
        let (mut v4, mut seed, mut followed) = (all(&now), 1u64, 0);
        for round in 0..3000u32 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let first = 10 << 24 | ((seed >> 40) as u32 % 0x700);
            let before = now.get(&first).copied();
            if seed >> 33 & 1 == 0 {
                now.insert(first, round)
            } else {
                now.remove(&first)
            };
            let column = *now.range(..=first).next_back().unwrap().1;
            let last = now.range(first + 1..).next().map_or(u32::MAX, |next| next.0 - 1);
            let change = V4Change { first, last, column, began: before.is_some(), begins: now.contains_key(&first) };
            if v4.change(&[change]).is_some() {
                followed += 1;
            } else {
                v4 = all(&now);
            }
            assert_eq!(v4, all(&now), "round {round}");
        }
        assert!(followed > 2000, "{followed}");
    }
}
