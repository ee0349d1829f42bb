//! One profile: which of its rows are in use, and what they say.

use super::CompileError;
use super::ports::Rows;
use super::rulebook::RuleHandle;
use super::sheet::{Sheet, SheetMaker};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// Rows of the columns in use, by id, ascending; those of the sheet unless some came or went since.
    ids: Vec<u32>,
    /// How many columns in use have each.
    uses: Vec<u32>,
    /// Where the last one stands that was asked for: mostly the next is the same.
    last: usize,
    pub(super) sheet: Sheet,
}

impl Slot {
    /// How many columns have a row.
    pub(super) fn uses(&mut self, row: u32) -> &mut u32 {
        if self.ids.get(self.last) != Some(&row) {
            self.last = self.ids.partition_point(|&id| id < row);
            if self.ids.get(self.last) != Some(&row) {
                self.ids.insert(self.last, row);
                self.uses.insert(self.last, 0);
            }
        }
        &mut self.uses[self.last]
    }

    pub(super) fn clear(&mut self) {
        self.ids.clear();
        self.uses.clear();
    }

    /// Adds a row behind all others.
    pub(super) fn push(&mut self, row: u32, uses: u32) {
        self.ids.push(row);
        self.uses.push(uses);
    }

    /// Returns whether the rows in use are others than those of the sheet.
    pub(super) fn drop_unused(&mut self) -> bool {
        let mut uses = self.uses.iter();
        self.ids.retain(|_| uses.next().is_some_and(|&uses| uses > 0));
        self.uses.retain(|&uses| uses > 0);
        self.ids != self.sheet.ids
    }

    /// Makes the sheet of the rows in use. Returns the one before.
    pub(super) fn renew_sheet(&mut self, maker: &mut SheetMaker, rules: &[RuleHandle], rows: &Rows) -> Result<Sheet, CompileError> {
        let sheet = maker.sheet(&self.ids, rules, rows)?;
        Ok(std::mem::replace(&mut self.sheet, sheet))
    }

    /// The number of a row of the sheet.
    pub(super) fn number(&mut self, row: u32) -> u16 {
        if self.sheet.ids.get(self.last) != Some(&row) {
            self.last = self.sheet.ids.binary_search(&row).expect("only rows in use are asked for");
        }
        self.sheet.numbers[self.last]
    }
}
