//! What the compiler works on: pods with an identity, and only those rules whose policy isolates a pod of this node.

use super::identity::NamedPorts;
use super::pods::Pods;
use super::rules::Rule;
use crate::snapshot::{Objects, Snapshot};
use k8s_openapi::api::core::v1::{Namespace, Service};
use sluice_flow::{Addr, Direction, LocalEndpoint, ObjectName};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// One direction of endpoints that cannot be told apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Profile {
    pub(super) direction: Direction,
    /// Rule ids, ascending: the first that allows is the one that decides.
    pub(super) rules: Vec<u32>,
    /// The pod's own named ports, where an ingress rule asks for them.
    pub(super) named_ports: Arc<NamedPorts>,
}

/// A pod of this node.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ModelEndpoint {
    pub(super) source: LocalEndpoint,
    /// The policies that isolate it in each direction, by name.
    pub(super) isolating: [Vec<ObjectName>; 2],
    /// Index into [`Model::profiles`], `None` where not isolated.
    pub(super) profiles: [Option<usize>; 2],
}

/// Everything the compiler looks at. It is brought up to date rather than made anew.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) pods: Pods,
    pub(super) namespaces: Objects<String, Namespace>,
    /// By policy, direction and index; the position is the rule id. A rule that stays is the same one.
    pub(super) rules: Vec<Arc<Rule>>,
    /// Raised whenever rules or profiles may be others.
    pub(super) rules_edition: u64,
    /// Raised whenever rules may have other names or ids, or endpoints or profiles may be others.
    pub(super) naming: u64,
    pub(super) profiles: Vec<Profile>,
    pub(super) endpoints: Vec<ModelEndpoint>,
    pub(super) services: Vec<u128>,
    service_objects: Objects<ObjectName, Service>,
}

impl Model {
    /// Follows everything but policies and endpoints.
    pub(super) fn follow(&mut self, snapshot: &Snapshot) {
        self.pods.update(snapshot);
        self.namespaces.clone_from(&snapshot.namespaces);
        if self.service_objects.diff(&snapshot.services).next().is_some() {
            self.services = service_addresses(&snapshot.services);
        }
        self.service_objects.clone_from(&snapshot.services);
    }

    /// How many addresses pods claim.
    pub(super) fn address_count(&self) -> usize {
        self.pods.v4.len() + self.pods.v6.len()
    }

    /// Every claimed address with the first pod that claims it; ascending. Cost: all pods.
    pub(super) fn first_claims(&self) -> BTreeMap<IpAddr, &ObjectName> {
        self.pods.first_claims()
    }
}

/// Every address that kube-proxy would translate.
fn service_addresses(services: &Objects<ObjectName, Service>) -> Vec<u128> {
    let mut addresses = Vec::with_capacity(2 * services.len());
    for service in services.values() {
        let spec = service.spec.iter();
        let own = spec
            .clone()
            .flat_map(|spec| spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip).chain(spec.external_ips.iter().flatten()));
        let balancers = service.status.iter().flat_map(|s| &s.load_balancer).flat_map(|b| b.ingress.iter().flatten()).flat_map(|i| &i.ip);
        let parsed = own.chain(balancers).filter_map(|text| text.parse::<IpAddr>().ok());
        addresses.extend(parsed.map(|address| Addr::from(address).to_u128()));
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}
