//! The slow truth: judges a connection by reading the Kubernetes objects as they are, one question at a time.
//!
//! Everything fast in Sluice is checked against this module, so it must be right by inspection. It therefore keeps no
//! index but one (who carries which address), merges nothing, and shares no code with the compiler: a mistake made in
//! one is not made in the other. Selectors, peers and ports are read in the words of the Kubernetes API.
//!
//! ```text
//!   pod, direction ──▶ Side: the isolating policies and their rules, in order
//!                        │   remote address ──▶ does some peer of the rule match?
//!                        │   protocol, port ──▶ does some port of the rule match?
//!                        └──▶ Judgement: isolated, allowed, by which rule, or which rule came nearest
//! ```
//!
//! Decided here and nowhere else in this file tree: where two pods claim one address, a podSelector peer matches it
//! only if it matches all of them, and a named port only if all of them define it so: doubt never opens a way.
//!
//! Self-traffic is judged like any pair. The datapath never sees it; [`explain`] says so.

mod explain;
mod identity;
mod miss;
mod rule;
mod selector;
mod service;
#[cfg(test)]
mod tests;

pub use explain::{ExplainError, Explained, ExplainedHalf, explain, service_at};
pub(crate) use identity::{Standing, belongs, standing, standing_of, status_addresses};
pub(crate) use miss::listed;
pub use rule::Rule;
pub(crate) use rule::{
    block_holds, named_ports, names_direction, peer_labels_match, peer_namespace_matches, port_entry_matches, protocol_of, rule_at, rules,
};
pub(crate) use selector::text as selector_text;
pub(crate) use service::service_addresses;

use crate::Snapshot;
use identity::Directory;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use sluice_flow::{Direction, LocalEndpoint, ObjectName, Protocol};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Answers questions about one snapshot.
///
/// Cost: building it visits each pod once; a question visits each policy of the pod's namespace, each of their rules
/// and each peer.
#[derive(Debug)]
pub struct Oracle<'a> {
    snapshot: &'a Snapshot,
    directory: Directory<'a>,
}

/// A rule by name: `ns/policy ingress[0]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleRef {
    /// The policy that holds it.
    pub policy: ObjectName,
    /// Which of the policy's two lists.
    pub direction: Direction,
    /// The position in that list.
    pub index: usize,
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}[{}]", self.policy, self.direction, self.index)
    }
}

/// What the policies say about one connection at one pod, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// The verdict.
    pub allowed: bool,
    /// Whether some policy isolates the pod in this direction.
    pub isolated: bool,
    /// The policies that do, by name.
    pub isolating: Vec<ObjectName>,
    /// The first rule that allows it: policies by name, rules in order.
    pub allowed_by: Option<RuleRef>,
    /// If denied: the rule that failed in the fewest respects.
    pub nearest_miss: Option<NearMiss>,
}

/// The rule that came nearest to allowing a denied connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NearMiss {
    /// Which rule.
    pub rule: RuleRef,
    /// What failed, in words: `the port: rule allows 80/TCP, asked 81/TCP`.
    pub failed: String,
}

/// One pod's policies in one direction, collected once for many questions.
#[derive(Debug)]
pub struct Side<'a> {
    pod: ObjectName,
    direction: Direction,
    known: bool,
    isolating: Vec<&'a ObjectName>,
    rules: Vec<Rule<'a>>,
}

impl<'a> Side<'a> {
    /// Whether some policy isolates the pod here.
    pub fn isolated(&self) -> bool {
        !self.isolating.is_empty()
    }

    /// The policies that do, by name.
    pub fn isolating(&self) -> impl Iterator<Item = &'a ObjectName> {
        self.isolating.iter().copied()
    }

    /// Every rule of the isolating policies: policies by name, rules in order.
    pub fn rules(&self) -> &[Rule<'a>] {
        &self.rules
    }

    /// How many peers one question may have to look at.
    pub fn peers(&self) -> usize {
        self.rules.iter().map(|rule| rule.peers.len().max(1)).sum()
    }
}

/// The policies that isolate `pod` in `direction`, by name. Cost: a visit to each policy of the pod's namespace.
pub(crate) fn isolating<'a>(
    snapshot: &'a Snapshot,
    pod: &ObjectName,
    direction: Direction,
) -> impl Iterator<Item = (&'a ObjectName, &'a Arc<NetworkPolicy>)> {
    let object = snapshot.pods.get(pod).filter(|_| standing(snapshot, pod) == Standing::Pod);
    let first = ObjectName::new(&pod.namespace, "");
    let namespace = pod.namespace.clone();
    let own = snapshot.policies.range(first..).take_while(move |(name, _)| name.namespace == namespace);
    own.filter(move |(_, policy)| object.is_some_and(|pod| names_direction(policy, direction) && selector::selects(policy, pod)))
}

impl<'a> Oracle<'a> {
    /// Reads who carries which address; everything else is read at each question.
    pub fn new(snapshot: &'a Snapshot) -> Self {
        Self { snapshot, directory: Directory::new(snapshot) }
    }

    /// Judges one connection at one pod: `pod`'s policy in `direction`, `remote` the other end's address as the packet
    /// carries it, `port` the destination's (0 where the protocol has none).
    ///
    /// A pod that the snapshot does not hold is denied: nobody knows its policies. A pod on its node's network and one
    /// that has ended are selected by no policy, so nothing isolates them.
    pub fn judge(&self, pod: &ObjectName, direction: Direction, remote: IpAddr, protocol: Protocol, port: u16) -> Judgement {
        let side = self.side(pod, direction);
        let allowed_by = self.first_allowing(&side, remote, protocol, port);
        let allowed = side.known && (!side.isolated() || allowed_by.is_some());
        Judgement {
            allowed,
            isolated: side.isolated(),
            isolating: side.isolating.iter().map(|&name| name.clone()).collect(),
            allowed_by: allowed_by.map(Rule::name),
            nearest_miss: if allowed { None } else { self.nearest_miss(&side, remote, protocol, port) },
        }
    }

    /// Collects the policies that isolate `pod` in `direction`.
    pub fn side(&self, pod: &ObjectName, direction: Direction) -> Side<'a> {
        let standing = standing(self.snapshot, pod);
        let mut side = Side { pod: pod.clone(), direction, known: standing != Standing::Unknown, isolating: Vec::new(), rules: Vec::new() };
        for (name, policy) in isolating(self.snapshot, pod, direction) {
            side.isolating.push(name);
            side.rules.extend(rules(name, policy, direction));
        }
        side
    }

    /// The bare verdict for a question on a collected side.
    pub fn allows(&self, side: &Side<'a>, remote: IpAddr, protocol: Protocol, port: u16) -> bool {
        side.known && (!side.isolated() || self.first_allowing(side, remote, protocol, port).is_some())
    }

    /// The first rule that allows the connection; `None` also where nothing isolates.
    pub fn first_allowing<'s>(&self, side: &'s Side<'a>, remote: IpAddr, protocol: Protocol, port: u16) -> Option<&'s Rule<'a>> {
        side.rules.iter().find(|rule| self.peers_match(rule, remote) && self.ports_match(side, rule, remote, protocol, port))
    }

    /// The first pod, by name, that carries `address` as its identity.
    pub fn pod_at(&self, address: IpAddr) -> Option<&'a ObjectName> {
        self.pods_at(address).first().copied()
    }

    /// All pods that claim `address`, by name; more than one means that a reader's view is behind.
    pub fn pods_at(&self, address: IpAddr) -> &[&'a ObjectName] {
        self.directory.pods_at(address)
    }

    /// The addresses under which `pod` takes part: its endpoint's if it is attached here, else its status'.
    pub fn addresses_of(&self, pod: &ObjectName) -> Vec<IpAddr> {
        self.directory.addresses_of(pod).to_vec()
    }

    /// Every address that some pod carries.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.directory.addresses()
    }

    /// What the status of `pod` states, whether or not it counts.
    pub fn stated_addresses_of(&self, pod: &ObjectName) -> Vec<IpAddr> {
        self.snapshot.pods.get(pod).map(|pod| status_addresses(pod)).unwrap_or_default()
    }

    /// Whether policies select `pod` and peers match it, as soon as it has an address: it is neither unknown, nor ended,
    /// nor on its node's network.
    pub fn is_peer(&self, pod: &ObjectName) -> bool {
        standing(self.snapshot, pod) == Standing::Pod
    }

    /// Whether the endpoint belongs to a pod of the snapshot, and to this incarnation of it. One that does not is
    /// dropped until the snapshot knows it.
    pub fn knows(&self, endpoint: &LocalEndpoint) -> bool {
        self.snapshot.knows(endpoint)
    }
}
