//! What each column says, for comparing: the number of its row at each profile, in a few bits, the first profile's in the
//! highest.
//!
//! Every profile has room for some more rows than it has, so that a few can come without all being packed anew. How much
//! room that is changes no order.

use super::columns::Columns;
use super::slot::Slot;
use sluice_table::ProfileParts;
use std::cmp::Ordering;

/// Slots that are gone through together, so that what is read of a column is a whole line of the cache.
pub(super) const TOGETHER: usize = 16;

/// There is room for one more row or class for so many.
const SPARE_PART: usize = 4;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// By column. What is not in use says something of long ago.
    words: Vec<u64>,
    width: usize,
    /// By slot.
    places: Vec<Place>,
    /// By column, the sum of its numbers, each a multiple of its slot's own; however wide they stand.
    sums: Vec<u64>,
}

/// One class in so many begins a stretch.
const STRETCH: u64 = 256;

/// What a slot's number counts in a sum.
fn weight(slot: usize) -> u64 {
    (slot as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

/// The bits of a number in the words of a column.
#[derive(Debug, Clone, Copy)]
struct Place {
    word: usize,
    shift: u32,
    bits: u32,
}

impl Place {
    fn mask(self) -> u64 {
        (1 << self.bits) - 1
    }

    fn of(self, word: u64) -> u16 {
        ((word >> self.shift) & self.mask()) as u16
    }
}

impl Content {
    /// Of these columns.
    pub(super) fn of(columns: &Columns, used: &[u32], slots: &[Slot]) -> Self {
        let mut end = 0;
        let place = |slot: &Slot| {
            let rows = u32::from(slot.sheet.rows().max(1));
            let bits = u32::BITS - (rows + rows / SPARE_PART as u32).leading_zeros();
            // a number that would cross the end of a word begins in the next one
            if end % 64 + bits > 64 {
                end = end.next_multiple_of(64);
            }
            end += bits;
            Place { word: (end - bits) as usize / 64, shift: 64 - bits - (end - bits) % 64, bits }
        };
        let places: Vec<Place> = slots.iter().map(place).collect();
        let width = end.div_ceil(64).max(1) as usize;
        let count = used.last().map_or(0, |&last| last as usize + 1);
        let mut words = vec![0u64; count * width];
        let mut sums = vec![0u64; count];
        let mut numbers = Numbering::default();
        let mut tiles = vec![[0u32; TOGETHER]; used.len()];
        for (first, slots) in (0..).step_by(TOGETHER).zip(slots.chunks(TOGETHER)) {
            numbers.learn(slots);
            // brought together first, by a loop so short that it waits for many columns at a time
            for (&column, tile) in used.iter().zip(&mut tiles) {
                let rows = &columns.column(column)[first..][..slots.len()];
                tile[..rows.len()].copy_from_slice(rows);
            }
            for (&column, tile) in used.iter().zip(&tiles) {
                let (words, sum) = (&mut words[column as usize * width..][..width], &mut sums[column as usize]);
                for ((slot, &row), place) in (0..).zip(tile).zip(&places[first..]) {
                    let number = u64::from(numbers.number(slot, row));
                    words[place.word] |= number << place.shift;
                    *sum = sum.wrapping_add(number.wrapping_mul(weight(first + slot)));
                }
            }
        }
        Self { words, width, places, sums }
    }

    /// Makes room for more columns.
    pub(super) fn grow(&mut self, columns: usize) {
        self.words.resize(self.words.len().max(columns * self.width), 0);
        self.sums.resize(self.sums.len().max(columns), 0);
    }

    /// Whether a slot has room for the numbers of so many rows.
    pub(super) fn holds(&self, slot: usize, rows: u16) -> bool {
        u64::from(rows.saturating_sub(1)) <= self.places[slot].mask()
    }

    /// Returns whether it said something else before.
    pub(super) fn put(&mut self, column: u32, slot: usize, number: u16) -> bool {
        let place = self.places[slot];
        let word = &mut self.words[column as usize * self.width + place.word];
        let before = place.of(*word);
        *word ^= u64::from(before ^ number) << place.shift;
        let sum = &mut self.sums[column as usize];
        *sum = sum.wrapping_add((u64::from(number).wrapping_sub(u64::from(before))).wrapping_mul(weight(slot)));
        before != number
    }

    pub(super) fn number(&self, column: u32, slot: usize) -> u16 {
        let place = self.places[slot];
        place.of(self.words[column as usize * self.width + place.word])
    }

    /// Whether a stretch of classes begins with what this column says, whatever others say.
    pub(super) fn begins(&self, column: u32) -> bool {
        let sum = self.sums[column as usize];
        let mixed = (sum ^ sum >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        (mixed >> 32).is_multiple_of(STRETCH)
    }

    fn of_column(&self, column: u32) -> &[u64] {
        &self.words[column as usize * self.width..][..self.width]
    }

    pub(super) fn cmp(&self, one: u32, other: u32) -> Ordering {
        self.of_column(one).cmp(self.of_column(other))
    }

    pub(super) fn is_same(&self, one: u32, other: u32) -> bool {
        self.of_column(one) == self.of_column(other)
    }

    /// The rows of these columns at some slots, ascending.
    pub(super) fn select(&self, columns: &[u32], slots: &[usize], profiles: &mut [ProfileParts]) {
        let mut words: Vec<u64> = Vec::with_capacity(columns.len());
        for slots in slots.chunk_by(|&one, &other| self.places[one].word == self.places[other].word) {
            let word = self.places[slots[0]].word;
            words.clear();
            words.extend(columns.iter().map(|&column| self.words[column as usize * self.width + word]));
            for &slot in slots {
                let (place, rows) = (self.places[slot], &mut profiles[slot].rows);
                rows.clear();
                rows.reserve(columns.len() + columns.len() / SPARE_PART);
                rows.extend(words.iter().map(|&word| place.of(word)));
            }
        }
    }
}

/// Numbers of rows by id, for some slots at a time.
#[derive(Default)]
struct Numbering {
    /// By id and slot; what is not in use says nothing.
    numbers: Vec<[u16; TOGETHER]>,
}

impl Numbering {
    fn learn(&mut self, slots: &[Slot]) {
        for (slot, Slot { sheet, .. }) in slots.iter().enumerate() {
            let ids = sheet.ids.last().map_or(0, |&last| last as usize + 1);
            if self.numbers.len() < ids {
                self.numbers.resize(ids, [0; TOGETHER]);
            }
            for (&row, &number) in sheet.ids.iter().zip(&sheet.numbers) {
                self.numbers[row as usize][slot] = number;
            }
        }
    }

    #[inline(always)]
    fn number(&self, slot: usize, row: u32) -> u16 {
        self.numbers[row as usize][slot]
    }
}
