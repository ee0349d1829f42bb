//! The last stage: rows and classes get their final numbers, by content and among those in use, so that the bytes depend on
//! the snapshot alone and never on what the compiler remembers.

use super::CompileError;
use super::columns::Columns;
use super::model::Model;
use super::peers::Atoms;
use super::ports::PortTable;
use sluice_flow::{Direction, LocalEndpoint};
use sluice_table::{EndpointName, EndpointRow, Names, PodName, RuleName, TableParts};
use std::collections::BTreeSet;

/// Above so many pods the table does not carry the names of remote pods.
const NAMED_PODS_MAX: usize = 4000;

/// Gives rows and classes their final numbers: by content, among those in use.
pub(super) fn number(model: &Model, columns: &Columns, atoms: &Atoms) -> Result<TableParts, CompileError> {
    let all = atoms.v4_intervals.iter().map(|atom| atom.1).chain(atoms.v6_intervals.iter().chain(&atoms.v6_exact).map(|atom| atom.1));
    let mut used: Vec<u32> = all.collect();
    used.sort_unstable();
    used.dedup();
    let mut rows: Vec<u32> = used.iter().flat_map(|&column| columns.column(column).iter().copied()).collect();
    rows.sort_unstable();
    rows.dedup();
    let ports = PortTable::of(&columns.rows, &rows)?;
    let column = |id: u32| -> Vec<u16> { columns.column(id).iter().map(|row| ports.row_numbers[row]).collect() };
    let numbered: Vec<Vec<u16>> = used.iter().map(|&id| column(id)).collect();
    let distinct: BTreeSet<&Vec<u16>> = numbered.iter().collect();
    let distinct: Vec<&Vec<u16>> = distinct.into_iter().collect();
    capacity("address classes", distinct.len(), usize::from(u16::MAX))?;
    let mut class_of_column = vec![0u16; used.last().map_or(0, |&last| last as usize + 1)];
    for (&id, column) in used.iter().zip(&numbered) {
        class_of_column[id as usize] = distinct.binary_search(&column).expect("every column is among the distinct ones") as u16;
    }
    let class = |id: u32| class_of_column[id as usize];
    let endpoints = model.endpoints.iter().map(|endpoint| EndpointRow {
        port: endpoint.source.port,
        incarnation: endpoint.source.incarnation,
        rows_of_class: endpoint.profiles.map(|profile| profile.map(|profile| distinct.iter().map(|column| column[profile]).collect())),
    });
    Ok(TableParts {
        classes: distinct.len(),
        v4_intervals: merged(atoms.v4_intervals.iter().map(|&(start, column)| (start, class(column)))),
        v6_intervals: merged(atoms.v6_intervals.iter().map(|&(start, column)| (start, class(column)))),
        v6_exact: atoms.v6_exact.iter().map(|&(address, column)| (address, class(column))).collect(),
        endpoints: endpoints.collect(),
        port_classes: ports.port_classes,
        port_intervals: ports.intervals,
        other_protocols: ports.other_protocols,
        rows: ports.rows,
        services: model.services.clone(),
        names: names(model),
    })
}

/// Neighbours of the same class are one interval.
fn merged<T: Copy>(intervals: impl Iterator<Item = (T, u16)>) -> Vec<(T, u16)> {
    let mut merged: Vec<(T, u16)> = Vec::new();
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
