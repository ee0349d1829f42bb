//! Clusters large enough for the layout to matter: windows of pods' addresses, full /120s, classes that come and go among
//! hundreds. Whatever happens to the cluster, a compiler that follows gives the bytes of one that begins.

use serde_json::{Value, json};
use sluice_flow::{Incarnation, LocalEndpoint, PortIndex};
use sluice_policy::compile::{Compiler, compile_parts};
use sluice_policy::pod::{Pod, Pool};
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

fn pod(name: &str, node: usize, host: usize, app: usize, extra: Option<usize>) -> (String, Pod) {
    let mut labels = json!({"app": format!("app-{app}"), "tier": format!("tier-{}", app % 3)});
    if let Some(extra) = extra {
        labels["extra"] = json!(format!("e{extra}"));
    }
    let (v4, v6) = (format!("10.64.{node}.{host}"), format!("fd00:0:0:{node:x}::{host:x}"));
    let object = json!({
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8000 + app % 4}]}]},
        "status": {"phase": "Running", "podIP": v4, "podIPs": [{"ip": v4}, {"ip": v6}]},
    });
    (name.to_owned(), serde_json::from_value(object).unwrap())
}

fn policy(random: &mut Random) -> Value {
    let selector = match random.below(4) {
        0 => json!({}),
        1 => json!({"matchLabels": {"tier": format!("tier-{}", random.below(3))}}),
        _ => json!({"matchLabels": {"app": format!("app-{}", random.below(APPS))}}),
    };
    let (ingress, egress): (Vec<Value>, Vec<Value>) = (0..1 + random.below(3)).map(|_| rule(random)).unzip();
    match random.below(3) {
        0 => json!({"podSelector": selector, "policyTypes": ["Ingress"], "ingress": ingress}),
        1 => json!({"podSelector": selector, "policyTypes": ["Egress"], "egress": egress}),
        _ => json!({"podSelector": selector, "policyTypes": ["Ingress", "Egress"], "ingress": ingress, "egress": egress}),
    }
}

/// Whom it lets through, and through which ports, for ingress and egress.
fn rule(random: &mut Random) -> (Value, Value) {
    let port = match random.below(5) {
        0 => json!({"port": "http"}),
        // nobody has it
        4 => json!({"port": "admin"}),
        1 => json!({"port": 1000 + random.below(100), "endPort": 1100 + random.below(100)}),
        _ => json!({"port": 80 + random.below(4)}),
    };
    let rule = if random.below(8) == 0 { json!({}) } else { json!({"ports": [port]}) };
    let (mut ingress, mut egress) = (rule.clone(), rule);
    // where everybody is allowed, an earlier rule for few comes before what is said of the others
    if random.below(5) > 0 {
        let peers: Vec<Value> = (0..1 + random.below(3)).map(|_| peer(random)).collect();
        (ingress["from"], egress["to"]) = (json!(peers), json!(peers));
    }
    (ingress, egress)
}

fn peer(random: &mut Random) -> Value {
    // the API server stores a prefix without host bits or with them; both are the same block
    match random.below(6) {
        0 => json!({"ipBlock": {"cidr": format!("10.64.{}.0/{}", random.below(8), 20 + random.below(9))}}),
        1 => json!({"ipBlock": {"cidr": format!("{}.0.0.0/8", 11 + random.below(50))}}),
        2 => json!({"ipBlock": {"cidr": format!("fd00:0:0:{:x}::/{}", random.below(8), 64 + 8 * random.below(8))}}),
        3 => json!({"podSelector": {"matchExpressions": [{"key": "extra", "operator": "Exists"}]}}),
        _ => json!({"podSelector": {"matchLabels": {"app": format!("app-{}", random.below(APPS))}}}),
    }
}

/// Gives the rules of a policy another list of that name, where they have one.
fn edit_rules(snapshot: &mut Snapshot, index: usize, random: &mut Random, lists: &[&str]) {
    let name = policy_name(index);
    let Some(policy) = snapshot.policies.get(&name) else { return };
    let mut object = serde_json::to_value(&**policy).unwrap();
    for (direction, at) in [("ingress", 0), ("egress", 1)] {
        for old in object["spec"][direction].as_array_mut().into_iter().flatten() {
            let new = <[Value; 2]>::from(rule(random))[at].clone();
            for list in lists {
                // now and then a rule stays as it is
                if let (Some(list), Some(new), true) = (old.get_mut(list), new.get(list), random.below(4) > 0) {
                    *list = new.clone();
                }
            }
        }
    }
    snapshot.policies.insert(name, Arc::new(serde_json::from_value(object).unwrap()));
}

fn policy_name(index: usize) -> ObjectName {
    ObjectName::new(format!("ns-{}", index % NAMESPACES), format!("policy-{index}"))
}

fn put_policy(snapshot: &mut Snapshot, index: usize, random: &mut Random) {
    let name = policy_name(index);
    let object = json!({"metadata": {"name": name.name, "namespace": name.namespace}, "spec": policy(random)});
    snapshot.policies.insert(name, Arc::new(serde_json::from_value(object).unwrap()));
}

fn put_pod(snapshot: &mut Snapshot, index: usize, (name, pod): (String, Pod)) {
    snapshot.pods.insert(ObjectName::new(format!("ns-{}", index % NAMESPACES), name), Arc::new(pod));
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
    match random.below(24) {
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
            snapshot.policies.remove(&policy_name(policy));
            "a policy goes"
        }
        13 => {
            put_policy(snapshot, POLICIES + round, random);
            "a policy comes"
        }
        14..18 => {
            edit_rules(snapshot, random.below(POLICIES), random, &["ports"]);
            "a policy opens other ports"
        }
        18..22 => {
            edit_rules(snapshot, random.below(POLICIES), random, &["from", "to"]);
            "a policy lets others through"
        }
        22 => {
            for _ in 0..1 + random.below(8) {
                edit_rules(snapshot, random.below(POLICIES), random, &["ports", "from", "to"]);
            }
            "several policies are edited"
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

/// A policy that asks for more than the format holds: of each port another rule decides.
fn put_impossible(snapshot: &mut Snapshot) {
    let rule = |protocol: &str, port: u32| json!({"ports": [{"port": port, "protocol": protocol}]});
    let rules: Vec<Value> = (1..=65_535).map(|port| rule("TCP", port)).chain((1..=20).map(|port| rule("UDP", port))).collect();
    let object = json!({
        "metadata": {"name": "impossible", "namespace": "ns-0"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": rules},
    });
    snapshot.policies.insert(ObjectName::new("ns-0", "impossible"), Arc::new(serde_json::from_value(object).unwrap()));
}

#[test]
fn a_compiler_that_follows_gives_the_bytes_of_one_that_begins() {
    for seed in 1..=12 {
        let mut random = Random(seed);
        let mut snapshot = crowd(&mut random);
        let mut compiler = Compiler::new();
        for round in 0..80 {
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

#[test]
fn pods_that_share_their_parts_mean_what_they_mean_alone() {
    let mut random = Random(200);
    let mut snapshot = crowd(&mut random);
    // the same parts in several namespaces, and pods without containers
    for index in 0..60 {
        put_pod(&mut snapshot, index, pod(&format!("twin-{index}"), NODES, 2 + index, index / 6, None));
        let (name, mut bare) = pod(&format!("bare-{index}"), NODES, 100 + index, index / 6, None);
        bare.spec.as_mut().unwrap().containers = [].into();
        put_pod(&mut snapshot, index, (name, bare));
    }
    let (mut pool, mut shared) = (Pool::default(), snapshot.clone());
    for (name, pod) in &snapshot.pods {
        shared.pods.insert(name.clone(), Arc::new(pool.share(serde_json::from_value(pod.manifest(name)).unwrap())));
    }
    assert!(compile(&shared, 1).unwrap() == compile(&snapshot, 1).unwrap());
}

#[test]
fn what_was_refused_leaves_nothing_behind() {
    let mut random = Random(100);
    let mut snapshot = crowd(&mut random);
    let mut compiler = Compiler::new();
    for round in 0..24 {
        edit(&mut snapshot, &mut random, round);
        let before = snapshot.clone();
        match round % 8 {
            1 => put_impossible(&mut snapshot),
            3 => snapshot.endpoints[1].port = snapshot.endpoints[0].port,
            5 => {
                let selector = json!({"matchExpressions": [{"key": "app", "operator": "Likes"}]});
                let object = json!({"metadata": {"name": "policy-1", "namespace": "ns-1"}, "spec": {"podSelector": selector}});
                edit_rules(&mut snapshot, random.below(POLICIES), &mut random, &["ports"]);
                snapshot.policies.insert(policy_name(1), Arc::new(serde_json::from_value(object).unwrap()));
            }
            _ => {}
        }
        if round % 2 == 1 && round % 8 < 7 {
            let refused = compiler.compile(&snapshot, 1).expect_err("it cannot be represented");
            assert_eq!(refused, compile(&snapshot, 1).unwrap_err());
            snapshot = before;
            edit(&mut snapshot, &mut random, round + 1000);
        }
        assert!(compiler.compile(&snapshot, 1) == compile(&snapshot, 1), "round {round}");
    }
}
