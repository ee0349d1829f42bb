//! The state of a cluster as the compiler and the oracle see it: raw, defaulted Kubernetes objects, and the pods
//! attached to this node.

use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use sluice_flow::{LocalEndpoint, ObjectName};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything a verdict may depend on. Objects are as the API server stores them: validated and defaulted, each
/// namespace with its `kubernetes.io/metadata.name` label.
///
/// Objects are shared and never changed in place: whoever remembers what it made of an object knows it again by its
/// pointer ([`Snapshot::share`]).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// By name.
    pub namespaces: BTreeMap<String, Arc<Namespace>>,
    /// All pods of the cluster, this node's and others'.
    pub pods: BTreeMap<ObjectName, Arc<Pod>>,
    /// All NetworkPolicy objects.
    pub policies: BTreeMap<ObjectName, Arc<NetworkPolicy>>,
    /// Services; their addresses are recognised, not yet translated.
    pub services: BTreeMap<ObjectName, Arc<Service>>,
    /// Pods attached to this node, sorted by port.
    pub endpoints: Vec<LocalEndpoint>,
}

impl Snapshot {
    /// Takes over from `previous` every object that is equal, so that equal objects are the same object. Cost: one deep
    /// comparison for each object that is not shared yet.
    pub fn share(&mut self, previous: &Self) {
        share(&mut self.namespaces, &previous.namespaces);
        share(&mut self.pods, &previous.pods);
        share(&mut self.policies, &previous.policies);
        share(&mut self.services, &previous.services);
    }

    /// Whether both hold the same objects, by pointer, and equal endpoints. Cost: one step for each object.
    pub fn is_same(&self, other: &Self) -> bool {
        same(&self.namespaces, &other.namespaces)
            && same(&self.pods, &other.pods)
            && same(&self.policies, &other.policies)
            && same(&self.services, &other.services)
            && self.endpoints == other.endpoints
    }
}

fn same<K: Eq, V>(one: &BTreeMap<K, Arc<V>>, other: &BTreeMap<K, Arc<V>>) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|((key, object), (k, o))| Arc::ptr_eq(object, o) && key == k)
}

fn share<K: Ord, V: PartialEq>(new: &mut BTreeMap<K, Arc<V>>, old: &BTreeMap<K, Arc<V>>) {
    for (key, object) in new {
        if let Some(known) = old.get(key).filter(|known| !Arc::ptr_eq(known, object) && **known == *object) {
            *object = Arc::clone(known);
        }
    }
}
