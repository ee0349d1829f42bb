//! Clusters to measure with: ordinary Kubernetes objects, from one seed, the same on every machine.
//!
//! ```text
//!   Scale ──▶ namespaces ──▶ pods, services, this node's endpoints ──▶ policies ──▶ Snapshot
//!             team, env      deployments of uneven size, dual-stack     deny, DNS, peers, blocks, ranges, names
//! ```
//!
//! The shapes follow what clusters report: some namespaces and deployments are much larger than others, labels are those
//! of a deployment and its ReplicaSet, every namespace starts from a default deny, and about a quarter of the other peers
//! are CIDRs. One pod in a hundred is on its node's network, one has ended; policies must overlook both.
//!
//! That is the cluster of the proof. [`Workload`] has those of the lookup, one file for each family: what is promised about
//! (S1–S4, X) and what others measure themselves with (G1–G8).

mod blocks;
mod cidr_heavy;
mod dense_node;
mod family;
mod kube_burner;
mod load_test;
mod namespaces;
mod objects;
mod pods;
mod policies;
mod synthetic;

pub(crate) use family::Workload;
pub(crate) use pods::addresses;
pub(crate) use synthetic::COMMON_PORTS;

use crate::random::SplitMix;
use serde::Serialize;
use serde_json::json;
use sluice_policy::Snapshot;
use std::collections::HashSet;
use std::sync::Arc;

/// How much of everything.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Scale {
    /// All pods, this node's among them.
    pub(crate) pods: usize,
    /// All NetworkPolicy objects.
    pub(crate) policies: usize,
    /// Pods of each node, this one included.
    pub(crate) local: usize,
    /// Namespaces, besides `kube-system`.
    pub(crate) namespaces: usize,
    /// Apps of each namespace; each is a deployment with a Service.
    pub(crate) apps: usize,
    /// Teams; namespaces belong to them in turn.
    pub(crate) teams: usize,
}

impl Scale {
    /// Up to 50 000 pods 100 to a namespace, above it 200, as in larger clusters.
    pub(crate) fn of(pods: usize, policies: usize, local: usize) -> Self {
        let (of_namespace, apps, of_team) = if pods < 50_000 { (100, 10, 5) } else { (200, 20, 10) };
        let namespaces = (pods / of_namespace).max(1);
        Self { pods, policies, local, namespaces, apps, teams: (namespaces / of_team).max(1) }
    }
}

/// What came out.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Census {
    pub(crate) pods: usize,
    /// Different labels, each namespace by itself.
    pub(crate) label_sets: usize,
    pub(crate) namespaces: usize,
    pub(crate) services: usize,
    pub(crate) policies: usize,
    pub(crate) endpoints: usize,
    /// Namespaces with a pod of this node.
    pub(crate) local_namespaces: usize,
}

impl Census {
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        let label_sets: HashSet<_> = snapshot.pods.iter().map(|(name, pod)| (&name.namespace, &pod.metadata.labels)).collect();
        let local: HashSet<_> = snapshot.endpoints.iter().map(|endpoint| &endpoint.pod.namespace).collect();
        Self {
            pods: snapshot.pods.len(),
            label_sets: label_sets.len(),
            namespaces: snapshot.namespaces.len(),
            services: snapshot.services.len(),
            policies: snapshot.policies.len(),
            endpoints: snapshot.endpoints.len(),
            local_namespaces: local.len(),
        }
    }
}

/// What is called what. An app's tier follows from its position.
const APPS: [&str; 20] = [
    "web", "api", "db", "gateway", "auth", "cache", "cart", "catalog", "queue", "checkout", "search", "ledger", "mail", "billing",
    "archive", "proxy", "report", "stream", "media", "worker",
];
const TIERS: [&str; 3] = ["frontend", "backend", "data"];
const ENVIRONMENTS: [&str; 3] = ["prod", "staging", "dev"];

/// A cluster of that scale. Cost: about 5 µs for each pod.
///
/// # Panics
///
/// More than 250 pods on a node, or more nodes than their addresses can number (16 384).
pub(crate) fn cluster(scale: Scale, seed: u64) -> Snapshot {
    assert!((1..=250).contains(&scale.local) && scale.pods / scale.local < 16_384, "{scale:?}");
    assert!((1..=APPS.len()).contains(&scale.apps), "{scale:?}");
    let mut random = SplitMix::new(seed);
    let mut snapshot = Snapshot::default();
    add_namespaces(&mut snapshot, scale);
    pods::add(&mut snapshot, scale, &mut random);
    policies::add(&mut snapshot, scale, &mut random);
    snapshot
}

fn namespace_name(scale: Scale, index: usize) -> String {
    format!("team-{:02}-{index:04}", index % scale.teams)
}

fn add_namespaces(snapshot: &mut Snapshot, scale: Scale) {
    let own = (0..scale.namespaces).map(|index| {
        let (team, environment) = (format!("team-{:02}", index % scale.teams), ENVIRONMENTS[index / scale.teams % 3]);
        (namespace_name(scale, index), json!({"team": team, "env": environment}))
    });
    for (name, mut labels) in own.chain([("kube-system".to_owned(), json!({}))]) {
        labels["kubernetes.io/metadata.name"] = json!(name);
        let object = json!({"metadata": {"name": name, "labels": labels}, "status": {"phase": "Active"}});
        let object = serde_json::from_value(object).expect("a namespace");
        snapshot.namespaces.insert(name, Arc::new(object));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_policy::compile::compile;
    use sluice_policy::prove::Prover;
    use sluice_table::Table;

    #[test]
    fn one_seed_gives_one_cluster_and_another_seed_another() {
        let scale = Scale::of(600, 60, 30);
        assert_eq!(cluster(scale, 1), cluster(scale, 1));
        assert_ne!(cluster(scale, 1).policies, cluster(scale, 2).policies);
    }

    #[test]
    fn a_cluster_has_what_was_asked_for_and_its_table_is_proved() {
        let scale = Scale::of(1000, 100, 40);
        let snapshot = cluster(scale, 1);
        let census = Census::of(&snapshot);
        assert_eq!((census.pods, census.policies, census.endpoints), (1000, 100, 40));
        assert_eq!(census.services, scale.namespaces * scale.apps + 1);
        assert!(census.local_namespaces >= scale.namespaces / 2, "{census:?}");
        let table = Table::from_bytes(&compile(&snapshot, 1).unwrap()).unwrap();
        let isolated = table.names().endpoints.iter().filter(|endpoint| endpoint.isolating_ingress.len() > 1).count();
        assert!(isolated > 30, "{isolated} of 40 are selected by several policies");
        let proof = Prover::new().prove(&snapshot, &table).unwrap();
        assert_eq!(proof.done(), proof.required());
    }
}
