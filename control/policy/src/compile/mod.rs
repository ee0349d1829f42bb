//! Snapshot → image. Pure and deterministic: the same snapshot and generation give the same bytes.
//!
//! ```text
//!  objects ──model──▶ rules that concern this node's pods
//!                      │
//!        ┌─────────────┴──────────────┐
//!   peers: every address falls into    ports: every (protocol, port) falls into
//!   one atom; atoms with the same      one cell; cells that no row tells apart
//!   column of rows share a class       share a port class
//!        └─────────────┬──────────────┘
//!                   TableParts ──▶ image (sluice-table)
//! ```
//!
//! A *profile* is one direction of endpoints that the same policies isolate and whose named ports resolve alike; a *row*
//! says for one profile and one set of matching rules what each port gets. Two atoms are the same class exactly if every
//! profile has the same row for both, so the table's size follows what rules can tell apart, not how many there are.
//!
//! A [`Compiler`] remembers what it read of each object, which rules match each set of labels, and what follows from each
//! set of matching rules, so that a small change costs little. What it remembers never shows: rows are numbered by what
//! they say and classes by their rows, both only among those in use, so the bytes depend on the snapshot alone.

mod columns;
mod model;
mod peers;
mod pods;
mod ports;
mod rules;
mod selector;
#[cfg(test)]
mod tests;

use crate::snapshot::Snapshot;
use columns::Columns;
use model::{Memory, Model};
use peers::{Atoms, atoms};
use ports::PortTable;
use sluice_flow::limits::PORTS_MAX;
use sluice_flow::{Direction, LocalEndpoint};
use sluice_table::{EndpointName, EndpointRow, Names, PodName, RuleName, TableParts, build_image};
use std::collections::BTreeSet;

/// Above so many pods the table does not carry the names of remote pods.
const NAMED_PODS_MAX: usize = 4000;

/// Why a snapshot has no table. Nothing of it is published; the previous table stays.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CompileError {
    #[error("{count} {what} exceed the table format's limit of {max}")]
    /// The format cannot represent it.
    Capacity {
        /// What there is too much of.
        what: &'static str,
        /// How many.
        count: usize,
        /// The limit.
        max: usize,
    },
    #[error("{object}: {field}: {reason}")]
    /// An object that cannot be represented exactly; it should have been refused when it was read.
    Object {
        /// `NetworkPolicy ns/name`.
        object: String,
        /// The field.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    #[error("port {port} is claimed by {first} and {second}")]
    /// The dataplane's report contradicts itself.
    DuplicatePort {
        /// The index.
        port: u16,
        /// One pod.
        first: String,
        /// The other.
        second: String,
    },
}

/// Compiles one snapshot after another, reading only what changed in between.
///
/// ```
/// use sluice_policy::{Snapshot, compile, compile::Compiler};
/// let (mut compiler, snapshot) = (Compiler::new(), Snapshot::default());
/// assert_eq!(compiler.compile(&snapshot, 1), compile(&snapshot, 1));
/// assert_eq!(compiler.compile(&snapshot, 2), compile(&snapshot, 2));
/// ```
#[derive(Debug, Default)]
pub struct Compiler {
    memory: Memory,
    columns: Columns,
}

/// Looks at, and in tests changes, what one stage hands to the next.
trait Stages {
    /// After the objects were read.
    fn model(&self, _: &mut Model<'_>) {}
    /// After everything was numbered.
    fn parts(&self, _: &mut TableParts) {}
}

/// Nothing in between.
struct Straight;

impl Stages for Straight {}

impl Compiler {
    /// One that remembers nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same bytes as [`compile`], sooner. Objects are known again by their pointers, see [`Snapshot::share`].
    ///
    /// # Errors
    /// As [`compile`]; the compiler stays usable.
    pub fn compile(&mut self, snapshot: &Snapshot, generation: u64) -> Result<Vec<u8>, CompileError> {
        Ok(build_image(&self.parts(snapshot, &Straight)?, generation))
    }

    fn parts(&mut self, snapshot: &Snapshot, stages: &impl Stages) -> Result<TableParts, CompileError> {
        let mut model = self.memory.model(snapshot)?;
        stages.model(&mut model);
        self.columns.renew(&model, &self.memory.namespaces, &self.memory.pods);
        let atoms = atoms(&model, &self.memory, &mut self.columns);
        let mut parts = number(&model, &self.columns, &atoms)?;
        stages.parts(&mut parts);
        Ok(parts)
    }
}

/// Compiles a snapshot from scratch. Cost: about (distinct pod label sets × rules of this node) + (addresses × profiles).
///
/// # Errors
/// [`CompileError`]: beyond the format's limits, or an object the API server would not have stored.
pub fn compile(snapshot: &Snapshot, generation: u64) -> Result<Vec<u8>, CompileError> {
    Compiler::new().compile(snapshot, generation)
}

/// The table before it becomes bytes, for tools that look at it as data.
///
/// # Errors
/// As [`compile`].
pub fn compile_parts(snapshot: &Snapshot) -> Result<TableParts, CompileError> {
    Compiler::new().parts(snapshot, &Straight)
}

/// Gives rows and classes their final numbers: by content, among those in use.
fn number(model: &Model<'_>, columns: &Columns, atoms: &Atoms) -> Result<TableParts, CompileError> {
    let all = atoms.v4_intervals.iter().map(|atom| atom.1).chain(atoms.v6_intervals.iter().chain(&atoms.v6_exact).map(|atom| atom.1));
    let mut used: Vec<u32> = all.collect();
    used.sort_unstable();
    used.dedup();
    let mut rows: Vec<u32> = used.iter().flat_map(|&column| columns.column(column).iter().copied()).collect();
    rows.sort_unstable();
    rows.dedup();
    let ports = PortTable::of(&columns.rows, &rows)?;
    let column = |id: u32| -> Vec<u32> { columns.column(id).iter().map(|row| u32::from(ports.row_numbers[row])).collect() };
    let numbered: Vec<Vec<u32>> = used.iter().map(|&id| column(id)).collect();
    let distinct: BTreeSet<&Vec<u32>> = numbered.iter().collect();
    let distinct: Vec<&Vec<u32>> = distinct.into_iter().collect();
    let mut class_of_column = vec![0u32; used.last().map_or(0, |&last| last as usize + 1)];
    for (&id, column) in used.iter().zip(&numbered) {
        class_of_column[id as usize] = distinct.binary_search(&column).expect("every column is among the distinct ones") as u32;
    }
    let class = |id: u32| class_of_column[id as usize];
    let profiles = model.endpoints.iter().flat_map(|endpoint| endpoint.profiles.iter().flatten()).max().map_or(0, |last| last + 1);
    let endpoints = model.endpoints.iter().map(|endpoint| EndpointRow {
        port: endpoint.source.port,
        incarnation: endpoint.source.incarnation,
        profiles: endpoint.profiles.map(|profile| profile.map(|profile| profile as u32)),
    });
    Ok(TableParts {
        classes: distinct.len(),
        v4_intervals: merged(atoms.v4_intervals.iter().map(|&(start, column)| (start, class(column)))),
        v6_intervals: merged(atoms.v6_intervals.iter().map(|&(start, column)| (start, class(column)))),
        v6_exact: atoms.v6_exact.iter().map(|&(address, column)| (address, class(column))).collect(),
        profiles: (0..profiles).map(|profile| distinct.iter().map(|column| column[profile]).collect()).collect(),
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
fn merged<T: Copy>(intervals: impl Iterator<Item = (T, u32)>) -> Vec<(T, u32)> {
    let mut merged: Vec<(T, u32)> = Vec::new();
    for (start, class) in intervals {
        if merged.last().is_none_or(|&(_, last)| last != class) {
            merged.push((start, class));
        }
    }
    merged
}

fn names(model: &Model<'_>) -> Names {
    let rules =
        model.rules.iter().map(|rule| RuleName { policy: rule.policy.clone(), direction: rule.direction, index: rule.index }).collect();
    let endpoints = model
        .endpoints
        .iter()
        .map(|endpoint| {
            let isolating = |direction: Direction| endpoint.isolating[direction as usize].iter().map(|&policy| policy.clone()).collect();
            let LocalEndpoint { port, incarnation, pod, uid, addresses } = endpoint.source.clone();
            let (isolating_ingress, isolating_egress) = (isolating(Direction::Ingress), isolating(Direction::Egress));
            EndpointName { port, incarnation, pod, uid, addresses, isolating_ingress, isolating_egress }
        })
        .collect();
    let mut pods = Vec::new();
    if model.addresses.len() <= NAMED_PODS_MAX {
        for (address, claims) in &model.addresses {
            pods.push(PodName { address: *address, pod: model.pods[claims[0] as usize].name.clone() });
        }
    }
    Names { endpoints, rules, pods }
}

/// Refuses what the format cannot hold.
fn capacity(what: &'static str, count: usize, max: usize) -> Result<(), CompileError> {
    if count > max { Err(CompileError::Capacity { what, count, max }) } else { Ok(()) }
}

fn check_ports(endpoints: &[LocalEndpoint]) -> Result<(), CompileError> {
    capacity("ports", endpoints.iter().map(|e| usize::from(e.port.0) + 1).max().unwrap_or(0), PORTS_MAX)?;
    let mut by_port: Vec<&LocalEndpoint> = endpoints.iter().collect();
    by_port.sort_by_key(|endpoint| endpoint.port);
    match by_port.windows(2).find(|pair| pair[0].port == pair[1].port) {
        Some(pair) => {
            Err(CompileError::DuplicatePort { port: pair[0].port.0, first: pair[0].pod.to_string(), second: pair[1].pod.to_string() })
        }
        None => Ok(()),
    }
}
