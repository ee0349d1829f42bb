//! Ports → port classes, and the rows over them.
//!
//! While addresses are classified, a row is a list of openings in deciding order. Once all rows of a table are known
//! their bounds cut the port space into cells, each row becomes one action for each cell, and cells with equal columns
//! are merged into port classes.

use super::CompileError;
use super::identity::NamedPorts;
use super::number::capacity;
use super::rulebook::{Entry, RuleHandle};
use super::rules::PortSpec;
use super::sides::{NO_NAMES, NamedId, Names};
use ahash::RandomState;
use sluice_flow::{Protocol, RuleId};
use sluice_table::Action;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

/// One opening of a row: the rule allows these ports; `None` opens every port of every protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Opening {
    ports: Option<(Protocol, u16, u16)>,
    rule: u32,
}

/// Rows by number of first use.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// By handles of rules.
    rows: Vec<Vec<Opening>>,
    row_of_openings: HashMap<Vec<Opening>, u32, RandomState>,
    /// By the handles that allow, and the named ports they resolve in, where they ask for some.
    row_of_allowing: HashMap<Box<[u32]>, u32, RandomState>,
    /// The question at hand, kept for its memory.
    asked: Vec<u32>,
    /// Rule ids by handle.
    pub(super) ids: Vec<u32>,
}

impl Rows {
    /// The row for these matching rules, in deciding order; named ports resolve in `destination`, the pod at the receiving
    /// end.
    pub(super) fn row(
        &mut self,
        entries: &[Entry],
        allowing: impl Iterator<Item = RuleHandle>,
        destination: NamedId,
        names: &Names,
    ) -> u32 {
        self.asked.clear();
        self.asked.extend(allowing);
        let asks = self.asked.iter().any(|&rule| entries[rule as usize].has_named_ports);
        self.asked.push(if asks { destination } else { NO_NAMES });
        if let Some(&row) = self.row_of_allowing.get(&*self.asked) {
            return row;
        }
        let mut openings = Vec::new();
        for &rule in &self.asked[..self.asked.len() - 1] {
            match entries[rule as usize].rule.as_ref().and_then(|rule| rule.ports.as_ref()) {
                None => openings.push(Opening { ports: None, rule }),
                Some(specs) => specs.iter().for_each(|spec| open(spec, rule, names.ports(destination), &mut openings)),
            }
        }
        let next = self.rows.len() as u32;
        let row = *self.row_of_openings.entry(openings).or_insert_with_key(|openings| {
            self.rows.push(openings.clone());
            next
        });
        self.row_of_allowing.insert(self.asked.as_slice().into(), row);
        row
    }

    /// How many questions are remembered.
    pub(super) fn len(&self) -> usize {
        self.row_of_allowing.len()
    }

    /// A row in terms of rule ids.
    fn openings(&self, row: u32) -> Vec<Opening> {
        let of_id = |opening: &Opening| Opening { rule: self.ids[opening.rule as usize], ..*opening };
        self.rows[row as usize].iter().map(of_id).collect()
    }
}

fn open(spec: &PortSpec, rule: u32, destination: &NamedPorts, openings: &mut Vec<Opening>) {
    match spec {
        PortSpec::Range(protocol, first, last) => openings.push(Opening { ports: Some((*protocol, *first, *last)), rule }),
        PortSpec::Named(protocol, name) => {
            let numbers = destination.get(&(name.clone(), *protocol));
            openings.extend(numbers.into_iter().flatten().map(|&n| Opening { ports: Some((*protocol, n, n)), rule }));
        }
    }
}

/// The rows that a table uses, over port classes: the same rows give the same numbers, whatever was used before.
#[derive(Debug)]
pub(super) struct PortTable {
    pub(super) port_classes: usize,
    /// TCP, UDP, SCTP: first port of each interval and its port class.
    pub(super) intervals: [Vec<(u16, u16)>; 3],
    /// The port class of every other protocol.
    pub(super) other_protocols: u16,
    /// Distinct rows, the one that denies everything first.
    pub(super) rows: Vec<Vec<Action>>,
    /// The number that each row of [`Rows`] has here.
    pub(super) row_numbers: HashMap<u32, u32>,
}

impl PortTable {
    /// `used`: ascending, without repeats.
    pub(super) fn of(rows: &Rows, used: &[u32]) -> Result<Self, CompileError> {
        let openings: Vec<Vec<Opening>> = used.iter().map(|&row| rows.openings(row)).collect();
        let cells = Cells::of(openings.iter().flatten());
        let by_cell: Vec<Vec<Action>> = openings.iter().map(|openings| cells.actions(openings)).collect();
        let deny = vec![Action::Deny; cells.0.len()];
        let mut distinct: Vec<&Vec<Action>> = by_cell.iter().chain([&deny]).collect();
        distinct.sort_unstable();
        distinct.dedup();
        capacity("rows", distinct.len(), u32::MAX as usize)?;
        let numbers: HashMap<&Vec<Action>, u32, RandomState> = distinct.iter().copied().zip(0u32..).collect();
        let row_numbers = used.iter().zip(&by_cell).map(|(&row, actions)| (row, numbers[actions])).collect();

        let mut class_of_column: HashMap<&[Action], u16, RandomState> = HashMap::default();
        let mut representatives = Vec::new();
        let mut class_of_cell = Vec::with_capacity(cells.0.len());
        let columns = transposed(&distinct);
        for (cell, column) in columns.chunks(distinct.len()).enumerate() {
            let next = class_of_column.len();
            capacity("port classes", next + 1, usize::from(u16::MAX))?;
            class_of_cell.push(*class_of_column.entry(column).or_insert_with(|| {
                representatives.push(cell);
                next as u16
            }));
        }
        let mut intervals: [Vec<(u16, u16)>; 3] = Default::default();
        let mut other_protocols = 0;
        for (cell, &class) in cells.0.iter().zip(&class_of_cell) {
            match cell {
                Cell::Other => other_protocols = class,
                Cell::Port(protocol, first) => {
                    let list = &mut intervals[Protocol::WITH_PORTS.iter().position(|p| p == protocol).expect("a protocol with ports")];
                    if list.last().is_none_or(|&(_, last)| last != class) {
                        list.push((*first, class));
                    }
                }
            }
        }
        let rows = distinct.iter().map(|row| representatives.iter().map(|&cell| row[cell]).collect()).collect();
        Ok(Self { port_classes: representatives.len(), intervals, other_protocols, rows, row_numbers })
    }
}

#[derive(Debug, Clone, Copy)]
enum Cell {
    Port(Protocol, u16),
    Other,
}

/// What each row says of a cell, cell by cell.
fn transposed(rows: &[&Vec<Action>]) -> Vec<Action> {
    /// Cells that are written together, so that what is read of a row is a whole line.
    const TOGETHER: usize = 64;
    let cells = rows.first().map_or(0, |row| row.len());
    let mut columns = vec![Action::Deny; cells * rows.len()];
    for first in (0..cells).step_by(TOGETHER) {
        for (at, row) in rows.iter().enumerate() {
            for (cell, &action) in row.iter().enumerate().skip(first).take(TOGETHER) {
                columns[cell * rows.len() + at] = action;
            }
        }
    }
    columns
}

/// The first port of every cell of each protocol, and one cell for all protocols without ports.
struct Cells(Vec<Cell>);

impl Cells {
    fn of<'o>(openings: impl Iterator<Item = &'o Opening> + Clone) -> Self {
        let mut cells = Vec::new();
        for protocol in Protocol::WITH_PORTS {
            let mut bounds: BTreeSet<u16> = BTreeSet::from([0]);
            for (_, first, last) in openings.clone().filter_map(|opening| opening.ports).filter(|ports| ports.0 == protocol) {
                bounds.insert(first);
                bounds.extend(last.checked_add(1));
            }
            cells.extend(bounds.into_iter().map(|first| Cell::Port(protocol, first)));
        }
        cells.push(Cell::Other);
        Self(cells)
    }

    /// What each cell gets: the first opening that covers it decides.
    fn actions(&self, openings: &[Opening]) -> Vec<Action> {
        let mut actions = vec![Action::Deny; self.0.len()];
        for opening in openings.iter().rev() {
            let covered = opening.ports.map_or(0..self.0.len(), |ports| self.range(ports));
            actions[covered].fill(Action::Allow(RuleId(opening.rule)));
        }
        actions
    }

    /// The cells of these ports, whose bounds are among theirs.
    fn range(&self, (protocol, first, last): (Protocol, u16, u16)) -> Range<usize> {
        let order = |protocol: Protocol| Protocol::WITH_PORTS.iter().position(|&with_ports| with_ports == protocol);
        let before = |limit: u32| {
            self.0.partition_point(|cell| match cell {
                Cell::Port(of, port) => (order(*of), u32::from(*port)) < (order(protocol), limit),
                Cell::Other => false,
            })
        };
        before(first.into())..before(u32::from(last) + 1)
    }
}
