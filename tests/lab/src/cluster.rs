//! From manifests to what the lab must run: pods with their ports, and the names that DNS serves.
//!
//! A pod is its network namespace and one small server on the ports it declares; a pod on the host network is its node,
//! so the lab has nothing to attach for it.

use crate::layout::ONLY_NODE;
use crate::services;
use crate::state::{NodeState, PodState, ServedPort, Transport};
use crate::store::{Document, parse_documents};
use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::Service;
use sluice_flow::ObjectName;
use sluice_policy::Snapshot;
use sluice_policy::pod::{Container, Pod};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::IpAddr;

/// The DNS pod that the lab brings when the manifests have none.
const COREDNS: &str = include_str!("../demo/coredns.yaml");
const DNS_NAMESPACE: &str = "kube-system";
/// The zone of service names.
const CLUSTER_DOMAIN: &str = "cluster.local";

/// A pod to attach and serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodSpec {
    /// The pod.
    pub(crate) pod: ObjectName,
    /// Where it runs.
    pub(crate) node: String,
    /// From the object, or made up from the name, the same in every run.
    pub(crate) uid: String,
    /// The ports to serve.
    pub(crate) served: Vec<ServedPort>,
    /// Whether it is the cluster's DNS server.
    pub(crate) dns: bool,
}

/// The pods to attach, in the order in which they get their addresses: DNS first, then by name. In a cluster those that
/// have a node.
///
/// # Errors
///
/// A pod is bound to a node that there is not.
pub(crate) fn pods(snapshot: &Snapshot, nodes: &BTreeMap<String, NodeState>) -> Result<Vec<PodSpec>> {
    let mut specs = Vec::new();
    for (name, pod) in snapshot.pods.iter().filter(|(_, pod)| has_network(pod)) {
        let node = match pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) {
            _ if nodes.contains_key(ONLY_NODE) => ONLY_NODE,
            Some(node) if nodes.contains_key(node) => node,
            Some(node) => bail!("pod {name} is bound to node {node}; there is {}", nodes.keys().cloned().collect::<Vec<_>>().join(", ")),
            None => continue,
        };
        specs.push(spec(name, pod, node));
    }
    specs.sort_by_key(|spec| (!spec.dns, spec.pod.clone()));
    Ok(specs)
}

/// The DNS pod and its service, unless the manifests bring one.
pub(crate) fn missing_dns(snapshot: &Snapshot) -> Result<Vec<Document>> {
    if snapshot.pods.iter().any(|(name, pod)| is_dns(name, pod)) { Ok(Vec::new()) } else { parse_documents(COREDNS) }
}

fn has_network(pod: &Pod) -> bool {
    !is_on_host(pod) && !is_over(pod)
}

/// Whether it shares its node's network.
pub(crate) fn is_on_host(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false)
}

/// Whether it has succeeded or failed.
pub(crate) fn is_over(pod: &Pod) -> bool {
    matches!(phase(pod), Some("Succeeded" | "Failed"))
}

/// As its status says.
pub(crate) fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref().and_then(|status| status.phase.as_deref())
}

fn is_dns(name: &ObjectName, pod: &Pod) -> bool {
    let label = pod.labels().get("k8s-app");
    name.namespace == DNS_NAMESPACE && label.is_some_and(|value| value == "kube-dns") && has_network(pod)
}

fn spec(name: &ObjectName, pod: &Pod, node: &str) -> PodSpec {
    let uid = pod.metadata.uid.as_deref().filter(|uid| !uid.is_empty()).map_or_else(|| made_up_uid(name), str::to_owned);
    PodSpec { pod: name.clone(), node: node.to_owned(), uid, served: served_ports(pod), dns: is_dns(name, pod) }
}

/// TCP and UDP ports of all containers; 80 of both where none is declared, as an unconfigured web server would.
fn served_ports(pod: &Pod) -> Vec<ServedPort> {
    if pod.spec.is_none() {
        return Vec::new();
    }
    let is_sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = pod.init_containers().iter().filter(is_sidecar);
    let ports = pod.containers().iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let mut declared = false;
    let mut served = BTreeSet::new();
    for port in ports {
        declared = true;
        let protocol = match port.protocol.as_deref().unwrap_or("TCP") {
            "TCP" => Transport::Tcp,
            "UDP" => Transport::Udp,
            _ => continue,
        };
        if let Ok(port) = u16::try_from(port.container_port) {
            served.insert(ServedPort { port, protocol });
        }
    }
    if !declared {
        served.extend([Transport::Tcp, Transport::Udp].map(|protocol| ServedPort { port: 80, protocol }));
    }
    served.into_iter().collect()
}

/// A UUID of version 8 (RFC 9562, 5.8) from the pod's name, by FNV-1a over 128 bits.
fn made_up_uid(name: &ObjectName) -> String {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let hash = name.to_string().bytes().fold(BASIS, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME));
    let hash = hash & !(0xf << 76) & !(0b11 << 62) | 8 << 76 | 0b10 << 62;
    let hex = format!("{hash:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// The hosts file of the DNS server: each service's name with its addresses.
pub(crate) fn dns_hosts(snapshot: &Snapshot, attached: &BTreeMap<String, PodState>) -> String {
    let mut text = String::from("# written by sluice-lab; names of services, their addresses, or those of the pods behind headless ones\n");
    for (name, service) in &snapshot.services {
        for address in addresses(snapshot, attached, name, service) {
            let _ = writeln!(text, "{address} {}.{}.svc.{CLUSTER_DOMAIN}", name.name, name.namespace);
        }
    }
    text
}

/// Its cluster addresses; of a headless one those of the pods behind it.
fn addresses(snapshot: &Snapshot, attached: &BTreeMap<String, PodState>, name: &ObjectName, service: &Service) -> Vec<IpAddr> {
    let own: Vec<IpAddr> = services::cluster_ips(service).iter().filter_map(|ip| ip.parse().ok()).collect();
    if !own.is_empty() {
        return own;
    }
    services::selected(snapshot, attached, name, service).flat_map(|pod| pod.addresses.clone()).collect()
}

/// `/etc/resolv.conf` of a pod, as the kubelet writes it. Source: Kubernetes, "DNS for Services and Pods".
pub(crate) fn resolv_conf(pod: &ObjectName, nameserver: IpAddr) -> String {
    let search = search_list(pod).join(" ");
    format!("nameserver {nameserver}\nsearch {search}\noptions ndots:5 timeout:1 attempts:2\n")
}

/// The domains in which a pod looks for a name.
pub(crate) fn search_list(pod: &ObjectName) -> [String; 3] {
    [format!("{}.svc.{CLUSTER_DOMAIN}", pod.namespace), format!("svc.{CLUSTER_DOMAIN}"), CLUSTER_DOMAIN.into()]
}

/// `/etc/hosts` of a pod.
pub(crate) fn etc_hosts(pod: &ObjectName, addresses: &[IpAddr]) -> String {
    let mut text = String::from("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n");
    for address in addresses {
        let _ = writeln!(text, "{address} {}", pod.name);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_up_uid_is_a_uuid_and_depends_on_the_name_alone() {
        let uid = made_up_uid(&ObjectName::new("default", "frontend"));
        assert_eq!(uid, made_up_uid(&ObjectName::parse("frontend")));
        assert_ne!(uid, made_up_uid(&ObjectName::new("default", "backend")));
        assert_eq!(uid.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert_eq!(uid.as_bytes()[14], b'8');
        assert!(matches!(uid.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
    }
}
