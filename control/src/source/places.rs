//! What an API server says of nodes and of services' backends: for explanations. No verdict depends on it, so nothing waits
//! for it.

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use sluice_flow::ObjectName;
use sluice_policy::Objects;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// Names the service of a slice. Source: `kubernetes.io/service-name` in the well-known labels.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A copy costs nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places {
    pub(crate) nodes: Objects<String, Addresses>,
    pub(crate) slices: Objects<ObjectName, Slice>,
}

/// Of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Addresses(Box<[IpAddr]>);

/// Some of a service's backends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Slice {
    /// In the namespace of the slice; empty where it belongs to none.
    service: Box<str>,
    /// Those that serve.
    addresses: Box<[IpAddr]>,
    /// On each of them; empty where the slice names none by number.
    ports: Box<[u16]>,
}

impl From<Node> for Addresses {
    fn from(node: Node) -> Self {
        let stated = node.status.and_then(|status| status.addresses).unwrap_or_default();
        // host names are among them
        Self(stated.iter().filter_map(|address| address.address.parse().ok()).collect())
    }
}

impl From<EndpointSlice> for Slice {
    fn from(slice: EndpointSlice) -> Self {
        let service = slice.metadata.labels.unwrap_or_default().remove(SERVICE_NAME).unwrap_or_default();
        // unknown counts as ready. Source: discovery/v1 EndpointConditions
        let serving = |endpoint: &&k8s_openapi::api::discovery::v1::Endpoint| {
            endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
        };
        let endpoints = slice.endpoints.iter().filter(serving).flat_map(|endpoint| &endpoint.addresses);
        let ports = slice.ports.unwrap_or_default();
        Self {
            service: service.into(),
            addresses: endpoints.filter_map(|address| address.parse().ok()).collect(),
            ports: ports.iter().filter_map(|port| u16::try_from(port.port?).ok()).collect(),
        }
    }
}

impl Places {
    /// The node that has this address.
    pub(crate) fn node_at(&self, address: IpAddr) -> Option<&String> {
        self.nodes.iter().find(|(_, addresses)| addresses.0.contains(&address)).map(|(name, _)| name)
    }

    /// Where a service's traffic goes at present.
    pub(crate) fn backends(&self, service: &ObjectName) -> BTreeSet<SocketAddr> {
        let in_namespace = self.slices.range(ObjectName::new(&*service.namespace, "")..);
        let slices = in_namespace.take_while(|(name, _)| name.namespace == service.namespace).map(|(_, slice)| slice);
        let own = slices.filter(|slice| *slice.service == *service.name);
        own.flat_map(|slice| slice.addresses.iter().flat_map(|&ip| slice.ports.iter().map(move |&port| SocketAddr::new(ip, port))))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::Arc;

    #[test]
    fn a_service_has_the_ready_backends_of_all_its_slices_and_of_no_other_service() {
        let slice = |service: &str, ready: serde_json::Value, ip: &str| {
            let object = json!({
                "addressType": "IPv4",
                "metadata": {"name": "s", "labels": {SERVICE_NAME: service}},
                "endpoints": [{"addresses": [ip], "conditions": {"ready": ready}}, {"addresses": ["10.0.0.99"], "conditions": {"ready": false}}],
                "ports": [{"port": 8080, "protocol": "TCP"}, {"name": "by name"}],
            });
            Arc::new(Slice::from(serde_json::from_value::<EndpointSlice>(object).unwrap()))
        };
        let name = |namespace: &str, name: &str| ObjectName::new(namespace, name);
        let slices = [
            (name("x", "web-1"), slice("web", json!(true), "10.0.0.1")),
            (name("x", "web-2"), slice("web", json!(null), "10.0.0.2")),
            (name("x", "db-1"), slice("db", json!(true), "10.0.0.3")),
            (name("y", "web-1"), slice("web", json!(true), "10.0.0.4")),
        ];
        let places = Places { slices: slices.into_iter().collect(), ..Places::default() };
        let found: Vec<String> = places.backends(&name("x", "web")).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.0.1:8080", "10.0.0.2:8080"]);
    }

    #[test]
    fn a_node_is_known_by_its_addresses_and_not_by_its_names() {
        let node = json!({"status": {"addresses": [
            {"type": "InternalIP", "address": "192.0.2.1"}, {"type": "InternalIP", "address": "fd00::1"}, {"type": "Hostname", "address": "n1"},
        ]}});
        let node = Arc::new(Addresses::from(serde_json::from_value::<Node>(node).unwrap()));
        let places = Places { nodes: [("n1".to_owned(), node)].into_iter().collect(), ..Places::default() };
        assert_eq!(places.node_at("fd00::1".parse().unwrap()).map(String::as_str), Some("n1"));
        assert_eq!(places.node_at("192.0.2.2".parse().unwrap()), None);
    }
}
