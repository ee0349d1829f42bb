//! What the manifests say about pods, indexed so that each question looks at few of them; and how much of the cluster they
//! can be trusted to show.
//!
//! Candidates come from the indices (a selector that demands a label is asked only about pods that have it), the decision
//! is always the oracle's. Every pod looked at counts towards [`STEPS_MAX`](super::STEPS_MAX).

use crate::load::{Kind, Loaded, ObjectId, Sources};
use crate::oracle::{block_holds, selector_text};
use crate::pod::{Container, Pod};
use crate::{Oracle, Snapshot};
use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicyPeer};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use sluice_flow::{ObjectName, Protocol};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::iter;
use std::net::IpAddr;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

/// Pods of workloads stand beside real pods; their names cannot collide (they hold a blank).
pub(super) fn with_workloads(snapshot: &Snapshot, sources: &Sources) -> Snapshot {
    let mut snapshot = snapshot.clone();
    for workload in sources.workloads() {
        snapshot.pods.insert(ObjectName::new(&workload.namespace, &workload.title), Arc::new(workload.pod.clone()));
    }
    snapshot
}

/// The indexed manifests.
pub(super) struct Cluster<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) oracle: Oracle<'a>,
    pub(super) sources: &'a Sources,
    /// Pods that policies can select, by name; an index into this list is how the others refer to a pod.
    pods: Vec<&'a ObjectName>,
    namespaces: BTreeMap<&'a str, Range<usize>>,
    by_label: HashMap<(&'a str, &'a str), Vec<usize>>,
    by_key: HashMap<&'a str, Vec<usize>>,
    addresses: Vec<(IpAddr, &'a ObjectName)>,
    doubts: Doubts,
    written_namespaces: BTreeSet<&'a str>,
    namespace_names: BTreeSet<&'a str>,
    namespace_answers: RefCell<HashMap<String, Rc<[&'a str]>>>,
    label_answers: RefCell<HashMap<String, Rc<Labels<'a>>>>,
    unselectable: Vec<&'a ObjectName>,
    steps: Cell<u64>,
    steps_max: u64,
}

/// What was refused, and might have been anything.
#[derive(Default)]
struct Doubts {
    everything: bool,
    /// Namespaces whose pods are not all known.
    pods: BTreeSet<String>,
    /// Namespaces whose policies are not all known.
    policies: BTreeSet<String>,
    namespaces: bool,
}

impl Doubts {
    fn new(loaded: &Loaded, sources: &Sources) -> Self {
        let mut doubts = Self { pods: sources.opaque_namespaces().clone(), ..Self::default() };
        for error in &loaded.errors {
            match &error.object {
                Some(ObjectId { kind: Kind::Pod, namespace, .. }) => drop(doubts.pods.insert(namespace.clone())),
                Some(ObjectId { kind: Kind::NetworkPolicy, namespace, .. }) => drop(doubts.policies.insert(namespace.clone())),
                Some(ObjectId { kind: Kind::Namespace, .. }) => doubts.namespaces = true,
                Some(ObjectId { kind: Kind::Service, .. }) => {}
                None => doubts.everything = true,
            }
        }
        doubts
    }
}

impl<'a> Cluster<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, loaded: &'a Loaded, sources: &'a Sources, steps_max: u64) -> Self {
        let oracle = Oracle::new(snapshot);
        let (pods, unselectable) = snapshot.pods.keys().partition::<Vec<&ObjectName>, _>(|pod| oracle.is_peer(pod));
        let mut cluster = Self {
            snapshot,
            sources,
            namespaces: BTreeMap::new(),
            by_label: HashMap::new(),
            by_key: HashMap::new(),
            addresses: Vec::new(),
            doubts: Doubts::new(loaded, sources),
            written_namespaces: loaded.origins.keys().filter(|id| id.kind == Kind::Namespace).map(|id| id.name.as_str()).collect(),
            namespace_names: snapshot.namespaces.keys().chain(snapshot.pods.keys().map(|pod| &pod.namespace)).map(String::as_str).collect(),
            namespace_answers: RefCell::default(),
            label_answers: RefCell::default(),
            unselectable,
            steps: Cell::new(0),
            steps_max,
            pods,
            oracle,
        };
        for (index, name) in cluster.pods.iter().enumerate() {
            let range = cluster.namespaces.entry(&name.namespace).or_insert(index..index);
            range.end = index + 1;
            for (key, value) in snapshot.pods[*name].labels() {
                cluster.by_label.entry((key, value)).or_default().push(index);
                cluster.by_key.entry(key).or_default().push(index);
            }
            cluster.addresses.extend(cluster.oracle.addresses_of(name).into_iter().map(|address| (address, *name)));
        }
        cluster.addresses.sort_unstable();
        cluster
    }

    /// Counts work; false when no more may be done.
    pub(super) fn step(&self) -> bool {
        let steps = self.steps.get();
        self.steps.set(steps.saturating_add(1));
        steps < self.steps_max
    }

    pub(super) fn exhausted(&self) -> bool {
        self.steps.get() >= self.steps_max
    }

    /// Whether "no pod of this namespace" may be said at all: the manifests hold some, and none was refused.
    pub(super) fn pods_known(&self, namespace: &str) -> bool {
        let some = self.snapshot.pods.range(ObjectName::new(namespace, "")..).next().is_some_and(|(pod, _)| pod.namespace == namespace);
        some && !self.doubts.everything && !self.doubts.pods.contains(namespace)
    }

    /// Whether every policy of the namespace that the manifests hold was accepted.
    pub(super) fn policies_known(&self, namespace: &str) -> bool {
        !self.doubts.everything && !self.doubts.policies.contains(namespace)
    }

    /// Whether "no namespace" may be said at all: the manifests define some, and none was refused.
    pub(super) fn namespaces_known(&self) -> bool {
        !self.written_namespaces.is_empty() && !self.doubts.everything && !self.doubts.namespaces
    }

    /// Whether a namespace has an object of its own, so that its labels are known.
    pub(super) fn is_written(&self, namespace: &str) -> bool {
        self.written_namespaces.contains(namespace)
    }

    /// Pods of one namespace.
    pub(super) fn pods_of(&self, namespace: &str) -> &[&'a ObjectName] {
        self.namespaces.get(namespace).map_or(&[], |range| &self.pods[range.clone()])
    }

    /// Pods that a selector matches, in all namespaces or in one.
    pub(super) fn selected<'s>(
        &'s self,
        namespace: Option<&str>,
        selector: Option<&'s LabelSelector>,
    ) -> Box<dyn Iterator<Item = &'a ObjectName> + 's> {
        let range = match namespace {
            None => 0..self.pods.len(),
            Some(namespace) => self.namespaces.get(namespace).cloned().unwrap_or(0..0),
        };
        let Some(selector) = selector else { return Box::new(range.map(|index| self.pods[index])) };
        let matching = move |index: usize| {
            let name = self.pods[index];
            (self.step() && self.oracle.pod_matches(selector, name)).then_some(name)
        };
        match self.candidates(selector) {
            None => Box::new(range.filter_map(matching)),
            Some(listed) => {
                let from = listed.partition_point(|index| *index < range.start);
                let to = listed.partition_point(|index| *index < range.end);
                Box::new(listed[from..to].iter().copied().filter_map(matching))
            }
        }
    }

    /// The shortest list of pods outside which nothing matches; `None` where the selector demands no label.
    fn candidates<'s>(&'s self, selector: &'s LabelSelector) -> Option<&'s [usize]> {
        let labels = selector.match_labels.iter().flatten().map(|(key, value)| listed(self.by_label.get(&(key.as_str(), value.as_str()))));
        let expressions = selector.match_expressions.iter().flatten();
        let demanding = expressions.filter(|one| matches!(one.operator.as_str(), "In" | "Exists"));
        let keys = demanding.map(|one| match one.values.as_deref() {
            Some([value]) => listed(self.by_label.get(&(one.key.as_str(), value.as_str()))),
            _ => listed(self.by_key.get(one.key.as_str())),
        });
        labels.chain(keys).min_by_key(|list| list.len())
    }

    /// Namespaces that a selector matches. Thousands of policies share a few namespace selectors, so answers are kept.
    pub(super) fn matching_namespaces(&self, selector: &LabelSelector) -> Rc<[&'a str]> {
        let text = selector_text(selector);
        if let Some(known) = self.namespace_answers.borrow().get(&text) {
            return Rc::clone(known);
        }
        let names = self.namespace_names.iter().copied();
        let matching: Rc<[&str]> = names.filter(|name| self.step() && self.oracle.namespace_matches(selector, name)).collect();
        self.namespace_answers.borrow_mut().insert(text, Rc::clone(&matching));
        matching
    }

    /// Every namespace that an object, a pod or a workload mentions.
    pub(super) fn namespace_names(&self) -> &BTreeSet<&'a str> {
        &self.namespace_names
    }

    /// Pods that a peer of a policy in `own_namespace` matches: by selector, or by address.
    pub(super) fn peer_pods<'s>(
        &'s self,
        own_namespace: &'s str,
        peer: &'s NetworkPolicyPeer,
    ) -> Box<dyn Iterator<Item = &'a ObjectName> + 's> {
        let pods = peer.pod_selector.as_ref();
        match (&peer.ip_block, &peer.namespace_selector) {
            (Some(block), _) => self.block_pods(block),
            (None, None) => self.selected(Some(own_namespace), pods),
            (None, Some(namespaces)) => {
                let namespaces = self.matching_namespaces(namespaces);
                if namespaces.len() > 1 && pods.is_some_and(|pods| self.candidates(pods).is_some()) {
                    let within: BTreeSet<&str> = namespaces.iter().copied().collect();
                    return Box::new(self.selected(None, pods).filter(move |pod| within.contains(pod.namespace.as_str())));
                }
                let count = namespaces.len();
                Box::new((0..count).flat_map(move |index| self.selected(Some(namespaces[index]), pods)))
            }
        }
    }

    /// Pods with an address in the block and in none of its excepts.
    pub(super) fn block_pods<'s>(&'s self, block: &'s IPBlock) -> Box<dyn Iterator<Item = &'a ObjectName> + 's> {
        let Ok(net) = block.cidr.parse::<IpNet>() else { return Box::new(iter::empty()) };
        let (first, last) = (net.network(), net.broadcast());
        let from = self.addresses.partition_point(|(address, _)| *address < first);
        let inside = self.addresses[from..].iter().take_while(move |(address, _)| *address <= last);
        Box::new(inside.filter(|(address, _)| self.step() && block_holds(block, *address)).map(|(_, pod)| *pod))
    }

    /// The ports that a pod's containers declare.
    pub(super) fn declares_port(&self, pod: &ObjectName, number: i32, protocol: Protocol) -> bool {
        let named = protocol.to_string();
        let Some(pod) = self.snapshot.pods.get(pod) else { return false };
        containers(pod)
            .flat_map(|container| container.ports.iter().flatten())
            .any(|port| port.container_port == number && port.protocol.as_deref().unwrap_or("TCP") == named)
    }

    /// The names of ports that a pod declares, with their protocols.
    pub(super) fn port_names(&self, pod: &ObjectName) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let containers = self.snapshot.pods.get(pod).into_iter().flat_map(|pod| containers(pod));
        let ports = containers.flat_map(|container| container.ports.iter().flatten());
        ports.filter_map(|port| Some((port.name.as_deref()?, port.protocol.as_deref().unwrap_or("TCP"))))
    }

    /// The labels that pods of a namespace carry: key → values. Counted once for each namespace.
    pub(super) fn labels_of(&self, namespace: &str) -> Rc<Labels<'a>> {
        let mut answers = self.label_answers.borrow_mut();
        if let Some(known) = answers.get(namespace) {
            return Rc::clone(known);
        }
        let mut labels = Labels::new();
        for pod in self.pods_of(namespace).iter().take_while(|_| self.step()) {
            for (key, value) in self.snapshot.pods[*pod].labels() {
                labels.entry(key).or_default().insert(value);
            }
        }
        Rc::clone(answers.entry(namespace.to_owned()).or_insert(Rc::new(labels)))
    }

    /// Pods of a namespace that no policy can select: on their node's network, or ended.
    pub(super) fn unselectable<'s>(&'s self, namespace: &'s str) -> impl Iterator<Item = &'a ObjectName> + 's {
        let from = self.unselectable.partition_point(|pod| pod.namespace.as_str() < namespace);
        self.unselectable[from..].iter().copied().take_while(move |pod| pod.namespace == namespace)
    }
}

/// Label keys with their values.
pub(super) type Labels<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

fn listed(list: Option<&Vec<usize>>) -> &[usize] {
    list.map_or(&[], Vec::as_slice)
}

/// All of them: whoever declares a port, in whatever container, tells what it is for.
fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.containers().iter().chain(pod.init_containers())
}
