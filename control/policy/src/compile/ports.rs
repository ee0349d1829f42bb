//! Ports → port classes, and the rows over them.
//!
//! While addresses are classified, a row is a list of (protocol, first, last, rule) in deciding order. Once all rows are
//! known their bounds cut the port space into cells, each row becomes one action for each cell, and cells with equal
//! columns are merged into port classes.

use super::model::{Model, NamedPorts, PortSpec};
use super::{CompileError, capacity};
use sluice_flow::{Protocol, RuleId};
use sluice_table::Action;
use std::collections::{BTreeSet, HashMap};

/// One opening of a row: the rule allows these ports; `None` opens every port of every protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Opening {
    ports: Option<(Protocol, u16, u16)>,
    rule: u32,
}

/// What [`Rows::finish`] gives: the number of port classes, their intervals for each protocol, the class of other
/// protocols, and every row.
pub(super) type Finished = (usize, [Vec<(u16, u16)>; 3], u16, Vec<Vec<Action>>);

/// Distinct rows, interned as they are asked for.
pub(super) struct Rows<'m> {
    model: &'m Model<'m>,
    rows: Vec<Vec<Opening>>,
    row_of_openings: HashMap<Vec<Opening>, u16>,
}

impl<'m> Rows<'m> {
    pub(super) fn new(model: &'m Model<'_>) -> Self {
        // row 0 denies everything
        Self { model, rows: vec![Vec::new()], row_of_openings: HashMap::from([(Vec::new(), 0)]) }
    }

    /// The row for these matching rules, ascending; named ports resolve in `destination`, the pod at the receiving
    /// end, where there is one.
    pub(super) fn row(&mut self, allowing: &[u32], destination: Option<&NamedPorts>) -> Result<u16, CompileError> {
        let mut openings = Vec::new();
        for &rule in allowing {
            match &self.model.rules[rule as usize].ports {
                None => openings.push(Opening { ports: None, rule }),
                Some(specs) => {
                    for spec in specs {
                        match spec {
                            PortSpec::Range(protocol, first, last) => {
                                openings.push(Opening { ports: Some((*protocol, *first, *last)), rule })
                            }
                            PortSpec::Named(protocol, name) => {
                                let numbers = destination.and_then(|named| named.get(&(name.clone(), *protocol)));
                                openings.extend(numbers.into_iter().flatten().map(|&n| Opening { ports: Some((*protocol, n, n)), rule }));
                            }
                        }
                    }
                }
            }
        }
        if let Some(&row) = self.row_of_openings.get(&openings) {
            return Ok(row);
        }
        capacity("rows", self.rows.len() + 1, usize::from(u16::MAX))?;
        let row = self.rows.len() as u16;
        self.rows.push(openings.clone());
        self.row_of_openings.insert(openings, row);
        Ok(row)
    }

    pub(super) fn finish(self) -> Result<Finished, CompileError> {
        let cells = self.cells();
        let by_cell: Vec<Vec<Action>> =
            self.rows.iter().map(|openings| cells.iter().map(|cell| action(openings, *cell)).collect()).collect();
        let mut class_of_column: HashMap<Vec<Action>, u16> = HashMap::new();
        let mut representatives = Vec::new();
        let mut class_of_cell = Vec::with_capacity(cells.len());
        for cell in 0..cells.len() {
            let column: Vec<Action> = by_cell.iter().map(|row| row[cell]).collect();
            let next = class_of_column.len();
            capacity("port classes", next + 1, usize::from(u16::MAX))?;
            class_of_cell.push(*class_of_column.entry(column).or_insert_with(|| {
                representatives.push(cell);
                next as u16
            }));
        }
        let mut intervals: [Vec<(u16, u16)>; 3] = Default::default();
        let mut other = 0;
        for (cell, &class) in cells.iter().zip(&class_of_cell) {
            match cell {
                Cell::Other => other = class,
                Cell::Port(protocol, first) => {
                    let list = &mut intervals[Protocol::WITH_PORTS.iter().position(|p| p == protocol).expect("a protocol with ports")];
                    if list.last().is_none_or(|&(_, last)| last != class) {
                        list.push((*first, class));
                    }
                }
            }
        }
        let rows = by_cell.iter().map(|row| representatives.iter().map(|&cell| row[cell]).collect()).collect();
        Ok((representatives.len(), intervals, other, rows))
    }

    /// The first port of every cell of each protocol, and one cell for all protocols without ports.
    fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for protocol in Protocol::WITH_PORTS {
            let mut bounds: BTreeSet<u16> = BTreeSet::from([0]);
            for (_, first, last) in self.rows.iter().flatten().filter_map(|opening| opening.ports).filter(|ports| ports.0 == protocol) {
                bounds.insert(first);
                bounds.extend(last.checked_add(1));
            }
            cells.extend(bounds.into_iter().map(|first| Cell::Port(protocol, first)));
        }
        cells.push(Cell::Other);
        cells
    }
}

#[derive(Debug, Clone, Copy)]
enum Cell {
    Port(Protocol, u16),
    Other,
}

/// The first opening that covers the cell decides.
fn action(openings: &[Opening], cell: Cell) -> Action {
    let covers = |opening: &&Opening| match (opening.ports, cell) {
        (None, _) => true,
        (Some(_), Cell::Other) => false,
        (Some((protocol, first, last)), Cell::Port(of, port)) => protocol == of && (first..=last).contains(&port),
    };
    openings.iter().find(covers).map_or(Action::Deny, |opening| Action::Allow(RuleId(opening.rule)))
}
