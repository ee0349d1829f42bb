//! Objects and attachments → the snapshot that is compiled.
//!
//! A terminating pod keeps its policies until its sandbox is gone: its object may vanish from the source while its
//! endpoint is still attached, and until the dataplane reports the endpoint gone, the object last known stands in.
//!
//! The same name with another UID is another pod. Where both UIDs are known, an object of that name never stands in for
//! the endpoint: a stale one gives nothing to a new sandbox, and what an ended pod was is forgotten with its object. Until
//! the source shows the endpoint's own pod, the endpoint is unknown to the compiler, and so closed.

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
                Some(pod) if is_pod_of(pod, endpoint) => {
                    let namespace = objects.namespaces.get(&endpoint.pod.namespace).cloned();
                    Some(Attached { name: endpoint.pod.clone(), pod: pod.clone(), namespace })
                }
                // also where the name is taken by another pod: this one's object stands in again if that goes first
                _ => self.attached.remove(&key).filter(|last| last.name == endpoint.pod && is_pod_of(&last.pod, endpoint)),
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

/// Whether an object of the endpoint's name can be its pod, as far as both UIDs are known.
fn is_pod_of(pod: &Pod, endpoint: &LocalEndpoint) -> bool {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    uid.is_empty() || endpoint.uid.is_empty() || uid == endpoint.uid
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

    /// The pod `x/web` with this UID.
    fn web(uid: &str) -> Snapshot {
        let mut snapshot = objects(&["x/web"]);
        let mut pod = Pod::default();
        pod.metadata.uid = Some(uid.into());
        snapshot.pods.insert(ObjectName::parse("x/web"), Arc::new(pod));
        snapshot
    }

    fn sandbox(uid: &str, incarnation: u32) -> LocalEndpoint {
        LocalEndpoint { uid: uid.into(), ..endpoint("x/web", incarnation) }
    }

    fn uid_of_web(snapshot: &Snapshot) -> Option<&str> {
        snapshot.pods.get(&ObjectName::parse("x/web"))?.metadata.uid.as_deref()
    }

    #[test]
    fn an_object_with_another_uid_is_never_kept_for_a_sandbox() {
        let mut merger = Merger::default();
        // the source still shows the old pod when the new one's sandbox is attached
        assert_eq!(uid_of_web(&merger.merge(&web("old"), &[sandbox("new", 1)])), Some("old"), "as the source says");
        let gone = merger.merge(&objects(&[]), &[sandbox("new", 1)]);
        assert_eq!(uid_of_web(&gone), None, "what the old pod was, nobody is any more");
        assert_eq!(uid_of_web(&merger.merge(&web("new"), &[sandbox("new", 1)])), Some("new"));
        assert_eq!(uid_of_web(&merger.merge(&objects(&[]), &[sandbox("new", 1)])), Some("new"), "its own object stands in");
    }

    #[test]
    fn a_terminating_pod_s_object_gives_way_to_a_new_pod_of_its_name_and_comes_back_after_it() {
        let mut merger = Merger::default();
        merger.merge(&web("old"), &[sandbox("old", 1)]);
        assert_eq!(uid_of_web(&merger.merge(&web("new"), &[sandbox("old", 1)])), Some("new"));
        assert_eq!(uid_of_web(&merger.merge(&objects(&[]), &[sandbox("old", 1)])), Some("old"));
        assert_eq!(uid_of_web(&merger.merge(&objects(&[]), &[])), None);
    }

    #[test]
    fn a_runtime_that_tells_no_uid_is_believed_by_name() {
        let mut merger = Merger::default();
        merger.merge(&web("some"), &[sandbox("", 1)]);
        assert_eq!(uid_of_web(&merger.merge(&objects(&[]), &[sandbox("", 1)])), Some("some"));
    }

    #[test]
    fn a_pod_without_an_endpoint_goes_with_its_manifest() {
        let mut merger = Merger::default();
        merger.merge(&objects(&["x/web"]), &[]);
        assert!(merger.merge(&objects(&[]), &[]).pods.is_empty());
    }
}
