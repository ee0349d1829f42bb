//! What was numbered, handed over: as plain parts, or to a writer that is told only what changed.

use super::model::Model;
use super::number::{Numbers, Renumbered};
use super::peers::{Atoms, Moved};
use sluice_flow::{Direction, LocalEndpoint};
use sluice_table::{EndpointName, EndpointRow, Image, ImageWriter, Names, PodName, RuleName, TableParts, V4Change, V6Change};

/// Above so many addresses of pods the table does not carry the names of remote pods.
const NAMED_PODS_MAX: usize = 4000;

/// Images, one after another.
#[derive(Debug, Default)]
pub(super) struct Output {
    writer: ImageWriter,
    /// Of the model, when the writer was told last.
    naming: Option<u64>,
    services: Vec<u128>,
    /// Whether the names of remote pods are carried.
    names_pods: bool,
}

impl Output {
    /// Tells the writer what changed.
    pub(super) fn follow(&mut self, model: &Model, numbers: &Numbers, atoms: &Atoms, renumbered: Renumbered, moved: &Moved) {
        let fresh = self.naming.is_none();
        if fresh || !self.follow_v4(moved.v4.as_deref()) {
            self.writer.v4(atoms.v4_intervals.iter().copied());
        }
        if fresh || moved.v6_intervals || !self.follow_v6(moved.v6.as_deref()) {
            self.writer.v6(&atoms.v6_intervals, atoms.v6_exact.iter().copied());
        }
        if fresh || renumbered.classes {
            self.writer.classes(numbers.class_of.clone(), numbers.classes());
        }
        let mut all_rows = fresh;
        if fresh || renumbered.profiles {
            self.writer.ports(&numbers.ports);
            all_rows |= self.writer.actions(&numbers.profiles);
        }
        if all_rows || renumbered.rows {
            let all = 0..numbers.classes();
            let others = numbers.others.iter().map(|others| if all_rows { all.clone() } else { others.clone() });
            self.writer.rows(numbers.profiles.iter().zip(others));
        }
        if fresh || self.services != model.services {
            self.services.clone_from(&model.services);
            self.writer.services(&model.services);
        }
        let same_naming = self.naming.replace(model.naming) == Some(model.naming);
        if !same_naming {
            self.writer.endpoints(&endpoints(model));
        }
        let named_pods = std::mem::replace(&mut self.names_pods, model.address_count() <= NAMED_PODS_MAX);
        if !same_naming || named_pods || self.names_pods {
            self.writer.names(&names(model));
        }
    }

    fn follow_v4(&mut self, changes: Option<&[V4Change]>) -> bool {
        changes.is_some_and(|changes| changes.is_empty() || self.writer.change_v4(changes))
    }

    fn follow_v6(&mut self, changes: Option<&[V6Change]>) -> bool {
        changes.is_some_and(|changes| changes.is_empty() || self.writer.change_v6(changes))
    }

    pub(super) fn image(&mut self, generation: u64) -> Image {
        self.writer.write(generation)
    }
}

/// Everything as plain parts.
pub(super) fn parts(model: &Model, numbers: &Numbers, atoms: &Atoms) -> TableParts {
    let class = |column: u32| numbers.class_of[column as usize];
    TableParts {
        classes: numbers.classes(),
        v4_intervals: atoms.v4_intervals.iter().map(|&(start, column)| (start, class(column))).collect(),
        v6_intervals: atoms.v6_intervals.iter().map(|&(start, column)| (start, class(column))).collect(),
        v6_exact: atoms.v6_exact.iter().map(|&(address, column)| (address, class(column))).collect(),
        ports: numbers.ports.clone(),
        profiles: numbers.profiles.clone(),
        endpoints: endpoints(model),
        services: model.services.clone(),
        names: names(model),
    }
}

fn endpoints(model: &Model) -> Vec<EndpointRow> {
    let row = |endpoint: &super::model::ModelEndpoint| EndpointRow {
        port: endpoint.source.port,
        incarnation: endpoint.source.incarnation,
        profiles: endpoint.profiles.map(|profile| profile.map(|profile| profile as u32)),
    };
    model.endpoints.iter().map(row).collect()
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
