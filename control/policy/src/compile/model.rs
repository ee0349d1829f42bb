//! What the compiler works on: pods with an identity, and only those rules whose policy isolates a pod of this node.

use super::pods::{ModelPod, NamedPorts, Pods, addresses, same_uid};
use super::rules::{Policy, Rule};
use super::selector::Labels;
use super::{CompileError, capacity, check_ports};
use crate::snapshot::Snapshot;
use k8s_openapi::api::core::v1::{Namespace, Service};
use sluice_flow::{Addr, Direction, LocalEndpoint, ObjectName};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// One direction of endpoints that cannot be told apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Profile {
    pub(super) direction: Direction,
    /// Rule ids, ascending: the first that allows is the one that decides.
    pub(super) rules: Vec<u32>,
    /// The pod's own named ports, where an ingress rule asks for them.
    pub(super) named_ports: Arc<NamedPorts>,
}

/// A pod of this node.
#[derive(Debug)]
pub(super) struct ModelEndpoint<'a> {
    pub(super) source: &'a LocalEndpoint,
    /// The policies that isolate it in each direction, by name.
    pub(super) isolating: [Vec<&'a ObjectName>; 2],
    /// Index into [`Model::profiles`], `None` where not isolated.
    pub(super) profiles: [Option<usize>; 2],
}

/// Everything the compiler looks at.
#[derive(Debug)]
pub(super) struct Model<'a> {
    pub(super) pods: Vec<Arc<ModelPod>>,
    /// Ascending.
    pub(super) addresses: Vec<(IpAddr, Vec<u32>)>,
    /// By policy, direction and index; the position is the rule id.
    pub(super) rules: Vec<Arc<Rule>>,
    pub(super) profiles: Vec<Profile>,
    pub(super) endpoints: Vec<ModelEndpoint<'a>>,
    pub(super) services: Vec<u128>,
}

/// What is remembered of objects from one compilation to the next.
#[derive(Debug, Default)]
pub(super) struct Memory {
    policies: BTreeMap<ObjectName, Policy>,
    pub(super) pods: Pods,
    pub(super) namespaces: Namespaces,
}

impl Memory {
    /// Reads what changed in `snapshot`.
    pub(super) fn model<'a>(&mut self, snapshot: &'a Snapshot) -> Result<Model<'a>, CompileError> {
        check_ports(&snapshot.endpoints)?;
        self.pods.update(snapshot);
        self.namespaces.update(snapshot);
        self.read_policies(snapshot)?;
        let pods: Vec<Arc<ModelPod>> = self.pods.iter().cloned().collect();
        let addresses = addresses(&pods, snapshot);
        // an endpoint whose pod object is not known, or is another incarnation of the pod, has no row: its port stays closed
        let known: Vec<&LocalEndpoint> = snapshot
            .endpoints
            .iter()
            .filter(|endpoint| snapshot.pods.get(&endpoint.pod).is_some_and(|pod| same_uid(pod, endpoint)))
            .collect();
        let selected: Vec<[Vec<&'a ObjectName>; 2]> = known.iter().map(|endpoint| self.isolating(snapshot, &pods, endpoint)).collect();
        let (rules, ids) = self.rules_in_play(&selected)?;
        capacity("rules", rules.len(), u32::MAX as usize - 1)?;
        let mut model =
            Model { pods, addresses, rules, profiles: Vec::new(), endpoints: Vec::new(), services: service_addresses(snapshot) };
        let mut profile_index = HashMap::new();
        for (source, isolating) in known.into_iter().zip(selected) {
            let profiles = Direction::BOTH.map(|direction| {
                let profile = model.profile(source, direction, &isolating[direction as usize], &ids)?;
                Some(*profile_index.entry(profile).or_insert_with_key(|profile| {
                    model.profiles.push(profile.clone());
                    model.profiles.len() - 1
                }))
            });
            model.endpoints.push(ModelEndpoint { source, isolating, profiles });
        }
        Ok(model)
    }

    fn read_policies(&mut self, snapshot: &Snapshot) -> Result<(), CompileError> {
        self.policies.retain(|name, policy| snapshot.policies.get(name).is_some_and(|object| policy.is_of(object)));
        for (name, object) in &snapshot.policies {
            if !self.policies.contains_key(name) {
                self.policies.insert(name.clone(), Policy::read(name, object)?);
            }
        }
        Ok(())
    }

    /// The policies that isolate an endpoint, in each direction.
    fn isolating<'a>(&self, snapshot: &'a Snapshot, pods: &[Arc<ModelPod>], endpoint: &LocalEndpoint) -> [Vec<&'a ObjectName>; 2] {
        let mut isolating = [Vec::new(), Vec::new()];
        let Ok(pod) = pods.binary_search_by(|pod| pod.name.cmp(&endpoint.pod)) else { return isolating };
        let labels = &self.pods.label_sets[pods[pod].label_set as usize].labels;
        let first = ObjectName::new(&endpoint.pod.namespace, "");
        let own = snapshot.policies.range(first..).take_while(|(name, _)| name.namespace == endpoint.pod.namespace);
        for (name, policy) in own.filter_map(|(name, _)| self.policies.get_key_value(name).map(|(_, policy)| (name, policy))) {
            if policy.selector.matches(labels) {
                for direction in Direction::BOTH.into_iter().filter(|&direction| policy.isolates[direction as usize]) {
                    isolating[direction as usize].push(name);
                }
            }
        }
        isolating
    }

    /// The rules of the policies that isolate anyone here, in the order that makes the first allowing one deterministic:
    /// by policy name, then direction, then index; and which rule ids each policy got.
    fn rules_in_play<'a>(&mut self, selected: &[[Vec<&'a ObjectName>; 2]]) -> Result<(Vec<Arc<Rule>>, RuleIds<'a>), CompileError> {
        let in_play: BTreeSet<(&'a ObjectName, Direction)> = selected
            .iter()
            .flat_map(|isolating| Direction::BOTH.into_iter().zip(isolating))
            .flat_map(|(direction, by)| by.iter().map(move |&name| (name, direction)))
            .collect();
        let (mut rules, mut ids) = (Vec::new(), RuleIds::new());
        for (name, direction) in in_play {
            let policy = self.policies.get_mut(name).expect("a policy that isolates was read");
            let first = rules.len() as u32;
            rules.extend_from_slice(policy.rules(name, direction)?);
            ids.insert((name, direction), (first, rules.len() as u32));
        }
        Ok((rules, ids))
    }
}

/// From the first rule id of a policy's direction to one past the last.
type RuleIds<'a> = HashMap<(&'a ObjectName, Direction), (u32, u32)>;

impl Model<'_> {
    fn profile(&self, endpoint: &LocalEndpoint, direction: Direction, by: &[&ObjectName], ids: &RuleIds<'_>) -> Option<Profile> {
        if by.is_empty() {
            return None;
        }
        let mut rules: Vec<u32> = by.iter().flat_map(|&policy| ids[&(policy, direction)].0..ids[&(policy, direction)].1).collect();
        rules.sort_unstable();
        let asks = direction == Direction::Ingress && rules.iter().any(|&rule| self.rules[rule as usize].has_named_ports());
        let pod = self.pods.binary_search_by(|pod| pod.name.cmp(&endpoint.pod)).ok().filter(|_| asks);
        let named_ports = pod.map_or_else(Arc::default, |pod| Arc::clone(&self.pods[pod].named_ports));
        Some(Profile { direction, rules, named_ports })
    }
}

/// Labels by namespace; one that is only referred to has its name alone.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    known: BTreeMap<String, (Option<Arc<Namespace>>, Labels)>,
    /// Raised whenever some label may have changed.
    pub(super) version: u64,
}

impl Namespaces {
    fn update(&mut self, snapshot: &Snapshot) {
        let mut referred: Vec<&str> = snapshot.pods.keys().map(|pod| pod.namespace.as_str()).collect();
        referred.dedup();
        let names: BTreeSet<&str> = snapshot.namespaces.keys().map(String::as_str).chain(referred).collect();
        let before = self.known.len();
        self.known.retain(|name, _| names.contains(name.as_str()));
        let mut changed = self.known.len() != before;
        for name in names {
            let object = snapshot.namespaces.get(name);
            let same = self.known.get(name).is_some_and(|(known, _)| match (known, object) {
                (Some(known), Some(object)) => Arc::ptr_eq(known, object),
                (known, object) => known.is_none() && object.is_none(),
            });
            if !same {
                let mut labels = object.and_then(|object| object.metadata.labels.clone()).unwrap_or_default();
                labels.insert("kubernetes.io/metadata.name".into(), name.to_owned());
                self.known.insert(name.to_owned(), (object.cloned(), labels));
                changed = true;
            }
        }
        self.version += u64::from(changed);
    }

    pub(super) fn labels(&self, namespace: &str) -> &Labels {
        &self.known[namespace].1
    }
}

/// Every address that kube-proxy would translate.
fn service_addresses(snapshot: &Snapshot) -> Vec<u128> {
    let of = |service: &Service| -> Vec<String> {
        let spec = service.spec.iter();
        let own = spec
            .clone()
            .flat_map(|spec| spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip).chain(spec.external_ips.iter().flatten()));
        let balancers = service.status.iter().flat_map(|s| &s.load_balancer).flat_map(|b| b.ingress.iter().flatten()).flat_map(|i| &i.ip);
        own.chain(balancers).cloned().collect()
    };
    let addresses = snapshot.services.values().flat_map(|service| of(service)).filter_map(|text| text.parse::<IpAddr>().ok());
    let sorted: BTreeSet<u128> = addresses.map(|address| Addr::from(address).to_u128()).collect();
    sorted.into_iter().collect()
}
