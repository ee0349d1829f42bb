//! The third factor: which class the table gives to each unit, every address asked.
//!
//! Pods' addresses and the pieces of regions cut the address space on the oracle's side, the table's own pieces on the
//! other. Both lists ascend, so one walk meets every combination; what stays is each (unit, class) with one address of it.

use super::expected::UnitId;
use std::collections::HashSet;
use std::net::IpAddr;

/// A unit, a class that the table gives some address of it, and that address.
#[derive(Debug, Clone, Copy)]
pub(super) struct UnitClass {
    pub(super) unit: UnitId,
    pub(super) class: usize,
    pub(super) address: IpAddr,
}

/// Collects combinations, each once.
#[derive(Debug)]
pub(super) struct Found {
    /// By unit: the class found first, counted from 1.
    first: Vec<u32>,
    more: HashSet<(UnitId, usize)>,
    pub(super) pairs: Vec<UnitClass>,
    /// Combinations of pieces that were looked at.
    pub(super) pieces: u64,
}

impl Found {
    pub(super) fn new(units: usize) -> Self {
        Self { first: vec![0; units], more: HashSet::new(), pairs: Vec::new(), pieces: 0 }
    }

    /// How many units some address has, among the pairs that are left.
    pub(super) fn in_use(&self) -> usize {
        let mut seen = vec![false; self.first.len()];
        self.pairs.iter().filter(|pair| !std::mem::replace(&mut seen[pair.unit as usize], true)).count()
    }

    #[inline]
    pub(super) fn add(&mut self, unit: UnitId, class: usize, address: impl FnOnce() -> IpAddr) {
        self.pieces += 1;
        let first = &mut self.first[unit as usize];
        if *first == class as u32 + 1 {
            return;
        }
        if *first == 0 {
            *first = class as u32 + 1;
        } else if !self.more.insert((unit, class)) {
            return;
        }
        self.pairs.push(UnitClass { unit, class, address: address() });
    }
}

/// Pieces of regions and single addresses as one ascending list of (first address, unit).
pub(super) fn spans<'s>(
    pieces: &'s [(u128, UnitId)],
    singles: &'s [(u128, UnitId)],
    end: u128,
) -> impl Iterator<Item = (u128, UnitId)> + 's {
    let mut pieces = pieces.iter().copied().peekable();
    let mut singles = singles.iter().copied().peekable();
    // the piece's unit, and where it goes on, if nothing else begins there
    let (mut outside, mut rest) = (0, None);
    std::iter::from_fn(move || {
        loop {
            let (piece, single) = (pieces.peek().map(|piece| piece.0), singles.peek().map(|single| single.0));
            if let Some(from) = rest.take().filter(|from| piece != Some(*from) && single != Some(*from)) {
                return Some((from, outside));
            }
            match (piece, single) {
                (Some(first), single) if single.is_none_or(|single| first <= single) => {
                    (_, outside) = pieces.next()?;
                    rest = Some(first);
                }
                _ => {
                    let (address, unit) = singles.next()?;
                    rest = (address < end).then(|| address + 1);
                    return Some((address, unit));
                }
            }
        }
    })
}

/// One walk over both lists. Feed it the table's pieces in ascending order, then [`Walk::finish`].
pub(super) struct Walk<'f, S: Iterator<Item = (u128, UnitId)>> {
    spans: std::iter::Peekable<S>,
    unit: UnitId,
    class: usize,
    found: &'f mut Found,
    address: fn(u128) -> IpAddr,
}

impl<'f, S: Iterator<Item = (u128, UnitId)>> Walk<'f, S> {
    pub(super) fn new(spans: S, found: &'f mut Found, address: fn(u128) -> IpAddr) -> Self {
        let mut spans = spans.peekable();
        let unit = spans.next().expect("regions begin at the lowest address").1;
        Self { spans, unit, class: usize::MAX, found, address }
    }

    /// The table's next piece begins here.
    #[inline]
    pub(super) fn piece(&mut self, first: u128, class: usize) {
        self.advance(first);
        if let Some((_, unit)) = self.spans.next_if(|(start, _)| *start == first) {
            self.unit = unit;
        }
        self.class = class;
        self.found.add(self.unit, class, || (self.address)(first));
    }

    /// No piece follows.
    pub(super) fn finish(mut self) {
        self.advance(u128::MAX);
        if let Some((start, unit)) = self.spans.next() {
            self.found.add(unit, self.class, || (self.address)(start));
        }
    }

    /// Spans that begin inside the present piece.
    #[inline]
    fn advance(&mut self, before: u128) {
        while let Some((start, unit)) = self.spans.next_if(|(start, _)| *start < before) {
            self.unit = unit;
            self.found.add(unit, self.class, || (self.address)(start));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_begin_where_a_piece_a_single_or_what_follows_it_begins() {
        type List<'l> = &'l [(u128, UnitId)];
        let cases: [(List<'_>, List<'_>, List<'_>); 6] = [
            (&[(0, 1)], &[], &[(0, 1)]),
            (&[(0, 1)], &[(0, 7)], &[(0, 7), (1, 1)]),
            (&[(0, 1)], &[(3, 7), (4, 8), (9, 7)], &[(0, 1), (3, 7), (4, 8), (5, 1), (9, 7)]),
            (&[(0, 1), (4, 2)], &[(3, 7)], &[(0, 1), (3, 7), (4, 2)]),
            (&[(0, 1), (4, 2), (5, 1)], &[(4, 7), (6, 8)], &[(0, 1), (4, 7), (5, 1), (6, 8), (7, 1)]),
            (&[(0, 1), (8, 2)], &[(1, 7), (8, 7), (9, 8)], &[(0, 1), (1, 7), (2, 1), (8, 7), (9, 8)]),
        ];
        for (pieces, singles, expected) in cases {
            assert_eq!(spans(pieces, singles, 9).collect::<Vec<_>>(), expected, "{pieces:?} {singles:?}");
        }
    }
}
