//! Named ports that no destination defines.

use super::cluster::Cluster;
use super::selection::names_absent_namespace;
use super::{Findings, RuleView, WarningKind, rules_in_force, spec};
use crate::load::nearest;
use crate::oracle::{listed, protocol_of};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sluice_flow::{Direction, ObjectName, Protocol};
use std::collections::BTreeSet;

/// Pods that are asked which ports they do define, for the hint.
const ASKED_MAX: usize = 100;

pub(super) fn check(cluster: &Cluster<'_>, found: &mut Findings<'_>) {
    for (name, policy) in &cluster.snapshot.policies {
        for rule in rules_in_force(name, policy) {
            check_rule(cluster, name, policy, &rule, found);
        }
    }
}

fn check_rule(cluster: &Cluster<'_>, name: &ObjectName, policy: &NetworkPolicy, rule: &RuleView<'_>, found: &mut Findings<'_>) {
    let kind = WarningKind::UndefinedNamedPort;
    for (index, entry) in rule.ports.iter().enumerate() {
        let (Some(IntOrString::String(port)), Some(protocol)) = (&entry.port, protocol_of(entry)) else { continue };
        let Some(mut destinations) = destinations(cluster, name, policy, rule) else { continue };
        let mut asked: Vec<&ObjectName> = Vec::new();
        let defined = destinations.any(|pod| {
            if asked.len() < ASKED_MAX {
                asked.push(pod);
            }
            cluster.step() && !cluster.oracle.named_ports(pod, port, protocol).is_empty()
        });
        if defined || asked.is_empty() || !found.complete() {
            continue;
        }
        let who = match rule.direction {
            Direction::Ingress => "no pod in the manifests that this policy selects",
            Direction::Egress => "no pod in the manifests that this rule's peers match",
        };
        let message = format!("{who} defines a {protocol} port called {port}, so the entry matches nothing at present");
        found.add(kind, name, &rule.field.key("ports").index(index).key("port"), message, hint(cluster, &asked, port, protocol));
    }
}

/// The pods at which the name would be looked up; `None` where not all of them can be known.
fn destinations<'s, 'c>(
    cluster: &'s Cluster<'c>,
    name: &'s ObjectName,
    policy: &'s NetworkPolicy,
    rule: &'s RuleView<'_>,
) -> Option<Box<dyn Iterator<Item = &'c ObjectName> + 's>> {
    let own = name.namespace.as_str();
    match rule.direction {
        Direction::Ingress => {
            let selector = spec(policy).and_then(|spec| spec.pod_selector.as_ref());
            cluster.pods_known(own).then(|| cluster.selected(Some(own), selector) as Box<dyn Iterator<Item = _>>)
        }
        Direction::Egress => {
            let known = rule.peers.iter().all(|peer| is_known(cluster, own, peer))
                && (!rule.peers.is_empty() || cluster.namespace_names().iter().all(|namespace| cluster.pods_known(namespace)));
            let all = rule.peers.is_empty().then(|| cluster.selected(None, None)).into_iter().flatten();
            known.then(|| {
                Box::new(all.chain(rule.peers.iter().flat_map(move |peer| cluster.peer_pods(own, peer)))) as Box<dyn Iterator<Item = _>>
            })
        }
    }
}

fn is_known(cluster: &Cluster<'_>, own: &str, peer: &NetworkPolicyPeer) -> bool {
    match (&peer.ip_block, &peer.namespace_selector) {
        (Some(_), _) => true,
        (None, None) => cluster.pods_known(own),
        (None, Some(namespaces)) => {
            !names_absent_namespace(cluster, namespaces)
                && cluster.matching_namespaces(namespaces).iter().all(|namespace| cluster.pods_known(namespace))
        }
    }
}

fn hint(cluster: &Cluster<'_>, pods: &[&ObjectName], port: &str, protocol: Protocol) -> Option<String> {
    let defined: BTreeSet<(&str, &str)> = pods.iter().flat_map(|pod| cluster.port_names(pod)).collect();
    if let Some((_, other)) = defined.iter().find(|(name, _)| *name == port) {
        return Some(format!("{port} is a {other} port there: write `protocol: {other}` beside `port: {port}`"));
    }
    let same: Vec<&str> = defined.iter().filter(|(_, other)| *other == protocol.to_string()).map(|(name, _)| *name).collect();
    if let Some(right) = nearest(port, &same) {
        return Some(format!("did you mean `{right}`?"));
    }
    match defined.is_empty() {
        true => Some("no container there gives a port a name; write the number".to_owned()),
        false => {
            Some(format!("the ports defined there are {}", listed(defined.iter().map(|(name, protocol)| format!("{name}/{protocol}")))))
        }
    }
}
