//! The pods that a workload would make: repositories hold Deployments far more often than Pods.
//!
//! Only for analysis of manifests. A template is no pod: it has no address, and it never gets into a snapshot that is
//! enforced.

use super::decode::{Unknown, decode};
use super::defaults;
use super::node::{Body, Node, Path};
use super::object::Object;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};

/// Kinds with a pod template, and where in them it stands.
const TEMPLATES: [(&str, &str); 7] = [
    ("Deployment", "spec.template"),
    ("StatefulSet", "spec.template"),
    ("DaemonSet", "spec.template"),
    ("ReplicaSet", "spec.template"),
    ("ReplicationController", "spec.template"),
    ("Job", "spec.template"),
    ("CronJob", "spec.jobTemplate.spec.template"),
];

/// The pods of one workload, all alike.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    pub(crate) namespace: String,
    /// `web (Deployment)`: no pod can be called so.
    pub(crate) title: String,
    /// Labels, ports and network of each of its pods.
    pub(crate) pod: Pod,
}

/// What a document of a kind that is none of ours says about pods.
#[derive(Debug)]
pub(super) enum Pods {
    /// Nothing.
    None,
    /// These.
    Of(Box<Workload>),
    /// Some in this namespace, but the template cannot be read.
    Opaque(String),
}

pub(super) fn pods(kind: &str, node: &Node) -> Pods {
    let Some((_, path)) = TEMPLATES.iter().find(|(name, _)| *name == kind) else { return Pods::None };
    let metadata = |field: &str| node.find(&Path::of("metadata").key(field)).and_then(Node::text).filter(|text| !text.is_empty());
    let namespace = metadata("namespace").unwrap_or("default").to_owned();
    let template = node.find(&Path::of(path)).filter(|template| matches!(template.body, Body::Map(_)));
    match (metadata("name"), template.map(|template| decode::<PodTemplateSpec>(template, Unknown::Ignore))) {
        (Some(name), Some(Ok(template))) => {
            let mut metadata = template.metadata.unwrap_or_default();
            metadata.namespace = Some(namespace.clone());
            let mut object = Object::Pod(Box::new(Pod { metadata, spec: template.spec, status: None }));
            defaults::apply(&mut object);
            let Object::Pod(pod) = object else { unreachable!("it was a pod") };
            Pods::Of(Box::new(Workload { namespace, title: format!("{name} ({kind})"), pod: *pod }))
        }
        _ => Pods::Opaque(namespace),
    }
}
