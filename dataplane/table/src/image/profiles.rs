//! Rows of classes → the sections that say what each profile allows.
//!
//! Classes are numbered by what they allow, so neighbours mostly share their rows: 32 of them are a *segment*, and few of
//! those differ.

use crate::format::{Half, SEGMENT};
use crate::parts::ProfileParts;
use ahash::RandomState;
use std::collections::HashMap;
use std::hash::Hash;

/// Everything before it is written in some width.
#[derive(Debug, Default)]
pub(super) struct Profiles {
    pub(super) directory: Runs<u32>,
    pub(super) segments: Segments,
    pub(super) local_ports: Runs<u16>,
    pub(super) actions: Runs<u32>,
    /// Where each profile is.
    pub(super) halves: Vec<Half>,
    /// The most rows, and the most port numbers, of one profile.
    pub(super) rows_max: usize,
    pub(super) ports_max: usize,
}

impl Profiles {
    pub(super) fn of<'p>(parts: impl IntoIterator<Item = &'p ProfileParts>) -> Self {
        let mut profiles = Self::default();
        let (mut directory, mut actions) = (Vec::new(), Vec::new());
        for ProfileParts { rows, ports, stride, actions: of_rows } in parts {
            assert!(of_rows.len().is_multiple_of(*stride), "one action for each port number of each row");
            directory.clear();
            profiles.segments.place_all(rows, &mut directory);
            actions.clear();
            actions.extend(of_rows.iter().map(|action| action.encode()));
            profiles.rows_max = profiles.rows_max.max(of_rows.len() / stride);
            profiles.ports_max = profiles.ports_max.max(*stride);
            profiles.halves.push(Half {
                directory: profiles.directory.place(&directory),
                ports: profiles.local_ports.place(ports),
                actions: profiles.actions.place(&actions),
                stride: *stride as u32,
            });
        }
        profiles
    }

    /// The highest number that needs a large place.
    pub(super) fn large_max(&self) -> usize {
        self.actions.all.iter().copied().max().unwrap_or(0).max((self.segments.all.len() / SEGMENT) as u32) as usize
    }
}

/// Each distinct segment once.
#[derive(Debug, Default)]
pub(super) struct Segments {
    pub(super) all: Vec<u16>,
    numbers: HashMap<[u16; SEGMENT], u32, RandomState>,
}

impl Segments {
    /// Adds the number of each segment of `rows`; the last one is filled up with row 0.
    fn place_all(&mut self, rows: &[u16], directory: &mut Vec<u32>) {
        let (mut segment, mut number) = ([0; SEGMENT], None);
        for classes in rows.chunks(SEGMENT) {
            // mostly its neighbour once more
            if number.is_none() || *classes != segment[..] {
                segment[..classes.len()].copy_from_slice(classes);
                segment[classes.len()..].fill(0);
                let next = (self.all.len() / SEGMENT) as u32;
                number = Some(*self.numbers.entry(segment).or_insert_with(|| {
                    self.all.extend_from_slice(&segment);
                    next
                }));
            }
            directory.extend(number);
        }
    }
}

/// Runs of numbers one after the other, each distinct one once.
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
    fn place(&mut self, run: &[T]) -> u32 {
        if let Some(&known) = self.places.get(run) {
            return known;
        }
        let place = self.all.len() as u32;
        self.all.extend_from_slice(run);
        self.places.insert(run.to_vec(), place);
        place
    }
}
