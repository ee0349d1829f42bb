//! One rule: does some peer of it match the other end's address, and some port of it the destination's?

use super::selector::{namespace_matches, pod_matches};
use super::{Oracle, RuleRef, Side};
use crate::pod::{Container, Pod};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sluice_flow::{Direction, ObjectName, Protocol};
use std::net::IpAddr;

/// An ingress or an egress rule; the API gives both the same shape under different names.
#[derive(Debug)]
pub struct Rule<'a> {
    pub(super) policy: &'a ObjectName,
    pub(super) direction: Direction,
    pub(super) index: usize,
    /// `from` or `to`; empty, null and absent all mean every peer.
    pub(super) peers: &'a [NetworkPolicyPeer],
    /// Empty, null and absent all mean every port of every protocol.
    pub(super) ports: &'a [NetworkPolicyPort],
}

impl<'a> Rule<'a> {
    /// Its name.
    pub fn name(&self) -> RuleRef {
        RuleRef { policy: self.policy.clone(), direction: self.direction, index: self.index }
    }

    /// `from` or `to`; empty means every peer.
    pub fn peers(&self) -> &'a [NetworkPolicyPeer] {
        self.peers
    }

    /// Empty means every port of every protocol.
    pub fn ports(&self) -> &'a [NetworkPolicyPort] {
        self.ports
    }

    /// Whether this rule has that name.
    pub fn is(&self, policy: &ObjectName, direction: Direction, index: usize) -> bool {
        self.policy == policy && self.direction == direction && self.index == index
    }
}

/// Whether `policy` isolates what it selects in `direction`.
///
/// Without `policyTypes` (the API server defaults an empty list like a missing one) a policy is about ingress, and about
/// egress too if it has at least one egress rule. Source: Kubernetes, `NetworkPolicySpec.policyTypes`.
pub(crate) fn names_direction(policy: &NetworkPolicy, direction: Direction) -> bool {
    let Some(spec) = &policy.spec else { return direction == Direction::Ingress };
    let types = spec.policy_types.as_deref().unwrap_or_default();
    match direction {
        Direction::Ingress => types.is_empty() || types.iter().any(|name| name == "Ingress"),
        Direction::Egress if types.is_empty() => spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
        Direction::Egress => types.iter().any(|name| name == "Egress"),
    }
}

/// The rules of `policy` in `direction`, in order.
pub(crate) fn rules<'a>(name: &'a ObjectName, policy: &'a NetworkPolicy, direction: Direction) -> Vec<Rule<'a>> {
    (0..).map_while(|index| rule_at(name, policy, direction, index)).collect()
}

/// One rule of them; `None` past the last.
pub(crate) fn rule_at<'a>(name: &'a ObjectName, policy: &'a NetworkPolicy, direction: Direction, index: usize) -> Option<Rule<'a>> {
    let spec = policy.spec.as_ref()?;
    let (peers, ports) = match direction {
        Direction::Ingress => spec.ingress.as_ref()?.get(index).map(|rule| (&rule.from, &rule.ports))?,
        Direction::Egress => spec.egress.as_ref()?.get(index).map(|rule| (&rule.to, &rule.ports))?,
    };
    let (peers, ports) = (peers.as_deref().unwrap_or_default(), ports.as_deref().unwrap_or_default());
    Some(Rule { policy: name, direction, index, peers, ports })
}

impl<'a> Oracle<'a> {
    /// Whether some peer of `rule` matches `remote`; a rule without peers matches every address.
    pub fn peers_match(&self, rule: &Rule<'a>, remote: IpAddr) -> bool {
        rule.peers.is_empty() || rule.peers.iter().any(|peer| self.peer_matches(&rule.policy.namespace, peer, remote))
    }

    /// Whether some port of `rule` matches; a rule without ports matches every port of every protocol.
    pub fn ports_match(&self, side: &Side<'a>, rule: &Rule<'a>, remote: IpAddr, protocol: Protocol, port: u16) -> bool {
        rule.ports.is_empty() || rule.ports.iter().any(|entry| self.port_matches(side, entry, remote, protocol, port))
    }

    fn peer_matches(&self, own_namespace: &str, peer: &NetworkPolicyPeer, remote: IpAddr) -> bool {
        if let Some(block) = &peer.ip_block {
            // The API refuses a peer with both; if one got here all the same, it matches nothing.
            return peer.pod_selector.is_none() && peer.namespace_selector.is_none() && block_holds(block, remote);
        }
        let pods = self.pods_at(remote);
        !pods.is_empty() && pods.iter().all(|pod| self.peer_matches_pod(own_namespace, peer, pod))
    }

    fn peer_matches_pod(&self, own_namespace: &str, peer: &NetworkPolicyPeer, pod: &ObjectName) -> bool {
        let namespace = self.snapshot.namespaces.get(&pod.namespace);
        peer_namespace_matches(own_namespace, peer, &pod.namespace, namespace.map(|namespace| &**namespace))
            && self.snapshot.pods.get(pod).is_some_and(|pod| peer_labels_match(peer, pod))
    }

    fn port_matches(&self, side: &Side<'a>, entry: &NetworkPolicyPort, remote: IpAddr, protocol: Protocol, port: u16) -> bool {
        port_entry_matches(entry, protocol, port, |name| {
            // The destination defines what the name means: the judged pod itself, or the pods at the other end.
            let destinations = match side.direction {
                Direction::Ingress => &[&side.pod][..],
                Direction::Egress => self.pods_at(remote),
            };
            !destinations.is_empty() && destinations.iter().all(|pod| self.named_ports(pod, name, protocol).contains(&i32::from(port)))
        })
    }

    /// The numbers that `pod` gives to the port `name` in `protocol`.
    pub fn named_ports(&self, pod: &ObjectName, name: &str, protocol: Protocol) -> Vec<i32> {
        self.snapshot.pods.get(pod).map(|pod| named_ports(pod, name, protocol)).unwrap_or_default()
    }
}

/// Whether a pod peer looks into a namespace; false for a peer with an `ipBlock`, or without any field.
pub(crate) fn peer_namespace_matches(own: &str, peer: &NetworkPolicyPeer, name: &str, namespace: Option<&Namespace>) -> bool {
    match (&peer.ip_block, &peer.namespace_selector, &peer.pod_selector) {
        (Some(_), ..) | (None, None, None) => false,
        (None, None, Some(_)) => name == own,
        (None, Some(namespaces), _) => namespace_matches(namespaces, name, namespace),
    }
}

/// Whether a pod peer matches the labels of a pod in a namespace that it looks into.
pub(crate) fn peer_labels_match(peer: &NetworkPolicyPeer, pod: &Pod) -> bool {
    peer.pod_selector.as_ref().is_none_or(|pods| pod_matches(pods, pod))
}

/// Whether an entry of `ports` matches, `defines` saying whether the destination gives that number to a name.
pub(crate) fn port_entry_matches(entry: &NetworkPolicyPort, protocol: Protocol, port: u16, defines: impl Fn(&str) -> bool) -> bool {
    if protocol_of(entry) != Some(protocol) {
        return false;
    }
    match (&entry.port, entry.end_port) {
        (None, None) => true,
        (Some(IntOrString::Int(first)), None) => *first == i32::from(port),
        (Some(IntOrString::Int(first)), Some(last)) => (*first..=last).contains(&i32::from(port)),
        (Some(IntOrString::String(name)), None) => defines(name),
        // `endPort` without a numeric `port`: the API refuses it.
        (None | Some(IntOrString::String(_)), Some(_)) => false,
    }
}

/// The numbers that `pod` gives to the port `name` in `protocol`.
pub(crate) fn named_ports(pod: &Pod, name: &str, protocol: Protocol) -> Vec<i32> {
    serving_containers(pod)
        .flat_map(|container| container.ports.iter().flatten())
        .filter(|port| port.name.as_deref() == Some(name))
        .filter(|port| protocol_named(port.protocol.as_deref()) == Some(protocol))
        .map(|port| port.container_port)
        .collect()
}

/// Containers, and those init containers that keep running beside them (`restartPolicy: Always`).
fn serving_containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let restartable = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    pod.containers().iter().chain(pod.init_containers().iter().filter(restartable))
}

/// The protocol of a port entry.
pub(crate) fn protocol_of(entry: &NetworkPolicyPort) -> Option<Protocol> {
    protocol_named(entry.protocol.as_deref())
}

/// TCP where none is named.
fn protocol_named(name: Option<&str>) -> Option<Protocol> {
    match name.unwrap_or("TCP") {
        "TCP" => Some(Protocol::TCP),
        "UDP" => Some(Protocol::UDP),
        "SCTP" => Some(Protocol::SCTP),
        _ => None,
    }
}

/// Whether `address` is inside the block and in none of its excepts. A family never matches the other's block. Text
/// that is no CIDR matches nothing, and an except that is none closes the whole block.
pub(crate) fn block_holds(block: &IPBlock, address: IpAddr) -> bool {
    in_cidr(&block.cidr, address) == Some(true) && block.except.iter().flatten().all(|except| in_cidr(except, address) == Some(false))
}

/// Whether `address` lies in `cidr`; `None` if that is no CIDR.
pub(super) fn in_cidr(cidr: &str, address: IpAddr) -> Option<bool> {
    Some(cidr.parse::<IpNet>().ok()?.contains(&address.to_canonical()))
}
