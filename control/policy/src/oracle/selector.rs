//! Label selectors as the Kubernetes API defines them (`metav1.LabelSelector`): every requirement must hold.

use super::Oracle;
use crate::pod::Pod;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use sluice_flow::ObjectName;
use std::collections::BTreeMap;

/// The label that every namespace carries, set by the API server to the namespace's name.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// Whether `policy` selects `pod` of its own namespace. An absent selector is an empty one here: the field is required,
/// and the API server stores `{}`.
pub(super) fn selects(policy: &NetworkPolicy, pod: &Pod) -> bool {
    match policy.spec.as_ref().and_then(|spec| spec.pod_selector.as_ref()) {
        Some(selector) => pod_matches(selector, pod),
        None => true,
    }
}

/// Whether the labels of `pod` satisfy `selector`.
pub(super) fn pod_matches(selector: &LabelSelector, pod: &Pod) -> bool {
    matches(selector, |key| value(Some(pod.labels()), key))
}

/// Whether the labels of the namespace satisfy `selector`. One that the snapshot does not hold has its name only.
pub(super) fn namespace_matches(selector: &LabelSelector, name: &str, namespace: Option<&Namespace>) -> bool {
    let labels = namespace.and_then(|object| object.metadata.labels.as_ref());
    matches(selector, |key| value(labels, key).or((key == NAMESPACE_NAME).then_some(name)))
}

impl Oracle<'_> {
    /// Whether the labels of `pod` satisfy `selector`; a pod that the snapshot does not hold has none.
    pub(crate) fn pod_matches(&self, selector: &LabelSelector, pod: &ObjectName) -> bool {
        let labels = self.snapshot.pods.get(pod).map(|pod| pod.labels());
        matches(selector, |key| value(labels, key))
    }

    /// Whether the labels of the namespace satisfy `selector`.
    pub(crate) fn namespace_matches(&self, selector: &LabelSelector, name: &str) -> bool {
        namespace_matches(selector, name, self.snapshot.namespaces.get(name).map(|namespace| &**namespace))
    }
}

fn value<'l>(labels: Option<&'l BTreeMap<String, String>>, key: &str) -> Option<&'l str> {
    labels.and_then(|labels| labels.get(key)).map(String::as_str)
}

fn matches<'l>(selector: &LabelSelector, label: impl Fn(&str) -> Option<&'l str>) -> bool {
    let labels = selector.match_labels.iter().flatten();
    let expressions = selector.match_expressions.iter().flatten();
    labels.into_iter().all(|(key, wanted)| label(key) == Some(wanted.as_str()))
        && expressions.into_iter().all(|requirement| holds(requirement, label(&requirement.key)))
}

/// `NotIn` and `DoesNotExist` hold for an object without the key. An operator that the API does not know holds never;
/// the loader refuses such a policy before it gets here.
fn holds(requirement: &LabelSelectorRequirement, label: Option<&str>) -> bool {
    let listed = |label: &str| requirement.values.iter().flatten().any(|value| value == label);
    match requirement.operator.as_str() {
        "In" => label.is_some_and(listed),
        "NotIn" => !label.is_some_and(listed),
        "Exists" => label.is_some(),
        "DoesNotExist" => label.is_none(),
        _ => false,
    }
}

/// A selector as `kubectl` would print it: `app=web,tier in (a,b),!legacy`; `{}` for the one that selects all.
pub(crate) fn text(selector: &LabelSelector) -> String {
    let mut parts: Vec<String> = selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
    for requirement in selector.match_expressions.iter().flatten() {
        let LabelSelectorRequirement { key, operator, values } = requirement;
        let values = values.iter().flatten().map(String::as_str).collect::<Vec<_>>().join(",");
        parts.push(match operator.as_str() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.clone(),
            "DoesNotExist" => format!("!{key}"),
            other => format!("{key} {other} ({values})"),
        });
    }
    if parts.is_empty() { "{}".to_owned() } else { parts.join(",") }
}
