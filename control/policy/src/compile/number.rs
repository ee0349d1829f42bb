//! The last stage: rows and classes get their final numbers, by content and among those in use, so that the bytes depend on
//! the snapshot alone and never on what the compiler remembers.

use super::CompileError;
use super::columns::Columns;
use super::model::Model;
use super::peers::Atoms;
use super::ports::PortTable;
use sluice_flow::{Direction, LocalEndpoint};
use sluice_table::{EndpointName, EndpointRow, Names, PodName, RuleName, TableParts};

/// Above so many pods the table does not carry the names of remote pods.
const NAMED_PODS_MAX: usize = 4000;

/// Gives rows and classes their final numbers: by content, among those in use.
pub(super) fn number(model: &Model, columns: &Columns, atoms: &Atoms) -> Result<TableParts, CompileError> {
    let all = atoms.v4_intervals.iter().map(|atom| atom.1).chain(atoms.v6_intervals.iter().chain(&atoms.v6_exact).map(|atom| atom.1));
    let used = distinct(all);
    let rows = distinct(used.iter().flat_map(|&column| columns.column(column).iter().copied()));
    let ports = PortTable::of(&columns.rows, &rows)?;
    let classes = Classes::of(columns, &used, &ports);
    let class = |id: u32| classes.of_column[id as usize];
    let profiles = model.endpoints.iter().flat_map(|endpoint| endpoint.profiles.iter().flatten()).max().map_or(0, |last| last + 1);
    let endpoints = model.endpoints.iter().map(|endpoint| EndpointRow {
        port: endpoint.source.port,
        incarnation: endpoint.source.incarnation,
        profiles: endpoint.profiles.map(|profile| profile.map(|profile| profile as u32)),
    });
    Ok(TableParts {
        classes: classes.columns.len(),
        v4_intervals: merged(atoms.v4_intervals.iter().map(|&(start, column)| (start, class(column)))),
        v6_intervals: merged(atoms.v6_intervals.iter().map(|&(start, column)| (start, class(column)))),
        v6_exact: atoms.v6_exact.iter().map(|&(address, column)| (address, class(column))).collect(),
        profiles: classes.by_profile(profiles),
        endpoints: endpoints.collect(),
        port_classes: ports.port_classes,
        port_intervals: ports.intervals,
        other_protocols: ports.other_protocols,
        rows: ports.rows,
        services: model.services.clone(),
        names: names(model),
    })
}

/// Ascending, each once. Cost: linear in the numbers and in the highest one.
fn distinct(numbers: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut seen: Vec<bool> = Vec::new();
    for number in numbers {
        let at = number as usize;
        if at >= seen.len() {
            seen.resize(at + 1, false);
        }
        seen[at] = true;
    }
    (0..).zip(seen).filter(|(_, seen)| *seen).map(|(number, _)| number).collect()
}

/// Columns that say the same are a class; classes stand in the order of what they say.
struct Classes {
    /// The rows of each column in use, as numbers in network order, so that bytes compare as they do.
    rows: Vec<u8>,
    width: usize,
    /// Of each class, one of the columns in `rows`.
    columns: Vec<usize>,
    /// By column id.
    of_column: Vec<u32>,
}

const NUMBER: usize = size_of::<u32>();
/// Classes whose rows are written together, so that what is read of them stays near.
const TOGETHER: usize = 64;

impl Classes {
    fn of(columns: &Columns, used: &[u32], ports: &PortTable) -> Self {
        let mut numbers = vec![0u32; ports.row_numbers.keys().max().map_or(0, |&last| last as usize + 1)];
        ports.row_numbers.iter().for_each(|(&row, &number)| numbers[row as usize] = number);
        let width = used.first().map_or(0, |&id| columns.column(id).len()) * NUMBER;
        let mut rows = Vec::with_capacity(used.len() * width);
        for &id in used {
            columns.column(id).iter().for_each(|&row| rows.extend_from_slice(&numbers[row as usize].to_be_bytes()));
        }
        let of = |column: usize| &rows[column * width..][..width];
        let mut order: Vec<usize> = (0..used.len()).collect();
        order.sort_unstable_by(|&a, &b| of(a).cmp(of(b)));
        let mut of_column = vec![0; used.last().map_or(0, |&last| last as usize + 1)];
        let mut distinct: Vec<usize> = Vec::new();
        for column in order {
            if distinct.last().is_none_or(|&last| of(last) != of(column)) {
                distinct.push(column);
            }
            of_column[used[column] as usize] = distinct.len() as u32 - 1;
        }
        Self { rows, width, columns: distinct, of_column }
    }

    /// For each profile the row of each class.
    fn by_profile(&self, profiles: usize) -> Vec<Vec<u32>> {
        let mut by_profile: Vec<Vec<u32>> = (0..profiles).map(|_| Vec::with_capacity(self.columns.len())).collect();
        for together in self.columns.chunks(TOGETHER) {
            for (profile, rows) in by_profile.iter_mut().enumerate() {
                let row = |&column: &usize| &self.rows[column * self.width + profile * NUMBER..][..NUMBER];
                rows.extend(together.iter().map(row).map(|row| u32::from_be_bytes([row[0], row[1], row[2], row[3]])));
            }
        }
        by_profile
    }
}

/// Neighbours of the same class are one interval.
fn merged<T: Copy>(intervals: impl Iterator<Item = (T, u32)>) -> Vec<(T, u32)> {
    let mut merged: Vec<(T, u32)> = Vec::new();
    for (start, class) in intervals {
        if merged.last().is_none_or(|&(_, last)| last != class) {
            merged.push((start, class));
        }
    }
    merged
}

fn names(model: &Model) -> Names {
    let rules =
        model.rules.iter().map(|rule| RuleName { policy: rule.policy.clone(), direction: rule.direction, index: rule.index }).collect();
    let endpoints = model
        .endpoints
        .iter()
        .map(|endpoint| {
            let isolating = |direction: Direction| endpoint.isolating[direction as usize].to_vec();
            let LocalEndpoint { port, incarnation, pod, uid, addresses } = endpoint.source.clone();
            let (isolating_ingress, isolating_egress) = (isolating(Direction::Ingress), isolating(Direction::Egress));
            EndpointName { port, incarnation, pod, uid, addresses, isolating_ingress, isolating_egress }
        })
        .collect();
    let mut pods = Vec::new();
    if model.address_count() <= NAMED_PODS_MAX {
        for (address, pod) in model.first_claims() {
            pods.push(PodName { address, pod: pod.clone() });
        }
    }
    Names { endpoints, rules, pods }
}

/// Refuses what the format cannot hold.
pub(super) fn capacity(what: &'static str, count: usize, max: usize) -> Result<(), CompileError> {
    if count > max { Err(CompileError::Capacity { what, count, max }) } else { Ok(()) }
}
