//! Intervals and single addresses → the IPv6 sections.
//!
//! A node's pods mostly share all but the last byte. Such a /120 is a block, one entry for an address; what lies apart is
//! an entry of its own.

use crate::format::{BLOCK, V6Slot, v6_slot};
use bytemuck::Zeroable;

/// Single addresses of a /120 from which on a block takes less room than entries do.
const DENSE_MIN: usize = 16;

/// The IPv6 space before classes are written in some width.
#[derive(Debug)]
pub(super) struct V6 {
    pub(super) block_slots: Vec<V6Slot>,
    pub(super) blocks: Vec<u32>,
    pub(super) exact: Vec<V6Slot>,
    pub(super) starts: Vec<[u8; 16]>,
    pub(super) classes: Vec<u32>,
}

impl V6 {
    pub(super) fn of(intervals: &[(u128, u32)], exact: &[(u128, u32)]) -> Self {
        assert!(intervals.first().is_some_and(|first| first.0 == 0), "intervals start at ::");
        assert!(intervals.is_sorted_by(|a, b| a.0 < b.0), "intervals ascend");
        assert!(exact.is_sorted_by(|a, b| a.0 < b.0), "single addresses ascend");
        let (mut keys, mut blocks, mut apart) = (Vec::new(), Vec::new(), Vec::new());
        for group in exact.chunk_by(|a, b| a.0 >> 8 == b.0 >> 8) {
            if group.len() < DENSE_MIN {
                apart.extend_from_slice(group);
                continue;
            }
            let key = group[0].0 >> 8;
            keys.push((key, keys.len() as u32));
            let from = blocks.len();
            fill(intervals, key << 8, &mut blocks);
            group.iter().for_each(|&(address, class)| blocks[from + (address & 0xff) as usize] = class);
        }
        let (starts, classes) = intervals.iter().map(|&(start, class)| (start.to_be_bytes(), class)).unzip();
        Self { block_slots: hashed(&keys), blocks, exact: hashed(&apart), starts, classes }
    }
}

/// Adds the classes of a /120 as the intervals have them.
fn fill(intervals: &[(u128, u32)], first: u128, blocks: &mut Vec<u32>) {
    let last = first | 0xff;
    let mut at = intervals.partition_point(|interval| interval.0 <= first) - 1;
    let end = blocks.len() + BLOCK;
    while blocks.len() < end {
        let until = intervals.get(at + 1).map_or(last, |next| (next.0 - 1).min(last));
        blocks.resize(end - (last - until) as usize, intervals[at].1);
        at += 1;
    }
}

/// At most half full, so that a miss ends soon.
fn hashed(entries: &[(u128, u32)]) -> Vec<V6Slot> {
    let slots = (entries.len() * 2).next_power_of_two().max(2);
    let mut table = vec![V6Slot::zeroed(); slots];
    for &(key, value) in entries {
        let mut at = v6_slot(key, slots);
        while table[at].value_plus_one != 0 {
            at = (at + 1) & (slots - 1);
        }
        table[at] = V6Slot { key: [(key >> 64) as u64, key as u64], value_plus_one: value + 1, reserved: 0 };
    }
    table
}
