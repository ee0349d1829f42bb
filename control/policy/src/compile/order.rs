//! Things that stand in order, some of which come, go or move.

use super::number::NO_CLASS;
use std::cmp::Ordering;
use std::ops::Range;

/// Takes things out until the others stand in order: at most twice as many as need be. Returns those that stand, and those
/// taken out.
pub(super) fn settle(things: impl Iterator<Item = u32>, cmp: impl Fn(u32, u32) -> Ordering) -> (Vec<u32>, Vec<u32>) {
    let (mut standing, mut moving): (Vec<u32>, Vec<u32>) = Default::default();
    for thing in things {
        match standing.pop_if(|last| cmp(*last, thing).is_gt()) {
            // nobody can tell which of both is in the wrong place
            Some(last) => moving.extend([last, thing]),
            None => standing.push(thing),
        }
    }
    (standing, moving)
}

/// Both in one order, where few come to many.
pub(super) fn merge(many: &[u32], few: &[u32], cmp: impl Fn(u32, u32) -> Ordering) -> Vec<u32> {
    let mut merged = Vec::with_capacity(many.len() + few.len());
    let mut rest = many;
    for &thing in few {
        let is_before = |other: &u32| cmp(*other, thing).is_lt();
        let mut bound = 1;
        while rest.get(bound - 1).is_some_and(is_before) {
            bound *= 2;
        }
        let count = rest[..rest.len().min(bound)].partition_point(is_before);
        merged.extend_from_slice(&rest[..count]);
        merged.push(thing);
        rest = &rest[count..];
    }
    merged.extend_from_slice(rest);
    merged
}

/// What became of a list's parts, each of which is numbers of classes.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// Classes that stand elsewhere than before, as runs; ascending.
    shifted: Vec<Run>,
    /// Classes that were none.
    new: Vec<usize>,
    /// Below it nothing is another, nor from the other on.
    from: usize,
    until: usize,
    /// How many classes there were, and are.
    before: usize,
    now: usize,
    /// Whether those that were there changed places.
    is_mixed: bool,
}

/// Classes that stand together and did before.
#[derive(Debug)]
struct Run {
    before: usize,
    now: usize,
    len: usize,
}

/// With one run in so many classes, rows are better made than shifted.
const SHIFTED_PART: usize = 16;

impl Difference {
    pub(super) fn none(count: usize) -> Self {
        Self { from: count, until: count, before: count, now: count, ..Self::default() }
    }

    /// `were`: what each class was among `before`, or [`NO_CLASS`].
    pub(super) fn of(were: &[u32], before: usize) -> Self {
        let from = were.iter().zip(0..).take_while(|&(&was, class)| was == class).count();
        let as_it_was = were.iter().enumerate().skip(from).rev().take_while(|&(class, &was)| was as usize == class).count();
        let until = if were.len() == before { before - as_it_was } else { were.len() };
        let mut difference = Self { from, until, before, now: were.len(), ..Self::default() };
        let (mut now, mut known) = (from, 0);
        for run in were[from..].chunk_by(|&one, &next| one != NO_CLASS && one + 1 == next) {
            if run[0] == NO_CLASS {
                difference.new.push(now);
            } else {
                let before = run[0] as usize;
                difference.is_mixed |= before < known;
                known = before + run.len();
                difference.shifted.extend((before != now).then_some(Run { before, now, len: run.len() }));
            }
            now += run.len();
        }
        difference
    }

    /// The classes that may be others.
    pub(super) fn range(&self) -> Range<usize> {
        self.from..self.until
    }

    pub(super) fn is_none(&self) -> bool {
        self.from == self.before && self.from == self.now
    }

    /// Whether it is too much for [`Self::shift`].
    pub(super) fn is_large(&self) -> bool {
        self.is_mixed || (self.new.len() + self.shifted.len()) * SHIFTED_PART > self.now
    }

    /// Brings one number of each class up to date; `number` says that of a new class.
    pub(super) fn shift(&self, numbers: &mut Vec<u16>, number: impl Fn(usize) -> u16) {
        numbers.resize(self.before.max(self.now), 0);
        let (right, left): (Vec<&Run>, Vec<&Run>) = self.shifted.iter().partition(|run| run.before < run.now);
        // so no run is overwritten before it was moved
        for &&Run { before, now, len } in right.iter().rev().chain(&left) {
            numbers.copy_within(before..before + len, now);
        }
        self.new.iter().for_each(|&class| numbers[class] = number(class));
        numbers.truncate(self.now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_order_moves() {
        for things in [vec![], vec![1, 2, 3], vec![9, 1, 2, 3], vec![1, 2, 0, 3], vec![1, 7, 8, 2, 3, 9], vec![3, 2, 1]] {
            let (standing, mut moving) = settle(things.iter().copied(), |one, other| one.cmp(&other));
            assert!(standing.is_sorted(), "{things:?}");
            moving.sort_unstable();
            let mut sorted = things.clone();
            sorted.sort_unstable();
            assert_eq!(merge(&standing, &moving, |one, other| one.cmp(&other)), sorted, "{things:?}");
        }
    }

    #[test]
    fn shifted_numbers_are_those_of_their_classes() {
        let none = NO_CLASS;
        let lists: [(&[u32], usize); 9] = [
            (&[0, 1, 2], 3),
            (&[0, none, 1, 2], 3),
            (&[none, 0, 1, 3, 4, none, 6], 7),
            (&[0, 2, none, none, 3, 5], 6),
            (&[2, 3, none, 4, 7, none, none, 8], 9),
            (&[1, 2, 3], 4),
            (&[], 2),
            (&[0, none, 1, 2, 4, 5], 6),
            (&[none], 0),
        ];
        for (were, before) in lists {
            let difference = Difference::of(were, before);
            let mut numbers: Vec<u16> = (0..before as u16).collect();
            difference.shift(&mut numbers, |class| 100 + class as u16);
            let expected = were.iter().zip(100..).map(|(&was, new)| if was == none { new } else { was as u16 });
            assert_eq!(numbers, expected.collect::<Vec<_>>(), "{were:?}");
            assert!(!difference.is_mixed);
            let same = were.iter().enumerate().filter(|&(class, _)| !difference.range().contains(&class));
            assert!(same.into_iter().all(|(class, &was)| was as usize == class), "{were:?}");
            assert!(were.len() == before || difference.range().end == were.len(), "{were:?}");
            assert_eq!(difference.is_none(), were.len() == before && were.iter().zip(0..).all(|(&was, class)| was == class));
        }
        assert!(Difference::of(&[1, 0], 2).is_large());
    }
}
