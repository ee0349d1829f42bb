//! What the API server fills in before it stores an object, in every field that a verdict may depend on.
//!
//! Empty lists and maps disappear, as they do on the server's way through JSON, so that an object from a manifest equals
//! the same object from a watch. No meaning is lost: in NetworkPolicy an empty list is the same as none.
//!
//! Sources: k8s.io/kubernetes `pkg/apis/networking/v1/defaults.go`, `pkg/apis/core/v1/defaults.go` and `conversion.go`.

use super::object::Object;
use k8s_openapi::api::core::v1::{Container, Namespace, Pod, PodIP, PodStatus, Service};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;

/// The label that every namespace carries.
/// The label by which the server gives each namespace its name.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Fills in an object in place.
pub(super) fn apply(object: &mut Object) {
    let namespaced = object.kind().is_namespaced();
    let metadata = object.metadata_mut();
    none_if_empty(&mut metadata.labels, BTreeMap::is_empty);
    none_if_empty(&mut metadata.annotations, BTreeMap::is_empty);
    none_if_empty(&mut metadata.namespace, String::is_empty);
    if namespaced {
        metadata.namespace.get_or_insert_with(|| "default".to_owned());
    }
    match object {
        Object::Namespace(_) => {}
        Object::Pod(object) => pod(object),
        Object::Service(object) => service(object),
        Object::NetworkPolicy(object) => policy(object),
    }
}

/// Adds what is true of every stored object, whatever its manifest says. Apart from [`apply`], so that a namespace with
/// a bad name is refused for its name and not for a label that nobody wrote.
pub(super) fn complete(object: &mut Object) {
    if let Object::Namespace(namespace) = object {
        name_label(namespace);
    }
}

/// A namespace as the server would make it from its name alone.
pub(super) fn implicit_namespace(name: &str) -> Namespace {
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    let mut namespace = Namespace { metadata, ..Namespace::default() };
    name_label(&mut namespace);
    namespace
}

fn name_label(namespace: &mut Namespace) {
    let name = namespace.metadata.name.clone().unwrap_or_default();
    // Overwritten even when the manifest says otherwise, as the server does.
    namespace.metadata.labels.get_or_insert_default().insert(NAMESPACE_NAME_LABEL.to_owned(), name);
}

fn policy(policy: &mut NetworkPolicy) {
    let spec = policy.spec.get_or_insert_default();
    selector(spec.pod_selector.get_or_insert_default());
    for rule in spec.ingress.iter_mut().flatten() {
        peers(&mut rule.from);
        ports(&mut rule.ports);
    }
    for rule in spec.egress.iter_mut().flatten() {
        peers(&mut rule.to);
        ports(&mut rule.ports);
    }
    none_if_empty(&mut spec.ingress, Vec::is_empty);
    none_if_empty(&mut spec.egress, Vec::is_empty);
    none_if_empty(&mut spec.policy_types, Vec::is_empty);
    let has_egress = spec.egress.is_some();
    spec.policy_types.get_or_insert_with(|| {
        let egress = has_egress.then(|| "Egress".to_owned());
        std::iter::once("Ingress".to_owned()).chain(egress).collect()
    });
}

fn peers(peers: &mut Option<Vec<NetworkPolicyPeer>>) {
    for peer in peers.iter_mut().flatten() {
        peer.pod_selector.iter_mut().for_each(selector);
        peer.namespace_selector.iter_mut().for_each(selector);
        if let Some(block) = &mut peer.ip_block {
            none_if_empty(&mut block.except, Vec::is_empty);
        }
    }
    none_if_empty(peers, Vec::is_empty);
}

fn ports(ports: &mut Option<Vec<NetworkPolicyPort>>) {
    for port in ports.iter_mut().flatten() {
        port.protocol.get_or_insert_with(tcp);
    }
    none_if_empty(ports, Vec::is_empty);
}

fn selector(selector: &mut LabelSelector) {
    for requirement in selector.match_expressions.iter_mut().flatten() {
        none_if_empty(&mut requirement.values, Vec::is_empty);
    }
    none_if_empty(&mut selector.match_expressions, Vec::is_empty);
    none_if_empty(&mut selector.match_labels, BTreeMap::is_empty);
}

fn pod(pod: &mut Pod) {
    if let Some(spec) = &mut pod.spec {
        let host_network = spec.host_network == Some(true);
        let containers = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
        containers.for_each(|container| container_ports(container, host_network));
        none_if_empty(&mut spec.init_containers, Vec::is_empty);
        none_if_empty(&mut spec.node_name, String::is_empty);
    }
    pod.status.iter_mut().for_each(pod_addresses);
}

fn container_ports(container: &mut Container, host_network: bool) {
    for port in container.ports.iter_mut().flatten() {
        none_if_empty(&mut port.protocol, String::is_empty);
        none_if_empty(&mut port.name, String::is_empty);
        port.protocol.get_or_insert_with(tcp);
        if host_network && port.host_port.is_none_or(|port| port == 0) {
            port.host_port = Some(port.container_port);
        }
    }
    none_if_empty(&mut container.ports, Vec::is_empty);
}

/// `podIP` and `podIPs[0]` are one value; where they differ, `podIP` counts.
fn pod_addresses(status: &mut PodStatus) {
    none_if_empty(&mut status.pod_ip, String::is_empty);
    none_if_empty(&mut status.pod_ips, Vec::is_empty);
    match (&status.pod_ip, &status.pod_ips) {
        (Some(one), Some(all)) if all[0].ip == *one => {}
        (Some(one), _) => status.pod_ips = Some(vec![PodIP { ip: one.clone() }]),
        (None, Some(all)) => status.pod_ip = Some(all[0].ip.clone()),
        (None, None) => {}
    }
}

fn service(service: &mut Service) {
    let Some(spec) = &mut service.spec else { return };
    none_if_empty(&mut spec.type_, String::is_empty);
    none_if_empty(&mut spec.selector, BTreeMap::is_empty);
    none_if_empty(&mut spec.cluster_ip, String::is_empty);
    spec.type_.get_or_insert_with(|| "ClusterIP".to_owned());
    for port in spec.ports.iter_mut().flatten() {
        none_if_empty(&mut port.protocol, String::is_empty);
        none_if_empty(&mut port.name, String::is_empty);
        port.protocol.get_or_insert_with(tcp);
        let unset = match &port.target_port {
            None | Some(IntOrString::Int(0)) => true,
            Some(IntOrString::String(name)) => name.is_empty(),
            Some(IntOrString::Int(_)) => false,
        };
        if unset {
            port.target_port = Some(IntOrString::Int(port.port));
        }
    }
    none_if_empty(&mut spec.ports, Vec::is_empty);
}

fn tcp() -> String {
    "TCP".to_owned()
}

fn none_if_empty<T>(value: &mut Option<T>, is_empty: fn(&T) -> bool) {
    if value.as_ref().is_some_and(is_empty) {
        *value = None;
    }
}
