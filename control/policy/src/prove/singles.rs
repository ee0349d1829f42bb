//! Pods' IPv6 addresses. A table keeps single IPv6 addresses by their hash, so asking about one after the other in
//! ascending order would jump through memory; here they stand in the order in which some table had them, which costs
//! nothing to be right about: order decides how fast they are found, never what is found.

use super::expected::UnitId;
use ahash::RandomState;
use std::collections::HashMap;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Singles {
    list: Vec<(u128, UnitId)>,
    /// Where each address stands in the list.
    at: HashMap<u128, u32, RandomState>,
    /// How many came or moved since the list was put in order.
    moved: usize,
}

/// One in so many may stand in the wrong place.
const MOVED_MAX: usize = 8;

impl Singles {
    /// Every address with its unit.
    pub(super) fn list(&self) -> &[(u128, UnitId)] {
        &self.list
    }

    /// Whether some pod claims the address.
    pub(super) fn has(&self, number: u128) -> bool {
        self.at.contains_key(&number)
    }

    /// The unit of an address from now on; `None` where no pod claims it.
    pub(super) fn put(&mut self, number: u128, unit: Option<UnitId>) {
        match (self.at.get(&number), unit) {
            (Some(&at), Some(unit)) => self.list[at as usize].1 = unit,
            (Some(&at), None) => {
                self.at.remove(&number);
                self.list.swap_remove(at as usize);
                if let Some((moved, _)) = self.list.get(at as usize) {
                    self.at.insert(*moved, at);
                }
                self.moved += 1;
            }
            (None, Some(unit)) => {
                self.at.insert(number, self.list.len() as u32);
                self.list.push((number, unit));
                self.moved += 1;
            }
            (None, None) => {}
        }
    }

    /// Puts the list in that order, if enough has moved to be worth it. Addresses that are not in it go last.
    pub(super) fn arrange(&mut self, order: impl Iterator<Item = u128>) {
        if self.moved * MOVED_MAX <= self.list.len() {
            return;
        }
        let mut next = 0;
        for number in order {
            let Some(&at) = self.at.get(&number) else { continue };
            // an address that was named before already stands in the ordered part
            if at as usize >= next {
                self.swap(at as usize, next);
                next += 1;
            }
        }
        self.moved = 0;
    }

    /// Puts the list in ascending order, for an answer that does not depend on earlier tables.
    pub(super) fn sort(&mut self) {
        self.list.sort_unstable();
        self.at = (0..).zip(&self.list).map(|(at, &(number, _))| (number, at)).collect();
        self.moved = self.list.len();
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.list.swap(a, b);
        for at in [a, b] {
            self.at.insert(self.list[at].0, at as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_order_loses_or_changes_an_address() {
        let mut singles = Singles::default();
        for number in 0..10u128 {
            singles.put(number, Some(number as UnitId));
        }
        for (gone, changed) in [(0, 9), (8, 1), (5, 2)] {
            singles.put(gone, None);
            singles.put(changed, Some(100));
        }
        // named twice, unknown, not named: all of it is allowed
        singles.arrange([7, 3, 7, 55, 9].into_iter());
        let numbers: Vec<u128> = singles.list().iter().map(|single| single.0).collect();
        assert_eq!(numbers[..3], [7, 3, 9]);
        let mut sorted: Vec<(u128, UnitId)> = singles.list().to_vec();
        sorted.sort_unstable();
        assert_eq!(sorted, [(1, 100), (2, 100), (3, 3), (4, 4), (6, 6), (7, 7), (9, 100)]);
        for (at, number) in numbers.into_iter().enumerate() {
            singles.put(number, Some(200));
            assert_eq!(singles.list()[at], (number, 200));
        }
        assert!(singles.has(9) && !singles.has(5));
        singles.sort();
        assert!(singles.list().is_sorted());
        singles.put(9, Some(300));
        assert_eq!(singles.list().last(), Some(&(9, 300)));
    }
}
