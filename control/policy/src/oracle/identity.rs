//! Which pod is behind an address.
//!
//! A pod attached to this node is known by its endpoint's addresses, because those count before its status shows them;
//! any other pod by its status. A pod on its node's network is its node's address, and an ended pod is nothing, so that
//! whoever gets its address next inherits no right of it.

use crate::Snapshot;
use crate::pod::Pod;
use sluice_flow::{LocalEndpoint, ObjectName};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What a name in the snapshot is to policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// No such pod.
    Unknown,
    /// On its node's network: an ordinary address.
    HostNetwork,
    /// Succeeded or Failed.
    Ended,
    /// A pod that policies select and peers match.
    Pod,
}

/// Pods by address and addresses by pod.
#[derive(Debug)]
pub(super) struct Directory<'a> {
    addresses: BTreeMap<&'a ObjectName, Vec<IpAddr>>,
    pods: BTreeMap<IpAddr, Vec<&'a ObjectName>>,
}

impl<'a> Directory<'a> {
    pub(super) fn new(snapshot: &'a Snapshot) -> Self {
        let mut directory = Self { addresses: BTreeMap::new(), pods: BTreeMap::new() };
        for (name, pod) in &snapshot.pods {
            if standing(snapshot, name) != Standing::Pod {
                continue;
            }
            let addresses = addresses(snapshot, name, pod);
            for &address in &addresses {
                directory.pods.entry(address).or_default().push(name);
            }
            directory.addresses.insert(name, addresses);
        }
        directory
    }

    pub(super) fn pods_at(&self, address: IpAddr) -> &[&'a ObjectName] {
        self.pods.get(&address.to_canonical()).map_or(&[], Vec::as_slice)
    }

    pub(super) fn addresses_of(&self, pod: &ObjectName) -> &[IpAddr] {
        self.addresses.get(pod).map_or(&[], Vec::as_slice)
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.pods.keys().copied()
    }
}

/// What `name` is to policies.
pub(crate) fn standing(snapshot: &Snapshot, name: &ObjectName) -> Standing {
    snapshot.pods.get(name).map_or(Standing::Unknown, |pod| standing_of(pod))
}

/// What a pod of the snapshot is to policies.
pub(crate) fn standing_of(pod: &Pod) -> Standing {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        Standing::Ended
    } else if pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true) {
        Standing::HostNetwork
    } else {
        Standing::Pod
    }
}

fn addresses(snapshot: &Snapshot, name: &ObjectName, pod: &Pod) -> Vec<IpAddr> {
    let named = snapshot.endpoints.iter().filter(|endpoint| endpoint.pod == *name);
    let endpoints: Vec<_> = named.filter(|endpoint| belongs(endpoint, pod)).collect();
    let mut addresses: Vec<IpAddr> = if endpoints.is_empty() {
        status_addresses(pod)
    } else {
        endpoints.iter().flat_map(|endpoint| endpoint.addresses.iter().map(IpAddr::to_canonical)).collect()
    };
    addresses.sort();
    addresses.dedup();
    addresses
}

/// Whether an endpoint with the name of `pod` is this incarnation of it, as far as both sides know.
pub(crate) fn belongs(endpoint: &LocalEndpoint, pod: &Pod) -> bool {
    let uid = pod.metadata.uid.as_deref().unwrap_or("");
    endpoint.uid.is_empty() || uid.is_empty() || endpoint.uid == uid
}

/// `status.podIPs`, and the older `status.podIP`, which the API server keeps equal to the first of them.
pub(crate) fn status_addresses(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else { return Vec::new() };
    let listed = status.pod_ips.iter().flatten().map(|ip| &*ip.ip);
    let texts = listed.chain(status.pod_ip.as_deref());
    texts.filter_map(|text| text.parse().ok()).map(|ip: IpAddr| ip.to_canonical()).collect()
}
