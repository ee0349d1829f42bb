//! What is the same is written once.

use ahash::RandomState;
use std::collections::HashMap;
use std::hash::Hash;

/// Runs of entries one after the other, each distinct one once.
#[derive(Debug)]
pub(super) struct Runs<T> {
    pub(super) all: Vec<T>,
    places: HashMap<Vec<T>, u32, RandomState>,
}

impl<T> Default for Runs<T> {
    fn default() -> Self {
        Self { all: Vec::new(), places: HashMap::default() }
    }
}

impl<T: Copy + Eq + Hash> Runs<T> {
    /// Where such a run begins.
    pub(super) fn place(&mut self, run: &[T]) -> u32 {
        if let Some(&known) = self.places.get(run) {
            return known;
        }
        let place = self.all.len() as u32;
        self.all.extend_from_slice(run);
        self.places.insert(run.to_vec(), place);
        place
    }
}
