//! Random small clusters as the API server could hold them, and some states that it holds only for a moment: an address
//! claimed twice, a pod whose endpoint knows more than its status, a namespace not seen yet.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};
use sluice_flow::{Incarnation, LocalEndpoint, PortIndex};
use sluice_policy::{ObjectName, Snapshot};
use std::net::IpAddr;
use std::sync::Arc;

const NAMESPACES: [&str; 3] = ["x", "y", "z"];
const KEYS: [&str; 3] = ["app", "env", "tier"];
const VALUES: [&str; 3] = ["a", "b", ""];
const PORT_NAMES: [&str; 2] = ["http", "dns"];
const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

/// Few addresses of both families, in the blocks and around them.
pub(crate) fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        6 => (0..2u8, 0..10u8).prop_map(|(net, host)| IpAddr::from([10, 0, net, host])),
        4 => (0..2u16, 0..10u16).prop_map(|(net, host)| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, net, host])),
        1 => any::<[u8; 4]>().prop_map(IpAddr::from),
        1 => any::<[u8; 16]>().prop_map(|bytes| IpAddr::from(bytes).to_canonical()),
    ]
}

/// A whole state.
pub(crate) fn snapshot() -> impl Strategy<Value = Snapshot> {
    let namespaces = vec(prop::option::weighted(0.9, labels()), NAMESPACES.len());
    (namespaces, vec(pod(), 1..7), vec(policy(), 0..6)).prop_map(|(namespaces, pods, policies)| {
        let mut snapshot = Snapshot::default();
        for (name, labels) in NAMESPACES.into_iter().zip(namespaces) {
            if let Some(mut labels) = labels {
                labels["kubernetes.io/metadata.name"] = json!(name);
                let object = json!({"metadata": {"name": name, "labels": labels}});
                snapshot.namespaces.insert(name.to_owned(), Arc::new(serde_json::from_value(object).unwrap()));
            }
        }
        for (index, pod) in pods.into_iter().enumerate() {
            add_pod(&mut snapshot, index, pod);
        }
        for (index, (namespace, spec)) in policies.into_iter().enumerate() {
            let name = format!("p{index}");
            let object = json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec});
            snapshot.policies.insert(ObjectName::new(namespace, name), Arc::new(serde_json::from_value(object).unwrap()));
        }
        snapshot
    })
}

#[derive(Debug, Clone)]
struct PodSeed {
    namespace: &'static str,
    labels: Value,
    addresses: Vec<IpAddr>,
    ports: Vec<Value>,
    init_ports: (bool, Vec<Value>),
    host_network: bool,
    phase: &'static str,
    /// The UID and the addresses that the endpoint reports; none where the pod runs elsewhere.
    endpoint: Option<(&'static str, Option<Vec<IpAddr>>)>,
}

fn add_pod(snapshot: &mut Snapshot, index: usize, seed: PodSeed) {
    let name = ObjectName::new(seed.namespace, format!("pod{index}"));
    let (restartable, init_ports) = seed.init_ports;
    let init = json!({"name": "i", "ports": init_ports, "restartPolicy": restartable.then_some("Always")});
    let ips: Vec<Value> = seed.addresses.iter().map(|ip| json!({"ip": ip.to_string()})).collect();
    let object = json!({
        "metadata": {"namespace": seed.namespace, "name": name.name, "uid": "right", "labels": seed.labels},
        "spec": {"hostNetwork": seed.host_network, "containers": [{"name": "c", "ports": seed.ports}], "initContainers": [init]},
        "status": {"phase": seed.phase, "podIPs": ips},
    });
    if let Some((uid, reported)) = seed.endpoint {
        snapshot.endpoints.push(LocalEndpoint {
            port: PortIndex(index as u16 * 3),
            incarnation: Incarnation(index as u32 + 1),
            pod: name.clone(),
            uid: uid.to_owned(),
            addresses: reported.unwrap_or(seed.addresses),
        });
    }
    snapshot.pods.insert(name, Arc::new(serde_json::from_value(object).unwrap()));
}

fn pod() -> impl Strategy<Value = PodSeed> {
    let phase = prop_oneof![8 => Just("Running"), 1 => Just("Succeeded"), 1 => Just("Failed")];
    let uid = prop_oneof![4 => Just("right"), 2 => Just(""), 1 => Just("another")];
    let endpoint = prop::option::weighted(0.8, (uid, prop::option::weighted(0.2, addresses())));
    let ports = (vec(container_port(), 0..4), (any::<bool>(), vec(container_port(), 0..2)));
    let placed = (select(&NAMESPACES[..]), labels(), addresses());
    (placed, ports, prop::bool::weighted(0.1), phase, endpoint).prop_map(
        |((namespace, labels, addresses), (ports, init_ports), host_network, phase, endpoint)| PodSeed {
            namespace,
            labels,
            addresses,
            ports,
            init_ports,
            host_network,
            phase,
            endpoint,
        },
    )
}

/// At most one of each family, out of few, so that two pods often claim the same one.
fn addresses() -> impl Strategy<Value = Vec<IpAddr>> {
    let v4 = prop::option::weighted(0.9, (0..2u8, 0..10u8).prop_map(|(net, host)| IpAddr::from([10, 0, net, host])));
    let v6 = prop::option::weighted(0.5, (0..2u16, 0..10u16).prop_map(|(n, h)| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, n, h])));
    (v4, v6).prop_map(|(v4, v6)| v4.into_iter().chain(v6).collect())
}

fn container_port() -> impl Strategy<Value = Value> {
    (select(&PORT_NAMES[..]), 79..85u16, prop::option::of(select(&PROTOCOLS[..])))
        .prop_map(|(name, port, protocol)| json!({"name": name, "containerPort": port, "protocol": protocol}))
}

fn labels() -> impl Strategy<Value = Value> {
    vec((select(&KEYS[..]), select(&VALUES[..])), 0..3).prop_map(|pairs| {
        let labels: Map<String, Value> = pairs.into_iter().map(|(key, value)| (key.to_owned(), json!(value))).collect();
        Value::Object(labels)
    })
}

fn selector() -> impl Strategy<Value = Value> {
    let operator = select(&["In", "NotIn", "Exists", "DoesNotExist"][..]);
    let expression = (select(&KEYS[..]), operator, vec(select(&VALUES[..]), 1..3)).prop_map(|(key, operator, values)| {
        let values = if operator.ends_with("In") { json!(values) } else { Value::Null };
        json!({"key": key, "operator": operator, "values": values})
    });
    let requirements = (labels(), vec(expression, 0..2));
    let requirements = requirements.prop_map(|(labels, expressions)| json!({"matchLabels": labels, "matchExpressions": expressions}));
    let metadata_name = select(&NAMESPACES[..]).prop_map(|name| json!({"matchLabels": {"kubernetes.io/metadata.name": name}}));
    prop_oneof![2 => Just(json!({})), 5 => requirements, 1 => metadata_name]
}

fn ip_block() -> impl Strategy<Value = Value> {
    let v4 = select(&["0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/23", "10.0.1.0/24", "10.0.0.4/30", "10.0.0.3/32"][..]);
    let v6 = select(&["::/0", "fd00::/16", "fd00::/112", "fd00::1:0/112", "fd00::4/126", "fd00::3/128"][..]);
    let v4_excepts = select(&["10.0.0.0/24", "10.0.0.4/30", "10.0.0.3/32", "10.0.1.8/29", "10.0.1.255/32"][..]);
    let v6_excepts = select(&["fd00::/112", "fd00::4/126", "fd00::3/128", "fd00::1:8/125", "fd00::1:0/128"][..]);
    let block = |(cidr, excepts): (&str, Vec<&str>)| {
        // as the API demands, an except lies inside its block
        let net: ipnet::IpNet = cidr.parse().unwrap();
        let inside = |except: &&str| except.parse::<ipnet::IpNet>().is_ok_and(|except| net.contains(&except) && net != except);
        json!({"ipBlock": {"cidr": cidr, "except": excepts.into_iter().filter(inside).collect::<Vec<_>>()}})
    };
    prop_oneof![(v4, vec(v4_excepts, 0..3)).prop_map(block), (v6, vec(v6_excepts, 0..3)).prop_map(block)]
}

fn peer() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => ip_block(),
        2 => selector().prop_map(|pods| json!({"podSelector": pods})),
        2 => selector().prop_map(|namespaces| json!({"namespaceSelector": namespaces})),
        2 => (selector(), selector()).prop_map(|(n, p)| json!({"namespaceSelector": n, "podSelector": p})),
    ]
}

fn port() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        4 => 78..86i32,
        1 => select(&[1, 65_535][..]),
    ];
    let which = prop_oneof![
        3 => number.prop_map(|port| json!({"port": port})),
        2 => (78..86i32, 0..4i32).prop_map(|(port, more)| json!({"port": port, "endPort": port + more})),
        1 => Just(json!({"port": 1, "endPort": 65_535})),
        3 => select(&["http", "dns", "none"][..]).prop_map(|name| json!({"port": name})),
        1 => Just(json!({})),
    ];
    (which, prop::option::weighted(0.7, select(&PROTOCOLS[..]))).prop_map(|(mut port, protocol)| {
        port["protocol"] = json!(protocol);
        port
    })
}

fn list(item: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    let some = vec(item, 1..4).prop_map(Value::Array);
    prop_oneof![1 => Just(Value::Null), 1 => Just(json!([])), 6 => some]
}

fn policy() -> impl Strategy<Value = (&'static str, Value)> {
    let rules = |list_name: &'static str| {
        let rule = (list(peer()), list(port())).prop_map(move |(peers, ports)| json!({list_name: peers, "ports": ports}));
        list(rule)
    };
    let types = select(vec![Value::Null, json!([]), json!(["Ingress"]), json!(["Egress"]), json!(["Ingress", "Egress"])]);
    let spec = (selector(), types, rules("from"), rules("to")).prop_map(
        |(selector, types, ingress, egress)| json!({"podSelector": selector, "policyTypes": types, "ingress": ingress, "egress": egress}),
    );
    let spec = prop_oneof![30 => spec, 1 => Just(Value::Null)];
    (select(&NAMESPACES[..]), spec)
}
