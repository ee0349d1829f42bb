//! Each policy in force and what it selects, for people.

use crate::realized::{Wanted, realization};
use crate::view::View;
use k8s_openapi::api::networking::v1::NetworkPolicySpec;
use sluice_flow::{Direction, ObjectName, Protocol};
use sluice_policy::Oracle;
use sluice_wire::PolicyInfo;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

/// All policies, by name.
///
/// What a policy selects is asked of the oracle: each policy isolates its pods in at least one direction, so its pods
/// are those that name it among their isolating policies. Cost: one question for each pod and direction.
pub(crate) fn policies(view: &View) -> Vec<PolicyInfo> {
    let oracle = Oracle::new(&view.snapshot);
    let mut selected: BTreeMap<ObjectName, BTreeSet<ObjectName>> = BTreeMap::new();
    let namespaces: BTreeSet<&str> = view.snapshot.policies.keys().map(|policy| policy.namespace.as_str()).collect();
    for pod in view.snapshot.pods.keys().filter(|pod| namespaces.contains(pod.namespace.as_str())) {
        for direction in Direction::BOTH {
            // Isolation does not depend on the other end, so any will do.
            let anyone = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
            for policy in oracle.judge(pod, direction, anyone, Protocol::TCP, 0).isolating {
                selected.entry(policy).or_default().insert(pod.clone());
            }
        }
    }
    let local: BTreeSet<&ObjectName> = view.snapshot.endpoints.iter().map(|endpoint| &endpoint.pod).collect();
    let files = view.manifests.as_ref().map(|manifests| &manifests.policy_files);
    let info = |(name, policy): (&ObjectName, &std::sync::Arc<k8s_openapi::api::networking::v1::NetworkPolicy>)| {
        let selected_pods: Vec<ObjectName> = selected.remove(name).unwrap_or_default().into_iter().collect();
        let spec = policy.spec.as_ref();
        let state = realization(view, name, &Wanted::default());
        PolicyInfo {
            policy: name.clone(),
            types: types(spec),
            ingress_rules: count(spec.and_then(|spec| spec.ingress.as_ref())),
            egress_rules: count(spec.and_then(|spec| spec.egress.as_ref())),
            local_pods: u32::try_from(selected_pods.iter().filter(|pod| local.contains(pod)).count()).unwrap_or(u32::MAX),
            selected_pods,
            file: files.and_then(|files| files.get(name).cloned()),
            state: state.state,
            since_ms: state.since_ms,
        }
    };
    view.snapshot.policies.iter().map(info).collect()
}

fn count<T>(rules: Option<&Vec<T>>) -> u32 {
    rules.map_or(0, |rules| u32::try_from(rules.len()).unwrap_or(u32::MAX))
}

/// As given, else as the API server defaults it.
fn types(spec: Option<&NetworkPolicySpec>) -> Vec<String> {
    match spec.and_then(|spec| spec.policy_types.clone()).filter(|types| !types.is_empty()) {
        Some(types) => types,
        None if count(spec.and_then(|spec| spec.egress.as_ref())) > 0 => vec!["Ingress".to_owned(), "Egress".to_owned()],
        None => vec!["Ingress".to_owned()],
    }
}
