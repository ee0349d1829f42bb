//! Changes of a cluster that an incremental compiler might overlook.

use crate::{ObjectName, Snapshot};
use sluice_flow::Incarnation;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A name, and an edit of the cluster.
pub(super) type Change = (&'static str, fn(&mut Snapshot));

pub(super) fn changes() -> Vec<Change> {
    fn pod(snapshot: &mut Snapshot, name: &str, edit: fn(&mut crate::pod::Pod)) {
        edit(Arc::make_mut(snapshot.pods.get_mut(&ObjectName::parse(name)).unwrap()));
    }
    fn policy(snapshot: &mut Snapshot, name: &str, edit: fn(&mut k8s_openapi::api::networking::v1::NetworkPolicySpec)) {
        edit(Arc::make_mut(snapshot.policies.get_mut(&ObjectName::parse(name)).unwrap()).spec.as_mut().unwrap());
    }
    vec![
        ("a remote pod's labels", |s| {
            pod(s, "w/client", |pod| pod.metadata.labels = Some(Arc::new([("app".into(), "other".into())].into())))
        }),
        ("a local pod's labels", |s| pod(s, "x/open", |pod| pod.metadata.labels = Some(Arc::new([("app".into(), "web".into())].into())))),
        ("a pod's address", |s| {
            pod(s, "w/client", |pod| pod.status.as_mut().unwrap().pod_ips.as_mut().unwrap()[0].ip = "10.0.1.77".into())
        }),
        ("a pod's named port", |s| {
            pod(s, "w/client", |pod| {
                Arc::make_mut(&mut pod.spec.as_mut().unwrap().containers)[0].ports.as_mut().unwrap()[0].container_port += 1
            })
        }),
        ("a pod that completed", |s| pod(s, "w/client", |pod| pod.status.as_mut().unwrap().phase = Some("Succeeded".into()))),
        ("a pod that is gone", |s| drop(s.pods.remove(&ObjectName::parse("w/client")))),
        ("a pod that came to a used address", |s| {
            let mut twin = (*s.pods[&ObjectName::parse("z/far")]).clone();
            twin.status = s.pods[&ObjectName::parse("w/client")].status.clone();
            s.pods.insert(ObjectName::parse("z/new"), Arc::new(twin));
        }),
        ("a namespace's labels", |s| {
            let labels: BTreeMap<String, String> = [("kubernetes.io/metadata.name".into(), "w".into())].into();
            Arc::make_mut(s.namespaces.get_mut("w").unwrap()).metadata.labels = Some(labels);
        }),
        ("a policy's podSelector, edited in place", |s| policy(s, "x/web", |spec| spec.pod_selector = Some(Default::default()))),
        ("a policy's rule, edited in place", |s| policy(s, "x/web", |spec| drop(spec.ingress.as_mut().unwrap().pop()))),
        ("a policy's types", |s| policy(s, "x/web", |spec| spec.policy_types = Some(vec!["Ingress".into()]))),
        ("a policy that is gone", |s| drop(s.policies.remove(&ObjectName::parse("x/web")))),
        ("an attachment that was replaced", |s| s.endpoints[1].incarnation = Incarnation(2)),
        ("an attachment that moved", |s| s.endpoints[1].addresses = vec!["10.0.0.44".parse().unwrap()]),
        ("an attachment that is gone", |s| drop(s.endpoints.remove(1))),
        ("a service that is gone", |s| s.services.clear()),
    ]
}
