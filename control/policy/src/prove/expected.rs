//! What the oracle expects: for each profile and each *unit* (a region and the group of pods at an address in it) a row,
//! one deciding rule for each cell; and for each unit the column of its rows.
//!
//! Equal inputs are asked once. A row depends on the profile, on which of its rules have a peer that matches the unit,
//! and, for egress, on the named ports at the unit; whatever has the same of these three has the same row.

use super::cells::{Cell, Cells};
use super::people::Environment;
use super::sides::{Profile, ProfileId, RuleInPlay, RuleIndex};
use crate::oracle::port_entry_matches;
use ahash::RandomState;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sluice_flow::{Direction, Protocol};
use std::collections::{BTreeMap, HashMap};

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
    row_ids: HashMap<Row, RowId, RandomState>,
    /// By profile.
    known: Vec<Known>,
    pub(super) environments: Vec<Environment>,
    environment_ids: HashMap<Environment, u32>,
    pub(super) columns: Vec<Vec<RowId>>,
    column_ids: HashMap<Vec<RowId>, ColumnId, RandomState>,
    /// By all that a column depends on.
    column_of_terms: HashMap<(RuleBits, u32), ColumnId, RandomState>,
    /// By unit; [`NO_COLUMN`] until somebody asks.
    column_of_unit: Vec<ColumnId>,
}

const NO_COLUMN: ColumnId = ColumnId::MAX;

/// The rows of one profile that have been asked for.
#[derive(Debug, Default)]
struct Known {
    /// The words of [`RuleBits`] that hold the profile's rules, and which bits of them do.
    words: Vec<(usize, u64)>,
    /// By what a row depends on: these bits of the unit, and its environment where that matters.
    rows: HashMap<Vec<u64>, RowId, RandomState>,
    /// The row where none of them matches, which is what most are.
    nothing: Option<RowId>,
}

impl Known {
    fn of(profile: &Profile) -> Self {
        let mut words: BTreeMap<usize, u64> = BTreeMap::new();
        for &rule in &profile.rules {
            *words.entry(rule as usize / 64).or_default() |= 1 << (rule % 64);
        }
        Self { words: words.into_iter().collect(), ..Self::default() }
    }
}

/// What the rows are made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) rules: &'a [RuleInPlay],
    /// The rules that ask for a named port.
    pub(super) asks_names: &'a [u64],
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
            let dependent = (unit.matched.clone(), unit.environment);
            let known = self.column_of_terms.get(&dependent).copied();
            let column = known.unwrap_or_else(|| self.ask_column(terms, unit));
            self.column_of_terms.insert(dependent, column);
            self.column_of_unit[id as usize] = column;
        }
        self.column_of_unit[id as usize]
    }

    fn ask_column(&mut self, terms: Terms<'_>, unit: &Unit) -> ColumnId {
        if self.known.is_empty() {
            self.known = terms.profiles.iter().map(Known::of).collect();
        }
        let mut key = Vec::new();
        let rows = (0..terms.profiles.len() as ProfileId).map(|profile| self.row(terms, profile, unit, &mut key)).collect();
        let next = self.columns.len() as ColumnId;
        *self.column_ids.entry(rows).or_insert_with_key(|rows| {
            self.columns.push(rows.clone());
            next
        })
    }

    fn row(&mut self, terms: Terms<'_>, id: ProfileId, unit: &Unit, key: &mut Vec<u64>) -> RowId {
        let (profile, known) = (&terms.profiles[id as usize], &self.known[id as usize]);
        if let Some(nothing) = known.nothing
            && known.words.iter().all(|&(word, bits)| unit.matched[word] & bits == 0)
        {
            return nothing;
        }
        key.clear();
        key.extend(known.words.iter().map(|&(word, bits)| unit.matched[word] & bits));
        let asks = || known.words.iter().zip(&*key).any(|(&(word, _), matched)| matched & terms.asks_names[word] != 0);
        let environment = if profile.direction == Direction::Egress && asks() { u64::from(unit.environment) + 1 } else { 0 };
        key.push(environment);
        if let Some(&row) = known.rows.get(key) {
            return row;
        }
        let defined = match profile.direction {
            Direction::Ingress => &profile.environment,
            Direction::Egress => &self.environments[unit.environment as usize],
        };
        let matching: Vec<RuleIndex> = profile.rules.iter().copied().filter(|&rule| has(&unit.matched, rule)).collect();
        let row = row(terms, &matching, defined);
        let next = self.rows.len() as RowId;
        let row = *self.row_ids.entry(row).or_insert_with_key(|row| {
            self.rows.push(row.clone());
            next
        });
        let known = &mut self.known[id as usize];
        if matching.is_empty() {
            known.nothing = Some(row);
        }
        known.rows.insert(key.clone(), row);
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

/// The rules that ask for a named port.
pub(super) fn asking_names(rules: &[RuleInPlay]) -> RuleBits {
    let mut bits = vec![0; rules.len().div_ceil(64)];
    for (index, rule) in (0..).zip(rules) {
        if rule.rule().ports().iter().any(|entry| matches!(entry.port, Some(IntOrString::String(_)))) {
            set(&mut bits, index);
        }
    }
    bits
}
