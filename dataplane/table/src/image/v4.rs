//! Intervals → the IPv4 sections.
//!
//! Pods' addresses lie side by side in the cluster's own range. There a flat window, one load for an address, costs hardly
//! more room than a trie's blocks do; the rest of the space is a 16-8-8 trie.

use crate::format::BLOCK;
use crate::width::Large;

/// The IPv4 space before it is written in some width.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct V4 {
    /// Number of the window's first /24.
    pub(super) flat_first: u32,
    pub(super) flat: Vec<u32>,
    l1: Vec<u32>,
    l2: Vec<u32>,
    l3: Vec<u32>,
}

/// The rest is a class, not a block.
const LEAF: u32 = 1 << 31;
/// A window is worth its name from so many /24s with more than one class.
const WINDOW_MIN: i64 = 4;

type Intervals = [(u32, u32)];

impl V4 {
    /// Each interval fills whole leaves where it covers them and opens a block where it does not.
    pub(super) fn of(intervals: &Intervals) -> Self {
        assert!(intervals.first().is_some_and(|first| first.0 == 0), "intervals start at 0.0.0.0");
        assert!(intervals.is_sorted_by(|a, b| a.0 < b.0), "intervals ascend");
        let mut v4 = Self { l1: vec![0; 65536], ..Self::default() };
        match window(intervals) {
            None => v4.fill(intervals),
            Some((first, last)) => {
                v4.flat_first = first / BLOCK as u32;
                v4.flat = flat(intervals, first, last);
                v4.fill(&without(intervals, first, last));
            }
        }
        v4
    }

    /// The highest number that has to be stored.
    pub(super) fn max(&self, classes: usize) -> usize {
        classes + self.l2.len().max(self.l3.len()) / BLOCK
    }

    /// Flat, levels 1 to 3.
    pub(super) fn written<L: Large>(&self) -> [Vec<L>; 4] {
        let plain = |classes: &[u32]| classes.iter().map(|&class| L::write(class as usize)).collect();
        let nodes = |nodes: &[u32], next: &[u32]| {
            let blocks = next.len() / BLOCK;
            let node = |&node: &u32| if node & LEAF != 0 { L::write((node & !LEAF) as usize + blocks) } else { L::write(node as usize) };
            nodes.iter().map(node).collect()
        };
        [plain(&self.flat), nodes(&self.l1, &self.l2), nodes(&self.l2, &self.l3), plain(&self.l3)]
    }

    fn fill(&mut self, intervals: &Intervals) {
        for (index, &(start, class)) in intervals.iter().enumerate() {
            let end = intervals.get(index + 1).map_or(1u64 << 32, |next| u64::from(next.0));
            let mut at = u64::from(start);
            while at < end {
                let l1_at = (at >> 16) as usize;
                if at & 0xffff == 0 && end - at >= 1 << 16 {
                    self.l1[l1_at] = LEAF | class;
                    at += 1 << 16;
                    continue;
                }
                if at & 0xffff == 0 {
                    self.l1[l1_at] = (self.l2.len() / BLOCK) as u32;
                    self.l2.resize(self.l2.len() + BLOCK, 0);
                }
                let l2_at = self.l1[l1_at] as usize * BLOCK + (at >> 8 & 0xff) as usize;
                if at & 0xff == 0 && end - at >= BLOCK as u64 {
                    self.l2[l2_at] = LEAF | class;
                    at += BLOCK as u64;
                    continue;
                }
                if at & 0xff == 0 {
                    self.l2[l2_at] = (self.l3.len() / BLOCK) as u32;
                    self.l3.resize(self.l3.len() + BLOCK, 0);
                }
                let block = self.l2[l2_at] as usize * BLOCK;
                let stop = end.min((at | 0xff) + 1);
                self.l3[block + (at & 0xff) as usize..block + (stop - (at & !0xff)) as usize].fill(class);
                at = stop;
            }
        }
    }
}

/// First and last address of the /24s that go flat: where those with more than one class are at least as many as those with
/// one, the run in which they outnumber them most.
fn window(intervals: &Intervals) -> Option<(u32, u32)> {
    let mut mixed: Vec<u32> =
        intervals.iter().map(|interval| interval.0).filter(|start| start & 0xff != 0).map(|start| start >> 8).collect();
    mixed.dedup();
    let (mut best, mut best_run) = (0, None);
    let (mut score, mut first) = (0, 0);
    let mut before: Option<u32> = None;
    for &block in &mixed {
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

/// The class of each address between the two.
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
    let mut push = |start: u32, class: u32| {
        if rest.last().is_none_or(|&(_, before)| before != class) {
            rest.push((start, class));
        }
    };
    if let Some(behind) = last.checked_add(1) {
        let at = intervals.partition_point(|interval| interval.0 <= behind) - 1;
        push(if first == 0 { 0 } else { behind }, intervals[at].1);
        intervals[at + 1..].iter().for_each(|&(start, class)| push(start, class));
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
            assert_eq!(window(&intervals(&blocks)), expected, "{blocks:?}");
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
        assert!(v4.l2.is_empty() && v4.l1.iter().all(|&node| node == LEAF | 3));
    }
}
