//! What policies can see of a pod: the labels, port names and regions that they mention, and nothing else.
//!
//! Mentions are collected without understanding selectors: a value is mentioned whether by `In` or by `NotIn`. Two pods
//! with equal [`Traits`] therefore satisfy the same selectors, whatever these mean; the reverse need not hold.

use super::blocks::Blocks;
use crate::oracle::{Oracle, rules};
use crate::{ObjectName, Snapshot};
use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sluice_flow::{Direction, Protocol};
use std::collections::{BTreeMap, BTreeSet};

/// Keys, each with the values that are mentioned beside it.
type Labels = BTreeMap<String, BTreeSet<String>>;

/// All that the policies of a state mention.
#[derive(Debug, Default)]
pub(super) struct Mentions {
    /// By selectors that may meet pods of any namespace.
    everywhere: Labels,
    /// By selectors that meet pods of one namespace only.
    within: BTreeMap<String, Labels>,
    port_names: BTreeSet<String>,
}

/// What policies can see of one pod. Namespaces are compared apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Traits {
    labels: Vec<Seen>,
    ports: Vec<Vec<i32>>,
    regions: Vec<IpNet>,
    /// Who else claims one of its addresses.
    sharers: Vec<ObjectName>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    Absent,
    /// A value that nobody mentions.
    Unmentioned,
    Value(String),
}

impl Mentions {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let mut mentions = Self::default();
        for (name, policy) in &snapshot.policies {
            if let Some(selector) = policy.spec.as_ref().and_then(|spec| spec.pod_selector.as_ref()) {
                add(mentions.within.entry(name.namespace.clone()).or_default(), selector);
            }
            for rule in Direction::BOTH.into_iter().flat_map(|direction| rules(name, policy, direction)) {
                for peer in rule.peers() {
                    let Some(selector) = &peer.pod_selector else { continue };
                    match &peer.namespace_selector {
                        Some(_) => add(&mut mentions.everywhere, selector),
                        None => add(mentions.within.entry(name.namespace.clone()).or_default(), selector),
                    }
                }
                for port in rule.ports() {
                    if let Some(IntOrString::String(name)) = &port.port {
                        mentions.port_names.insert(name.clone());
                    }
                }
            }
        }
        // Each namespace's own list is complete, so that one look suffices for a pod.
        for namespace in snapshot.pods.keys().map(|pod| &pod.namespace) {
            mentions.within.entry(namespace.clone()).or_default();
        }
        for labels in mentions.within.values_mut() {
            for (key, values) in &mentions.everywhere {
                labels.entry(key.clone()).or_default().extend(values.iter().cloned());
            }
        }
        mentions
    }

    /// What the policies see of `pod`.
    pub(super) fn traits(&self, oracle: &Oracle<'_>, snapshot: &Snapshot, blocks: &Blocks, pod: &ObjectName) -> Traits {
        let own = snapshot.pods.get(pod).and_then(|pod| pod.metadata.labels.as_ref());
        let mentioned = self.within.get(&pod.namespace).unwrap_or(&self.everywhere);
        let labels = mentioned.iter().map(|(key, values)| match own.and_then(|own| own.get(key)) {
            None => Seen::Absent,
            Some(value) if values.contains(value) => Seen::Value(value.clone()),
            Some(_) => Seen::Unmentioned,
        });
        let names = self.port_names.iter().flat_map(|name| Protocol::WITH_PORTS.map(|protocol| (name, protocol)));
        let ports = names.map(|(name, protocol)| {
            let mut numbers = oracle.named_ports(pod, name, protocol);
            numbers.sort_unstable();
            numbers.dedup();
            numbers
        });
        let addresses = oracle.addresses_of(pod);
        let sharers = addresses.iter().map(|address| oracle.pods_at(*address)).filter(|pods| pods.len() > 1);
        Traits {
            labels: labels.collect(),
            ports: ports.collect(),
            regions: addresses.iter().map(|address| blocks.innermost(*address)).collect(),
            sharers: sharers.flatten().map(|&pod| pod.clone()).collect(),
        }
    }
}

fn add(labels: &mut Labels, selector: &LabelSelector) {
    for (key, value) in selector.match_labels.iter().flatten() {
        labels.entry(key.clone()).or_default().insert(value.clone());
    }
    for requirement in selector.match_expressions.iter().flatten() {
        let values = labels.entry(requirement.key.clone()).or_default();
        values.extend(requirement.values.iter().flatten().cloned());
    }
}
