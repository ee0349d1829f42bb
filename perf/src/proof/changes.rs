//! Changes of one pod, and how each is undone.

use crate::random::SplitMix;
use crate::workload::{Scale, addresses};
use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Pod, PodIP};
use serde::Serialize;
use sluice_flow::LocalEndpoint;
use sluice_policy::{ObjectName, Snapshot};
use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

/// What happens to the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Kind {
    /// A remote pod with known labels appears or disappears.
    Address,
    /// A remote pod gets labels that no pod had before.
    Labels,
    /// A remote pod gets labels that the table needs a new address class for.
    Class,
    /// A pod attached here is replaced by another of its deployment.
    Endpoint,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::Address, Self::Labels, Self::Class, Self::Endpoint];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Address => "address appears or goes",
            Self::Labels => "labels never seen",
            Self::Class => "new address class",
            Self::Endpoint => "local pod replaced",
        }
    }

    /// Whether the promise is about it.
    pub(super) fn is_promised(self) -> bool {
        self != Self::Endpoint
    }
}

/// Objects to put in the place of others; `None` takes away.
#[derive(Debug, Default)]
pub(super) struct Edit {
    pods: Vec<(ObjectName, Option<Arc<Pod>>)>,
    /// On the same port.
    endpoint: Option<LocalEndpoint>,
}

impl Edit {
    /// Returns the edit that undoes this one.
    pub(super) fn apply(self, snapshot: &mut Snapshot) -> Self {
        let put = |(name, pod): (ObjectName, Option<Arc<Pod>>)| {
            let before = match pod {
                Some(pod) => snapshot.pods.insert(name.clone(), pod),
                None => snapshot.pods.remove(&name),
            };
            (name, before)
        };
        let pods = self.pods.into_iter().map(put).collect();
        let endpoint = self.endpoint.and_then(|new| {
            let slot = snapshot.endpoints.iter_mut().find(|endpoint| endpoint.port == new.port)?;
            Some(std::mem::replace(slot, new))
        });
        Self { pods, endpoint }
    }
}

/// Draws changes.
#[derive(Debug)]
pub(super) struct Changes {
    random: SplitMix,
    scale: Scale,
    /// Running pods of other nodes that have an address of their own.
    remote: Vec<ObjectName>,
    drawn: usize,
}

impl Changes {
    pub(super) fn of(snapshot: &Snapshot, scale: Scale, seed: u64) -> Self {
        let local: HashSet<&ObjectName> = snapshot.endpoints.iter().map(|endpoint| &endpoint.pod).collect();
        let takes_part = |pod: &Pod| {
            pod.spec.as_ref().is_some_and(|spec| spec.host_network != Some(true))
                && pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"))
        };
        let remote = snapshot.pods.iter().filter(|(name, pod)| !local.contains(name) && takes_part(pod));
        Self { random: SplitMix::new(seed), scale, remote: remote.map(|(name, _)| name.clone()).collect(), drawn: 0 }
    }

    /// One change of that kind to `snapshot`, which is the same at every call. A [`Kind::Class`] only may need a class.
    ///
    /// # Errors
    ///
    /// The snapshot has no pod to change.
    pub(super) fn draw(&mut self, kind: Kind, snapshot: &Snapshot) -> Result<Edit> {
        self.drawn += 1;
        match kind {
            Kind::Address => {
                let (name, mut pod) = self.remote_pod(snapshot)?;
                let name = self.rename(&name, &mut pod);
                Ok(Edit { pods: vec![(name, Some(Arc::new(pod)))], endpoint: None })
            }
            Kind::Labels => {
                let (name, mut pod) = self.remote_pod(snapshot)?;
                pod.metadata.labels.get_or_insert_default().insert("app".to_owned(), format!("new-{:05}", self.drawn));
                Ok(Edit { pods: vec![(name, Some(Arc::new(pod)))], endpoint: None })
            }
            Kind::Class => {
                let (name, mut pod) = self.remote_pod(snapshot)?;
                for key in ["app", "tier", "track"] {
                    let (_, other) = self.remote_pod(snapshot)?;
                    let value = other.metadata.labels.and_then(|mut labels| labels.remove(key));
                    pod.metadata.labels.get_or_insert_default().extend(value.map(|value| (key.to_owned(), value)));
                }
                Ok(Edit { pods: vec![(name, Some(Arc::new(pod)))], endpoint: None })
            }
            Kind::Endpoint => self.replaced_endpoint(snapshot),
        }
    }

    fn remote_pod(&mut self, snapshot: &Snapshot) -> Result<(ObjectName, Pod)> {
        let name = self.remote.get(self.random.below(self.remote.len().max(1))).context("no remote pod")?;
        Ok((name.clone(), (*snapshot.pods[name]).clone()))
    }

    fn replaced_endpoint(&mut self, snapshot: &Snapshot) -> Result<Edit> {
        let mut endpoint = snapshot.endpoints.get(self.random.below(snapshot.endpoints.len().max(1))).context("no endpoint")?.clone();
        let mut pod = (*snapshot.pods[&endpoint.pod]).clone();
        let (old, name) = (endpoint.pod.clone(), self.rename(&endpoint.pod, &mut pod));
        endpoint.pod = name.clone();
        endpoint.uid = pod.metadata.uid.clone().unwrap_or_default();
        endpoint.addresses = self.free_addresses().to_vec();
        endpoint.incarnation.0 += 1;
        Ok(Edit { pods: vec![(old, None), (name, Some(Arc::new(pod)))], endpoint: Some(endpoint) })
    }

    /// Makes it another pod of the same deployment, at addresses that nobody has.
    fn rename(&self, name: &ObjectName, pod: &mut Pod) -> ObjectName {
        let name = ObjectName::new(&name.namespace, format!("{}-{:05}", name.name, self.drawn));
        pod.metadata.name = Some(name.name.clone());
        pod.metadata.uid = Some(format!("new-{}", self.drawn));
        let addresses = self.free_addresses().map(|ip| ip.to_string());
        let status = pod.status.get_or_insert_default();
        status.pod_ip = Some(addresses[0].clone());
        status.pod_ips = Some(addresses.map(|ip| PodIP { ip }).to_vec());
        name
    }

    /// On a node that the cluster does not have yet.
    fn free_addresses(&self) -> [IpAddr; 2] {
        let nodes = self.scale.pods.div_ceil(self.scale.local);
        addresses(nodes + self.drawn / 250 % 64, self.drawn % 250 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::cluster;

    #[test]
    fn every_change_changes_one_pod_and_its_undoing_restores_the_state() {
        let scale = Scale::of(500, 50, 20);
        let mut snapshot = cluster(scale, 3);
        let before = snapshot.clone();
        let mut changes = Changes::of(&snapshot, scale, 1);
        for kind in Kind::ALL {
            let undo = changes.draw(kind, &snapshot).unwrap().apply(&mut snapshot);
            let differing = snapshot.pods.iter().filter(|(name, pod)| before.pods.get(*name).is_none_or(|old| !Arc::ptr_eq(old, pod)));
            assert_eq!(differing.count(), 1, "{kind:?}");
            assert_eq!(snapshot.endpoints == before.endpoints, kind != Kind::Endpoint, "{kind:?}");
            undo.apply(&mut snapshot);
            assert_eq!(snapshot, before, "{kind:?}");
        }
    }
}
