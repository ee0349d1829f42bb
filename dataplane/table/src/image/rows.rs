//! Rows of classes → directories and segments.
//!
//! Classes are numbered by what they allow, so neighbours mostly share their rows: some of them together are a *segment*,
//! and few of those differ.

use super::runs::Runs;
use crate::format::{PACKED_SEGMENT, SEGMENT};
use crate::parts::ProfileParts;
use std::ops::Range;

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
    /// See [`super::ImageWriter::rows`].
    pub(super) fn update<'p>(&mut self, packed: bool, profiles: impl ExactSizeIterator<Item = (&'p ProfileParts, Range<usize>)>) {
        let worn = self.book.count > REMEMBERED_MIN.max(self.count() * REMEMBERED_FACTOR);
        if worn || packed != self.packed {
            self.packed = packed;
            self.book = SegmentBook::default();
            self.chosen.clear();
        }
        let classes = self.classes();
        self.chosen.resize_with(profiles.len(), Vec::new);
        for ((ProfileParts { rows, .. }, others), chosen) in profiles.zip(&mut self.chosen) {
            let (count, known) = (rows.len().div_ceil(classes), chosen.len());
            chosen.resize(count, 0);
            let others = match known {
                0 => 0..count,
                _ if known == count => others.start / classes..others.end.div_ceil(classes).min(count),
                _ => (others.start / classes).min(known)..count,
            };
            match packed {
                false => self.book.choose::<SEGMENT>(rows, packed, others, chosen),
                true => self.book.choose::<PACKED_SEGMENT>(rows, packed, others, chosen),
            }
        }
        // numbered by first use, whatever the book knows
        (self.directory, self.places) = Default::default();
        self.segments.clear();
        let mut numbers = vec![u32::MAX; self.book.count];
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
    count: usize,
    /// Open-addressed by hash, at most half full.
    slots: Vec<u32>,
    asked: Vec<Asked>,
}

const UNKNOWN: u32 = u32::MAX;

/// Neighbouring entries of a directory whose segment is looked for.
#[derive(Debug)]
struct Asked {
    first: usize,
    base: u16,
    hash: u32,
    /// What stands in the first slot.
    likely: u32,
}

impl SegmentBook {
    /// Chooses the directory's entries of some segments of `rows`; the last segment is filled up.
    ///
    /// All are looked for together, so that the memory that each is found in is waited for once.
    fn choose<const LEN: usize>(&mut self, rows: &[u16], packed: bool, segments: Range<usize>, chosen: &mut [u64]) {
        let mut before = [0; LEN];
        self.asked.clear();
        for first in segments.clone() {
            let segment = segment::<LEN>(rows, first * LEN);
            // mostly its neighbour once more
            if self.asked.is_empty() || segment != before {
                let base = if packed { segment.iter().copied().min().unwrap_or(0) } else { 0 };
                self.asked.push(Asked { first, base, hash: hash(&segment.map(|row| row - base)), likely: UNKNOWN });
            }
            before = segment;
        }
        if (self.count + self.asked.len()) * 2 > self.slots.len() {
            self.grow::<LEN>(self.asked.len());
        }
        let mut asked = std::mem::take(&mut self.asked);
        for one in &mut asked {
            one.likely = self.slots[self.slot(one.hash)];
        }
        let read = |one: &Asked| self.all.get(one.likely as usize * LEN).copied().unwrap_or(0);
        std::hint::black_box(asked.iter().map(read).fold(0, |all, row| all ^ row));
        for (index, one) in asked.iter().enumerate() {
            let number = self.number(&segment::<LEN>(rows, one.first * LEN).map(|row| row - one.base), one.hash);
            let end = asked.get(index + 1).map_or(segments.end, |next| next.first);
            chosen[one.first..end].fill(u64::from(one.base) << 32 | u64::from(number));
        }
        self.asked = asked;
    }

    fn number<const LEN: usize>(&mut self, segment: &[u16; LEN], hash: u32) -> u32 {
        let mut at = self.slot(hash);
        while self.slots[at] != UNKNOWN {
            let known = self.slots[at];
            if self.all[known as usize * LEN..].first_chunk() == Some(segment) {
                return known;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
        self.slots[at] = self.count as u32;
        self.all.extend_from_slice(segment);
        self.count += 1;
        self.slots[at]
    }

    /// Makes room for so many more.
    fn grow<const LEN: usize>(&mut self, more: usize) {
        self.slots = vec![UNKNOWN; ((self.count + more) * 4).next_power_of_two()];
        for (number, segment) in (0..).zip(self.all.as_chunks::<LEN>().0) {
            let mut at = self.slot(hash(segment));
            while self.slots[at] != UNKNOWN {
                at = (at + 1) & (self.slots.len() - 1);
            }
            self.slots[at] = number;
        }
    }

    /// Where a segment is looked for first.
    fn slot(&self, hash: u32) -> usize {
        hash as usize & (self.slots.len() - 1)
    }
}

/// The rows from one on; behind the last one, its equals.
fn segment<const LEN: usize>(rows: &[u16], at: usize) -> [u16; LEN] {
    rows[at..].first_chunk().copied().unwrap_or_else(|| {
        let mut filled = [rows[rows.len() - 1]; LEN];
        filled[..rows.len() - at].copy_from_slice(&rows[at..]);
        filled
    })
}

fn hash<const LEN: usize>(segment: &[u16; LEN]) -> u32 {
    let fours = segment.as_chunks::<4>().0.iter();
    let mixed =
        fours.fold(0u64, |hash, &four| (hash.rotate_left(23) ^ bytemuck::cast::<[u16; 4], u64>(four)).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (mixed >> 32) as u32
}
