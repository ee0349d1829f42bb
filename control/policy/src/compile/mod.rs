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

mod model;
mod peers;
mod ports;

use crate::snapshot::Snapshot;
use model::Model;
use sluice_flow::limits::PORTS_MAX;
use sluice_flow::{Direction, LocalEndpoint};
use sluice_table::{EndpointName, EndpointRow, Names, PodName, RuleName, TableParts, build_image};

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

/// Compiles a snapshot. Cost: about (distinct pod label sets × rules of this node) + (addresses × profiles).
///
/// # Errors
/// [`CompileError`]: beyond the format's limits, or an object the API server would not have stored.
pub fn compile(snapshot: &Snapshot, generation: u64) -> Result<Vec<u8>, CompileError> {
    Ok(build_image(&compile_parts(snapshot)?, generation))
}

/// The table before it becomes bytes.
///
/// # Errors
/// As [`compile`].
pub fn compile_parts(snapshot: &Snapshot) -> Result<TableParts, CompileError> {
    let model = Model::of(snapshot)?;
    let mut rows = ports::Rows::new(&model);
    let classes = peers::classify(&model, &mut rows)?;
    let (port_classes, port_intervals, other_protocols, row_actions) = rows.finish()?;

    let mut endpoints = Vec::new();
    for endpoint in &model.endpoints {
        let rows_of_class = endpoint.profiles.map(|profile| profile.map(|profile| classes.rows_of_profile(profile)));
        endpoints.push(EndpointRow { port: endpoint.source.port, incarnation: endpoint.source.incarnation, rows_of_class });
    }
    Ok(TableParts {
        classes: classes.count(),
        v4_intervals: classes.v4_intervals,
        v6_intervals: classes.v6_intervals,
        v6_exact: classes.v6_exact,
        port_classes,
        port_intervals,
        other_protocols,
        rows: row_actions,
        endpoints,
        services: model.services.clone(),
        names: names(&model),
    })
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
        for (&address, pod_indexes) in &model.addresses {
            let pod = model.pods[pod_indexes[0]].name.clone();
            pods.push(PodName { address, pod });
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
