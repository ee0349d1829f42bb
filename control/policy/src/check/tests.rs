//! A table that is wrong anywhere must not pass; a right one must.

use super::*;
use crate::compile;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};
use sluice_flow::Incarnation;

fn cluster(spec: Value) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for (index, name) in ["web", "db", "job"].into_iter().enumerate() {
        let ip: IpAddr = format!("10.0.0.{index}").parse().unwrap();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"namespace": "x", "name": name, "uid": name, "labels": {"app": name}},
            "spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8000 + index}]}]},
            "status": {"phase": "Running", "podIPs": [{"ip": ip.to_string()}]},
        }))
        .unwrap();
        snapshot.pods.insert(ObjectName::new("x", name), pod.into());
        snapshot.endpoints.push(LocalEndpoint {
            port: PortIndex(index as u16),
            incarnation: Incarnation(7),
            pod: ObjectName::new("x", name),
            uid: name.to_owned(),
            addresses: vec![ip],
        });
    }
    let policy: NetworkPolicy = serde_json::from_value(json!({"metadata": {"namespace": "x", "name": "p"}, "spec": spec})).unwrap();
    snapshot.policies.insert(ObjectName::new("x", "p"), policy.into());
    snapshot
}

fn example() -> Value {
    json!({
        "podSelector": {"matchLabels": {"app": "web"}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {"from": [{"podSelector": {"matchLabels": {"app": "db"}}}], "ports": [{"port": "http"}]},
            {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/30", "10.9.0.0/16"]}}, {"ipBlock": {"cidr": "2001:db8::/33"}}],
             "ports": [{"port": 80, "endPort": 90}, {"protocol": "UDP"}]},
        ],
        "egress": [{"ports": [{"port": "http"}, {"port": 53, "protocol": "UDP"}]}, {"to": [{"podSelector": {}}]}],
    })
}

fn table(snapshot: &Snapshot) -> Table {
    Table::from_bytes(&compile(snapshot, 1).unwrap()).unwrap()
}

#[test]
fn a_right_table_passes_whole() {
    let snapshot = cluster(example());
    let report = check(&snapshot, &table(&snapshot), CheckBudget::default()).unwrap();
    assert_eq!(report.done, report.required);
    assert!(report.done > 1000, "{report:?}");
}

#[test]
fn every_small_change_of_a_policy_is_noticed() {
    let right = cluster(example());
    for (pointer, value) in [
        ("/podSelector", json!({})),
        ("/policyTypes", json!(["Ingress"])),
        ("/ingress/0/from/0/podSelector/matchLabels/app", json!("job")),
        ("/ingress/0/ports/0/port", json!("https")),
        ("/ingress/0/ports", json!([])),
        ("/ingress/1/from/0/ipBlock/cidr", json!("10.0.0.0/9")),
        ("/ingress/1/from/0/ipBlock/except", json!(["10.0.0.0/30", "10.9.0.0/17"])),
        ("/ingress/1/from/1/ipBlock/cidr", json!("2001:db8::/34")),
        ("/ingress/1/ports/0/port", json!(81)),
        ("/ingress/1/ports/0/endPort", json!(91)),
        ("/ingress/1/ports/1/protocol", json!("SCTP")),
        ("/egress/0/ports/1/port", json!(54)),
        ("/egress/1/to", json!([])),
    ] {
        let mut spec = example();
        *spec.pointer_mut(pointer).unwrap() = value;
        let wrong = table(&cluster(spec));
        let mismatch = check(&right, &wrong, CheckBudget::default()).unwrap_err().to_string();
        assert!(mismatch.starts_with("x/"), "{pointer}: {mismatch}");
    }
}

#[test]
fn the_counterexample_can_be_read() {
    let mut spec = example();
    spec["ingress"][1]["ports"][0]["endPort"] = json!(91);
    let mismatch = check(&cluster(example()), &table(&cluster(spec)), CheckBudget::default()).unwrap_err();
    assert_eq!(
        mismatch.to_string(),
        "x/web ingress, remote 10.0.0.4, 91/TCP: the oracle says denied (nearest is x/p ingress[1]: the port: rule allows \
         80-90/TCP or every UDP port, asked 91/TCP), the table says allowed by x/p ingress[1]"
    );
}

#[test]
fn another_endpoint_on_a_port_is_noticed() {
    let right = cluster(example());
    let change: [fn(&mut Snapshot); 3] = [
        |snapshot| snapshot.endpoints[1].incarnation = Incarnation(8),
        |snapshot| drop(snapshot.endpoints.pop()),
        |snapshot| snapshot.endpoints[2].pod = ObjectName::new("x", "db"),
    ];
    for change in change {
        let mut other = right.clone();
        change(&mut other);
        for endpoint in &mut other.endpoints {
            endpoint.uid.clear();
        }
        let mismatch = check(&right, &table(&other), CheckBudget::default()).unwrap_err();
        assert!(matches!(mismatch, Mismatch::Endpoint { .. }), "{mismatch}");
    }
}

#[test]
fn beyond_the_budget_a_repeatable_sample_is_checked_and_the_report_says_so() {
    let snapshot = cluster(example());
    let table = table(&snapshot);
    for budget in [
        CheckBudget { checks_max: 600, ..CheckBudget::default() },
        CheckBudget { peers_max: 60, ..CheckBudget::default() },
        CheckBudget { checks_max: 0, peers_max: 0 },
    ] {
        let report = check(&snapshot, &table, budget).unwrap();
        assert!(report.done < report.required && report.done >= 6, "{budget:?}: {report:?}");
        assert_eq!(check(&snapshot, &table, budget), Ok(report));
    }
}

#[test]
fn on_an_address_that_two_pods_claim_peers_do_not_add_up() {
    let from = |app: &str| json!({"podSelector": {"matchLabels": {"app": app}}});
    let mut snapshot = cluster(json!({"podSelector": {}, "ingress": [{"from": [from("db"), from("job")]}]}));
    snapshot.endpoints.truncate(1);
    let db = snapshot.pods[&ObjectName::new("x", "db")].status.clone();
    std::sync::Arc::make_mut(snapshot.pods.get_mut(&ObjectName::new("x", "job")).unwrap()).status = db;
    check(&snapshot, &table(&snapshot), CheckBudget::default()).unwrap();
}
