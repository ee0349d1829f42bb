//! What lint claims about effects, held to the oracle on random clusters: a rule, peer, port or policy that is said to do
//! nothing is taken away, and no verdict may change.

mod cluster;

use cluster::{address, snapshot};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};
use sluice_flow::{Direction, Protocol};
use sluice_policy::lint::{Warning, WarningKind, lint};
use sluice_policy::load::load_with_sources;
use sluice_policy::{ObjectName, Oracle, Snapshot};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// The snapshot's objects as one file that the loader reads back.
fn manifests(snapshot: &Snapshot) -> String {
    let document = |api_version: &str, kind: &str, object: Value| {
        let mut document = json!({"apiVersion": api_version, "kind": kind});
        document.as_object_mut().unwrap().extend(object.as_object().unwrap().clone());
        document.to_string()
    };
    let namespaces = snapshot.namespaces.values().map(|object| document("v1", "Namespace", json!(object)));
    let pods = snapshot.pods.iter().map(|(name, pod)| pod.manifest(name).to_string());
    let policies = snapshot.policies.values().map(|object| document("networking.k8s.io/v1", "NetworkPolicy", json!(object)));
    namespaces.chain(pods).chain(policies).collect::<Vec<_>>().join("\n")
}

/// The numbers in brackets of a field: rule, then peer or port.
fn indices(field: &str) -> Vec<usize> {
    field.split('[').skip(1).filter_map(|rest| rest.split_once(']')?.0.parse().ok()).collect()
}

/// The policy without what the warning speaks of; `None` if nothing is left of it.
fn without(policy: &NetworkPolicy, warning: &Warning) -> Option<NetworkPolicy> {
    let mut policy = policy.clone();
    let spec = policy.spec.as_mut()?;
    let at = indices(&warning.field);
    let ingress = warning.field.starts_with("spec.ingress");
    let drop_rule = |spec: &mut k8s_openapi::api::networking::v1::NetworkPolicySpec| match ingress {
        true => drop(spec.ingress.as_mut().unwrap().remove(at[0])),
        false => drop(spec.egress.as_mut().unwrap().remove(at[0])),
    };
    let (peers, ports): (Option<&mut Vec<NetworkPolicyPeer>>, Option<&mut Vec<NetworkPolicyPort>>) = match (at.first(), ingress) {
        (None, _) => (None, None),
        (Some(&rule), true) => {
            let rule = &mut spec.ingress.as_mut()?[rule];
            (rule.from.as_mut(), rule.ports.as_mut())
        }
        (Some(&rule), false) => {
            let rule = &mut spec.egress.as_mut()?[rule];
            (rule.to.as_mut(), rule.ports.as_mut())
        }
    };
    match warning.kind {
        WarningKind::SelectsNothing => return None,
        WarningKind::CoveredRule => drop_rule(spec),
        WarningKind::PeerMatchesNothing => match peers.filter(|peers| peers.len() > 1) {
            Some(peers) => drop(peers.remove(at[1])),
            None => drop_rule(spec),
        },
        WarningKind::UndefinedNamedPort => match ports.filter(|ports| ports.len() > 1) {
            Some(ports) => drop(ports.remove(at[1])),
            None => drop_rule(spec),
        },
        WarningKind::IgnoredRules if ingress => spec.ingress = None,
        WarningKind::IgnoredRules => spec.egress = None,
        _ => unreachable!("no claim about effects"),
    }
    Some(policy)
}

fn verdicts(snapshot: &Snapshot, others: &[IpAddr]) -> BTreeMap<String, (bool, bool)> {
    let oracle = Oracle::new(snapshot);
    let addresses: Vec<IpAddr> = oracle.addresses().chain(others.iter().copied()).collect();
    let mut verdicts = BTreeMap::new();
    for pod in snapshot.pods.keys() {
        for direction in Direction::BOTH {
            for &remote in &addresses {
                for (protocol, ports) in [(Protocol::TCP, 78..87u16), (Protocol::UDP, 78..87), (Protocol::ICMP, 0..1)] {
                    for port in ports {
                        let judgement = oracle.judge(pod, direction, remote, protocol, port);
                        verdicts.insert(format!("{pod} {direction} {remote} {port}/{protocol}"), (judgement.isolated, judgement.allowed));
                    }
                }
            }
        }
    }
    verdicts
}

/// Every claim that lint makes about one cluster, tried out; counted by kind in `tried`.
fn try_claims(snapshot: &Snapshot, others: &[IpAddr], tried: &RefCell<BTreeMap<WarningKind, usize>>) -> Result<(), TestCaseError> {
    // The generator also makes what no server accepts (two ports of one name): the rest is the cluster.
    let load = |snapshot: &Snapshot| load_with_sources(vec![("all.json".into(), Ok(manifests(snapshot).into_bytes()))]);
    let (loaded, sources) = load(&load(snapshot).0.snapshot);
    prop_assert!(loaded.errors.is_empty(), "{:?}", loaded.errors);
    let report = lint(&loaded, &sources);
    prop_assert!(report.incomplete.is_empty());
    let before = verdicts(&loaded.snapshot, others);
    for warning in report.warnings.iter().filter(|warning| CLAIMS.contains(&warning.kind)) {
        *tried.borrow_mut().entry(warning.kind).or_default() += 1;
        let name = ObjectName::new(&warning.object.namespace, &warning.object.name);
        let mut changed = loaded.snapshot.clone();
        match without(&loaded.snapshot.policies[&name], warning) {
            Some(policy) => drop(changed.policies.insert(name, Arc::new(policy))),
            None => drop(changed.policies.remove(&name)),
        }
        let after = verdicts(&changed, others);
        let differs: Vec<_> = before.iter().filter(|(question, verdict)| after[*question] != **verdict).collect();
        prop_assert!(differs.is_empty(), "{warning}\n{differs:#?}");
    }
    Ok(())
}

/// The kinds that say that something does nothing.
const CLAIMS: [WarningKind; 5] = [
    WarningKind::SelectsNothing,
    WarningKind::PeerMatchesNothing,
    WarningKind::UndefinedNamedPort,
    WarningKind::CoveredRule,
    WarningKind::IgnoredRules,
];

#[test]
fn what_is_said_to_do_nothing_does_nothing() {
    let config = ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let tried = RefCell::default();
    let clusters = (snapshot(), prop::collection::vec(address(), 4));
    runner.run(&clusters, |(snapshot, others)| try_claims(&snapshot, &others, &tried)).unwrap_or_else(|error| panic!("{error}"));
    let tried = tried.into_inner();
    assert!(CLAIMS.iter().all(|kind| tried.get(kind).is_some_and(|count| *count >= 20)), "{tried:?}");
}
