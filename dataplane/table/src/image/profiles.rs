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
    pub(super) segments: Vec<u16>,
    pub(super) local_ports: Runs<u16>,
    pub(super) actions: Runs<u32>,
    /// The most rows, and the most port numbers, of one profile.
    pub(super) rows_max: usize,
    pub(super) ports_max: usize,
    book: SegmentBook,
    /// Of each profile, the segments of its classes as the book numbers them.
    chosen: Vec<Vec<u32>>,
    directories: Vec<u32>,
    /// Of each profile, where its local ports and its actions begin, and its stride.
    tails: Vec<[u32; 3]>,
}

/// Segments that are remembered beyond so many times those in use are forgotten.
const REMEMBERED_FACTOR: usize = 4;
const REMEMBERED_MIN: usize = 1 << 12;

impl Profiles {
    /// The rows of each profile's classes; those below the second number are what they were.
    pub(super) fn rows<'p>(&mut self, profiles: impl ExactSizeIterator<Item = (&'p ProfileParts, usize)>) {
        let worn = self.book.numbers.len() > REMEMBERED_MIN.max(self.segments.len() / SEGMENT * REMEMBERED_FACTOR);
        if worn {
            self.book = SegmentBook::default();
            self.chosen.clear();
        }
        self.chosen.resize_with(profiles.len(), Vec::new);
        for ((ProfileParts { rows, .. }, same), chosen) in profiles.zip(&mut self.chosen) {
            chosen.truncate(same / SEGMENT);
            self.book.choose(rows, chosen);
        }
        // numbered by first use, whatever the book knows
        (self.directory, self.directories) = Default::default();
        self.segments.clear();
        let mut numbers = vec![u32::MAX; self.book.numbers.len()];
        let mut directory = Vec::new();
        for chosen in &self.chosen {
            directory.clear();
            directory.extend(chosen.iter().map(|&segment| {
                let number = &mut numbers[segment as usize];
                if *number == u32::MAX {
                    *number = (self.segments.len() / SEGMENT) as u32;
                    self.segments.extend_from_slice(&self.book.all[segment as usize * SEGMENT..][..SEGMENT]);
                }
                *number
            }));
            self.directories.push(self.directory.place(&directory));
        }
    }

    /// What each profile says of ports.
    pub(super) fn actions<'p>(&mut self, profiles: impl IntoIterator<Item = &'p ProfileParts>) {
        (self.local_ports, self.actions, self.tails) = Default::default();
        (self.rows_max, self.ports_max) = (0, 0);
        let mut encoded = Vec::new();
        for ProfileParts { ports, stride, actions, .. } in profiles {
            assert!(*stride > 0 && actions.len().is_multiple_of(*stride), "one action for each port number of each row");
            encoded.clear();
            encoded.extend(actions.iter().map(|action| action.encode()));
            self.rows_max = self.rows_max.max(actions.len() / stride);
            self.ports_max = self.ports_max.max(*stride);
            self.tails.push([self.local_ports.place(ports), self.actions.place(&encoded), *stride as u32]);
        }
    }

    /// Where a profile is.
    pub(super) fn half(&self, profile: usize) -> Half {
        let [ports, actions, stride] = self.tails[profile];
        Half { directory: self.directories[profile], ports, actions, stride }
    }

    /// The highest number that needs a large place.
    pub(super) fn large_max(&self) -> usize {
        self.actions.all.iter().copied().max().unwrap_or(0).max((self.segments.len() / SEGMENT) as u32) as usize
    }
}

/// Each distinct segment once, by number of first use.
#[derive(Debug, Default)]
struct SegmentBook {
    all: Vec<u16>,
    numbers: HashMap<[u16; SEGMENT], u32, RandomState>,
}

impl SegmentBook {
    /// Adds the number of each segment of `rows` behind those that are chosen; the last one is filled up with row 0.
    fn choose(&mut self, rows: &[u16], chosen: &mut Vec<u32>) {
        let (mut segment, mut number) = ([0; SEGMENT], None);
        for classes in rows[chosen.len() * SEGMENT..].chunks(SEGMENT) {
            // mostly its neighbour once more
            if number.is_none() || *classes != segment[..] {
                segment[..classes.len()].copy_from_slice(classes);
                segment[classes.len()..].fill(0);
                let next = self.numbers.len() as u32;
                number = Some(*self.numbers.entry(segment).or_insert_with(|| {
                    self.all.extend_from_slice(&segment);
                    next
                }));
            }
            chosen.extend(number);
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
