//! Directions that mean something else than the rules suggest.

use super::cluster::Cluster;
use super::covered::subset::selector_within;
use super::written::id;
use super::{Findings, WarningKind, spec};
use crate::load::{Field, Written};
use crate::oracle::{names_direction, rules};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use sluice_flow::{Direction, ObjectName};

pub(super) fn check(cluster: &Cluster<'_>, found: &mut Findings<'_>) {
    for (name, policy) in &cluster.snapshot.policies {
        ignored_rules(name, policy, found);
        implied_ingress(cluster, name, policy, found);
        allows_nothing(name, policy, found);
    }
}

fn title(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "Ingress",
        Direction::Egress => "Egress",
    }
}

fn ignored_rules(name: &ObjectName, policy: &NetworkPolicy, found: &mut Findings<'_>) {
    for direction in Direction::BOTH {
        if names_direction(policy, direction) || rules(name, policy, direction).is_empty() {
            continue;
        }
        let title = title(direction);
        let message = format!(
            "these rules have no effect: policyTypes does not name {title}, so the policy says nothing about {direction} and \
             does not isolate for it"
        );
        let hint = format!("add `- {title}` to policyTypes, or remove the {direction} rules");
        found.add(WarningKind::IgnoredRules, name, &Field::of("spec").key(&direction.to_string()), message, Some(hint));
    }
}

/// An explicit `ingress: []` shows that the author thought of ingress; a policy beside it that isolates the same pods
/// makes the implied isolation unimportant.
fn implied_ingress(cluster: &Cluster<'_>, name: &ObjectName, policy: &NetworkPolicy, found: &mut Findings<'_>) {
    let Some(spec) = spec(policy) else { return };
    let written = |field: &str| cluster.sources.written(&id(name), &Field::of(field));
    let types_missing = matches!(written("spec.policyTypes"), Written::Absent | Written::Null | Written::EmptyList);
    if !types_missing || spec.egress.is_none() || written("spec.ingress") != Written::Absent {
        return;
    }
    let own = cluster.snapshot.policies.range(ObjectName::new(&name.namespace, "")..);
    let isolates_as_well = own.take_while(|(other, _)| other.namespace == name.namespace).any(|(other, object)| {
        let selector = object.spec.as_ref().and_then(|spec| spec.pod_selector.as_ref());
        let written = |field: &str| cluster.sources.written(&id(other), &Field::of(field));
        let meant = written("spec.policyTypes") == Written::Value
            || written("spec.ingress") != Written::Absent
            || object.spec.as_ref().is_some_and(|spec| spec.egress.is_none());
        cluster.step()
            && other != name
            && meant
            && names_direction(object, Direction::Ingress)
            && selector_within(spec.pod_selector.as_ref(), selector)
    });
    if !isolates_as_well && found.complete() {
        let message = "policyTypes is missing, which always means Ingress too: the policy denies all ingress to the pods that it selects";
        let hint = "if only egress is meant, write\n    policyTypes:\n    - Egress";
        found.add(WarningKind::ImpliedIngress, name, &Field::of("spec.egress"), message, Some(hint.to_owned()));
    }
}

fn allows_nothing(name: &ObjectName, policy: &NetworkPolicy, found: &mut Findings<'_>) {
    const DENYING: [&str; 11] = ["deny", "denied", "disallow", "block", "no", "not", "none", "nothing", "nobody", "disable", "isolate"];
    let words: Vec<&str> = name.name.split(['-', '.']).collect();
    if !words.contains(&"allow") || words.iter().any(|word| DENYING.contains(word)) {
        return;
    }
    let directions: Vec<Direction> = Direction::BOTH.into_iter().filter(|direction| names_direction(policy, *direction)).collect();
    if directions.iter().any(|direction| !rules(name, policy, *direction).is_empty()) {
        return;
    }
    // Rules that are there and ignored have their own warning.
    if Direction::BOTH.into_iter().any(|direction| !rules(name, policy, direction).is_empty()) {
        return;
    }
    let listed = directions.iter().map(Direction::to_string).collect::<Vec<_>>().join(" and ");
    let message = format!("the name says allow, but there is no rule: the policy denies all {listed} to the pods that it selects");
    let rules: String = directions.iter().map(|direction| format!("\n    {direction}:\n    - {{}}")).collect();
    found.add(
        WarningKind::AllowsNothing,
        name,
        &Field::of("metadata.name"),
        message,
        Some(format!("to allow everything, write in spec{rules}")),
    );
}
