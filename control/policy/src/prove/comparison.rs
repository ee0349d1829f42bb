//! Rows against rows.

use super::cells::CellClass;
use super::expected::{ColumnId, Row};
use super::settled::{Reading, Seen};
use super::sides::{ProfileId, Sides};
use super::units::Units;
use sluice_flow::{Direction, LocalEndpoint};
use sluice_table::{Action, Meant, Profile, Table};
use std::collections::HashMap;

/// The table's row of each class, little-endian numbers of so many bytes.
#[derive(Debug)]
struct Rows {
    width: usize,
    bytes: Vec<u8>,
}

impl Rows {
    fn of(&self, class: usize) -> u16 {
        match self.width {
            1 => u16::from(self.bytes[class]),
            _ => u16::from_le_bytes([self.bytes[2 * class], self.bytes[2 * class + 1]]),
        }
    }

    fn count(&self) -> usize {
        let rows = || (0..self.bytes.len() / self.width).map(|class| self.of(class));
        let last = if self.width == 1 { self.bytes.iter().copied().max().map(u16::from) } else { rows().max() };
        last.map_or(0, |last| usize::from(last) + 1)
    }
}

/// One direction of endpoints that have the same profile on both sides.
#[derive(Debug)]
pub(super) struct Run<'c> {
    profile: ProfileId,
    table: Profile<'c>,
    rows: Rows,
    meaning: Meant<'c>,
    pub(super) endpoint: &'c LocalEndpoint,
    pub(super) direction: Direction,
    /// By row: the expected row that it was found equal to, counted from 1. Expected rows differ from each other, so no row
    /// is equal to two.
    equal: Vec<u32>,
}

/// Every run of a table, and which of its rows have been compared.
#[derive(Debug)]
pub(super) struct Comparison<'c> {
    reading: Reading<'c>,
    runs: Vec<Run<'c>>,
}

impl<'c> Comparison<'c> {
    pub(super) fn new(table: &'c Table, sides: &'c Sides, reading: Reading<'c>) -> Self {
        let mut runs: Vec<Run<'c>> = Vec::new();
        let mut of_profile: HashMap<ProfileId, Vec<usize>> = HashMap::new();
        for (side, direction) in sides.sides.iter().flat_map(|side| Direction::BOTH.map(|direction| (side, direction))) {
            let Some((_, profile)) = side.directions[direction as usize] else { continue };
            let Some(found) = table.profile(side.endpoint.port, direction) else { continue };
            let known = of_profile.entry(profile).or_default();
            if known.iter().all(|&run| !runs[run].table.is(&found)) {
                known.push(runs.len());
                let (width, bytes) = found.row_bytes();
                let rows = Rows { width, bytes };
                let count = rows.count();
                let (endpoint, meaning) = (&side.endpoint, found.meaning(count));
                runs.push(Run { profile, table: found, rows, meaning, endpoint, direction, equal: vec![0; count] });
            }
        }
        Self { reading, runs }
    }

    /// How many runs there are.
    pub(super) fn len(&self) -> usize {
        self.runs.len()
    }

    /// What the memory of the last proof is compared with.
    pub(super) fn seen(&self) -> Vec<Seen<'_>> {
        self.runs
            .iter()
            .map(|run| Seen {
                profile: run.profile,
                rows: &run.rows.bytes,
                width: run.rows.width,
                meaning: run.meaning.meaning(),
                equal: &run.equal,
            })
            .collect()
    }

    /// Every run's row of a class against the expected row of a column: the first run that differs, and where.
    pub(super) fn difference(&mut self, units: &Units, column: ColumnId, class: usize) -> Option<(&Run<'c>, &'c CellClass)> {
        let column = &units.expected.columns[column as usize];
        let reading = self.reading;
        self.runs.iter_mut().find_map(|run| {
            let different = run.difference(units, reading, column[run.profile as usize], class)?;
            Some((&*run, different))
        })
    }

    /// Takes over which rows of a run were found equal to what, from a run whose rows mean the same.
    pub(super) fn remember(&mut self, run: usize, equal: &[u32]) {
        let known = &mut self.runs[run].equal;
        let len = known.len().min(equal.len());
        known[..len].copy_from_slice(&equal[..len]);
    }

    /// The same of one run alone.
    pub(super) fn agrees_in(&mut self, run: usize, units: &Units, column: ColumnId, class: usize) -> bool {
        let run = &mut self.runs[run];
        run.difference(units, self.reading, units.expected.columns[column as usize][run.profile as usize], class).is_none()
    }
}

impl Run<'_> {
    fn difference<'r>(&mut self, units: &Units, reading: Reading<'r>, expected: u32, class: usize) -> Option<&'r CellClass> {
        let row = self.rows.of(class);
        if self.equal[usize::from(row)] == expected + 1 {
            return None;
        }
        let different = self.different(reading, &units.expected.rows[expected as usize], row);
        if different.is_none() {
            self.equal[usize::from(row)] = expected + 1;
        }
        different
    }

    /// The first cell in which the two rows differ.
    fn different<'r>(&self, reading: Reading<'r>, expected: &Row, row: u16) -> Option<&'r CellClass> {
        reading.cell_classes.iter().find(|cell_class| match (self.table.action(row, cell_class.class), expected[cell_class.cell]) {
            (Action::Deny, None) => false,
            (Action::Allow(id), Some(rule)) => reading.rules.get(id.0 as usize).copied().flatten() != Some(rule),
            (Action::Deny, Some(_)) | (Action::Allow(_), None) => true,
        })
    }
}
