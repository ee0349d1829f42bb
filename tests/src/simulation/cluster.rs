//! A random small cluster, and the edits that people make to one.
//!
//! Policies come from a pool of shapes that are common in practice, so that most of what runs under them is allowed by
//! some rule and denied by some other, and both sides of every line are met.

use fastrand::Rng;
use serde_json::{Value, json};
use sluice_flow::{LocalEndpoint, ObjectName};
use sluice_policy::Snapshot;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

const NAMESPACES: [&str; 3] = ["shop", "data", "tools"];
const APPS: [&str; 3] = ["web", "api", "db"];
const TEAMS: [&str; 2] = ["red", "blue"];

/// Not translated by anything here: what an isolated pod sends there is dropped by name.
pub(super) const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// Of the node itself.
pub(super) const NODE: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1))];

/// True in so many of a hundred cases.
pub(super) fn chance(rng: &mut Rng, percent: u32) -> bool {
    rng.u32(0..100) < percent
}

pub(super) fn pick<'a, T>(rng: &mut Rng, from: &'a [T]) -> &'a T {
    &from[rng.usize(0..from.len())]
}

/// The objects of the cluster, always as the API server would store them.
#[derive(Debug, Clone)]
pub(super) struct Cluster {
    /// Without endpoints: those are the node's to report.
    pub(super) snapshot: Snapshot,
    next_policy: usize,
    next_pod: usize,
}

impl Cluster {
    pub(super) fn new(rng: &mut Rng) -> Self {
        let mut cluster = Self { snapshot: Snapshot::default(), next_policy: 0, next_pod: 0 };
        for name in NAMESPACES {
            cluster.label_namespace(rng, name);
        }
        let service = json!({"metadata": {"namespace": "shop", "name": "web"}, "spec":
            {"clusterIP": SERVICE.to_string(), "clusterIPs": [SERVICE.to_string()], "ports": [{"port": 80}]}});
        cluster.snapshot.services.insert(ObjectName::new("shop", "web"), object(service));
        for _ in 0..rng.usize(2..6) {
            cluster.add_policy(rng);
        }
        cluster
    }

    fn label_namespace(&mut self, rng: &mut Rng, name: &str) {
        let labels = json!({"kubernetes.io/metadata.name": name, "team": pick(rng, &TEAMS)});
        let namespace = object(json!({"metadata": {"name": name, "labels": labels}}));
        self.snapshot.namespaces.insert(name.to_owned(), namespace);
    }

    /// A new pod with these addresses, and its name.
    pub(super) fn add_pod(&mut self, rng: &mut Rng, addresses: &[IpAddr]) -> ObjectName {
        let name = ObjectName::new(*pick(rng, &NAMESPACES), format!("pod{}", self.next_pod));
        self.next_pod += 1;
        self.write_pod(rng, &name, addresses);
        name
    }

    fn write_pod(&mut self, rng: &mut Rng, name: &ObjectName, addresses: &[IpAddr]) {
        let ips: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip.to_string()})).collect();
        let http = *pick(rng, &[80, 8080]);
        let ports = json!([
            {"name": "http", "containerPort": http, "protocol": "TCP"},
            {"name": "dns", "containerPort": 53, "protocol": "UDP"},
        ]);
        let pod = json!({
            "metadata": {"namespace": name.namespace, "name": name.name, "uid": name.name, "labels": {"app": pick(rng, &APPS)}},
            "spec": {"containers": [{"name": "c", "ports": ports}]},
            "status": {"phase": "Running", "podIP": addresses[0].to_string(), "podIPs": ips},
        });
        self.snapshot.pods.insert(name.clone(), object(pod));
    }

    pub(super) fn remove_pod(&mut self, name: &ObjectName) {
        self.snapshot.pods.remove(name);
    }

    fn add_policy(&mut self, rng: &mut Rng) {
        let name = ObjectName::new(*pick(rng, &NAMESPACES), format!("policy{}", self.next_policy));
        self.next_policy += 1;
        self.write_policy(rng, name);
    }

    fn write_policy(&mut self, rng: &mut Rng, name: ObjectName) {
        let spec = self.spec(rng);
        let policy = json!({"metadata": {"namespace": name.namespace, "name": name.name}, "spec": spec});
        self.snapshot.policies.insert(name, object(policy));
    }

    /// One edit; says which.
    pub(super) fn edit(&mut self, rng: &mut Rng) -> String {
        let policies: Vec<ObjectName> = self.snapshot.policies.keys().cloned().collect();
        match rng.u32(0..10) {
            0..3 if policies.len() < 8 => {
                self.add_policy(rng);
                format!("policy{} added", self.next_policy - 1)
            }
            0..5 if !policies.is_empty() => {
                let name = pick(rng, &policies);
                self.snapshot.policies.remove(name);
                format!("{name} deleted")
            }
            5..7 if !policies.is_empty() => {
                let name = pick(rng, &policies);
                self.write_policy(rng, name.clone());
                format!("{name} edited")
            }
            7..9 => {
                let pods: Vec<ObjectName> = self.snapshot.pods.keys().cloned().collect();
                let name = pick(rng, &pods);
                let addresses = sluice_policy::Oracle::new(&self.snapshot).stated_addresses_of(name);
                // as stated, without what the status repeats
                let addresses: std::collections::BTreeSet<IpAddr> = addresses.into_iter().collect();
                self.write_pod(rng, name, &addresses.into_iter().collect::<Vec<_>>());
                format!("{name} relabelled")
            }
            _ => {
                let name = *pick(rng, &NAMESPACES);
                self.label_namespace(rng, name);
                format!("namespace {name} relabelled")
            }
        }
    }

    fn spec(&self, rng: &mut Rng) -> Value {
        let app = |rng: &mut Rng| json!({"matchLabels": {"app": pick(rng, &APPS)}});
        let selected = if chance(rng, 40) { json!({}) } else { app(rng) };
        let peer = |rng: &mut Rng| match rng.u32(0..6) {
            0 => json!({"podSelector": {}}),
            1 => json!({"podSelector": app(rng)}),
            2 => json!({"namespaceSelector": {"matchLabels": {"team": pick(rng, &TEAMS)}}}),
            3 => json!({"namespaceSelector": {}, "podSelector": {"matchExpressions": [
                {"key": "app", "operator": if chance(rng, 50) { "In" } else { "NotIn" }, "values": [pick(rng, &APPS), pick(rng, &APPS)]}]}}),
            4 => block(rng),
            _ => {
                json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": pick(rng, &NAMESPACES)}}, "podSelector": app(rng)})
            }
        };
        let ports = |rng: &mut Rng| match rng.u32(0..6) {
            0 => json!([]),
            1 => json!([{"protocol": "TCP", "port": 80}]),
            2 => json!([{"protocol": "TCP", "port": "http"}, {"protocol": "UDP", "port": "dns"}]),
            3 => json!([{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]),
            4 => json!([{"protocol": "TCP", "port": 80, "endPort": 8080}]),
            _ => json!([{"protocol": "TCP"}]),
        };
        let rules = |rng: &mut Rng, peers: &str| -> Value {
            let count = *pick(rng, &[0, 1, 1, 2]);
            let rule = |rng: &mut Rng| {
                let list: Vec<Value> = (0..rng.usize(0..3)).map(|_| peer(rng)).collect();
                json!({peers: list, "ports": ports(rng)})
            };
            (0..count).map(|_| rule(rng)).collect()
        };
        let types = *pick(rng, &[&["Ingress"][..], &["Ingress"], &["Egress"], &["Ingress", "Egress"]]);
        json!({"podSelector": selected, "policyTypes": types, "ingress": rules(rng, "from"), "egress": rules(rng, "to")})
    }
}

/// Blocks around and across the addresses that are in use, with holes.
fn block(rng: &mut Rng) -> Value {
    let (cidr, excepts) = *pick(
        rng,
        &[
            ("0.0.0.0/0", &["10.0.0.0/8", "192.0.2.0/25"][..]),
            ("0.0.0.0/0", &["192.0.2.11/32"]),
            ("10.0.0.0/16", &["10.0.1.0/24", "10.0.0.11/32"]),
            ("192.0.2.0/24", &["192.0.2.10/31"]),
            ("::/0", &["fd00::/64", "2001:db8::b/128"]),
            ("fd00::/48", &["fd00::a/127", "fd00:0:0:1::/64"]),
        ],
    );
    let except: Vec<&str> = excepts.iter().copied().filter(|_| chance(rng, 60)).collect();
    json!({"ipBlock": {"cidr": cidr, "except": except}})
}

fn object<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).expect("the object is well formed"))
}

/// The snapshot of a moment: the objects, and the pods that the node reports.
pub(super) fn snapshot_with(objects: &Snapshot, endpoints: Vec<LocalEndpoint>) -> Snapshot {
    Snapshot { endpoints, ..objects.clone() }
}
