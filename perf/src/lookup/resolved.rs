//! What the rules of this node come to: peers as identities and blocks, ports as numbers and names.
//!
//! An *identity* is what no selector can tell apart: pods of one namespace with the same labels and named ports. Traces
//! draw from this, and the peers that know no Kubernetes are filled from it. It decides nothing: every verdict, theirs
//! included, is checked against the oracle.

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sluice_flow::{Addr, Direction, PortIndex, Protocol};
use sluice_policy::pod::Pod;
use sluice_policy::{Oracle, Snapshot};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

type Labels = BTreeMap<String, String>;

/// Pods that no rule can tell apart.
#[derive(Debug)]
pub(crate) struct Identity {
    namespace: String,
    labels: Labels,
    /// Name, protocol, number.
    named: Vec<(String, Protocol, u16)>,
    pub(crate) addresses: Vec<Addr>,
}

impl Identity {
    /// What it calls so.
    pub(crate) fn named<'a>(&'a self, name: &'a str, protocol: Protocol) -> impl Iterator<Item = u16> + 'a {
        self.named.iter().filter(move |port| port.0 == name && port.1 == protocol).map(|port| port.2)
    }
}

/// Addresses from the first to the last, as numbers; IPv4 mapped into IPv6.
pub(crate) type Span = (u128, u128);

/// One entry of `from` or `to`.
#[derive(Debug, Clone)]
pub(crate) enum Peer {
    Everybody,
    /// Ascending.
    Identities(Arc<[u32]>),
    /// A family's addresses only, though `::/0` spans all numbers.
    Block {
        v6: bool,
        span: Span,
        excepts: Vec<Span>,
    },
}

/// One entry of `ports`.
#[derive(Debug, Clone)]
pub(crate) enum Ports {
    All,
    Range { protocol: Protocol, first: u16, last: u16 },
    Named { protocol: Protocol, name: String },
}

/// A rule of a policy.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) peers: Vec<Peer>,
    pub(crate) ports: Vec<Ports>,
}

/// One endpoint in one direction.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) port: PortIndex,
    pub(crate) direction: Direction,
    pub(crate) isolated: bool,
    /// In deciding order: policies by name, rules in order.
    pub(crate) rules: Vec<Arc<Rule>>,
    /// Of the endpoint itself.
    pub(crate) identity: u32,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) identities: Vec<Identity>,
    pub(crate) identity_of: HashMap<Addr, u32, ahash::RandomState>,
    /// At [`side_index`].
    pub(crate) sides: Vec<Side>,
}

/// Where a side stands: ports are numbered from 0 without a gap.
pub(crate) fn side_index(port: PortIndex, direction: Direction) -> usize {
    usize::from(port.0) * 2 + direction as usize
}

impl Resolved {
    /// Cost: a visit to each pod, and for each peer of this node's rules one to the identities of its namespaces.
    pub(crate) fn of(snapshot: &Snapshot, oracle: &Oracle<'_>) -> Self {
        let mut identities = Identities::default();
        let mut endpoint_identity = HashMap::new();
        for (name, pod) in snapshot.pods.iter().filter(|(name, _)| oracle.is_peer(name)) {
            let identity = identities.add(pod, &name.namespace, oracle.addresses_of(name));
            endpoint_identity.insert(name, identity);
        }
        let Identities { list, of_address, of_namespace, .. } = identities;
        let mut resolved = Self { identities: list, identity_of: of_address, sides: Vec::new() };
        let mut known: HashMap<*const NetworkPolicyPeer, Peer> = HashMap::new();
        let mut known_rules: HashMap<(*const NetworkPolicyPeer, *const NetworkPolicyPort), Arc<Rule>> = HashMap::new();
        for (index, endpoint) in snapshot.endpoints.iter().enumerate() {
            assert_eq!(usize::from(endpoint.port.0), index, "ports without a gap");
            for direction in Direction::BOTH {
                let side = oracle.side(&endpoint.pod, direction);
                let mut rules = Vec::with_capacity(side.rules().len());
                for rule in side.rules() {
                    // both lists empty: no pointers of its own, and nothing to share
                    let key = (rule.peers().as_ptr(), rule.ports().as_ptr());
                    let rule = known_rules.entry(key).or_insert_with(|| {
                        let own = &rule.name().policy.namespace;
                        let peers = rule.peers().iter();
                        let peers = peers.map(|peer| {
                            let resolve = || resolved.peer(snapshot, &of_namespace, own, peer);
                            known.entry(std::ptr::from_ref(peer)).or_insert_with(resolve).clone()
                        });
                        let peers = if rule.peers().is_empty() { vec![Peer::Everybody] } else { peers.collect() };
                        let ports = rule.ports().iter().map(ports_of);
                        let ports = if rule.ports().is_empty() { vec![Ports::All] } else { ports.collect() };
                        Arc::new(Rule { peers, ports })
                    });
                    rules.push(Arc::clone(rule));
                }
                let identity = endpoint_identity[&endpoint.pod];
                resolved.sides.push(Side { port: endpoint.port, direction, isolated: side.isolated(), rules, identity });
            }
        }
        resolved
    }

    /// The identity at an address.
    pub(crate) fn identity_at(&self, address: Addr) -> Option<u32> {
        self.identity_of.get(&address).copied()
    }

    fn peer(&self, snapshot: &Snapshot, of_namespace: &HashMap<String, Vec<u32>>, own: &str, peer: &NetworkPolicyPeer) -> Peer {
        if let Some(block) = &peer.ip_block {
            return block_of(block);
        }
        let mut namespaces: Vec<&str> = vec![own];
        if let Some(selector) = &peer.namespace_selector {
            let chosen = snapshot.namespaces.iter().filter(|(_, namespace)| matches(selector, namespace.metadata.labels.as_ref()));
            namespaces = chosen.map(|(name, _)| name.as_str()).collect();
        }
        let candidates = namespaces.iter().filter_map(|namespace| of_namespace.get(*namespace)).flatten().copied();
        let is_meant = |identity: &u32| {
            peer.pod_selector.as_ref().is_none_or(|selector| matches(selector, Some(&self.identities[*identity as usize].labels)))
        };
        let mut meant: Vec<u32> = candidates.filter(is_meant).collect();
        meant.sort_unstable();
        Peer::Identities(meant.into())
    }
}

#[derive(Default)]
struct Identities {
    list: Vec<Identity>,
    of_address: HashMap<Addr, u32, ahash::RandomState>,
    of_namespace: HashMap<String, Vec<u32>>,
    /// By the hash of what makes them; equal hashes are compared.
    by_hash: HashMap<u64, Vec<u32>, ahash::RandomState>,
    hasher: ahash::RandomState,
}

impl Identities {
    fn add(&mut self, pod: &Pod, namespace: &str, addresses: Vec<IpAddr>) -> u32 {
        let labels = pod.labels();
        let named = named_ports(pod);
        let same = self.by_hash.entry(self.hasher.hash_one((namespace, labels, &named))).or_default();
        let is_same = |index: &u32| {
            let known = &self.list[*index as usize];
            known.namespace == namespace && known.labels == *labels && known.named == named
        };
        let index = same.iter().copied().find(is_same).unwrap_or_else(|| {
            let index = self.list.len() as u32;
            same.push(index);
            self.list.push(Identity { namespace: namespace.to_owned(), labels: labels.clone(), named, addresses: Vec::new() });
            self.of_namespace.entry(namespace.to_owned()).or_default().push(index);
            index
        });
        for address in addresses.into_iter().map(Addr::from) {
            self.list[index as usize].addresses.push(address);
            self.of_address.insert(address, index);
        }
        index
    }
}

fn named_ports(pod: &Pod) -> Vec<(String, Protocol, u16)> {
    let ports = pod.containers().iter().flat_map(|container| container.ports.iter().flatten());
    let named = ports.filter_map(|port| {
        let protocol = Protocol::from_name(port.protocol.as_deref().unwrap_or("TCP"))?;
        Some((port.name.clone()?, protocol, u16::try_from(port.container_port).ok()?))
    });
    named.collect()
}

fn matches(selector: &LabelSelector, labels: Option<&Labels>) -> bool {
    let value = |key: &str| labels.and_then(|labels| labels.get(key));
    let equal = selector.match_labels.iter().flatten().all(|(key, wanted)| value(key) == Some(wanted));
    equal
        && selector.match_expressions.iter().flatten().all(|expression| {
            let (found, wanted) = (value(&expression.key), expression.values.as_deref().unwrap_or_default());
            match expression.operator.as_str() {
                "In" => found.is_some_and(|found| wanted.contains(found)),
                "NotIn" => found.is_none_or(|found| !wanted.contains(found)),
                "Exists" => found.is_some(),
                _ => found.is_none(),
            }
        })
}

fn block_of(block: &IPBlock) -> Peer {
    let span = |cidr: &String| {
        let net: IpNet = cidr.parse().expect("workloads write valid CIDRs");
        let number = |ip: IpAddr| Addr::from(ip).to_u128();
        // a family's whole range stays inside the family
        (number(net.network()), number(net.broadcast()))
    };
    Peer::Block { v6: block.cidr.contains(':'), span: span(&block.cidr), excepts: block.except.iter().flatten().map(span).collect() }
}

fn ports_of(entry: &NetworkPolicyPort) -> Ports {
    let protocol = Protocol::from_name(entry.protocol.as_deref().unwrap_or("TCP")).expect("workloads write valid protocols");
    match (&entry.port, entry.end_port) {
        (None, _) => Ports::Range { protocol, first: 0, last: u16::MAX },
        (Some(IntOrString::String(name)), _) => Ports::Named { protocol, name: name.clone() },
        (Some(IntOrString::Int(first)), last) => {
            let (first, last) = (*first as u16, last.unwrap_or(*first) as u16);
            Ports::Range { protocol, first, last }
        }
    }
}

/// Protocol, first, last; names as `destination` means them.
pub(crate) fn ranges(ports: &[Ports], destination: Option<&Identity>) -> Vec<(u8, u16, u16)> {
    let range = |protocol: Protocol, first, last| (protocol.0, first, last);
    let mut ranges = Vec::new();
    for ports in ports {
        match ports {
            Ports::All => ranges.push((0, 0, u16::MAX)),
            &Ports::Range { protocol, first, last } => ranges.push(range(protocol, first, last)),
            Ports::Named { protocol, name } => {
                let numbers = destination.into_iter().flat_map(|identity| identity.named(name, *protocol));
                ranges.extend(numbers.map(|number| range(*protocol, number, number)));
            }
        }
    }
    ranges
}
