//! Pods → who they are to policies: a label set, named ports, addresses. What was read of an object is remembered for as
//! long as the object stays the same.

use super::selector::Labels;
use crate::snapshot::Snapshot;
use k8s_openapi::api::core::v1::Pod;
use sluice_flow::{LocalEndpoint, ObjectName, Protocol};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// Named ports of a pod: (name, protocol) → port numbers.
pub(super) type NamedPorts = BTreeMap<(String, Protocol), BTreeSet<u16>>;

/// A namespace and labels: pods that share both are matched by the same selectors.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct LabelSet {
    pub(super) namespace: String,
    pub(super) labels: Labels,
}

/// A pod with an identity: selected by policies, matched by peers.
#[derive(Debug, Clone)]
pub(super) struct ModelPod {
    pub(super) name: ObjectName,
    /// Index into [`Pods::label_sets`].
    pub(super) label_set: u32,
    pub(super) named_ports: Arc<NamedPorts>,
    /// Of its status, sorted.
    stated: Arc<[IpAddr]>,
}

/// All pods that have an identity, and the addresses that they carry.
#[derive(Debug, Default)]
pub(super) struct Pods {
    /// In order of names; `None` where the object has no identity.
    known: Vec<(Arc<Pod>, Option<Arc<ModelPod>>)>,
    pub(super) label_sets: Vec<Arc<LabelSet>>,
    label_set_ids: HashMap<Arc<LabelSet>, u32>,
    /// Raised whenever label sets get other numbers.
    pub(super) numbering: u64,
}

/// How many label sets may be remembered for each that is in use.
const REMEMBERED_FACTOR: usize = 4;
const REMEMBERED_MIN: usize = 4096;

impl Pods {
    /// Reads what changed. Cost: one step for each pod, and one reading for each object that is new.
    pub(super) fn update(&mut self, snapshot: &Snapshot) {
        self.forget_if_worn();
        let mut last = std::mem::take(&mut self.known).into_iter().peekable();
        let mut known = Vec::with_capacity(snapshot.pods.len());
        for (name, object) in &snapshot.pods {
            // entries whose name is gone fall behind; an unchanged object is met again in the same order
            while last.next_if(|(old, model)| !Arc::ptr_eq(old, object) && model.as_ref().is_none_or(|model| model.name < *name)).is_some()
            {
            }
            match last.next_if(|(old, _)| Arc::ptr_eq(old, object)) {
                Some(same) => known.push(same),
                None => known.push((Arc::clone(object), self.read(name, object).map(Arc::new))),
            }
        }
        self.known = known;
    }

    /// Forgets everything if most of it is out of use.
    fn forget_if_worn(&mut self) {
        if self.label_sets.len() > REMEMBERED_MIN.max(self.known.len() * REMEMBERED_FACTOR) {
            *self = Self { numbering: self.numbering + 1, ..Self::default() };
        }
    }

    /// Pods with an identity, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<ModelPod>> {
        self.known.iter().filter_map(|(_, model)| model.as_ref())
    }

    fn read(&mut self, name: &ObjectName, pod: &Pod) -> Option<ModelPod> {
        let status = pod.status.as_ref();
        let host_network = pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false);
        let finished = matches!(status.and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"));
        if host_network || finished {
            return None;
        }
        let listed = status.and_then(|status| status.pod_ips.as_ref()).into_iter().flatten().map(|ip| ip.ip.as_str());
        let texts = listed.chain(status.and_then(|status| status.pod_ip.as_deref()));
        let stated: BTreeSet<IpAddr> = texts.filter_map(|text| text.parse::<IpAddr>().ok()).map(|ip| ip.to_canonical()).collect();
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        Some(ModelPod {
            name: name.clone(),
            label_set: self.label_set(LabelSet { namespace: name.namespace.clone(), labels }),
            named_ports: Arc::new(named_ports(pod)),
            stated: stated.into_iter().collect(),
        })
    }

    fn label_set(&mut self, set: LabelSet) -> u32 {
        if let Some(&id) = self.label_set_ids.get(&set) {
            return id;
        }
        let (id, set) = (self.label_sets.len() as u32, Arc::new(set));
        self.label_sets.push(Arc::clone(&set));
        self.label_set_ids.insert(set, id);
        id
    }
}

/// Which pods carry an address, as indexes into `pods`; more than one only while the cluster contradicts itself. A pod
/// that the dataplane reports is where its endpoints are; any other where its status says.
pub(super) fn addresses(pods: &[Arc<ModelPod>], snapshot: &Snapshot) -> Vec<(IpAddr, Vec<u32>)> {
    let mut reported: HashMap<&ObjectName, Vec<&LocalEndpoint>> = HashMap::new();
    for endpoint in &snapshot.endpoints {
        if snapshot.pods.get(&endpoint.pod).is_some_and(|pod| same_uid(pod, endpoint)) {
            reported.entry(&endpoint.pod).or_default().push(endpoint);
        }
    }
    let mut pairs: Vec<(IpAddr, u32)> = Vec::with_capacity(pods.len());
    for (index, pod) in (0u32..).zip(pods) {
        match reported.get(&pod.name) {
            None => pairs.extend(pod.stated.iter().map(|&address| (address, index))),
            Some(endpoints) => {
                let own: BTreeSet<IpAddr> = endpoints.iter().flat_map(|e| e.addresses.iter().map(IpAddr::to_canonical)).collect();
                pairs.extend(own.into_iter().map(|address| (address, index)));
            }
        }
    }
    pairs.sort_unstable();
    pairs.chunk_by(|a, b| a.0 == b.0).map(|claims| (claims[0].0, claims.iter().map(|claim| claim.1).collect())).collect()
}

/// Whether an endpoint of that name is this incarnation of the pod.
pub(super) fn same_uid(pod: &Pod, endpoint: &LocalEndpoint) -> bool {
    match pod.metadata.uid.as_deref() {
        None | Some("") => true,
        Some(uid) => endpoint.uid.is_empty() || endpoint.uid == uid,
    }
}

/// Named ports of containers and restartable init containers.
fn named_ports(pod: &Pod) -> NamedPorts {
    let mut named = NamedPorts::new();
    let Some(spec) = &pod.spec else { return named };
    let sidecars = spec.init_containers.iter().flatten().filter(|container| container.restart_policy.as_deref() == Some("Always"));
    for port in spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten()) {
        let protocol = Protocol::from_name(port.protocol.as_deref().unwrap_or("TCP"));
        if let (Some(name), Some(protocol), Ok(number)) = (&port.name, protocol, u16::try_from(port.container_port)) {
            named.entry((name.clone(), protocol)).or_default().insert(number);
        }
    }
    named
}
