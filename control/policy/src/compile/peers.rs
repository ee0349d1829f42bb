//! Addresses → columns.
//!
//! The bounds of all blocks cut each family's address space into intervals; every pod address is an atom of its own. What
//! an atom matches is the union of the rules that match its interval by block and the rules that match its pods by
//! selector.

use super::columns::Columns;
use super::model::{Memory, Model};
use super::rules::Peer;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Every address with the column it gets.
#[derive(Debug, Default)]
pub(super) struct Atoms {
    /// First address of each interval, the first at 0; neighbours may share a column.
    pub(super) v4_intervals: Vec<(u32, u32)>,
    pub(super) v6_intervals: Vec<(u128, u32)>,
    /// Pods' addresses, ascending.
    pub(super) v6_exact: Vec<(u128, u32)>,
}

pub(super) fn atoms(model: &Model<'_>, memory: &Memory, columns: &mut Columns) -> Atoms {
    let memory = (&memory.namespaces, &memory.pods);
    let mut atoms = Atoms::default();
    let v4 = Sweep::of(model, false);
    let mut pods = model.addresses.iter().filter_map(|(address, pods)| match address {
        IpAddr::V4(v4) => Some((u32::from(*v4), pods)),
        IpAddr::V6(_) => None,
    });
    let mut pod = pods.next();
    for (index, &(start, ref rules)) in v4.intervals.iter().enumerate() {
        let last = v4.intervals.get(index + 1).map_or(u32::MAX, |next| (next.0 - 1) as u32);
        let outside = columns.of_block(model, rules);
        let mut next = Some(start as u32);
        while let Some((address, claims)) = pod.filter(|(address, _)| *address <= last) {
            if let Some(from) = next.filter(|&from| from < address) {
                atoms.v4_intervals.push((from, outside));
            }
            atoms.v4_intervals.push((address, columns.of_pods(model, memory, rules, claims)));
            next = (address < last).then(|| address + 1);
            pod = pods.next();
        }
        atoms.v4_intervals.extend(next.map(|from| (from, outside)));
    }

    let v6 = Sweep::of(model, true);
    for (start, rules) in &v6.intervals {
        atoms.v6_intervals.push((*start, columns.of_block(model, rules)));
    }
    for (address, claims) in &model.addresses {
        if let IpAddr::V6(address) = address {
            let address = u128::from(*address);
            let interval = v6.intervals.partition_point(|(start, _)| *start <= address) - 1;
            atoms.v6_exact.push((address, columns.of_pods(model, memory, &v6.intervals[interval].1, claims)));
        }
    }
    atoms
}

/// One family's address space, cut at every bound of a block; each interval with the rules whose blocks cover it.
struct Sweep {
    intervals: Vec<(u128, Vec<u32>)>,
}

impl Sweep {
    fn of(model: &Model<'_>, family_v6: bool) -> Self {
        let mut ranges: Vec<(u128, u128, u32)> = Vec::new();
        for (id, rule) in (0u32..).zip(&model.rules) {
            for peer in rule.peers.iter().flatten() {
                if let Peer::Block { v6, ranges: block } = peer
                    && *v6 == family_v6
                {
                    ranges.extend(block.iter().map(|&(first, last)| (first, last, id)));
                }
            }
        }
        let end = if family_v6 { u128::MAX } else { u128::from(u32::MAX) };
        let mut bounds: BTreeSet<u128> = BTreeSet::from([0]);
        for &(first, last, _) in &ranges {
            bounds.insert(first);
            bounds.extend((last < end).then(|| last + 1));
        }
        let mut intervals: Vec<(u128, Vec<u32>)> = bounds.into_iter().map(|start| (start, Vec::new())).collect();
        for (first, last, id) in ranges {
            let from = intervals.partition_point(|(start, _)| *start < first);
            for (_, rules) in intervals[from..].iter_mut().take_while(|(start, _)| *start <= last) {
                rules.push(id);
            }
        }
        for (_, rules) in &mut intervals {
            rules.sort_unstable();
            rules.dedup();
        }
        Self { intervals }
    }
}
