//! Rows of classes → directories and segments.
//!
//! Classes are numbered by what they allow, so neighbours mostly share their rows: some of them together are a *segment*,
//! and few of those differ.

use super::runs::Runs;
use crate::format::{PACKED_SEGMENT, SEGMENT};
use crate::parts::ProfileParts;
use ahash::RandomState;
use std::collections::HashMap;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Rows {
    packed: bool,
    /// Segments by number; packed, with what is added to their rows in the upper half.
    pub(super) directory: Runs<u64>,
    pub(super) segments: Vec<u16>,
    book: SegmentBook,
    /// Of each profile, the segments of its classes as the book numbers them, as in the directory.
    chosen: Vec<Vec<u64>>,
    /// Of each profile, where its part of the directory begins.
    pub(super) places: Vec<u32>,
}

/// Segments that are remembered beyond so many times those in use are forgotten.
const REMEMBERED_FACTOR: usize = 4;
const REMEMBERED_MIN: usize = 1 << 12;

impl Rows {
    /// The rows of each profile's classes; those below the second number are what they were.
    pub(super) fn update<'p>(&mut self, packed: bool, profiles: impl ExactSizeIterator<Item = (&'p ProfileParts, usize)>) {
        let worn = self.book.numbers.len() > REMEMBERED_MIN.max(self.count() * REMEMBERED_FACTOR);
        if worn || packed != self.packed {
            self.packed = packed;
            self.book = SegmentBook::default();
            self.chosen.clear();
        }
        let classes = self.classes();
        self.chosen.resize_with(profiles.len(), Vec::new);
        for ((ProfileParts { rows, .. }, same), chosen) in profiles.zip(&mut self.chosen) {
            chosen.truncate(same / classes);
            self.book.choose(rows, classes, packed, chosen);
        }
        // numbered by first use, whatever the book knows
        (self.directory, self.places) = Default::default();
        self.segments.clear();
        let mut numbers = vec![u32::MAX; self.book.numbers.len()];
        let mut directory = Vec::new();
        for chosen in &self.chosen {
            directory.clear();
            directory.extend(chosen.iter().map(|&entry| {
                let segment = entry as u32 as usize;
                let number = &mut numbers[segment];
                if *number == u32::MAX {
                    *number = (self.segments.len() / classes) as u32;
                    self.segments.extend_from_slice(&self.book.all[segment * classes..][..classes]);
                }
                entry >> 32 << 32 | u64::from(*number)
            }));
            self.places.push(self.directory.place(&directory));
        }
    }

    /// How many segments there are.
    pub(super) fn count(&self) -> usize {
        self.segments.len() / self.classes()
    }

    /// Classes of a segment.
    fn classes(&self) -> usize {
        if self.packed { PACKED_SEGMENT } else { SEGMENT }
    }
}

/// Each distinct segment once, by number of first use.
#[derive(Debug, Default)]
struct SegmentBook {
    all: Vec<u16>,
    /// The longer form, filled up.
    numbers: HashMap<[u16; SEGMENT], u32, RandomState>,
}

impl SegmentBook {
    /// Adds the directory's entry for each segment of `rows` behind those that are chosen; the last one is filled up.
    fn choose(&mut self, rows: &[u16], len: usize, packed: bool, chosen: &mut Vec<u64>) {
        let (mut segment, mut entry) = ([0; SEGMENT], None);
        let mut before: &[u16] = &[];
        for classes in rows[chosen.len() * len..].chunks(len) {
            // mostly its neighbour once more
            if entry.is_none() || classes != before {
                // the lowest row is added later: so more segments are alike
                let base = if packed { classes.iter().copied().min().unwrap_or(0) } else { 0 };
                segment.fill(0);
                segment.iter_mut().zip(classes).for_each(|(row, class)| *row = class - base);
                let next = self.numbers.len() as u32;
                let number = *self.numbers.entry(segment).or_insert_with(|| {
                    self.all.extend_from_slice(&segment[..len]);
                    next
                });
                entry = Some(u64::from(base) << 32 | u64::from(number));
                before = classes;
            }
            chosen.extend(entry);
        }
    }
}
