//! A table that is wrong anywhere must not pass; a right one must, whole.

use super::*;
use crate::compile;
use serde_json::{Value, json};
use sluice_flow::{Incarnation, LocalEndpoint, ObjectName, PortIndex};

/// Three pods of one namespace, all attached here, under one policy.
fn cluster(spec: Value) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for (index, name) in ["web", "db", "job"].into_iter().enumerate() {
        let addresses = [format!("10.0.0.{}", index + 1), format!("fd00::{}", index + 1)];
        let pod = json!({
            "metadata": {"namespace": "x", "name": name, "uid": name, "labels": {"app": name}},
            "spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080 + index}]}]},
            "status": {"podIPs": addresses.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>()},
        });
        let name = ObjectName::new("x", name);
        snapshot.endpoints.push(LocalEndpoint {
            port: PortIndex(index as u16),
            incarnation: Incarnation(7),
            pod: name.clone(),
            uid: name.name.clone(),
            addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        });
        snapshot.pods.insert(name, Arc::new(serde_json::from_value(pod).unwrap()));
    }
    let policy = json!({"metadata": {"namespace": "x", "name": "p"}, "spec": spec});
    snapshot.policies.insert(ObjectName::new("x", "p"), Arc::new(serde_json::from_value(policy).unwrap()));
    let service = json!({"spec": {"clusterIP": "10.96.0.1", "externalIPs": ["192.0.2.9"]}});
    snapshot.services.insert(ObjectName::new("x", "s"), Arc::new(serde_json::from_value(service).unwrap()));
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

fn prove(snapshot: &Snapshot, table: &Table) -> Result<Proof, Counterexample> {
    Prover::new().prove(snapshot, table)
}

#[test]
fn a_right_table_is_proved_whole() {
    let snapshot = cluster(example());
    let proof = prove(&snapshot, &table(&snapshot)).unwrap();
    assert_eq!(proof.done(), proof.required());
    // pods: 3 identities in two families; regions: everything, 10/8, both excepts, 2001:db8::/33, the rest of IPv6
    assert_eq!(proof.units, 6 + 6, "{proof:?}");
    assert_eq!(proof.units_asked, proof.units);
    // every bound: 0, 53, 54, 80, 91, 8080, 8081, 8082, 8083 for three protocols, and the protocols without ports
    assert_eq!(proof.verdicts.required, 2 * 12 * (3 * 9 + 1), "{proof:?}");
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
        let counterexample = prove(&right, &table(&cluster(spec))).unwrap_err().to_string();
        assert!(counterexample.contains("x/"), "{pointer}: {counterexample}");
    }
}

#[test]
fn the_counterexample_can_be_read() {
    let mut spec = example();
    spec["ingress"][1]["ports"][0]["endPort"] = json!(91);
    let counterexample = prove(&cluster(example()), &table(&cluster(spec))).unwrap_err();
    assert_eq!(
        counterexample.to_string(),
        "10.0.0.4 → x/web (10.0.0.1) 91/TCP, ingress of x/web\n\
         \x20 oracle: denied; nearest is x/p ingress[1]: the port: rule allows 80-90/TCP or every UDP port, asked 91/TCP\n\
         \x20 table:  allowed by x/p ingress[1]"
    );
    let mut spec = example();
    spec["egress"][1]["to"] = json!([{"podSelector": {"matchLabels": {"app": "db"}}}]);
    let counterexample = prove(&cluster(example()), &table(&cluster(spec))).unwrap_err();
    assert_eq!(
        counterexample.to_string(),
        "x/web (10.0.0.1) → x/web (10.0.0.1) 0/TCP, egress of x/web\n\
         \x20 oracle: allowed by x/p egress[1]\n\
         \x20 table:  denied"
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
        let counterexample = prove(&right, &table(&other)).unwrap_err();
        assert!(matches!(counterexample, Counterexample::Endpoint { .. }), "{counterexample}");
    }
}

#[test]
fn another_service_address_is_noticed() {
    let right = cluster(example());
    let mut other = right.clone();
    other.services.clear();
    assert_eq!(
        prove(&right, &table(&other)).unwrap_err().to_string(),
        "10.96.0.1: the oracle finds it a service's, the table an ordinary one"
    );
    assert_eq!(
        prove(&other, &table(&right)).unwrap_err().to_string(),
        "10.96.0.1: the oracle finds it an ordinary one, the table a service's"
    );
}

#[test]
fn on_an_address_that_two_pods_claim_peers_do_not_add_up() {
    let from = |app: &str| json!({"podSelector": {"matchLabels": {"app": app}}});
    let mut snapshot = cluster(json!({"podSelector": {}, "ingress": [{"from": [from("db"), from("job")]}]}));
    snapshot.endpoints.truncate(1);
    let db = snapshot.pods[&ObjectName::new("x", "db")].status.clone();
    Arc::make_mut(snapshot.pods.get_mut(&ObjectName::new("x", "job")).unwrap()).status = db;
    prove(&snapshot, &table(&snapshot)).unwrap();
}

#[test]
fn what_stayed_the_same_is_not_asked_again_and_what_changed_is() {
    let mut snapshot = cluster(example());
    let mut prover = Prover::new();
    prover.prove(&snapshot, &table(&snapshot)).unwrap();
    assert_eq!(prover.prove(&snapshot, &table(&snapshot)).unwrap().units_asked, 0);
    let stale = table(&snapshot);
    snapshot.endpoints.pop();
    Arc::make_mut(snapshot.pods.get_mut(&ObjectName::new("x", "job")).unwrap()).metadata.labels =
        Some(Arc::new([("app".into(), "db".into())].into()));
    // named ports differ, so it is an identity of its own, in two families
    assert_eq!(prover.prove(&snapshot, &table(&snapshot)).unwrap().units_asked, 2);
    let counterexample = prover.prove(&snapshot, &stale).unwrap_err();
    assert!(matches!(counterexample, Counterexample::Endpoint { .. }), "{counterexample}");
    prover.prove(&snapshot, &table(&snapshot)).unwrap();
}

#[test]
fn many_blocks_do_not_wear_out_what_is_remembered() {
    let blocks: Vec<Value> = (0..5000).map(|n| json!({"ipBlock": {"cidr": format!("172.{}.{}.0/24", 16 + n / 256, n % 256)}})).collect();
    let snapshot = cluster(json!({"podSelector": {}, "ingress": [{"from": blocks}]}));
    let (table, mut prover) = (table(&snapshot), Prover::new());
    assert!(prover.prove(&snapshot, &table).unwrap().units > 5000);
    assert_eq!(prover.prove(&snapshot, &table).unwrap().units_asked, 0);
}

/// `::/80` and what of it is below `::ffff:0:0`.
fn below_mapped() -> Vec<String> {
    (81..=96u32).map(|length| format!("{}/{length}", std::net::Ipv6Addr::from((1u128 << 48) - (1u128 << (129 - length))))).collect()
}

#[test]
fn addresses_that_no_packet_has_do_not_count() {
    let block = json!({"cidr": "::/80", "except": below_mapped()});
    let snapshot = cluster(json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": block}]}]}));
    prove(&snapshot, &table(&snapshot)).unwrap();
}

#[test]
fn addresses_that_no_packet_has_do_not_stand_for_others() {
    let with = |except: Vec<String>| {
        let block = json!({"cidr": "::/79", "except": except});
        cluster(json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": block}]}]}))
    };
    let right = with(below_mapped());
    prove(&right, &table(&right)).unwrap();
    // the block's upper half, where packets have addresses, is not let in
    let mut except = below_mapped();
    except.push("::1:0:0:0/80".to_owned());
    let counterexample = prove(&right, &table(&with(except))).unwrap_err().to_string();
    assert!(counterexample.starts_with("::1:0:0:0 → x/web"), "{counterexample}");
}
