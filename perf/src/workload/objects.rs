//! What all families are made of: namespaces, dual-stack pods on their nodes, policies.

use super::addresses;
use crate::random::SplitMix;
use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod, PodIP, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};
use sluice_flow::{Incarnation, LocalEndpoint, PortIndex};
use sluice_policy::pod::Pool;
use sluice_policy::{ObjectName, Snapshot};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// What pods of one kind have in common.
#[derive(Debug, Clone)]
pub(super) struct Template {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    /// Of its one container.
    pub(super) ports: Vec<ContainerPort>,
}

impl Template {
    pub(super) fn new<const N: usize>(namespace: &str, name: &str, labels: [(&str, &str); N]) -> Self {
        let labels = labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        Self { namespace: namespace.to_owned(), name: name.to_owned(), labels, ports: Vec::new() }
    }

    /// With a named TCP port more.
    pub(super) fn serving(mut self, name: &str, number: u16) -> Self {
        let (name, protocol) = (Some(name.to_owned()), Some("TCP".to_owned()));
        self.ports.push(ContainerPort { name, protocol, container_port: number.into(), ..ContainerPort::default() });
        self
    }
}

/// A cluster in the making. Its pods are spread over the nodes at random, so that each node holds pods of many
/// namespaces; those of node 0 are attached here.
#[derive(Debug)]
pub(super) struct Cluster {
    snapshot: Snapshot,
    pool: Pool,
    per_node: usize,
    /// Where each pod goes: node × `per_node` + slot.
    places: Vec<u32>,
    pods: usize,
    policies: usize,
}

impl Cluster {
    /// For exactly so many pods, every node but the last full.
    ///
    /// # Panics
    ///
    /// More than 250 pods on a node, or more nodes than their addresses can number (16 384).
    pub(super) fn new(pods: usize, per_node: usize, random: &mut SplitMix) -> Self {
        assert!((1..=250).contains(&per_node) && pods / per_node < 16_384, "{pods} pods, {per_node} on a node");
        let mut places: Vec<u32> = (0..pods as u32).collect();
        for last in (1..pods).rev() {
            places.swap(last, random.below(last + 1));
        }
        Self { snapshot: Snapshot::default(), pool: Pool::default(), per_node, places, pods: 0, policies: 0 }
    }

    /// As the API server stores it: with the label that carries its name.
    pub(super) fn add_namespace<const N: usize>(&mut self, name: &str, labels: [(&str, &str); N]) {
        let labels: BTreeMap<_, _> = labels.into_iter().chain([("kubernetes.io/metadata.name", name)]).collect();
        let object = json!({"metadata": {"name": name, "labels": labels}, "status": {"phase": "Active"}});
        self.snapshot.namespaces.insert(name.to_owned(), Arc::new(serde_json::from_value(object).expect("a namespace")));
    }

    /// One running pod more.
    pub(super) fn add_pod(&mut self, template: &Template) {
        let (index, place) = (self.pods, self.places[self.pods] as usize);
        self.pods += 1;
        let (node, slot) = (place / self.per_node, place % self.per_node + 1);
        let ips = addresses(node, slot);
        let name = ObjectName::new(&template.namespace, format!("{}-{index:06x}", template.name));
        let uid = format!("00000000-{index:08x}");
        if node == 0 {
            self.snapshot.endpoints.push(LocalEndpoint {
                port: PortIndex(place as u16),
                incarnation: Incarnation(1),
                pod: name.clone(),
                uid: uid.clone(),
                addresses: ips.to_vec(),
            });
        }
        let pod = running(template, &name, uid, node, ips);
        self.snapshot.pods.insert(name, Arc::new(self.pool.share(pod.into())));
    }

    /// How many of the next pods come until one is attached here.
    pub(super) fn is_next_local(&self) -> bool {
        self.places.get(self.pods).is_some_and(|&place| (place as usize) < self.per_node)
    }

    /// One policy more; its name is `stem` and its number.
    pub(super) fn add_policy(&mut self, namespace: &str, stem: &str, spec: Value) {
        let name = format!("{stem}-{:06}", self.policies);
        self.policies += 1;
        let object = json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec});
        let object = serde_json::from_value(object).expect("a policy");
        self.snapshot.policies.insert(ObjectName::new(namespace, name), Arc::new(object));
    }

    /// # Panics
    ///
    /// Pods are missing.
    pub(super) fn finish(mut self) -> Snapshot {
        assert_eq!(self.pods, self.places.len(), "pods");
        self.snapshot.endpoints.sort_by_key(|endpoint| endpoint.port);
        self.snapshot
    }
}

fn running(template: &Template, name: &ObjectName, uid: String, node: usize, ips: [IpAddr; 2]) -> Pod {
    let container = || Container { name: template.name.clone(), ports: Some(template.ports.clone()), ..Container::default() };
    let ips = ips.map(|ip| PodIP { ip: ip.to_string() });
    Pod {
        metadata: ObjectMeta {
            name: Some(name.name.clone()),
            namespace: Some(name.namespace.clone()),
            uid: Some(uid),
            labels: Some(template.labels.clone()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            node_name: Some(format!("node-{node:05}")),
            // a container is the largest part of a pod, and only its ports matter
            containers: if template.ports.is_empty() { Vec::new() } else { vec![container()] },
            ..PodSpec::default()
        }),
        status: Some(PodStatus {
            phase: Some("Running".to_owned()),
            pod_ip: Some(ips[0].ip.clone()),
            pod_ips: Some(ips.to_vec()),
            ..PodStatus::default()
        }),
    }
}

/// A selector of one label.
pub(super) fn labels(key: &str, value: &str) -> Value {
    json!({"matchLabels": {key: value}})
}

/// Port entries of single TCP ports.
pub(super) fn tcp(ports: &[u16]) -> Value {
    ports.iter().map(|port| json!({"protocol": "TCP", "port": port})).collect()
}

/// Isolates every pod of a namespace in both directions and allows nothing.
pub(super) fn deny_all() -> Value {
    json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})
}
