//! Which rule came nearest to allowing a denied connection, and what it lacked, in words.
//!
//! A rule can fail in two respects, its peers and its ports. The one that fails in the fewest is the one its author
//! most likely had in mind; among equals the first, in the order in which rules are tried.

use super::identity::{self, Standing};
use super::rule::{in_cidr, protocol_of};
use super::{NearMiss, Oracle, Rule, Side, selector};
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sluice_flow::{Direction, ObjectName, Protocol};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Peers or ports that a sentence lists before it says how many more there are.
const LISTED_MAX: usize = 5;

impl<'a> Oracle<'a> {
    /// The rule that failed in the fewest respects; `None` where there is no rule at all.
    pub fn nearest_miss(&self, side: &Side<'a>, remote: IpAddr, protocol: Protocol, port: u16) -> Option<NearMiss> {
        let failures = |rule: &Rule<'a>| (self.peers_match(rule, remote), self.ports_match(side, rule, remote, protocol, port));
        let (rule, (peers_ok, ports_ok)) = side
            .rules
            .iter()
            .map(|rule| (rule, failures(rule)))
            .min_by_key(|(_, (peers_ok, ports_ok))| u8::from(!peers_ok) + u8::from(!ports_ok))?;
        let mut failed = Vec::new();
        if !peers_ok {
            failed.push(self.peer_failure(rule, remote));
        }
        if !ports_ok {
            failed.push(self.port_failure(side, rule, remote, protocol, port));
        }
        Some(NearMiss { rule: rule.name(), failed: failed.join("; and ") })
    }

    fn peer_failure(&self, rule: &Rule<'a>, remote: IpAddr) -> String {
        let end = match rule.direction {
            Direction::Ingress => "source",
            Direction::Egress => "destination",
        };
        let peers = rule.peers.iter().map(|peer| peer_text(&rule.policy.namespace, peer));
        let excluding = rule.peers.iter().filter_map(|peer| peer.ip_block.as_ref()).find_map(|block| {
            let except = block.except.iter().flatten().find(|except| in_cidr(except, remote) == Some(true))?;
            (in_cidr(&block.cidr, remote) == Some(true)).then_some(except)
        });
        let excluding = excluding.map_or(String::new(), |except| format!(", inside the except {except}"));
        format!("the peer: rule allows {}; {end} is {}{excluding}", listed(peers), self.address_text(remote))
    }

    fn port_failure(&self, side: &Side<'a>, rule: &Rule<'a>, remote: IpAddr, protocol: Protocol, port: u16) -> String {
        let ports = rule.ports.iter().map(|entry| self.port_entry_text(side, entry, remote));
        let asked = port_text(protocol, port);
        let aside = if protocol.has_ports() { "" } else { ", which only a rule without ports allows" };
        format!("the port: rule allows {}, asked {asked}{aside}", listed(ports))
    }

    /// A port entry as its author wrote it; a named one with what it means at the destination.
    fn port_entry_text(&self, side: &Side<'a>, entry: &NetworkPolicyPort, remote: IpAddr) -> String {
        let protocol = entry.protocol.as_deref().unwrap_or("TCP");
        match (&entry.port, entry.end_port) {
            (None, _) => format!("every {protocol} port"),
            (Some(IntOrString::Int(first)), None) => format!("{first}/{protocol}"),
            (Some(IntOrString::Int(first)), Some(last)) => format!("{first}-{last}/{protocol}"),
            (Some(IntOrString::String(name)), _) => {
                let destinations = match side.direction {
                    Direction::Ingress => &[&side.pod][..],
                    Direction::Egress => self.pods_at(remote),
                };
                let meanings = destinations.iter().map(|pod| self.named_port_text(pod, name, entry));
                let meanings = match destinations {
                    [] => format!("no pod at {remote} defines it"),
                    _ => listed(meanings),
                };
                format!("{name}/{protocol} ({meanings})")
            }
        }
    }

    fn named_port_text(&self, pod: &ObjectName, name: &str, entry: &NetworkPolicyPort) -> String {
        let numbers = protocol_of(entry).map_or(Vec::new(), |protocol| self.named_ports(pod, name, protocol));
        match numbers.as_slice() {
            [] => format!("{pod} does not define it"),
            numbers => format!("{} at {pod}", listed(numbers.iter().map(i32::to_string))),
        }
    }

    /// Whom an address belongs to, with the labels that selectors see.
    pub(super) fn address_text(&self, address: IpAddr) -> String {
        match self.pods_at(address) {
            [] => match self.host_network_pod_at(address) {
                Some(pod) => format!("{address}, a node's address ({pod} uses its node's network, so it is no peer pod)"),
                None => format!("{address}, which is no pod's address"),
            },
            [pod] => self.pod_text(pod),
            pods => format!("{address}, claimed by {}; a selector must match them all", listed(pods.iter().map(|pod| self.pod_text(pod)))),
        }
    }

    fn pod_text(&self, pod: &ObjectName) -> String {
        let labels = self.snapshot.pods.get(pod).and_then(|pod| pod.metadata.labels.as_deref());
        let namespace = self.snapshot.namespaces.get(&pod.namespace);
        let namespace_labels = namespace.and_then(|namespace| namespace.metadata.labels.as_ref());
        format!("{pod} with {} (its namespace with {})", labels_text(labels), labels_text(namespace_labels))
    }

    pub(super) fn host_network_pod_at(&self, address: IpAddr) -> Option<&'a ObjectName> {
        let mut pods = self.snapshot.pods.iter();
        let (name, _) = pods.find(|(name, pod)| {
            identity::standing(self.snapshot, name) == Standing::HostNetwork && identity::status_addresses(pod).contains(&address)
        })?;
        Some(name)
    }
}

/// `81/TCP`, or the protocol alone where it has no ports.
pub(super) fn port_text(protocol: Protocol, port: u16) -> String {
    if protocol.has_ports() { format!("{port}/{protocol}") } else { protocol.to_string() }
}

/// `a, b or c`, never more than a reader can take in.
pub(crate) fn listed(items: impl Iterator<Item = String>) -> String {
    let mut items: Vec<String> = items.collect();
    let hidden = items.len().saturating_sub(LISTED_MAX);
    items.truncate(LISTED_MAX);
    match (hidden, items.len()) {
        (0, 0 | 1) => items.concat(),
        (0, len) => format!("{} or {}", items[..len - 1].join(", "), items[len - 1]),
        (hidden, _) => format!("{} or {hidden} more", items.join(", ")),
    }
}

fn peer_text(own_namespace: &str, peer: &NetworkPolicyPeer) -> String {
    let pods = peer.pod_selector.as_ref().map(selector::text);
    let namespaces = peer.namespace_selector.as_ref().map(selector::text);
    match (&peer.ip_block, namespaces, pods) {
        (Some(IPBlock { cidr, except }), _, _) => match except.as_deref().unwrap_or_default() {
            [] => format!("ipBlock {cidr}"),
            excepts => format!("ipBlock {cidr} except {}", listed(excepts.iter().cloned())),
        },
        (None, None, None) => "nothing (an empty peer)".to_owned(),
        (None, None, Some(pods)) => format!("podSelector {pods} in namespace {own_namespace}"),
        (None, Some(namespaces), None) => format!("all pods in namespaceSelector {namespaces}"),
        (None, Some(namespaces), Some(pods)) => format!("podSelector {pods} in namespaceSelector {namespaces}"),
    }
}

fn labels_text(labels: Option<&BTreeMap<String, String>>) -> String {
    match labels {
        Some(labels) if !labels.is_empty() => {
            let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("labels {}", labels.join(","))
        }
        _ => "no labels".to_owned(),
    }
}
