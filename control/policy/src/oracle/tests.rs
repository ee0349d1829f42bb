//! What the oracle promises, each promise on a cluster small enough to judge by eye.

use super::*;
use crate::pod::Pod;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};
use sluice_flow::{Incarnation, LocalEndpoint, PortIndex};
use std::sync::Arc;

/// Two namespaces: `x` (team=x) with `web` and `db`, `y` (team=y) with `client` and `other`.
fn cluster(policies: &[Value]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for name in ["x", "y"] {
        let labels = json!({"kubernetes.io/metadata.name": name, "team": name});
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).unwrap();
        snapshot.namespaces.insert(name.to_owned(), Arc::new(namespace));
    }
    let ports = json!([{"name": "http", "containerPort": 8080}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]);
    add_pod(&mut snapshot, "x/web", json!({"app": "web"}), &["10.0.0.1", "fd00::1"], ports);
    add_pod(&mut snapshot, "x/db", json!({"app": "db", "env": ""}), &["10.0.0.2"], json!([]));
    add_pod(&mut snapshot, "y/client", json!({"app": "client"}), &["10.0.1.1", "fd00::1:1"], json!([]));
    let ports = json!([{"name": "http", "containerPort": 80}]);
    add_pod(&mut snapshot, "y/other", json!({}), &["10.0.1.2"], ports);
    for (index, spec) in policies.iter().enumerate() {
        let name = format!("p{index}");
        let policy: NetworkPolicy = serde_json::from_value(json!({"metadata": {"namespace": "x", "name": name}, "spec": spec})).unwrap();
        snapshot.policies.insert(ObjectName::new("x", name), Arc::new(policy));
    }
    snapshot
}

fn add_pod(snapshot: &mut Snapshot, name: &str, labels: Value, ips: &[&str], ports: Value) {
    let name = ObjectName::parse(name);
    let ips: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"namespace": name.namespace, "name": name.name, "labels": labels, "uid": format!("uid-{name}")},
        "spec": {"containers": [{"name": "c", "ports": ports}]},
        "status": {"phase": "Running", "podIPs": ips},
    }))
    .unwrap();
    snapshot.pods.insert(name, Arc::new(pod));
}

/// `ingress x/web 10.0.1.1 80/TCP`
fn judge(snapshot: &Snapshot, question: &str) -> Judgement {
    let words: Vec<&str> = question.split_whitespace().collect();
    let [direction, pod, remote, port] = words[..] else { panic!("{question}") };
    let direction = if direction == "ingress" { Direction::Ingress } else { Direction::Egress };
    let (port, protocol) = port.split_once('/').unwrap_or(("0", port));
    Oracle::new(snapshot).judge(
        &ObjectName::parse(pod),
        direction,
        remote.parse().unwrap(),
        Protocol::from_name(protocol).unwrap(),
        port.parse().unwrap(),
    )
}

#[test]
fn only_the_named_directions_are_isolated() {
    // spec                                                            ingress isolated, egress isolated
    for (spec, ingress, egress) in [
        (json!({"podSelector": {}}), true, false),
        (json!({}), true, false),
        (Value::Null, true, false),
        (json!({"podSelector": {}, "policyTypes": []}), true, false),
        (json!({"podSelector": {}, "egress": []}), true, false),
        (json!({"podSelector": {}, "egress": [{}]}), true, true),
        (json!({"podSelector": {}, "policyTypes": ["Egress"]}), false, true),
        (json!({"podSelector": {}, "policyTypes": ["Ingress"], "egress": [{}]}), true, false),
        (json!({"podSelector": {"matchLabels": {"app": "db"}}}), false, false),
    ] {
        let snapshot = cluster(std::slice::from_ref(&spec));
        assert_eq!(judge(&snapshot, "ingress x/web 10.0.1.1 80/TCP").isolated, ingress, "{spec}");
        assert_eq!(judge(&snapshot, "egress x/web 10.0.1.1 80/TCP").isolated, egress, "{spec}");
        assert!(!judge(&snapshot, "ingress y/client 10.0.0.1 80/TCP").isolated, "another namespace: {spec}");
    }
}

#[test]
fn policies_add_up_and_the_first_allowing_rule_is_named() {
    let from_y = json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]},
        {"from": [{"namespaceSelector": {"matchLabels": {"team": "y"}}}]}]});
    let snapshot = cluster(&[json!({"podSelector": {}}), from_y]);
    let judgement = judge(&snapshot, "ingress x/web 10.0.1.1 80/TCP");
    assert!(judgement.allowed);
    assert_eq!(judgement.allowed_by.unwrap().to_string(), "x/p1 ingress[1]");
    assert_eq!(judgement.isolating.len(), 2);
    assert!(!judge(&snapshot, "ingress x/web 8.8.8.8 80/TCP").allowed);
}

#[test]
fn selectors_mean_what_the_api_says() {
    let expression =
        |key: &str, operator: &str, values: Value| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
    // selector in a podSelector peer                            db (app=db, env=), web (app=web)
    for (selector, db, web) in [
        (json!({}), true, true),
        (json!({"matchLabels": {"env": ""}}), true, false),
        (expression("env", "Exists", json!([])), true, false),
        (expression("env", "DoesNotExist", json!([])), false, true),
        (expression("app", "In", json!(["db", "x"])), true, false),
        (expression("app", "NotIn", json!(["db"])), false, true),
        (expression("env", "NotIn", json!([""])), false, true),
        (expression("zone", "NotIn", json!(["a"])), true, true),
        (expression("zone", "Near", json!(["a"])), false, false),
    ] {
        let snapshot = cluster(&[json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": selector}]}]})]);
        assert_eq!(judge(&snapshot, "ingress x/web 10.0.0.2 80/TCP").allowed, db, "{selector}");
        assert_eq!(judge(&snapshot, "ingress x/web 10.0.0.1 80/TCP").allowed, web, "{selector}");
        assert!(!judge(&snapshot, "ingress x/web 10.0.1.1 80/TCP").allowed, "another namespace: {selector}");
    }
}

#[test]
fn ports_match_by_protocol_number_range_and_name() {
    let ports = json!([{"port": 80}, {"port": 100, "endPort": 110, "protocol": "UDP"}, {"protocol": "SCTP"},
        {"port": "http"}, {"port": "dns", "protocol": "TCP"}]);
    let snapshot = cluster(&[json!({"podSelector": {}, "ingress": [{"ports": ports}]})]);
    for (port, allowed) in [
        ("80/TCP", true),
        ("80/UDP", false),
        ("81/TCP", false),
        ("99/UDP", false),
        ("100/UDP", true),
        ("110/UDP", true),
        ("111/UDP", false),
        ("9/SCTP", true),
        ("0/SCTP", true),
        ("8080/TCP", true),
        ("53/TCP", false), // `dns` is a UDP port of the pod
        ("53/UDP", false),
        ("ICMP", false),
        ("47", false),
    ] {
        assert_eq!(judge(&snapshot, &format!("ingress x/web 8.8.8.8 {port}")).allowed, allowed, "{port}");
    }
    let open = cluster(&[json!({"podSelector": {}, "ingress": [{"from": []}]})]);
    assert!(judge(&open, "ingress x/web 8.8.8.8 ICMP").allowed, "a rule without ports allows every protocol");
}

#[test]
fn a_named_port_on_egress_is_each_destinations_own() {
    let rule = |to: Value| json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": to, "ports": [{"port": "http"}]}]});
    for to in [json!([]), json!([{"namespaceSelector": {}}]), json!([{"ipBlock": {"cidr": "10.0.0.0/8"}}])] {
        let snapshot = cluster(&[rule(to.clone())]);
        for (remote, allowed) in [
            ("10.0.0.1 8080/TCP", true), // x/web
            ("10.0.0.1 80/TCP", false),
            ("10.0.1.2 80/TCP", true), // y/other
            ("10.0.1.2 8080/TCP", false),
            ("10.0.1.1 80/TCP", false), // y/client defines none
            ("10.9.9.9 80/TCP", false), // no pod
        ] {
            assert_eq!(judge(&snapshot, &format!("egress x/db {remote}")).allowed, allowed, "{to} {remote}");
        }
    }
}

#[test]
fn only_restartable_init_containers_define_ports() {
    for (policy, allowed) in [(json!("Always"), true), (Value::Null, false)] {
        let mut snapshot = cluster(&[json!({"podSelector": {}, "ingress": [{"ports": [{"port": "side"}]}]})]);
        let pod = snapshot.pods.get_mut(&ObjectName::parse("x/db")).unwrap();
        Arc::make_mut(pod).spec.as_mut().unwrap().init_containers = Some(Arc::new([serde_json::from_value(
            json!({"name": "i", "restartPolicy": policy, "ports": [{"name": "side", "containerPort": 9}]}),
        )
        .unwrap()]));
        assert_eq!(judge(&snapshot, "ingress x/db 8.8.8.8 9/TCP").allowed, allowed);
    }
}

#[test]
fn an_ip_block_is_addresses_of_its_family_less_its_excepts() {
    let from = json!([{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.1.0/24"]}}, {"ipBlock": {"cidr": "::/0"}}]);
    let snapshot = cluster(&[json!({"podSelector": {}, "ingress": [{"from": from}]})]);
    for (remote, allowed) in [
        ("10.0.0.2", true), // a pod's address is an address
        ("10.0.1.1", false),
        ("10.255.255.255", true),
        ("11.0.0.0", false),
        ("fd00::1:1", true),
        ("::ffff:11.0.0.0", false), // IPv4 in disguise
    ] {
        assert_eq!(judge(&snapshot, &format!("ingress x/web {remote} 80/TCP")).allowed, allowed, "{remote}");
    }
}

#[test]
fn a_pod_on_its_nodes_network_or_ended_is_no_pod() {
    for (field, value) in [("/spec/hostNetwork", json!(true)), ("/status/phase", json!("Succeeded")), ("/status/phase", json!("Failed"))] {
        let mut snapshot = cluster(&[json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {}}]}]})]);
        for name in ["x/db", "y/client"].map(ObjectName::parse) {
            let mut pod = serde_json::to_value(&snapshot.pods[&name]).unwrap();
            let (parent, key) = field.rsplit_once('/').unwrap();
            pod.pointer_mut(parent).unwrap()[key] = value.clone();
            snapshot.pods.insert(name, Arc::new(serde_json::from_value(pod).unwrap()));
        }
        assert!(!judge(&snapshot, "ingress x/db 8.8.8.8 80/TCP").isolated, "{field}");
        assert!(!judge(&snapshot, "ingress x/web 10.0.1.1 80/TCP").allowed, "{field}");
        assert!(judge(&snapshot, "ingress x/web 10.0.1.2 80/TCP").allowed, "{field}");
        assert_eq!(Oracle::new(&snapshot).pod_at("10.0.1.1".parse().unwrap()), None);
    }
}

#[test]
fn an_endpoint_speaks_for_its_own_pod_only() {
    let endpoint = |uid: &str| LocalEndpoint {
        port: PortIndex(0),
        incarnation: Incarnation(1),
        pod: ObjectName::parse("y/client"),
        uid: uid.to_owned(),
        addresses: vec!["10.0.1.77".parse().unwrap()],
    };
    for (uid, early) in [("", true), ("uid-y/client", true), ("somebody-else", false)] {
        let mut snapshot = cluster(&[json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {}}]}]})]);
        snapshot.endpoints.push(endpoint(uid));
        assert_eq!(judge(&snapshot, "ingress x/web 10.0.1.77 80/TCP").allowed, early, "{uid}");
        assert_eq!(judge(&snapshot, "ingress x/web 10.0.1.1 80/TCP").allowed, !early, "{uid}");
    }
}

#[test]
fn an_address_that_two_pods_claim_matches_only_what_matches_both() {
    let from = |app: &str| json!({"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": app}}});
    for (peers, allowed) in [
        (json!([{"namespaceSelector": {}}]), true),
        (json!([from("client")]), false),
        (json!([from("client"), from("late")]), false),
        (json!([{"ipBlock": {"cidr": "10.0.1.1/32"}}]), true),
    ] {
        let mut snapshot = cluster(&[json!({"podSelector": {}, "ingress": [{"from": peers}]})]);
        add_pod(&mut snapshot, "y/late", json!({"app": "late"}), &["10.0.1.1"], json!([]));
        assert_eq!(judge(&snapshot, "ingress x/web 10.0.1.1 80/TCP").allowed, allowed, "{peers}");
    }
}

#[test]
fn an_unknown_pod_is_denied() {
    let judgement = judge(&cluster(&[]), "egress x/nobody 10.0.0.1 80/TCP");
    assert!(!judgement.allowed && !judgement.isolated);
}

#[test]
fn the_nearest_miss_names_what_failed() {
    let rules = json!([
        {"from": [{"podSelector": {"matchLabels": {"app": "db"}}}], "ports": [{"port": 9}]},
        {"from": [{"namespaceSelector": {"matchLabels": {"team": "y"}}}, {"ipBlock": {"cidr": "10.2.0.0/16", "except": ["10.2.1.0/24"]}}],
         "ports": [{"port": 80}, {"port": "http"}]},
    ]);
    let snapshot = cluster(&[json!({"podSelector": {}, "ingress": rules})]);
    for (question, rule, failed) in [
        ("10.0.1.1 81/TCP", 1, "the port: rule allows 80/TCP or http/TCP (8080 at x/web), asked 81/TCP"),
        (
            "10.0.1.1 ICMP",
            1,
            "the port: rule allows 80/TCP or http/TCP (8080 at x/web), asked ICMP, which only a rule without ports allows",
        ),
        (
            "10.0.0.1 9/TCP",
            0,
            "the peer: rule allows podSelector app=db in namespace x; source is x/web with labels app=web (its namespace with labels kubernetes.io/metadata.name=x,team=x)",
        ),
        (
            "10.2.1.5 80/TCP",
            1,
            "the peer: rule allows all pods in namespaceSelector team=y or ipBlock 10.2.0.0/16 except 10.2.1.0/24; source is 10.2.1.5, which is no pod's address, inside the except 10.2.1.0/24",
        ),
        (
            "8.8.8.8 1/TCP",
            0,
            "the peer: rule allows podSelector app=db in namespace x; source is 8.8.8.8, which is no pod's address; and the port: rule allows 9/TCP, asked 1/TCP",
        ),
    ] {
        let miss = judge(&snapshot, &format!("ingress x/web {question}")).nearest_miss.unwrap();
        assert_eq!((miss.rule.index, miss.failed.as_str()), (rule, failed), "{question}");
    }
}

#[test]
fn explain_understands_pods_addresses_and_their_families() {
    let snapshot = cluster(&[json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"ports": [{"port": 80}]}]})]);
    let explained = explain(&snapshot, "y/client", "x/web", 81, Protocol::TCP).unwrap();
    assert_eq!((explained.src.as_str(), explained.dst.as_str()), ("y/client (10.0.1.1)", "x/web (10.0.0.1)"));
    assert!(!explained.allowed);
    assert!(explained.egress.unwrap().allowed);
    assert_eq!(explained.ingress.unwrap().nearest_miss.unwrap().0, "x/p0 ingress[0]");

    let explained = explain(&snapshot, "2001:db8::1", "x/web", 80, Protocol::TCP).unwrap();
    assert!(explained.allowed && explained.egress.is_none());
    assert_eq!(explained.ingress.unwrap().rule.as_deref(), Some("x/p0 ingress[0]"));

    let itself = explain(&snapshot, "x/web", "10.0.0.1", 81, Protocol::TCP).unwrap();
    assert!(itself.allowed && itself.notes[0].starts_with("self-traffic"));

    let error = |src: &str, dst: &str| explain(&snapshot, src, dst, 80, Protocol::TCP).unwrap_err().to_string();
    assert_eq!(error("web", "x/db"), "there is no pod default/web; did you mean x/web?");
    assert_eq!(error("x/db", "fd00::1"), "x/db and fd00::1 share no address family");
}
