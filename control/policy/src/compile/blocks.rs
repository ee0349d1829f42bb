//! One family's address space, cut at every bound of a block; each interval with the rules whose blocks cover it.

use super::rulebook::{RuleBook, RuleHandle};
use super::rules::Peer;

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
