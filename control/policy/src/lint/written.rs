//! Fields that are there and hold nothing. Defaulting makes them equal to absent ones, and the API reads all of them as
//! "everything"; only the text shows that somebody began to write.

use super::cluster::Cluster;
use super::{Findings, RuleView, WarningKind, peers_name, rules_in_force, spec};
use crate::load::{Field, Kind, ObjectId, Sources, Written};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use sluice_flow::{Direction, ObjectName};

pub(super) fn check(cluster: &Cluster<'_>, found: &mut Findings<'_>) {
    for (name, policy) in &cluster.snapshot.policies {
        let look = Look { sources: cluster.sources, id: id(name) };
        let selector = spec(policy).and_then(|spec| spec.pod_selector.as_ref());
        let field = Field::of("spec.podSelector");
        if look.written(&field) == Written::Absent {
            let message = format!("podSelector is missing, so the policy selects every pod of namespace {}", name.namespace);
            found.add(WarningKind::EmptySelector, name, &field, message, Some("if every pod is meant, write `podSelector: {}`".to_owned()));
        }
        selector_left_empty(&look, name, &field, selector, &format!("every pod of namespace {}", name.namespace), found);
        for rule in rules_in_force(name, policy) {
            check_rule(&look, name, &rule, found);
        }
    }
}

struct Look<'a> {
    sources: &'a Sources,
    id: ObjectId,
}

impl Look<'_> {
    fn written(&self, field: &Field) -> Written {
        self.sources.written(&self.id, field)
    }

    fn is_left_empty(&self, field: &Field) -> bool {
        matches!(self.written(field), Written::Null | Written::EmptyList)
    }
}

pub(super) fn id(policy: &ObjectName) -> ObjectId {
    ObjectId { kind: Kind::NetworkPolicy, namespace: policy.namespace.clone(), name: policy.name.clone() }
}

fn check_rule(look: &Look<'_>, name: &ObjectName, rule: &RuleView<'_>, found: &mut Findings<'_>) {
    let (peers, ports) = (rule.peers_field(), rule.field.key("ports"));
    let list = peers_name(rule.direction);
    let (nobody, everybody) = match rule.direction {
        Direction::Ingress => ("nobody may come in", "from everywhere"),
        Direction::Egress => ("nothing may go out", "to everywhere"),
    };
    if look.is_left_empty(&rule.field) {
        let message = format!("an empty item is a rule that allows everything {everybody}, on every port");
        found.add(WarningKind::EmptyPeers, name, &rule.field, message, Some("if that is meant, write `- {}`".to_owned()));
    }
    if look.is_left_empty(&peers) {
        let message = format!("`{list}` is left empty, which means every peer, inside and outside the cluster");
        let hint = format!("if every peer is meant, leave `{list}` out; if {nobody}, remove the whole rule");
        found.add(WarningKind::EmptyPeers, name, &peers, message, Some(hint));
    }
    if look.is_left_empty(&ports) {
        let message = "`ports` is left empty, which means every port of every protocol";
        let hint = "if every port is meant, leave `ports` out; if none is, remove the whole rule";
        found.add(WarningKind::EmptyPorts, name, &ports, message, Some(hint.to_owned()));
    }
    for (index, peer) in rule.peers.iter().enumerate() {
        let field = peers.index(index);
        let here =
            if peer.namespace_selector.is_some() { "every pod of the namespaces that it selects" } else { "every pod of this namespace" };
        selector_left_empty(look, name, &field.key("podSelector"), peer.pod_selector.as_ref(), here, found);
        let namespaces = peer.namespace_selector.as_ref();
        selector_left_empty(look, name, &field.key("namespaceSelector"), namespaces, "every namespace", found);
    }
}

/// `podSelector:` or its `matchLabels:` with nothing behind it, and no expression that would cut it.
fn selector_left_empty(
    look: &Look<'_>,
    name: &ObjectName,
    field: &Field,
    selector: Option<&LabelSelector>,
    everything: &str,
    found: &mut Findings<'_>,
) {
    let labels = field.key("matchLabels");
    let empty = if look.is_left_empty(field) {
        field
    } else if look.is_left_empty(&labels) && selector.is_some_and(|selector| *selector == LabelSelector::default()) {
        &labels
    } else {
        return;
    };
    let what = empty.to_string();
    let what = what.rsplit('.').next().unwrap_or_default();
    let message = format!("`{what}` is left empty, so it matches {everything}");
    let hint = format!("if that is meant, write `{what}: {{}}`; otherwise check that the labels stand below it, indented further");
    found.add(WarningKind::EmptySelector, name, empty, message, Some(hint));
}
