//! Rules that allow only what another rule already allows.
//!
//! The criterion is stated in the explanation of [`WarningKind::CoveredRule`]; each step of it is a containment decided in
//! `subset`. Comparing all rules with all others would take minutes for ten thousand policies, so that the candidates for
//! a rule come from an index over the peers that could contain its first peer.

pub(super) mod subset;

use super::cluster::Cluster;
use super::{Findings, RuleView, WarningKind, rules_in_force, spec};
use ipnet::IpNet;
use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use sluice_flow::{Direction, ObjectName};
use std::collections::HashMap;
use subset::{peer_within, port_within, selector_within};

struct Rule<'a> {
    policy: &'a ObjectName,
    selector: Option<&'a LabelSelector>,
    view: RuleView<'a>,
}

/// What a selector or a peer must have in common with each one that contains it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Anchor<'a> {
    /// A rule without peers.
    Every,
    Block(IpNet),
    /// A label that is demanded of pods or of their namespace.
    Label(&'a str, &'a str),
    /// Selectors that demand no single label.
    Loose,
}

/// Rules by namespace, direction, an anchor of their policy's selector and one of each of their peers.
type Index<'a> = HashMap<(&'a str, Direction, Anchor<'a>, Anchor<'a>), Vec<usize>>;

pub(super) fn check(cluster: &Cluster<'_>, found: &mut Findings<'_>) {
    let mut rules = Vec::new();
    for (policy, object) in &cluster.snapshot.policies {
        let selector = spec(object).and_then(|spec| spec.pod_selector.as_ref());
        rules.extend(rules_in_force(policy, object).map(|view| Rule { policy, selector, view }));
    }
    let index = index(&rules);
    for (at, rule) in rules.iter().enumerate() {
        if !found.complete() {
            return;
        }
        if let Some(other) = first_covering(cluster, &rules, &index, at) {
            let (field, hint) = (rule.view.field.clone(), hint(rule, &rules[other]));
            let message = format!(
                "allows nothing that {} {}[{}] does not already allow, for all pods that this policy selects",
                if rule.policy == rules[other].policy { "this policy's".to_owned() } else { rules[other].policy.to_string() },
                rules[other].view.direction,
                position(&rules[other].view),
            );
            found.add(WarningKind::CoveredRule, rule.policy, &field, message, Some(hint));
        }
    }
}

fn hint(rule: &Rule<'_>, other: &Rule<'_>) -> String {
    let everything = other.view.peers.is_empty() && other.view.ports.is_empty();
    match everything {
        true if rule.policy == other.policy => "the other rule allows everything; is one of its fields missing or empty?".to_owned(),
        _ => "remove this rule, or narrow the other one if that is wider than meant".to_owned(),
    }
}

/// The number in `spec.ingress[1]`.
fn position(view: &RuleView<'_>) -> String {
    let field = view.field.to_string();
    field.rsplit_once('[').map(|(_, rest)| rest.trim_end_matches(']').to_owned()).unwrap_or_default()
}

fn index<'a>(rules: &[Rule<'a>]) -> Index<'a> {
    let mut index = Index::new();
    for (at, rule) in rules.iter().enumerate() {
        let mut anchors: Vec<Anchor<'a>> = rule.view.peers.iter().map(|peer| demanded(peer).pop().unwrap_or(Anchor::Loose)).collect();
        if anchors.is_empty() {
            anchors.push(Anchor::Every);
        }
        let selected = rule.selector.and_then(|selector| labels(selector).pop()).unwrap_or(Anchor::Loose);
        for anchor in anchors {
            let list = index.entry((rule.policy.namespace.as_str(), rule.view.direction, selected, anchor)).or_default();
            if list.last() != Some(&at) {
                list.push(at);
            }
        }
    }
    index
}

/// What a peer demands; one that contains another demands nothing that the other does not.
fn demanded(peer: &NetworkPolicyPeer) -> Vec<Anchor<'_>> {
    if let Some(block) = &peer.ip_block {
        return block.cidr.parse().map(Anchor::Block).into_iter().collect();
    }
    [&peer.namespace_selector, &peer.pod_selector].into_iter().flatten().flat_map(labels).collect()
}

/// The labels that a selector demands with one value.
fn labels(selector: &LabelSelector) -> Vec<Anchor<'_>> {
    let labels = selector.match_labels.iter().flatten();
    let expressions = selector.match_expressions.iter().flatten();
    let single = expressions.filter_map(|one| match (one.operator.as_str(), one.values.as_deref()) {
        ("In", Some([value])) => Some((&one.key, value)),
        _ => None,
    });
    labels.chain(single).map(|(key, value)| Anchor::Label(key, value)).collect()
}

/// Anchors of the peers that may contain `peer`.
fn containing<'a>(cluster: &Cluster<'a>, namespace: &'a str, peer: &'a NetworkPolicyPeer) -> Vec<Anchor<'a>> {
    if let Some(block) = &peer.ip_block {
        let Ok(net) = block.cidr.parse::<IpNet>() else { return Vec::new() };
        let outer = |len| IpNet::new(net.addr(), len).ok().map(|outer| Anchor::Block(outer.trunc()));
        return (0..=net.prefix_len()).filter_map(outer).collect();
    }
    let mut anchors = demanded(peer);
    anchors.extend([Anchor::Loose, Anchor::Label(subset::NAMESPACE_NAME, namespace)]);
    anchors.extend(own_namespace_labels(cluster, namespace));
    anchors
}

/// The first rule that covers the one at `at`, by policy and position; of equal rules the first covers the others.
fn first_covering<'a>(cluster: &Cluster<'a>, rules: &[Rule<'a>], index: &Index<'a>, at: usize) -> Option<usize> {
    let rule = &rules[at];
    let namespace = rule.policy.namespace.as_str();
    let mut peers = rule.view.peers.first().map(|peer| containing(cluster, namespace, peer)).unwrap_or_default();
    peers.push(Anchor::Every);
    let mut selectors = rule.selector.map(labels).unwrap_or_default();
    selectors.push(Anchor::Loose);
    let keys = selectors.iter().flat_map(|selected| peers.iter().map(move |peer| (namespace, rule.view.direction, *selected, *peer)));
    let mut candidates: Vec<usize> = keys.filter_map(|key| index.get(&key)).flatten().copied().collect();
    candidates.sort_unstable();
    candidates.dedup();
    candidates.into_iter().filter(|&other| other != at && cluster.step()).find(|&other| {
        // Mutual coverage is reported once, at the later rule.
        covers(cluster, &rules[other], rule) && (other < at || !covers(cluster, rule, &rules[other]))
    })
}

/// A podSelector peer lies inside a namespaceSelector that its own namespace satisfies.
fn own_namespace_labels<'a>(cluster: &Cluster<'a>, namespace: &str) -> Vec<Anchor<'a>> {
    let object = cluster.snapshot.namespaces.get(namespace).filter(|_| cluster.is_written(namespace));
    let labels = object.and_then(|object| object.metadata.labels.as_ref()).into_iter().flatten();
    labels.map(|(key, value)| Anchor::Label(key, value)).collect()
}

fn covers(cluster: &Cluster<'_>, outer: &Rule<'_>, rule: &Rule<'_>) -> bool {
    let (a, b) = (&rule.view, &outer.view);
    let ports =
        b.ports.is_empty() || !a.ports.is_empty() && a.ports.iter().all(|port| b.ports.iter().any(|other| port_within(port, other)));
    let namespace = &rule.policy.namespace;
    let peer_inside = |peer| b.peers.iter().any(|other| peer_within(cluster, namespace, peer, other));
    ports
        && (b.peers.is_empty() || !a.peers.is_empty() && a.peers.iter().all(peer_inside))
        && (rule.policy == outer.policy || selector_within(rule.selector, outer.selector))
}
