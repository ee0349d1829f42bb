//! Objects and attachments → the snapshot that is compiled.
//!
//! A terminating pod keeps its policies until its sandbox is gone: its object may vanish from the source while its
//! endpoint is still attached, and until the dataplane reports the endpoint gone, the object last known stands in.

use k8s_openapi::api::core::v1::Namespace;
use sluice_flow::{Incarnation, LocalEndpoint, ObjectName, PortIndex};
use sluice_policy::Snapshot;
use sluice_policy::pod::Pod;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The last known objects of pods that are attached here, by attachment: a new attachment of the same name inherits
/// nothing.
#[derive(Debug, Default)]
pub struct Merger {
    attached: BTreeMap<(PortIndex, Incarnation), Attached>,
}

#[derive(Debug, Clone)]
struct Attached {
    name: ObjectName,
    pod: Arc<Pod>,
    namespace: Option<Arc<Namespace>>,
}

impl Merger {
    /// What is to be compiled. `objects` is as the source says, `endpoints` as the dataplane does.
    pub fn merge(&mut self, objects: &Snapshot, endpoints: &[LocalEndpoint]) -> Snapshot {
        let mut attached = BTreeMap::new();
        for endpoint in endpoints {
            let key = (endpoint.port, endpoint.incarnation);
            let known = match objects.pods.get(&endpoint.pod) {
                Some(pod) => {
                    let namespace = objects.namespaces.get(&endpoint.pod.namespace).cloned();
                    Some(Attached { name: endpoint.pod.clone(), pod: pod.clone(), namespace })
                }
                None => self.attached.remove(&key).filter(|last| last.name == endpoint.pod),
            };
            attached.extend(known.map(|known| (key, known)));
        }
        self.attached = attached;
        let mut snapshot = objects.clone();
        for last in self.attached.values() {
            if !snapshot.pods.contains_key(&last.name) {
                snapshot.pods.insert(last.name.clone(), last.pod.clone());
                if let Some(namespace) = &last.namespace {
                    snapshot.namespaces.entry(last.name.namespace.clone()).or_insert_with(|| namespace.clone());
                }
            }
        }
        snapshot.endpoints = endpoints.to_vec();
        snapshot.endpoints.sort();
        snapshot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(pod: &str, incarnation: u32) -> LocalEndpoint {
        LocalEndpoint {
            port: PortIndex(1),
            incarnation: Incarnation(incarnation),
            pod: ObjectName::parse(pod),
            uid: String::new(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
        }
    }

    fn objects(pods: &[&str]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for pod in pods {
            let name = ObjectName::parse(pod);
            snapshot.namespaces.insert(name.namespace.clone(), Arc::default());
            snapshot.pods.insert(name, Arc::default());
        }
        snapshot
    }

    #[test]
    fn a_vanished_pod_keeps_its_object_exactly_as_long_as_its_endpoint() {
        let web = ObjectName::parse("x/web");
        let mut merger = Merger::default();
        assert!(merger.merge(&objects(&["x/web"]), &[endpoint("x/web", 1)]).pods.contains_key(&web));
        let terminating = merger.merge(&objects(&[]), &[endpoint("x/web", 1)]);
        assert!(terminating.pods.contains_key(&web));
        assert!(terminating.namespaces.contains_key("x"));
        let replaced = merger.merge(&objects(&[]), &[endpoint("x/web", 2)]);
        assert!(!replaced.pods.contains_key(&web), "a new attachment inherits nothing");
        assert!(!merger.merge(&objects(&[]), &[endpoint("x/web", 1)]).pods.contains_key(&web));
    }

    #[test]
    fn a_pod_without_an_endpoint_goes_with_its_manifest() {
        let mut merger = Merger::default();
        merger.merge(&objects(&["x/web"]), &[]);
        assert!(merger.merge(&objects(&[]), &[]).pods.is_empty());
    }
}
