//! Addresses → columns.
//!
//! The bounds of all blocks cut each family's address space into intervals; every pod address is an atom of its own. What
//! an atom matches is the union of the rules that match its interval by block and the rules that match its pods by
//! selector. What stands at one address follows from that address and the one before it, so a change stays local.

use super::blocks::Recut;
use super::columns::{Columns, Renewed};
use super::model::Model;
use super::pods::Changed;
use super::sides::RuleSetId;
use super::sorted::Sorted;
use sluice_table::{V4Change, V6Change};
use std::collections::BTreeSet;
use std::mem;
use std::net::IpAddr;

/// One address in so many may be renewed by itself; more are quicker filled all together.
const FILLED_PART: usize = 8;

/// Every address with the column it gets.
#[derive(Debug, Default)]
pub(super) struct Atoms {
    /// First address of each interval, the first at 0; neighbours may share a column.
    pub(super) v4_intervals: Sorted<u32>,
    pub(super) v6_intervals: Vec<(u128, u32)>,
    /// Pods' addresses, ascending.
    pub(super) v6_exact: Sorted<u128>,
    /// Of each column, how many addresses and intervals have it.
    pub(super) uses: Vec<u32>,
}

/// What stands elsewhere than before; `None` where that may be everything.
#[derive(Debug, Default)]
pub(super) struct Moved {
    pub(super) v4: Option<Vec<V4Change>>,
    pub(super) v6_intervals: bool,
    pub(super) v6: Option<Vec<V6Change>>,
}

impl Atoms {
    /// Brings every address up to date.
    pub(super) fn update(&mut self, model: &mut Model, columns: &mut Columns) -> Moved {
        let Renewed { all, families, groups } = columns.update(model);
        let changed = mem::replace(&mut model.pods.changed, Changed::Addresses(BTreeSet::new()));
        let (all, changed) = match changed {
            Changed::All => (true, BTreeSet::new()),
            Changed::Addresses(changed) => (all, changed),
        };
        let [v4, v6] = families;
        let mut moved = Moved { v6_intervals: all || v6 != Recut::default(), ..Moved::default() };
        match (!all).then(|| self.stale_v4(&v4, &changed, model, &groups)).flatten() {
            Some(stale) => moved.v4 = Some(self.renew_all_v4(&stale, model, columns)),
            None => self.fill_v4(model, columns),
        }
        if moved.v6_intervals {
            self.v6_intervals.clear();
            for (start, block) in columns.intervals(true).to_vec() {
                self.v6_intervals.push((start, columns.outside(block)));
            }
        }
        match (!all).then(|| stale_v6(&v6, &changed, model, &groups)).flatten() {
            Some(stale) => moved.v6 = Some(stale.into_iter().filter_map(|address| self.renew_v6(address, model, columns)).collect()),
            None => self.fill_v6(model, columns),
        }
        if moved.v4.is_none() || moved.v6.is_none() || moved.v6_intervals {
            self.count();
        }
        columns.settle();
        moved
    }

    /// Counts the uses of each column.
    fn count(&mut self) {
        self.uses.clear();
        let columns = self.v4_intervals.iter().map(|entry| entry.1).chain(self.v6_exact.iter().map(|entry| entry.1));
        for column in columns.chain(self.v6_intervals.iter().map(|entry| entry.1)) {
            *used(&mut self.uses, column) += 1;
        }
    }

    fn recount(&mut self, before: Option<u32>, now: Option<u32>) {
        before.into_iter().for_each(|column| *used(&mut self.uses, column) -= 1);
        now.into_iter().for_each(|column| *used(&mut self.uses, column) += 1);
    }

    /// IPv4 addresses at which something else may stand; `None` if they are so many that all are better filled anew.
    fn stale_v4(&self, recut: &Recut, changed: &BTreeSet<IpAddr>, model: &Model, groups: &[bool]) -> Option<BTreeSet<u32>> {
        let mut stale = addresses_of(&model.pods.v4, groups);
        for address in changed.iter().filter_map(|ip| if let IpAddr::V4(v4) = *ip { Some(u32::from(v4)) } else { None }) {
            stale.push(address);
            stale.extend(address.checked_add(1));
        }
        stale.extend(recut.bounds.iter().map(|&bound| bound as u32));
        for &(first, last) in &recut.ranges {
            let inside = self.v4_intervals.between(first as u32, last.min(u128::from(u32::MAX)) as u32);
            stale.extend(inside.map(|entry| entry.0));
            stale.push(first as u32);
        }
        (stale.len() <= self.v4_intervals.len() / FILLED_PART + 2 * changed.len()).then(|| stale.into_iter().collect())
    }

    fn renew_all_v4(&mut self, stale: &BTreeSet<u32>, model: &Model, columns: &mut Columns) -> Vec<V4Change> {
        let before: Vec<Option<u32>> = stale.iter().map(|&address| self.renew_v4(address, model, columns)).collect();
        let mut changes = Vec::new();
        for (&first, before) in stale.iter().zip(before) {
            let (start, column) = self.v4_intervals.floor(first).expect("intervals start at 0");
            let (began, begins) = (before.is_some(), start == first);
            if (began || begins) && !(begins && before == Some(column)) {
                let last = self.v4_intervals.after(first).map_or(u32::MAX, |next| next.0 - 1);
                changes.push(V4Change { first, last, column, began, begins });
            }
        }
        changes
    }

    fn fill_v4(&mut self, model: &Model, columns: &mut Columns) {
        let mut entries: Vec<(u32, u32)> = Vec::with_capacity(2 * model.pods.v4.len());
        let mut pods = model.pods.v4.iter().copied().peekable();
        let cuts = columns.intervals(false).to_vec();
        for (index, &(start, block)) in cuts.iter().enumerate() {
            let last = cuts.get(index + 1).map_or(u32::MAX, |next| (next.0 - 1) as u32);
            let outside = columns.outside(block);
            let mut next = Some(start as u32);
            while let Some((address, group)) = pods.next_if(|pod| pod.0 <= last) {
                if let Some(from) = next.filter(|&from| from < address) {
                    entries.push((from, outside));
                }
                entries.push((address, columns.of(model, group, block)));
                next = (address < last).then(|| address + 1);
            }
            entries.extend(next.map(|from| (from, outside)));
        }
        self.v4_intervals = Sorted::from_ascending(&entries);
    }

    /// What stands at one IPv4 address: a pod, or where no pod is, the interval that begins there. Returns what did.
    fn renew_v4(&mut self, address: u32, model: &Model, columns: &mut Columns) -> Option<u32> {
        let (start, block) = interval(columns, false, u128::from(address));
        let begins = start == u128::from(address) || address.checked_sub(1).is_some_and(|before| model.pods.v4.get(before).is_some());
        let column = match model.pods.v4.get(address) {
            Some(group) => Some(columns.of(model, group, block)),
            None => begins.then(|| columns.outside(block)),
        };
        let before = self.v4_intervals.set(address, column);
        self.recount(before, column);
        before
    }

    fn renew_v6(&mut self, address: u128, model: &Model, columns: &mut Columns) -> Option<V6Change> {
        let (_, block) = interval(columns, true, address);
        let column = model.pods.v6.get(address).map(|group| columns.of(model, group, block));
        let before = self.v6_exact.set(address, column);
        self.recount(before, column);
        (before != column).then_some(V6Change { address, column, stood: before.is_some() })
    }

    fn fill_v6(&mut self, model: &Model, columns: &mut Columns) {
        let cuts = columns.intervals(true).to_vec();
        let mut index = 0;
        let mut entries: Vec<(u128, u32)> = Vec::with_capacity(model.pods.v6.len());
        for &(address, group) in &model.pods.v6 {
            while cuts.get(index + 1).is_some_and(|next| next.0 <= address) {
                index += 1;
            }
            entries.push((address, columns.of(model, group, cuts[index].1)));
        }
        self.v6_exact = Sorted::from_ascending(&entries);
    }
}

fn used(uses: &mut Vec<u32>, column: u32) -> &mut u32 {
    let at = column as usize;
    if at >= uses.len() {
        uses.resize(at + 1, 0);
    }
    &mut uses[at]
}

/// As [`Atoms::stale_v4`]; intervals stand by themselves.
fn stale_v6(recut: &Recut, changed: &BTreeSet<IpAddr>, model: &Model, groups: &[bool]) -> Option<BTreeSet<u128>> {
    let mut stale = addresses_of(&model.pods.v6, groups);
    stale.extend(changed.iter().filter_map(|ip| if let IpAddr::V6(v6) = *ip { Some(u128::from(v6)) } else { None }));
    for &(first, last) in &recut.ranges {
        stale.extend(model.pods.v6.between(first, last).map(|entry| entry.0));
    }
    (stale.len() <= model.pods.v6.len() / FILLED_PART + changed.len()).then(|| stale.into_iter().collect())
}

/// The addresses that some of these groups claim. Cost: all addresses, unless there are no such groups.
fn addresses_of<K: Ord + Copy>(claimed: &Sorted<K>, groups: &[bool]) -> Vec<K> {
    match groups {
        [] => Vec::new(),
        _ => claimed.iter().filter(|(_, group)| groups[*group as usize]).map(|(address, _)| *address).collect(),
    }
}

/// The interval that an address lies in: where it begins, and the rules whose blocks cover it.
fn interval(columns: &Columns, family_v6: bool, address: u128) -> (u128, RuleSetId) {
    let cuts = columns.intervals(family_v6);
    cuts[cuts.partition_point(|cut| cut.0 <= address) - 1]
}
