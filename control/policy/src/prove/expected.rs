//! What the oracle expects: for each profile and each *unit* (a region and the group of pods at an address in it) a row,
//! one deciding rule for each cell; and for each unit the column of its rows.
//!
//! Equal inputs are asked once. A row depends on the profile, on which of its rules have a peer that matches the unit,
//! and, for egress, on the named ports at the unit; whatever has the same of these three has the same row.

use super::cells::{Cell, Cells};
use super::people::Environment;
use super::sides::{Profile, ProfileId, RuleInPlay, RuleIndex};
use crate::oracle::port_entry_matches;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sluice_flow::{Direction, Protocol};
use std::collections::HashMap;

pub(super) type UnitId = u32;
pub(super) type RowId = u32;
pub(super) type ColumnId = u32;
/// One bit for each rule in play.
pub(super) type RuleBits = Vec<u64>;

pub(super) fn has(bits: &[u64], rule: RuleIndex) -> bool {
    bits[rule as usize / 64] >> (rule % 64) & 1 != 0
}

pub(super) fn set(bits: &mut [u64], rule: RuleIndex) {
    bits[rule as usize / 64] |= 1 << (rule % 64);
}

/// What counts of a region and the group at an address in it.
#[derive(Debug)]
pub(super) struct Unit {
    /// The rules with a peer that matches such an address.
    pub(super) matched: RuleBits,
    /// Which of [`Expected::environments`] the group has.
    pub(super) environment: u32,
}

/// The deciding rule of each cell; none denies.
pub(super) type Row = Vec<Option<RuleIndex>>;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Expected {
    pub(super) rows: Vec<Row>,
    row_ids: HashMap<Row, RowId>,
    /// By what a row depends on.
    known: HashMap<(ProfileId, Vec<RuleIndex>, u32), RowId>,
    pub(super) environments: Vec<Environment>,
    environment_ids: HashMap<Environment, u32>,
    pub(super) columns: Vec<Vec<RowId>>,
    column_ids: HashMap<Vec<RowId>, ColumnId>,
    /// By unit; [`NO_COLUMN`] until somebody asks.
    column_of_unit: Vec<ColumnId>,
}

const NO_COLUMN: ColumnId = ColumnId::MAX;

/// What the rows are made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) rules: &'a [RuleInPlay],
    /// Of each rule: whether it asks for a named port.
    pub(super) asks_names: &'a [bool],
    pub(super) profiles: &'a [Profile],
    pub(super) cells: &'a Cells,
}

impl Expected {
    /// The number of an environment, the same for equal ones.
    pub(super) fn environment(&mut self, environment: Environment) -> u32 {
        let next = self.environments.len() as u32;
        *self.environment_ids.entry(environment).or_insert_with_key(|environment| {
            self.environments.push(environment.clone());
            next
        })
    }

    /// Forgets rows and columns; environments stay.
    pub(super) fn forget_rows(&mut self) {
        *self = Self {
            environments: std::mem::take(&mut self.environments),
            environment_ids: std::mem::take(&mut self.environment_ids),
            ..Self::default()
        };
    }

    /// The column of a unit.
    pub(super) fn column(&mut self, terms: Terms<'_>, id: UnitId, unit: &Unit) -> ColumnId {
        if self.column_of_unit.len() <= id as usize {
            self.column_of_unit.resize(id as usize + 1, NO_COLUMN);
        }
        if self.column_of_unit[id as usize] == NO_COLUMN {
            let rows = (0..terms.profiles.len() as ProfileId).map(|profile| self.row(terms, profile, unit)).collect();
            let next = self.columns.len() as ColumnId;
            self.column_of_unit[id as usize] = *self.column_ids.entry(rows).or_insert_with_key(|rows| {
                self.columns.push(rows.clone());
                next
            });
        }
        self.column_of_unit[id as usize]
    }

    fn row(&mut self, terms: Terms<'_>, id: ProfileId, unit: &Unit) -> RowId {
        let profile = &terms.profiles[id as usize];
        let matching: Vec<RuleIndex> = profile.rules.iter().copied().filter(|&rule| has(&unit.matched, rule)).collect();
        let asks = profile.direction == Direction::Egress && matching.iter().any(|&rule| terms.asks_names[rule as usize]);
        let environment = if asks { unit.environment + 1 } else { 0 };
        let key = (id, matching, environment);
        if let Some(&row) = self.known.get(&key) {
            return row;
        }
        let defined = match profile.direction {
            Direction::Ingress => &profile.environment,
            Direction::Egress => &self.environments[unit.environment as usize],
        };
        let row = row(terms, &key.1, defined);
        let next = self.rows.len() as RowId;
        let row = *self.row_ids.entry(row).or_insert_with_key(|row| {
            self.rows.push(row.clone());
            next
        });
        self.known.insert(key, row);
        row
    }
}

/// Asks every cell of every matching rule, in the oracle's words.
fn row(terms: Terms<'_>, matching: &[RuleIndex], defined: &Environment) -> Row {
    let mut row: Row = vec![None; terms.cells.0.len()];
    for &index in matching {
        let rule = terms.rules[index as usize].rule();
        let entries = rule.ports();
        let allows = |cell: &Cell| match (entries.is_empty(), cell.protocol) {
            (true, _) => true,
            (false, None) => false,
            (false, Some(protocol)) => entries
                .iter()
                .any(|entry| port_entry_matches(entry, protocol, cell.first, |name| defines(defined, name, protocol, cell.first))),
        };
        for (decided, cell) in row.iter_mut().zip(&terms.cells.0) {
            if decided.is_none() && allows(cell) {
                *decided = Some(index);
            }
        }
    }
    row
}

fn defines(environment: &Environment, name: &str, protocol: Protocol, port: u16) -> bool {
    environment.iter().any(|(one, of, number)| one == name && *of == protocol && *number == i32::from(port))
}

/// Whether a rule asks for a named port.
pub(super) fn asks_names(rule: &RuleInPlay) -> bool {
    rule.rule().ports().iter().any(|entry| matches!(entry.port, Some(IntOrString::String(_))))
}
