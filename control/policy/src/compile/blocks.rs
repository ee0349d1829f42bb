//! One family's address space, cut at every bound of a block; each interval with the rules whose blocks cover it, and where
//! two such cuts differ.

use super::rulebook::{RuleBook, RuleHandle};
use super::rules::Peer;
use super::sides::RuleSetId;

/// Calls `interval` for each interval in order, the first at 0: its first address, the rules that cover it, ascending, and
/// those by which it differs from the interval before.
pub(super) fn sweep(book: &RuleBook, family_v6: bool, mut interval: impl FnMut(u128, &[RuleHandle], &[RuleHandle])) {
    let end = if family_v6 { u128::MAX } else { u128::from(u32::MAX) };
    // (where, whether a range begins there, of which rule)
    let mut bounds: Vec<(u128, bool, RuleHandle)> = Vec::new();
    for (handle, rule) in book.iter() {
        for peer in rule.peers.iter().flatten() {
            if let Peer::Block { v6, ranges } = peer
                && *v6 == family_v6
            {
                for &(first, last) in ranges {
                    bounds.push((first, true, handle));
                    bounds.extend((last < end).then(|| (last + 1, false, handle)));
                }
            }
        }
    }
    bounds.sort_unstable();
    // a rule may have blocks that overlap
    let mut covering = vec![0i32; book.entries.len()];
    let (mut rules, mut toggled): (Vec<RuleHandle>, Vec<RuleHandle>) = (Vec::new(), Vec::new());
    if bounds.first().is_none_or(|bound| bound.0 > 0) {
        interval(0, &rules, &toggled);
    }
    for bounds in bounds.chunk_by(|one, other| one.0 == other.0) {
        for &(_, begins, handle) in bounds {
            covering[handle as usize] += if begins { 1 } else { -1 };
        }
        toggled.clear();
        for &(_, _, handle) in bounds {
            match (rules.binary_search(&handle), covering[handle as usize] > 0) {
                (Err(at), true) => {
                    rules.insert(at, handle);
                    toggled.push(handle);
                }
                (Ok(at), false) => {
                    rules.remove(at);
                    toggled.push(handle);
                }
                _ => {}
            }
        }
        interval(bounds[0].0, &rules, &toggled);
    }
}

/// Where two cuts of one family differ, as numbers of rule sets by first address.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Recut {
    /// Where an interval begins in one of them only.
    pub(super) bounds: Vec<u128>,
    /// From first to last address: what lies in intervals of different sets.
    pub(super) ranges: Vec<(u128, u128)>,
}

impl Recut {
    /// Both begin at 0.
    pub(super) fn of(old: &[(u128, RuleSetId)], new: &[(u128, RuleSetId)]) -> Self {
        let mut recut = Self::default();
        let mut starts: Vec<u128> = old.iter().chain(new).map(|cut| cut.0).collect();
        starts.sort_unstable();
        starts.dedup();
        let (mut i, mut j) = (0, 0);
        for (index, &start) in starts.iter().enumerate() {
            i += usize::from(old.get(i + 1).is_some_and(|next| next.0 == start));
            j += usize::from(new.get(j + 1).is_some_and(|next| next.0 == start));
            if (old[i].0 == start) != (new[j].0 == start) {
                recut.bounds.push(start);
            }
            if old[i].1 != new[j].1 {
                recut.ranges.push((start, starts.get(index + 1).map_or(u128::MAX, |next| next - 1)));
            }
        }
        recut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_are_compared_by_what_lies_in_them() {
        let old = [(0, 0), (10, 1), (20, 0), (30, 2)];
        assert_eq!(Recut::of(&old, &old), Recut::default());
        let new = [(0, 0), (15, 1), (20, 1), (25, 0), (u128::MAX, 2)];
        let ranges = vec![(10, 14), (20, 24), (30, u128::MAX - 1)];
        assert_eq!(Recut::of(&old, &new), Recut { bounds: vec![10, 15, 25, 30, u128::MAX], ranges });
        assert_eq!(Recut::of(&[(0, 1)], &[(0, 2)]), Recut { bounds: vec![], ranges: vec![(0, u128::MAX)] });
    }
}
