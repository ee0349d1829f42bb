//! What is the same is written once.

use ahash::RandomState;
use std::collections::HashMap;
use std::hash::Hash;

/// Runs of entries one after the other, each distinct one once.
#[derive(Debug)]
pub(super) struct Runs<T> {
    pub(super) all: Vec<T>,
    /// By hash, or the next free number behind it: where a run begins, and its length.
    places: HashMap<u64, (u32, u32), RandomState>,
}

impl<T> Default for Runs<T> {
    fn default() -> Self {
        Self { all: Vec::new(), places: HashMap::default() }
    }
}

impl<T: Copy + Eq + Hash> Runs<T> {
    /// Where such a run begins.
    pub(super) fn place(&mut self, run: &[T]) -> u32 {
        let mut hash = self.places.hasher().hash_one(run);
        while let Some(&(place, len)) = self.places.get(&hash) {
            if self.all[place as usize..][..len as usize] == *run {
                return place;
            }
            hash = hash.wrapping_add(1);
        }
        let place = self.all.len() as u32;
        self.all.extend_from_slice(run);
        self.places.insert(hash, (place, run.len() as u32));
        place
    }
}
