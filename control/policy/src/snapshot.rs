//! The state of a cluster as the compiler and the oracle see it: raw, defaulted Kubernetes objects, and the pods
//! attached to this node.

use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use sluice_flow::{LocalEndpoint, ObjectName};
use std::collections::BTreeMap;

/// Everything a verdict may depend on. Objects are as the API server stores them: validated and defaulted, each
/// namespace with its `kubernetes.io/metadata.name` label.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// By name.
    pub namespaces: BTreeMap<String, Namespace>,
    /// All pods of the cluster, this node's and others'.
    pub pods: BTreeMap<ObjectName, Pod>,
    /// All NetworkPolicy objects.
    pub policies: BTreeMap<ObjectName, NetworkPolicy>,
    /// Services; their addresses are recognised, not yet translated.
    pub services: BTreeMap<ObjectName, Service>,
    /// Pods attached to this node, sorted by port.
    pub endpoints: Vec<LocalEndpoint>,
}
