//! What policies can see of a pod at all: the label keys that some peer asks for, and the port names that some rule
//! mentions. Two pods of one namespace that agree in those are the same to every peer and every port of every policy,
//! because the oracle looks at nothing else of a remote pod.

use crate::oracle::rules;
use crate::pod::Pod;
use crate::snapshot::Snapshot;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sluice_flow::{Direction, Protocol};
use std::collections::BTreeSet;

/// See the module.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Interest {
    label_keys: BTreeSet<String>,
    port_names: BTreeSet<String>,
}

impl Interest {
    /// Of all policies of the cluster, so that it stays the same while endpoints come and go.
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let mut interest = Self::default();
        for (name, policy) in &snapshot.policies {
            for rule in Direction::BOTH.into_iter().flat_map(|direction| rules(name, policy, direction)) {
                for selector in rule.peers().iter().filter_map(|peer| peer.pod_selector.as_ref()) {
                    interest.label_keys.extend(selector.match_labels.iter().flatten().map(|(key, _)| key.clone()));
                    interest.label_keys.extend(selector.match_expressions.iter().flatten().map(|one| one.key.clone()));
                }
                for entry in rule.ports() {
                    if let Some(IntOrString::String(name)) = &entry.port {
                        interest.port_names.insert(name.clone());
                    }
                }
            }
        }
        interest
    }

    /// The labels of `pod` that some peer asks for.
    pub(super) fn labels<'p>(&self, pod: &'p Pod) -> impl Iterator<Item = (&'p str, &'p str)> {
        pod.labels().iter().filter(|(key, _)| self.label_keys.contains(*key)).map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The ports that some rule mentions by name, as `numbers` resolves them; sorted.
    pub(super) fn environment(&self, numbers: impl Fn(&str, Protocol) -> Vec<i32>) -> Vec<(String, Protocol, i32)> {
        let mut environment = Vec::new();
        for name in &self.port_names {
            for protocol in Protocol::WITH_PORTS {
                environment.extend(numbers(name, protocol).into_iter().map(|number| (name.clone(), protocol, number)));
            }
        }
        environment.sort();
        environment.dedup();
        environment
    }
}
