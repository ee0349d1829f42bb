//! The third factor: which class the table gives to each unit, every address asked.
//!
//! Pods' addresses and the pieces of regions cut the address space on the oracle's side, the table's own pieces on the
//! other. Both lists ascend, so one walk meets every combination; what stays is each (unit, class) with one address of it.
//! This is the walk over IPv6's intervals; IPv4 and pods' addresses are walked in [`super::blocks`].

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
