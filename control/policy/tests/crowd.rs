//! Clusters large enough for the layout to matter: windows of pods' addresses, full /120s, classes that come and go among
//! hundreds. Whatever happens to the cluster, a compiler that follows gives the bytes of one that begins.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use sluice_flow::{Incarnation, LocalEndpoint, PortIndex};
use sluice_policy::compile::{Compiler, compile_parts};
use sluice_policy::{ObjectName, Snapshot, compile};
use sluice_table::build_image;
use std::sync::Arc;

/// A seed's numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

const NODES: usize = 6;
const OF_NODE: usize = 60;
const NAMESPACES: usize = 3;
const APPS: usize = 60;
const POLICIES: usize = 60;

fn pod(name: &str, node: usize, host: usize, app: usize, extra: Option<usize>) -> Pod {
    let mut labels = json!({"app": format!("app-{app}"), "tier": format!("tier-{}", app % 3)});
    if let Some(extra) = extra {
        labels["extra"] = json!(format!("e{extra}"));
    }
    let (v4, v6) = (format!("10.64.{node}.{host}"), format!("fd00:0:0:{node:x}::{host:x}"));
    let object = json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8000 + app % 4}]}]},
        "status": {"phase": "Running", "podIP": v4, "podIPs": [{"ip": v4}, {"ip": v6}]},
    });
    serde_json::from_value(object).unwrap()
}

fn policy(random: &mut Random) -> Value {
    let selector = match random.below(4) {
        0 => json!({}),
        1 => json!({"matchLabels": {"tier": format!("tier-{}", random.below(3))}}),
        _ => json!({"matchLabels": {"app": format!("app-{}", random.below(APPS))}}),
    };
    let mut peers = Vec::new();
    for _ in 0..1 + random.below(3) {
        peers.push(match random.below(6) {
            0 => json!({"ipBlock": {"cidr": format!("10.64.{}.0/{}", random.below(8), 20 + random.below(9)), "except": []}}),
            1 => json!({"ipBlock": {"cidr": format!("{}.0.0.0/8", 11 + random.below(50))}}),
            2 => json!({"ipBlock": {"cidr": format!("fd00:0:0:{:x}::/{}", random.below(8), 64 + 8 * random.below(8))}}),
            3 => json!({"podSelector": {"matchExpressions": [{"key": "extra", "operator": "Exists"}]}}),
            _ => json!({"podSelector": {"matchLabels": {"app": format!("app-{}", random.below(APPS))}}}),
        });
    }
    for block in peers.iter_mut().filter_map(|peer| peer.get_mut("ipBlock")) {
        // the API server stores a prefix without host bits or with them; both are the same block
        block.as_object_mut().unwrap().remove("except");
    }
    let port = match random.below(4) {
        0 => json!({"port": "http"}),
        1 => json!({"port": 1000 + random.below(100), "endPort": 1100 + random.below(100)}),
        _ => json!({"port": 80 + random.below(4)}),
    };
    let rule = if random.below(8) == 0 { json!({}) } else { json!({"ports": [port]}) };
    let (mut ingress, mut egress) = (rule.clone(), rule);
    // where everybody is allowed, an earlier rule for few comes before what is said of the others
    if random.below(5) > 0 {
        (ingress["from"], egress["to"]) = (json!(peers), json!(peers));
    }
    match random.below(3) {
        0 => json!({"podSelector": selector, "policyTypes": ["Ingress"], "ingress": [ingress]}),
        1 => json!({"podSelector": selector, "policyTypes": ["Egress"], "egress": [egress]}),
        _ => json!({"podSelector": selector, "policyTypes": ["Ingress", "Egress"], "ingress": [ingress], "egress": [egress]}),
    }
}

fn put_policy(snapshot: &mut Snapshot, index: usize, random: &mut Random) {
    let name = ObjectName::new(format!("ns-{}", index % NAMESPACES), format!("policy-{index}"));
    let object = json!({"metadata": {"name": name.name, "namespace": name.namespace}, "spec": policy(random)});
    snapshot.policies.insert(name, Arc::new(serde_json::from_value(object).unwrap()));
}

fn put_pod(snapshot: &mut Snapshot, index: usize, pod: Pod) {
    snapshot.pods.insert(ObjectName::new(format!("ns-{}", index % NAMESPACES), pod.metadata.name.clone().unwrap()), Arc::new(pod));
}

fn crowd(random: &mut Random) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for namespace in 0..NAMESPACES {
        let object = json!({"metadata": {"name": format!("ns-{namespace}"), "labels": {"team": format!("t{namespace}")}}});
        snapshot.namespaces.insert(format!("ns-{namespace}"), Arc::new(serde_json::from_value(object).unwrap()));
    }
    for index in 0..NODES * OF_NODE {
        let (node, host) = (index / OF_NODE, 2 + index % OF_NODE);
        put_pod(&mut snapshot, index, pod(&format!("pod-{index}"), node, host, random.below(APPS), None));
    }
    for index in 0..POLICIES {
        put_policy(&mut snapshot, index, random);
    }
    let local: Vec<(ObjectName, Vec<std::net::IpAddr>)> = (0..12)
        .map(|index| ObjectName::new(format!("ns-{}", index % NAMESPACES), format!("pod-{index}")))
        .map(|name| {
            (
                name.clone(),
                snapshot.pods[&name].status.as_ref().unwrap().pod_ips.iter().flatten().map(|ip| ip.ip.parse().unwrap()).collect(),
            )
        })
        .collect();
    for (port, (pod, addresses)) in (1u16..).zip(local) {
        snapshot.endpoints.push(LocalEndpoint { port: PortIndex(port), incarnation: Incarnation(1), pod, uid: String::new(), addresses });
    }
    snapshot
}

fn edit(snapshot: &mut Snapshot, random: &mut Random, round: usize) -> &'static str {
    let index = 20 + random.below(NODES * OF_NODE - 20);
    let name = ObjectName::new(format!("ns-{}", index % NAMESPACES), format!("pod-{index}"));
    let (node, host) = (random.below(NODES + 1), random.below(256));
    match random.below(14) {
        0..4 => {
            put_pod(snapshot, round, pod(&format!("new-{round}"), node, host, random.below(APPS), None));
            "a pod with known labels comes"
        }
        4 => {
            put_pod(snapshot, round, pod(&format!("odd-{round}"), node, host, random.below(APPS), Some(round)));
            "a pod with new labels comes"
        }
        5..7 => {
            snapshot.pods.remove(&name);
            "a pod goes"
        }
        7..11 => {
            put_pod(
                snapshot,
                index,
                pod(&name.name, index / OF_NODE, 2 + index % OF_NODE, random.below(APPS), round.is_multiple_of(2).then_some(round % 5)),
            );
            "a pod gets other labels, or returns"
        }
        11 => {
            put_policy(snapshot, random.below(POLICIES), random);
            "a policy is edited"
        }
        12 => {
            let policy = random.below(POLICIES);
            snapshot.policies.remove(&ObjectName::new(format!("ns-{}", policy % NAMESPACES), format!("policy-{policy}")));
            "a policy goes"
        }
        _ => {
            // the last pods of a node, so that its addresses are no window or block any longer
            let from = (round % NODES) * OF_NODE;
            for index in (from..from + OF_NODE).filter(|index| *index >= 20 && index % 4 != round % 4) {
                snapshot.pods.remove(&ObjectName::new(format!("ns-{}", index % NAMESPACES), format!("pod-{index}")));
            }
            "most of a node's pods go"
        }
    }
}

#[test]
fn a_compiler_that_follows_gives_the_bytes_of_one_that_begins() {
    for seed in 1..=12 {
        let mut random = Random(seed);
        let mut snapshot = crowd(&mut random);
        let mut compiler = Compiler::new();
        for round in 0..60 {
            let what = if round == 0 { "nothing yet" } else { edit(&mut snapshot, &mut random, round) };
            // now and then several at once
            if random.below(5) == 0 {
                edit(&mut snapshot, &mut random, round + 1000);
            }
            let followed = compiler.compile(&snapshot, round as u64).unwrap();
            assert!(followed == compile(&snapshot, round as u64).unwrap(), "seed {seed}, round {round}: {what}");
            if round % 20 == 0 {
                let parts = compile_parts(&snapshot).unwrap();
                assert!(followed == build_image(&parts, round as u64), "seed {seed}, round {round}: the parts say something else");
            }
        }
    }
}
