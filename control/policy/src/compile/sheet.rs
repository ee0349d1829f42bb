//! What one profile says: its rows, numbered by what they say, over as many ports as they tell apart.
//!
//! The bounds of a profile's openings cut the line of ports into cells, each row becomes one action for each cell, and
//! cells that all rows treat alike share a number. Everything is in the profile's own terms, so a sheet stays right when
//! rules of other pods come and go.

use super::CompileError;
use super::number::capacity;
use super::ports::{OTHERS, Opening, Rows};
use super::rulebook::RuleHandle;
use ahash::RandomState;
use std::collections::HashMap;

/// See the module.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sheet {
    /// Ids in [`Rows`] of those in use, ascending, and their numbers here: by what they say.
    pub(super) ids: Vec<u32>,
    pub(super) numbers: Vec<u16>,
    /// First place on the line of ports of each interval, and the number it has here; ascending, the first at 0.
    pub(super) cuts: Vec<(u32, u16)>,
    /// Numbers of ports: the length of a row.
    pub(super) stride: usize,
    /// Row by row: 0 denies, n + 1 is the profile's nth rule.
    pub(super) actions: Vec<u32>,
}

impl Sheet {
    /// The numbers of rows by those they had in another sheet of the profile; `None` where all have the same ones.
    pub(super) fn renumbered(&self, before: &Self) -> Option<Vec<u16>> {
        let mut numbers: Vec<u16> = (0..before.rows()).collect();
        let mut is_other = false;
        for (id, &was) in before.ids.iter().zip(&before.numbers) {
            if let Ok(at) = self.ids.binary_search(id) {
                numbers[usize::from(was)] = self.numbers[at];
                is_other |= self.numbers[at] != was;
            }
        }
        is_other.then_some(numbers)
    }

    /// How many rows.
    pub(super) fn rows(&self) -> u16 {
        (self.actions.len() / self.stride.max(1)) as u16
    }
}

const WORDS: usize = OTHERS as usize / 64 + 1;

/// Makes sheets; kept for its memory.
#[derive(Debug)]
pub(super) struct SheetMaker {
    /// Whether a cell begins there, for each place on the line.
    begins: Vec<u64>,
    /// Cells that begin before each word.
    before: Vec<u32>,
    /// By handle: a rule's position in the profile.
    ranks: Vec<u32>,
    cells: Vec<u32>,
}

impl Default for SheetMaker {
    fn default() -> Self {
        Self { begins: vec![0; WORDS], before: vec![0; WORDS], ranks: Vec::new(), cells: Vec::new() }
    }
}

impl SheetMaker {
    /// The sheet of these rows, by id, ascending, whose rules the profile has in this order.
    ///
    /// Cost: rows times cells.
    pub(super) fn sheet(&mut self, used: &[u32], rules: &[RuleHandle], rows: &Rows) -> Result<Sheet, CompileError> {
        for (rank, &rule) in (0u32..).zip(rules) {
            if self.ranks.len() <= rule as usize {
                self.ranks.resize(rule as usize + 1, 0);
            }
            self.ranks[rule as usize] = rank;
        }
        let starts = self.cut(used.iter().flat_map(|&row| rows.openings(row)));
        let width = starts.len();
        self.cells.clear();
        self.cells.resize(used.len() * width, 0);
        let mut cells = std::mem::take(&mut self.cells);
        for (cells, &row) in cells.chunks_mut(width).zip(used) {
            for opening in rows.openings(row).iter().rev() {
                let (first, last) = (self.cell(opening.first), self.cell(opening.last));
                cells[first..=last].fill(self.ranks[opening.rule as usize] + 1);
            }
        }
        let of = |row: usize| &cells[row * width..][..width];
        let mut order: Vec<usize> = (0..used.len()).collect();
        order.sort_unstable_by(|&a, &b| of(a).cmp(of(b)));
        let mut distinct: Vec<usize> = Vec::new();
        let mut sheet = Sheet { numbers: vec![0; used.len()], ..Sheet::default() };
        for at in order {
            if distinct.last().is_none_or(|&last| of(last) != of(at)) {
                capacity("rows of a profile", distinct.len() + 1, usize::from(u16::MAX))?;
                distinct.push(at);
            }
            sheet.numbers[at] = (distinct.len() - 1) as u16;
        }
        let mut known: HashMap<Vec<u32>, u16, RandomState> = HashMap::default();
        let mut representatives = Vec::new();
        let mut column = Vec::with_capacity(distinct.len());
        for (cell, &start) in starts.iter().enumerate() {
            column.clear();
            column.extend(distinct.iter().map(|&row| cells[row * width + cell]));
            let number = match known.get(&column) {
                Some(&number) => number,
                None => {
                    let number = representatives.len() as u16;
                    capacity("ports of a profile", representatives.len() + 1, usize::from(u16::MAX))?;
                    representatives.push(cell);
                    known.insert(column.clone(), number);
                    number
                }
            };
            if sheet.cuts.last().is_none_or(|&(_, last)| last != number) {
                sheet.cuts.push((start, number));
            }
        }
        sheet.stride = representatives.len();
        sheet.actions.reserve(distinct.len() * sheet.stride);
        for &row in &distinct {
            sheet.actions.extend(representatives.iter().map(|&cell| cells[row * width + cell]));
        }
        self.cells = cells;
        sheet.ids = used.to_vec();
        Ok(sheet)
    }

    /// Where each cell begins.
    fn cut<'o>(&mut self, openings: impl Iterator<Item = &'o Opening>) -> Vec<u32> {
        self.begins.fill(0);
        self.begins[0] = 1;
        for &Opening { first, last, .. } in openings {
            self.begins[first as usize / 64] |= 1 << (first % 64);
            if last < OTHERS {
                self.begins[(last + 1) as usize / 64] |= 1 << ((last + 1) % 64);
            }
        }
        let mut starts: Vec<u32> = Vec::new();
        for (at, (&word, before)) in self.begins.iter().zip(&mut self.before).enumerate() {
            *before = starts.len() as u32;
            let mut left = word;
            while left != 0 {
                starts.push(at as u32 * 64 + left.trailing_zeros());
                left &= left - 1;
            }
        }
        starts
    }

    /// The cell that a place on the line lies in.
    fn cell(&self, at: u32) -> usize {
        let word = at as usize / 64;
        let up_to = self.begins[word] & (u64::MAX >> (63 - at % 64));
        self.before[word] as usize + up_to.count_ones() as usize - 1
    }
}

/// The cuts of all profiles' ports, one place after another: calls `interval` with where each begins, and the number that
/// each profile gives to what stands there.
pub(super) fn sweep<'s>(sheets: impl Iterator<Item = &'s Sheet>, mut interval: impl FnMut(u32, &[u16])) {
    let mut cuts: Vec<(u32, u32, u16)> = Vec::new();
    let mut profiles = 0;
    for (profile, sheet) in (0u32..).zip(sheets) {
        cuts.extend(sheet.cuts.iter().map(|&(start, number)| (start, profile, number)));
        profiles += 1;
    }
    cuts.sort_unstable();
    let mut numbers = vec![0; profiles];
    if cuts.is_empty() {
        interval(0, &numbers);
    }
    for together in cuts.chunk_by(|one, other| one.0 == other.0) {
        together.iter().for_each(|&(_, profile, number)| numbers[profile as usize] = number);
        interval(together[0].0, &numbers);
    }
}
