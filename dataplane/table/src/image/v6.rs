//! Intervals and single addresses → the IPv6 sections.
//!
//! A node's pods mostly share all but the last byte. Such a /120 is a block, one entry for an address; what lies apart is
//! an entry of its own.

use crate::format::{BLOCK, V6Slot, v6_slot};
use ahash::RandomState;
use bytemuck::Zeroable;
use std::collections::HashMap;

/// Single addresses of a /120 from which on a block takes less room than entries do.
const DENSE_MIN: usize = 16;

/// The IPv6 space: of each address its column.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct V6 {
    /// The upper 120 bits of each block's addresses, ascending, and the block's number.
    pub(super) block_keys: Vec<(u128, u32)>,
    pub(super) blocks: Vec<u32>,
    /// Single addresses outside of blocks, ascending.
    pub(super) apart: Vec<(u128, u32)>,
    /// First address of each interval, ascending.
    pub(super) intervals: Vec<(u128, u32)>,
    /// Single addresses of each /120, and its block, if it is one.
    groups: HashMap<u128, (usize, Option<u32>), RandomState>,
}

/// Another column of a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct V6Change {
    /// Which.
    pub address: u128,
    /// Its column now; `None` where it is no longer one by itself.
    pub column: Option<u32>,
    /// Whether it was one before.
    pub stood: bool,
}

impl V6 {
    pub(super) fn of(intervals: &[(u128, u32)], exact: impl Iterator<Item = (u128, u32)>) -> Self {
        assert!(intervals.first().is_some_and(|first| first.0 == 0), "intervals start at ::");
        assert!(intervals.is_sorted_by(|a, b| a.0 < b.0), "intervals ascend");
        let mut v6 = Self { intervals: intervals.to_vec(), ..Self::default() };
        let exact: Vec<(u128, u32)> = exact.collect();
        assert!(exact.is_sorted_by(|a, b| a.0 < b.0), "single addresses ascend");
        for group in exact.chunk_by(|a, b| a.0 >> 8 == b.0 >> 8) {
            let key = group[0].0 >> 8;
            let block = (group.len() >= DENSE_MIN).then_some(v6.block_keys.len() as u32);
            v6.groups.insert(key, (group.len(), block));
            let Some(block) = block else {
                v6.apart.extend_from_slice(group);
                continue;
            };
            v6.block_keys.push((key, block));
            let from = v6.blocks.len();
            fill(intervals, key << 8, &mut v6.blocks);
            group.iter().for_each(|&(address, column)| v6.blocks[from + (address & 0xff) as usize] = column);
        }
        v6
    }

    /// Follows changes of single addresses; says which entries of blocks are others, and whether some outside of blocks
    /// are. `None`: another /120 would be a block, or one no longer.
    pub(super) fn change(&mut self, changes: &[V6Change]) -> Option<(Vec<usize>, bool)> {
        let (mut patched, mut others) = (Vec::new(), false);
        for &V6Change { address, column, stood } in changes {
            let (count, block) = self.groups.entry(address >> 8).or_default();
            *count = *count + usize::from(column.is_some()) - usize::from(stood);
            match *block {
                Some(_) if *count < DENSE_MIN => return None,
                None if *count >= DENSE_MIN => return None,
                Some(block) => {
                    let outside = || self.intervals[self.intervals.partition_point(|interval| interval.0 <= address) - 1].1;
                    let at = block as usize * BLOCK + (address & 0xff) as usize;
                    self.blocks[at] = column.unwrap_or_else(outside);
                    patched.push(at);
                }
                None => {
                    others = true;
                    match (self.apart.binary_search_by_key(&address, |one| one.0), column) {
                        (Ok(at), Some(column)) => self.apart[at].1 = column,
                        (Ok(at), None) => drop(self.apart.remove(at)),
                        (Err(at), Some(column)) => self.apart.insert(at, (address, column)),
                        (Err(_), None) => {}
                    }
                }
            }
        }
        Some((patched, others))
    }
}

/// Adds the columns of a /120 as the intervals have them.
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
pub(super) fn hashed(entries: impl ExactSizeIterator<Item = (u128, u32)>) -> Vec<V6Slot> {
    let slots = (entries.len() * 2).next_power_of_two().max(2);
    let mut table = vec![V6Slot::zeroed(); slots];
    for (key, value) in entries {
        let mut at = v6_slot(key, slots);
        while table[at].value_plus_one != 0 {
            at = (at + 1) & (slots - 1);
        }
        table[at] = V6Slot { key: [(key >> 64) as u64, key as u64], value_plus_one: value + 1, reserved: 0 };
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn following_changes_is_as_good_as_being_told_all() {
        let intervals = [(0, 0), (1 << 70, 1), ((1 << 70) + 300, 2)];
        let (mut now, mut seed, mut followed) = (BTreeMap::new(), 1u64, 0);
        let all = |now: &BTreeMap<u128, u32>| V6::of(&intervals, now.iter().map(|(&address, &column)| (address, column)));
        let mut v6 = all(&now);
        for round in 0..4000u32 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let address = (1 << 70) + u128::from(seed >> 40 & 0x3f) + (u128::from(seed >> 60 & 3) << 8);
            let column = (seed >> 33 & 3 != 0).then_some(round);
            let stood = match column {
                Some(column) => now.insert(address, column).is_some(),
                None => now.remove(&address).is_some(),
            };
            if v6.change(&[V6Change { address, column, stood }]).is_none() {
                v6 = all(&now);
                continue;
            }
            followed += 1;
            let mut right = all(&now);
            // a group whose last address went may be remembered as empty
            v6.groups.retain(|_, (count, _)| *count > 0);
            right.groups.retain(|_, (count, _)| *count > 0);
            assert_eq!(v6, right, "round {round}");
        }
        assert!(followed > 3500, "{followed}");
    }
}
