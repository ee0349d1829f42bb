//! The state of a cluster as the compiler and the oracle see it: raw, defaulted Kubernetes objects, of pods
//! the fields in [`crate::pod`], and the pods attached to this node.

use crate::pod::Pod;
use imbl::ordmap::{DiffItem, OrdMap};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use sluice_flow::{LocalEndpoint, ObjectName};
use std::sync::Arc;

/// Objects by name. A copy costs nothing and shares all its nodes; a change makes those on the path to the object anew, so
/// that two states of a large cluster are compared at the cost of what differs.
pub type Objects<K, V> = OrdMap<K, Arc<V>>;

/// Everything a verdict may depend on. Objects are as the API server stores them: validated and defaulted, each
/// namespace with its `kubernetes.io/metadata.name` label.
///
/// Objects are shared and never changed in place: whoever remembers what it made of an object knows it again by its
/// pointer, and whoever remembers a whole snapshot finds what differs in another by [`OrdMap::diff`], provided that the one
/// came from the other by edits or by [`Snapshot::share`]; it is slower otherwise, never wrong.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// By name.
    pub namespaces: Objects<String, Namespace>,
    /// All pods of the cluster, this node's and others'.
    pub pods: Objects<ObjectName, Pod>,
    /// All NetworkPolicy objects.
    pub policies: Objects<ObjectName, NetworkPolicy>,
    /// Services; their addresses are recognised, not yet translated.
    pub services: Objects<ObjectName, Service>,
    /// Pods attached to this node, sorted by port.
    pub endpoints: Vec<LocalEndpoint>,
}

impl Snapshot {
    /// Takes over from `previous` every object that is equal, and the structure that holds them, so that equal objects are
    /// the same object. Cost: one deep comparison for each object that is not shared yet.
    pub fn share(&mut self, previous: &Self) {
        share(&mut self.namespaces, &previous.namespaces);
        share(&mut self.pods, &previous.pods);
        share(&mut self.policies, &previous.policies);
        share(&mut self.services, &previous.services);
    }

    /// Whether the endpoint's pod is among the pods: by name, and by UID where both tell it.
    pub fn knows(&self, endpoint: &LocalEndpoint) -> bool {
        self.pods.get(&endpoint.pod).is_some_and(|pod| crate::oracle::belongs(endpoint, pod))
    }

    /// Whether both hold equal objects and endpoints. Cost: that of what is not shared.
    pub fn is_same(&self, other: &Self) -> bool {
        same(&self.namespaces, &other.namespaces)
            && same(&self.pods, &other.pods)
            && same(&self.policies, &other.policies)
            && same(&self.services, &other.services)
            && self.endpoints == other.endpoints
    }
}

/// Whether both hold equal objects. Cost: that of what is not shared.
pub(crate) fn same<K: Ord, V: PartialEq>(one: &Objects<K, V>, other: &Objects<K, V>) -> bool {
    one.diff(other).next().is_none()
}

/// Takes over from `old` every object that is equal and the structure that holds them. Cost: as [`Snapshot::share`].
pub fn share<K: Ord + Clone, V: PartialEq>(new: &mut Objects<K, V>, old: &Objects<K, V>) {
    let mut shared = old.clone();
    for difference in old.diff(new) {
        match difference {
            DiffItem::Add(name, object) | DiffItem::Update { new: (name, object), .. } => {
                drop(shared.insert(name.clone(), Arc::clone(object)))
            }
            DiffItem::Remove(name, _) => drop(shared.remove(name)),
        }
    }
    *new = shared;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(number: usize, port: usize) -> (ObjectName, Arc<Service>) {
        let spec = serde_json::json!({"spec": {"clusterIP": format!("10.0.0.{port}")}});
        (ObjectName::new("x", format!("s{number:04}")), Arc::new(serde_json::from_value(spec).unwrap()))
    }

    #[test]
    fn what_is_equal_becomes_the_same_object_and_what_is_not_stays() {
        let old = Snapshot { services: (0..1000).map(|number| service(number, 1)).collect(), ..Snapshot::default() };
        // read again: 3 is another, 5 is gone, 2000 has come
        let mut new = Snapshot {
            services: (0..1000)
                .chain([2000])
                .filter(|&number| number != 5)
                .map(|number| service(number, 1 + usize::from(number == 3)))
                .collect(),
            ..Snapshot::default()
        };
        let read = new.clone();
        assert!(!new.is_same(&old) && new.is_same(&read));
        new.share(&old);
        assert_eq!(new, read, "it says what it said");
        let foreign = new.services.iter().filter(|(name, object)| old.services.get(*name).is_none_or(|known| !Arc::ptr_eq(known, object)));
        assert_eq!(foreign.map(|(name, _)| name.name.as_str()).collect::<Vec<_>>(), ["s0003", "s2000"]);
        let mut edited = old.clone();
        let before = edited.services.remove(&ObjectName::new("x", "s0500")).unwrap();
        assert!(!edited.is_same(&old));
        edited.services.insert(ObjectName::new("x", "s0500"), before);
        assert!(edited.is_same(&old));
    }
}
