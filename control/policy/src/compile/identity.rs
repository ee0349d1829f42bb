//! What policies can see of a pod: whether it takes part at all, its labels, its named ports, and where it is.

use super::address::address;
use crate::pod::Pod;
use crate::snapshot::Snapshot;
use sluice_flow::{LocalEndpoint, ObjectName, Protocol};
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Named ports of a pod: (name, protocol) → port numbers.
pub(super) type NamedPorts = BTreeMap<(String, Protocol), BTreeSet<u16>>;

/// Whether policies see the pod: one on its node's network, or one that has ended, has no address of its own.
pub(super) fn has_identity(pod: &Pod) -> bool {
    let host_network = pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false);
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !host_network && !matches!(phase, Some("Succeeded" | "Failed"))
}

/// Of a pod: mostly one of each family.
pub(super) type Addresses = SmallVec<[IpAddr; 2]>;

/// Addresses of the status, each once.
pub(super) fn stated(pod: &Pod) -> Addresses {
    let status = pod.status.as_ref();
    let listed = status.and_then(|status| status.pod_ips.as_ref()).into_iter().flatten().map(|ip| &*ip.ip);
    // mostly the first of the list once more
    let single = status.and_then(|status| status.pod_ip.as_deref()).filter(|single| listed.clone().next() != Some(*single));
    let texts = listed.chain(single);
    let mut addresses = Addresses::new();
    for found in texts.filter_map(address) {
        if !addresses.contains(&found) {
            addresses.push(found);
        }
    }
    addresses
}

/// A pod that the dataplane reports is where its endpoints are; any other where its status says.
pub(super) fn placed(snapshot: &Snapshot) -> BTreeMap<ObjectName, Vec<IpAddr>> {
    let mut placed: BTreeMap<ObjectName, Vec<IpAddr>> = BTreeMap::new();
    for endpoint in &snapshot.endpoints {
        if snapshot.pods.get(&endpoint.pod).is_some_and(|pod| same_uid(pod, endpoint)) {
            placed.entry(endpoint.pod.clone()).or_default().extend(endpoint.addresses.iter().map(IpAddr::to_canonical));
        }
    }
    for addresses in placed.values_mut() {
        addresses.sort_unstable();
        addresses.dedup();
    }
    placed
}

/// Whether an endpoint of that name is this incarnation of the pod.
pub(super) fn same_uid(pod: &Pod, endpoint: &LocalEndpoint) -> bool {
    match pod.metadata.uid.as_deref() {
        None | Some("") => true,
        Some(uid) => endpoint.uid.is_empty() || endpoint.uid == uid,
    }
}

/// Named ports of containers and restartable init containers, as listed.
fn listed_ports(pod: &Pod) -> impl Iterator<Item = (&str, Protocol, u16)> {
    let sidecars = pod.init_containers().iter().filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let containers = pod.containers().iter().chain(sidecars);
    containers.flat_map(|container| container.ports.iter().flatten()).filter_map(|port| {
        let protocol = match port.protocol.as_deref() {
            None | Some("TCP") => Protocol::TCP,
            Some(other) => Protocol::from_name(other)?,
        };
        Some((port.name.as_deref()?, protocol, u16::try_from(port.container_port).ok()?))
    })
}

pub(super) fn named_ports(pod: &Pod) -> NamedPorts {
    let mut named = NamedPorts::new();
    for (name, protocol, number) in listed_ports(pod) {
        named.entry((name.to_owned(), protocol)).or_default().insert(number);
    }
    named
}

/// Makes `key` what tells kinds of pods apart; returns where its ports begin. Lengths go before texts, so that different lists never make the same key.
pub(super) fn write_key(key: &mut Vec<u8>, namespace: &str, pod: &Pod) -> usize {
    key.clear();
    let mut add = |text: &str| {
        key.extend_from_slice(&(text.len() as u32).to_le_bytes());
        key.extend_from_slice(text.as_bytes());
    };
    add(namespace);
    for (name, value) in pod.labels() {
        add(name);
        add(value);
    }
    // no text is so long, so this ends the labels
    key.extend_from_slice(&u32::MAX.to_le_bytes());
    let ports = key.len();
    for (name, protocol, number) in listed_ports(pod) {
        key.extend_from_slice(&(name.len() as u32).to_le_bytes());
        key.extend_from_slice(name.as_bytes());
        key.push(protocol.0);
        key.extend_from_slice(&number.to_le_bytes());
    }
    ports
}
