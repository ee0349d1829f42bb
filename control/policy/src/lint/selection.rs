//! Policies and peers that match no pod.

use super::cluster::Cluster;
use super::covered::subset::{NAMESPACE_NAME, Permitted};
use super::written::id;
use super::{Findings, WarningKind, counted, names, rules_in_force, spec};
use crate::load::{Field, Written, nearest};
use crate::oracle::selector_text;
use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use sluice_flow::ObjectName;
use std::collections::BTreeSet;

pub(super) fn check(cluster: &Cluster<'_>, found: &mut Findings<'_>) {
    let everything = LabelSelector::default();
    for (name, policy) in &cluster.snapshot.policies {
        let selector = spec(policy).and_then(|spec| spec.pod_selector.as_ref()).unwrap_or(&everything);
        selects_nothing(cluster, name, selector, found);
        for rule in rules_in_force(name, policy) {
            for (index, peer) in rule.peers.iter().enumerate() {
                peer_matches_nothing(cluster, name, &rule.peers_field().index(index), peer, found);
            }
        }
    }
}

const CONTRADICTION: &str = "the requirements contradict each other: no labels can satisfy them";

fn selects_nothing(cluster: &Cluster<'_>, name: &ObjectName, selector: &LabelSelector, found: &mut Findings<'_>) {
    let kind = WarningKind::SelectsNothing;
    let (field, namespace) = (Field::of("spec.podSelector"), name.namespace.as_str());
    if Permitted::by(selector).is_contradiction() {
        found.add(kind, name, &field, format!("selects no pod: {CONTRADICTION}"), None);
        return;
    }
    if !cluster.pods_known(namespace) || cluster.selected(Some(namespace), Some(selector)).next().is_some() || !found.complete() {
        return;
    }
    let pods = counted(cluster.pods_of(namespace).len(), "pod");
    let message = format!(
        "{} matches none of the {pods} of namespace {namespace} in the manifests, so the policy has no effect at present",
        selector_text(selector)
    );
    let (spot, hint) = explain_miss(cluster, namespace, selector, &field);
    let hint = hint.or_else(|| {
        let elsewhere = elsewhere(cluster, namespace, selector)?;
        Some(match cluster.sources.written(&id(name), &Field::of("metadata.namespace")) {
            Written::Value => format!("{elsewhere}: is the policy's namespace right?"),
            _ => format!("{elsewhere}: metadata.namespace is missing, so the policy is of namespace {namespace}"),
        })
    });
    found.add(kind, name, &spot, message, hint);
}

fn peer_matches_nothing(cluster: &Cluster<'_>, name: &ObjectName, field: &Field, peer: &NetworkPolicyPeer, found: &mut Findings<'_>) {
    let kind = WarningKind::PeerMatchesNothing;
    let selectors = [&peer.pod_selector, &peer.namespace_selector];
    if selectors.into_iter().flatten().any(|selector| Permitted::by(selector).is_contradiction()) {
        found.add(kind, name, field, format!("matches no pod: {CONTRADICTION}"), None);
        return;
    }
    match (&peer.namespace_selector, &peer.pod_selector) {
        _ if peer.ip_block.is_some() => {}
        (None, Some(pods)) => {
            let namespace = name.namespace.as_str();
            if !cluster.pods_known(namespace) || cluster.selected(Some(namespace), Some(pods)).next().is_some() || !found.complete() {
                return;
            }
            let message = format!(
                "{} matches no pod of namespace {namespace} in the manifests; a podSelector alone means the policy's own namespace",
                selector_text(pods)
            );
            let (spot, hint) = explain_miss(cluster, namespace, pods, &field.key("podSelector"));
            let hint = elsewhere(cluster, namespace, pods)
                .map(|elsewhere| format!("{elsewhere}: add a `namespaceSelector` to the same peer"))
                .or(hint);
            found.add(kind, name, &spot, message, hint);
        }
        (Some(namespaces), pods) => match cluster.matching_namespaces(namespaces).as_ref() {
            [] => no_namespace(cluster, name, field, namespaces, found),
            matching => no_pod_of_them(cluster, name, field, matching, pods.as_ref(), found),
        },
        (None, None) => {}
    }
}

fn no_namespace(cluster: &Cluster<'_>, name: &ObjectName, field: &Field, selector: &LabelSelector, found: &mut Findings<'_>) {
    let kind = WarningKind::PeerMatchesNothing;
    if !cluster.namespaces_known() || names_absent_namespace(cluster, selector) || !found.complete() {
        return;
    }
    let message = format!("{} matches no namespace in the manifests, so the peer allows nobody at present", selector_text(selector));
    let labels = |namespace: &&str| cluster.snapshot.namespaces.get(*namespace).and_then(|object| object.metadata.labels.as_ref());
    let hint = selector.match_labels.iter().flatten().find_map(|(key, value)| {
        let values: BTreeSet<&str> =
            cluster.namespace_names().iter().filter_map(labels).filter_map(|labels| labels.get(key)).map(String::as_str).collect();
        did_you_mean(key, value, &values)
    });
    let hint = hint.or_else(|| {
        // People write the namespace's name as if it were a label.
        let value = selector
            .match_labels
            .iter()
            .flatten()
            .map(|(_, value)| value.as_str())
            .find(|value| cluster.namespace_names().contains(value))?;
        Some(format!("a namespace is called {value}: write `{NAMESPACE_NAME}: {value}`"))
    });
    found.add(kind, name, &field.key("namespaceSelector"), message, hint);
}

/// Whether the selector asks for a namespace by a name that the manifests do not hold: it exists elsewhere.
pub(super) fn names_absent_namespace(cluster: &Cluster<'_>, selector: &LabelSelector) -> bool {
    let label = selector.match_labels.as_ref().and_then(|labels| labels.get(NAMESPACE_NAME)).map(String::as_str);
    let expressions = selector.match_expressions.iter().flatten().filter(|one| one.key == NAMESPACE_NAME && one.operator == "In");
    let listed = expressions.flat_map(|one| one.values.iter().flatten()).map(String::as_str);
    label.into_iter().chain(listed).any(|namespace| !cluster.namespace_names().contains(namespace))
}

fn no_pod_of_them(
    cluster: &Cluster<'_>,
    name: &ObjectName,
    field: &Field,
    namespaces: &[&str],
    pods: Option<&LabelSelector>,
    found: &mut Findings<'_>,
) {
    let kind = WarningKind::PeerMatchesNothing;
    let known = namespaces.iter().all(|namespace| cluster.pods_known(namespace));
    let (Some(pods), true) = (pods, known) else { return };
    let some = namespaces.iter().any(|namespace| cluster.selected(Some(namespace), Some(pods)).next().is_some());
    if some || !found.complete() {
        return;
    }
    let of = match namespaces {
        [one] => format!("namespace {one}"),
        several => format!("the {} namespaces that the peer selects", several.len()),
    };
    let message = format!("{} matches no pod of {of} in the manifests, so the peer allows nobody at present", selector_text(pods));
    let (spot, hint) = match namespaces {
        [one] => explain_miss(cluster, one, pods, &field.key("podSelector")),
        _ => (field.key("podSelector"), None),
    };
    let hint = hint.or_else(|| elsewhere(cluster, "", pods).map(|elsewhere| format!("{elsewhere}: is the namespaceSelector right?")));
    found.add(kind, name, &spot, message, hint);
}

/// The first requirement that no pod of the namespace meets, and what it may have been meant to be.
fn explain_miss(cluster: &Cluster<'_>, namespace: &str, selector: &LabelSelector, field: &Field) -> (Field, Option<String>) {
    let matching = |pod: &&ObjectName| cluster.step() && cluster.oracle.pod_matches(selector, pod);
    let unselectable: Vec<&ObjectName> = cluster.unselectable(namespace).filter(matching).collect();
    if !unselectable.is_empty() {
        let hint = format!(
            "{} would match, but no policy selects a pod on its node's network (hostNetwork) or one that has ended",
            names(unselectable.into_iter())
        );
        return (field.clone(), Some(hint));
    }
    let labels = cluster.labels_of(namespace);
    let none = BTreeSet::new();
    for (key, value) in selector.match_labels.iter().flatten() {
        let values = labels.get(key.as_str()).unwrap_or(&none);
        if values.contains(value.as_str()) {
            continue;
        }
        let hint = did_you_mean(key, value, values).or_else(|| {
            let holding = labels.iter().filter(|(known, values)| **known != key && values.contains(value.as_str()));
            let right = nearest(key, &holding.map(|(known, _)| *known).take(SUGGESTED_MAX).collect::<Vec<_>>())?;
            Some(format!("did you mean `{right}: {value}`?"))
        });
        return (field.key("matchLabels").key(key), hint);
    }
    (field.clone(), None)
}

/// Words that a suggestion is chosen from; with more of them nothing stands out.
const SUGGESTED_MAX: usize = 500;

fn did_you_mean(key: &str, value: &str, values: &BTreeSet<&str>) -> Option<String> {
    let right = nearest(value, &values.iter().copied().take(SUGGESTED_MAX).collect::<Vec<_>>())?;
    Some(format!("did you mean `{key}: {right}`?"))
}

/// Pods of another namespace that the selector would match. The empty selector says nothing about which pods are meant.
fn elsewhere(cluster: &Cluster<'_>, namespace: &str, selector: &LabelSelector) -> Option<String> {
    let demands = selector.match_labels.is_some() || selector.match_expressions.is_some();
    let pod = cluster.selected(None, Some(selector)).find(|pod| pod.namespace != namespace).filter(|_| demands)?;
    Some(format!("pods with these labels are in namespace {} ({})", pod.namespace, pod.name))
}
