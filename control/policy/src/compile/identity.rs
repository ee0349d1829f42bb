//! What policies can see of a pod: whether it takes part at all, its labels, its named ports, and where it is.

use super::address::address;
use crate::snapshot::Snapshot;
use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod};
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
    let listed = status.and_then(|status| status.pod_ips.as_ref()).into_iter().flatten().map(|ip| ip.ip.as_str());
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
    let spec = pod.spec.as_ref();
    let init = spec.and_then(|spec| spec.init_containers.as_ref()).into_iter().flatten();
    let sidecars = init.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let containers = spec.into_iter().flat_map(|spec| &spec.containers).chain(sidecars);
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

/// Whether two pods of one namespace are of one kind, where that is soon told: some that are say that they are not.
pub(super) fn is_alike(one: &Pod, other: &Pod) -> bool {
    let labels = match (&one.metadata.labels, &other.metadata.labels) {
        (Some(one), Some(other)) => one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one == other),
        (None, None) => true,
        _ => false,
    };
    let ports = match (&one.spec, &other.spec) {
        (Some(one), Some(other)) => {
            let plain = one.init_containers.is_none() && other.init_containers.is_none();
            let mut containers = one.containers.iter().zip(&other.containers);
            plain && one.containers.len() == other.containers.len() && containers.all(|(one, other)| declares_alike(one, other))
        }
        (None, None) => true,
        _ => false,
    };
    labels && ports
}

fn declares_alike(one: &Container, other: &Container) -> bool {
    let [count, other_count] = [one, other].map(|container| container.ports.as_ref().map_or(0, Vec::len));
    let mut pairs = one.ports.iter().flatten().zip(other.ports.iter().flatten());
    let is_same = |(one, other): (&ContainerPort, &ContainerPort)| {
        one.container_port == other.container_port && one.name == other.name && one.protocol == other.protocol
    };
    count == other_count && pairs.all(is_same)
}

/// Makes `key` what tells kinds of pods apart; returns where its ports begin. Lengths go before texts, so that different lists never make the same key.
pub(super) fn write_key(key: &mut Vec<u8>, namespace: &str, pod: &Pod) -> usize {
    key.clear();
    let mut add = |text: &str| {
        key.extend_from_slice(&(text.len() as u32).to_le_bytes());
        key.extend_from_slice(text.as_bytes());
    };
    add(namespace);
    for (name, value) in pod.metadata.labels.iter().flatten() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(labels: Value, ports: Value, init: Value) -> Pod {
        let containers = json!([{"name": "a", "ports": ports}, {"name": "b"}]);
        let spec = json!({"containers": containers, "initContainers": init});
        serde_json::from_value(json!({"metadata": {"labels": labels, "uid": format!("{labels}{ports}")}, "spec": spec})).unwrap()
    }

    #[test]
    fn pods_that_are_alike_have_one_key() {
        let labels = [json!({}), json!({"a": "b"}), json!({"a": "c"}), json!({"ab": ""}), json!({"a": "b", "c": "d"})];
        let port = |name: &str, protocol: &str, number: u16| json!({"name": name, "protocol": protocol, "containerPort": number});
        let ports = [
            json!(null),
            json!([port("http", "TCP", 80)]),
            json!([port("http", "TCP", 81)]),
            json!([port("http", "UDP", 80)]),
            json!([port("grpc", "TCP", 80)]),
            json!([port("http", "TCP", 80), port("grpc", "TCP", 80)]),
        ];
        let init = [json!(null), json!([{"name": "i", "restartPolicy": "Always", "ports": [port("http", "TCP", 80)]}])];
        let triples = labels
            .iter()
            .flat_map(|labels| ports.iter().flat_map(|ports| init.iter().map(|init| (labels.clone(), ports.clone(), init.clone()))));
        let pods: Vec<Pod> = triples.map(|(labels, ports, init)| pod(labels, ports, init)).chain([Pod::default()]).collect();
        let keys: Vec<Vec<u8>> = pods
            .iter()
            .map(|pod| {
                let mut key = Vec::new();
                write_key(&mut key, "x", pod);
                key
            })
            .collect();
        let mut found = 0;
        for ((one, key), (other, other_key)) in pods.iter().zip(&keys).flat_map(|one| pods.iter().zip(&keys).map(move |other| (one, other)))
        {
            if is_alike(one, other) {
                assert_eq!(key, other_key, "{one:?} {other:?}");
                found += 1;
            }
        }
        // each without init containers, beside itself
        assert_eq!(found, labels.len() * ports.len() + 1);
        let mut another = pods[2].clone();
        another.metadata.uid = Some("another".to_owned());
        assert!(is_alike(&pods[2], &another));
    }
}
