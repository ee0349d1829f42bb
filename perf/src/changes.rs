//! Changes of one object, and how each is undone.

use crate::random::SplitMix;
use crate::workload::addresses;
use anyhow::{Context, Result, bail};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;
use sluice_flow::{Direction, LocalEndpoint};
use sluice_policy::pod::{Pod, PodIp};
use sluice_policy::{ObjectName, Snapshot};
use sluice_table::Table;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Addresses of a node.
const SLOTS: usize = 250;
/// Drawn objects that may not fit a change before there is none.
const DRAWS_MAX: usize = 10_000;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Kind {
    /// A remote pod with known labels appears or disappears.
    Address,
    /// A remote pod gets labels that no pod had before.
    Labels,
    /// A remote pod gets a new mixture of labels that others have; the table may need a new address class for it.
    Class,
    /// A pod attached here is replaced by another of its deployment.
    Endpoint,
    /// A rule of a policy that isolates a pod attached here allows one port more.
    PolicyPorts,
    /// A rule of such a policy gets another rule's selector of pods.
    PolicyPeers,
}

impl Kind {
    /// Those about one pod.
    pub(crate) const OF_PODS: [Self; 4] = [Self::Address, Self::Labels, Self::Class, Self::Endpoint];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Address => "address appears or goes",
            Self::Labels => "labels never seen",
            Self::Class => "new address class",
            Self::Endpoint => "local pod replaced",
            Self::PolicyPorts => "policy: a port more",
            Self::PolicyPeers => "policy: another selector",
        }
    }

    /// Whether the proof's promise is about it.
    pub(crate) fn is_promised(self) -> bool {
        self != Self::Endpoint
    }
}

/// Objects to put in the place of others; `None` takes away.
#[derive(Debug, Default)]
pub(crate) struct Edit {
    pods: Vec<(ObjectName, Option<Arc<Pod>>)>,
    policies: Vec<(ObjectName, Option<Arc<NetworkPolicy>>)>,
    /// On the same port.
    endpoint: Option<LocalEndpoint>,
}

impl Edit {
    /// Puts a policy there, or takes it away.
    pub(crate) fn policy(name: ObjectName, policy: Option<Arc<NetworkPolicy>>) -> Self {
        Self { policies: vec![(name, policy)], ..Self::default() }
    }

    /// Namespace and labels of each pod that it puts there.
    pub(crate) fn label_sets(&self) -> impl Iterator<Item = (String, BTreeMap<String, String>)> {
        let labels = |pod: &Arc<Pod>| pod.labels().clone();
        self.pods.iter().filter_map(move |(name, pod)| Some((name.namespace.clone(), labels(pod.as_ref()?))))
    }

    /// Returns the edit that undoes this one.
    pub(crate) fn apply(self, snapshot: &mut Snapshot) -> Self {
        let put_pod = |(name, pod): (ObjectName, Option<Arc<Pod>>)| {
            let before = match pod {
                Some(pod) => snapshot.pods.insert(name.clone(), pod),
                None => snapshot.pods.remove(&name),
            };
            (name, before)
        };
        let pods = self.pods.into_iter().map(put_pod).collect();
        let put_policy = |(name, policy): (ObjectName, Option<Arc<NetworkPolicy>>)| {
            let before = match policy {
                Some(policy) => snapshot.policies.insert(name.clone(), policy),
                None => snapshot.policies.remove(&name),
            };
            (name, before)
        };
        let policies = self.policies.into_iter().map(put_policy).collect();
        let endpoint = self.endpoint.and_then(|new| {
            let slot = snapshot.endpoints.iter_mut().find(|endpoint| endpoint.port == new.port)?;
            Some(std::mem::replace(slot, new))
        });
        Self { pods, policies, endpoint }
    }
}

/// Draws changes.
#[derive(Debug)]
pub(crate) struct Changes {
    random: SplitMix,
    /// How many nodes the cluster has, and which addresses pods and endpoints have or once had.
    nodes: usize,
    taken: HashSet<IpAddr>,
    /// Running pods of other nodes that have an address of their own.
    remote: Vec<ObjectName>,
    /// Policies to edit.
    policies: Vec<ObjectName>,
    drawn: usize,
}

impl Changes {
    pub(crate) fn of(snapshot: &Snapshot, nodes: usize, seed: u64) -> Self {
        let local: HashSet<&ObjectName> = snapshot.endpoints.iter().map(|endpoint| &endpoint.pod).collect();
        let takes_part = |pod: &Pod| {
            pod.spec.as_ref().is_some_and(|spec| spec.host_network != Some(true))
                && pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"))
        };
        let remote = snapshot.pods.iter().filter(|(name, pod)| !local.contains(name) && takes_part(pod));
        let remote = remote.map(|(name, _)| name.clone()).collect();
        let stated = |pod: &Arc<Pod>| {
            let addresses = pod.status.iter().flat_map(|status| status.pod_ips.iter().flatten());
            addresses.filter_map(|address| address.ip.parse::<IpAddr>().ok()).collect::<Vec<_>>()
        };
        let attached = snapshot.endpoints.iter().flat_map(|endpoint| endpoint.addresses.iter().copied());
        let taken = snapshot.pods.values().flat_map(stated).chain(attached).collect();
        Self { random: SplitMix::new(seed), nodes, taken, remote, policies: Vec::new(), drawn: 0 }
    }

    /// Edits policies that isolate a pod attached here, which is in `table`: an edit of others would cost nothing.
    pub(crate) fn editing(self, table: &Table) -> Self {
        let endpoints = table.names().endpoints.iter();
        let names = endpoints.flat_map(|endpoint| Direction::BOTH.into_iter().flat_map(|direction| endpoint.isolating(direction)));
        let policies: BTreeSet<&ObjectName> = names.collect();
        Self { policies: policies.into_iter().cloned().collect(), ..self }
    }

    /// One change of that kind to `snapshot`, whose remote pods and policies are the same at every call. A [`Kind::Class`]
    /// only may need a class.
    ///
    /// # Errors
    ///
    /// The snapshot has nothing to change so.
    pub(crate) fn draw(&mut self, kind: Kind, snapshot: &Snapshot) -> Result<Edit> {
        self.drawn += 1;
        match kind {
            Kind::Address => {
                let (name, mut pod) = self.remote_pod(snapshot)?;
                let name = self.rename(&name, &mut pod);
                Ok(Edit { pods: vec![(name, Some(Arc::new(pod)))], ..Edit::default() })
            }
            Kind::Labels => {
                let (name, mut pod) = self.remote_pod(snapshot)?;
                let labels = Arc::make_mut(pod.metadata.labels.get_or_insert_default());
                // a label that policies ask for, as far as that can be told from the pod
                let key = if labels.contains_key("app") { None } else { labels.keys().next().cloned() };
                labels.insert(key.unwrap_or_else(|| "app".to_owned()), format!("new-{:05}", self.drawn));
                Ok(Edit { pods: vec![(name, Some(Arc::new(pod)))], ..Edit::default() })
            }
            Kind::Class => self.mixed_labels(snapshot),
            Kind::Endpoint => self.replaced_endpoint(snapshot),
            Kind::PolicyPorts | Kind::PolicyPeers => self.edited_policy(kind, snapshot),
        }
    }

    fn remote_pod(&mut self, snapshot: &Snapshot) -> Result<(ObjectName, Pod)> {
        let name = self.remote.get(self.random.below(self.remote.len().max(1))).context("no remote pod")?;
        Ok((name.clone(), (*snapshot.pods[name]).clone()))
    }

    fn mixed_labels(&mut self, snapshot: &Snapshot) -> Result<Edit> {
        let (name, mut pod) = self.remote_pod(snapshot)?;
        for key in ["app", "tier", "track"] {
            let (_, other) = self.remote_pod(snapshot)?;
            let value = other.labels().get(key).cloned();
            Arc::make_mut(pod.metadata.labels.get_or_insert_default()).extend(value.map(|value| (key.to_owned(), value)));
        }
        Ok(Edit { pods: vec![(name, Some(Arc::new(pod)))], ..Edit::default() })
    }

    fn replaced_endpoint(&mut self, snapshot: &Snapshot) -> Result<Edit> {
        let mut endpoint = snapshot.endpoints.get(self.random.below(snapshot.endpoints.len().max(1))).context("no endpoint")?.clone();
        let mut pod = (*snapshot.pods[&endpoint.pod]).clone();
        let (old, name) = (endpoint.pod.clone(), self.rename(&endpoint.pod, &mut pod));
        endpoint.pod = name.clone();
        endpoint.uid = pod.metadata.uid.as_deref().unwrap_or_default().to_owned();
        endpoint.addresses = self.free_addresses().to_vec();
        endpoint.incarnation.0 += 1;
        Ok(Edit { pods: vec![(old, None), (name, Some(Arc::new(pod)))], endpoint: Some(endpoint), ..Edit::default() })
    }

    fn edited_policy(&mut self, kind: Kind, snapshot: &Snapshot) -> Result<Edit> {
        for _ in 0..DRAWS_MAX {
            let name = self.policies.get(self.random.below(self.policies.len().max(1))).context("no policy in play")?.clone();
            let mut policy = (*snapshot.policies[&name]).clone();
            let other = &snapshot.policies[self.random.pick(&self.policies)];
            let edited = match kind {
                Kind::PolicyPorts => self.add_port(&mut policy),
                _ => self.take_selector(&mut policy, other),
            };
            if edited {
                return Ok(Edit::policy(name, Some(Arc::new(policy))));
            }
        }
        bail!("no policy in play can be edited so")
    }

    /// Whether there is a rule that allows some ports and not all.
    fn add_port(&mut self, policy: &mut NetworkPolicy) -> bool {
        let mut lists: Vec<&mut Vec<NetworkPolicyPort>> =
            rules(policy).into_iter().filter_map(|(_, ports)| ports.as_mut()).filter(|ports| !ports.is_empty()).collect();
        if lists.is_empty() {
            return false;
        }
        let list = self.random.below(lists.len());
        let port = Some(IntOrString::Int(20_000 + (self.drawn % 40_000) as i32));
        lists[list].push(NetworkPolicyPort { port, protocol: Some("TCP".to_owned()), end_port: None });
        true
    }

    /// Whether both have a selector, and different ones.
    fn take_selector(&mut self, policy: &mut NetworkPolicy, other: &NetworkPolicy) -> bool {
        let mut other = other.clone();
        let is_selector = |peer: &&mut NetworkPolicyPeer| peer.pod_selector.is_some();
        let theirs: Vec<_> = rules(&mut other).into_iter().flat_map(|(peers, _)| peers.iter_mut().flatten()).filter(is_selector).collect();
        let mut ours: Vec<_> = rules(policy).into_iter().flat_map(|(peers, _)| peers.iter_mut().flatten()).filter(is_selector).collect();
        if ours.is_empty() || theirs.is_empty() {
            return false;
        }
        let (at, from) = (self.random.below(ours.len()), self.random.below(theirs.len()));
        let is_other = ours[at].pod_selector != theirs[from].pod_selector;
        ours[at].pod_selector.clone_from(&theirs[from].pod_selector);
        is_other
    }

    /// Makes it another pod of the same deployment, at addresses that nobody has.
    fn rename(&mut self, name: &ObjectName, pod: &mut Pod) -> ObjectName {
        let name = ObjectName::new(&name.namespace, format!("{}-{:05}", name.name, self.drawn));
        pod.metadata.uid = Some(format!("new-{}", self.drawn).into());
        let addresses = self.free_addresses().map(|ip| ip.to_string());
        let status = pod.status.get_or_insert_default();
        status.pod_ip = Some(addresses[0].as_str().into());
        status.pod_ips = Some(addresses.into_iter().map(|ip| PodIp { ip: ip.into() }).collect());
        name
    }

    /// The first that are free on some node, or where nodes are full, on one that the cluster does not have yet.
    fn free_addresses(&mut self) -> [IpAddr; 2] {
        let node = self.random.below(self.nodes.max(1));
        let slots = (1..=SLOTS).map(|slot| addresses(node, slot));
        let beyond =
            (0..).flat_map(|more| (1..=SLOTS).map(move |slot| (more, slot))).map(|(more, slot)| addresses(self.nodes + more, slot));
        let free = slots.chain(beyond).find(|addresses| !addresses.iter().any(|address| self.taken.contains(address)));
        let free = free.expect("there is always another node");
        self.taken.extend(free);
        free
    }
}

type Peers = Option<Vec<NetworkPolicyPeer>>;
type Ports = Option<Vec<NetworkPolicyPort>>;

/// The rules of both lists, each as its peers and ports.
fn rules(policy: &mut NetworkPolicy) -> Vec<(&mut Peers, &mut Ports)> {
    let Some(spec) = policy.spec.as_mut() else { return Vec::new() };
    let ingress = spec.ingress.iter_mut().flatten().map(|rule| (&mut rule.from, &mut rule.ports));
    let egress = spec.egress.iter_mut().flatten().map(|rule| (&mut rule.to, &mut rule.ports));
    ingress.chain(egress).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{Scale, cluster};
    use sluice_policy::compile;

    #[test]
    fn every_change_changes_one_pod_and_its_undoing_restores_the_state() {
        let scale = Scale::of(500, 50, 20);
        let mut snapshot = cluster(scale, 3);
        let before = snapshot.clone();
        let mut changes = Changes::of(&snapshot, scale.pods.div_ceil(scale.local), 1);
        for kind in Kind::OF_PODS {
            let undo = changes.draw(kind, &snapshot).unwrap().apply(&mut snapshot);
            let differing = snapshot.pods.iter().filter(|(name, pod)| before.pods.get(*name).is_none_or(|old| !Arc::ptr_eq(old, pod)));
            assert_eq!(differing.count(), 1, "{kind:?}");
            assert_eq!(snapshot.endpoints == before.endpoints, kind != Kind::Endpoint, "{kind:?}");
            undo.apply(&mut snapshot);
            assert_eq!(snapshot, before, "{kind:?}");
        }
    }

    #[test]
    fn every_edit_of_a_policy_makes_one_policy_say_something_else() {
        let mut snapshot = cluster(Scale::of(500, 50, 20), 3);
        let before = snapshot.clone();
        let table = Table::from_bytes(&compile(&snapshot, 1).unwrap()).unwrap();
        let mut changes = Changes::of(&snapshot, 25, 1).editing(&table);
        for kind in [Kind::PolicyPorts, Kind::PolicyPeers].into_iter().cycle().take(40) {
            let undo = changes.draw(kind, &snapshot).unwrap().apply(&mut snapshot);
            let differing = snapshot.policies.iter().filter(|(name, policy)| before.policies.get(*name) != Some(policy));
            assert_eq!(differing.count(), 1, "{kind:?}");
            undo.apply(&mut snapshot);
            assert_eq!(snapshot, before, "{kind:?}");
        }
    }

    #[test]
    fn where_no_policy_is_in_play_none_can_be_edited() {
        let snapshot = cluster(Scale::of(500, 50, 20), 3);
        assert!(Changes::of(&snapshot, 25, 1).draw(Kind::PolicyPorts, &snapshot).is_err());
    }
}
