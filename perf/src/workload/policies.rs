//! Policies as people write them.
//!
//! Each namespace has a default deny (every second one for both directions, with a policy that allows DNS beside it). The
//! rest is drawn: a policy selects all, an app or a tier of its namespace; a rule has up to three peers and four ports.

use super::{APPS, ENVIRONMENTS, Scale, TIERS, namespace_name};
use crate::random::SplitMix;
use serde_json::{Value, json};
use sluice_policy::{ObjectName, Snapshot};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

const COMMON_PORTS: [u16; 24] = [
    443, 80, 8080, 8443, 5432, 3306, 6379, 9090, 9100, 27_017, 9092, 2181, 2379, 6443, 22, 389, 5672, 8000, 9000, 9042, 9200, 9300, 11_211,
    15_672,
];
const PRIVATE: [&str; 3] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"];

/// Adds all policies.
pub(super) fn add(snapshot: &mut Snapshot, scale: Scale, random: &mut SplitMix) {
    let pool: Vec<Value> = (0..(scale.policies / 3).max(10)).map(|_| block(random)).collect();
    let writer = Writer { scale, pool };
    let standing = (0..scale.namespaces).flat_map(|namespace| {
        let deny = ("default-deny".to_owned(), deny_all(namespace % 2 == 0));
        let dns = (namespace % 2 == 0).then(|| ("allow-dns".to_owned(), allow_dns()));
        [Some(deny), dns].into_iter().flatten().map(move |policy| (namespace, policy))
    });
    let standing: Vec<_> = standing.take(scale.policies).collect();
    for index in standing.len()..scale.policies {
        let namespace = random.below(scale.namespaces);
        let (suffix, spec) = writer.policy(namespace, random);
        insert(snapshot, scale, namespace, format!("allow-{suffix}-{index:05}"), spec);
    }
    for (namespace, (name, spec)) in standing {
        insert(snapshot, scale, namespace, name, spec);
    }
}

fn insert(snapshot: &mut Snapshot, scale: Scale, namespace: usize, name: String, spec: Value) {
    let namespace = namespace_name(scale, namespace);
    let object = json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec});
    snapshot.policies.insert(ObjectName::new(namespace, name), Arc::new(serde_json::from_value(object).expect("a policy")));
}

fn deny_all(both: bool) -> Value {
    let types = if both { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
    json!({"podSelector": {}, "policyTypes": types})
}

fn allow_dns() -> Value {
    let to = json!({
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    });
    let ports = json!([{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]);
    json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [to], "ports": ports}]})
}

/// A CIDR somewhere outside, one in three IPv6; up to three excepts inside it.
fn block(random: &mut SplitMix) -> Value {
    let v6 = random.chance(33);
    let (width, longest, length) = match v6 {
        true => (128, 64, *random.pick(&[40, 48, 48, 56, 64, 64, 128])),
        false => (32, 32, *random.pick(&[8, 12, 16, 16, 20, 22, 24, 24, 24, 28, 32])),
    };
    let cidr = |bits: u128, length: u32| {
        let bits = bits >> (width - length) << (width - length);
        if v6 { format!("{}/{length}", Ipv6Addr::from(bits)) } else { format!("{}/{length}", Ipv4Addr::from(bits as u32)) }
    };
    // 2001:db8::/32, or 11.0.0.0 to 210.255.255.255
    let (first, shift) = if v6 { (0x2001_0db8, 96) } else { (11 + random.below(200) as u128, 24) };
    let bits = within(first << shift, shift, random);
    let count = if length + 4 <= longest { random.below(4) } else { 0 };
    let excepts: Vec<String> = (0..count)
        .map(|_| {
            let longer = length + 1 + random.below((longest - length) as usize) as u32;
            cidr(within(bits, width - length, random), longer)
        })
        .collect();
    json!({"cidr": cidr(bits, length), "except": excepts})
}

/// `bits` with the lowest `free` ones drawn.
fn within(bits: u128, free: u32, random: &mut SplitMix) -> u128 {
    let drawn = u128::from(random.next()) << 64 | u128::from(random.next());
    let mask = (1u128 << free) - 1;
    bits & !mask | drawn & mask
}

struct Writer {
    scale: Scale,
    /// Blocks that policies share.
    pool: Vec<Value>,
}

impl Writer {
    fn policy(&self, namespace: usize, random: &mut SplitMix) -> (&'static str, Value) {
        let (suffix, selector) = match random.below(100) {
            0..10 => ("all", json!({})),
            10..65 => {
                let app = self.app(random);
                (app, labels("app", app))
            }
            _ => {
                let tier = *random.pick(&TIERS);
                (tier, labels("tier", tier))
            }
        };
        let (ingress, egress) = *random.pick(&[(true, false), (true, false), (true, false), (true, false), (false, true), (true, true)]);
        let mut spec = json!({"podSelector": selector});
        let mut types = Vec::new();
        for (wanted, kind, list, peers) in [(ingress, "Ingress", "ingress", "from"), (egress, "Egress", "egress", "to")] {
            if wanted {
                types.push(kind);
                let rules = (0..1 + random.below(3)).map(|_| self.rule(namespace, peers, random));
                spec[list] = rules.collect();
            }
        }
        spec["policyTypes"] = json!(types);
        (suffix, spec)
    }

    fn rule(&self, namespace: usize, peers: &str, random: &mut SplitMix) -> Value {
        let list: Vec<Value> = (0..1 + random.below(3)).map(|_| self.peer(namespace, random)).collect();
        let ports: Vec<Value> = if random.chance(10) { Vec::new() } else { (0..1 + random.below(4)).map(|_| port(random)).collect() };
        json!({peers: list, "ports": ports})
    }

    fn peer(&self, namespace: usize, random: &mut SplitMix) -> Value {
        match random.below(100) {
            0..20 => json!({"ipBlock": random.pick(&self.pool)}),
            20..23 => json!({"ipBlock": {"cidr": "0.0.0.0/0", "except": PRIVATE}}),
            23..24 => json!({"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.169.254/32"]}}),
            24..25 => self.pod_network(random),
            25..66 => json!({"podSelector": self.pods(random)}),
            66..90 => {
                json!({"namespaceSelector": labels("team", &format!("team-{:02}", random.below(self.scale.teams))), "podSelector": self.pods(random)})
            }
            90..94 => {
                json!({"namespaceSelector": {"matchExpressions": [{"key": "env", "operator": "In", "values": [random.pick(&ENVIRONMENTS)]}]},
                             "podSelector": labels("app", self.app(random))})
            }
            94..98 => {
                json!({"namespaceSelector": labels("kubernetes.io/metadata.name", &namespace_name(self.scale, (namespace + 1) % self.scale.namespaces))})
            }
            _ => json!({"namespaceSelector": {}, "podSelector": labels("app", self.app(random))}),
        }
    }

    /// A block that covers addresses of pods, of one node or of all but one.
    fn pod_network(&self, random: &mut SplitMix) -> Value {
        let node = random.below(self.scale.pods.div_ceil(self.scale.local));
        let of_node = format!("{}/24", Ipv4Addr::from(0x0a40_0000 | (node as u32) << 8));
        let all_but_one = json!({"cidr": "10.64.0.0/10", "except": [of_node]});
        json!({"ipBlock": if random.chance(50) { json!({"cidr": of_node}) } else { all_but_one }})
    }

    fn pods(&self, random: &mut SplitMix) -> Value {
        match random.below(100) {
            0..40 => labels("app", self.app(random)),
            40..75 => labels("tier", random.pick::<&str>(&TIERS)),
            75..85 => json!({"matchExpressions": [{"key": "app", "operator": "In", "values": [self.app(random), self.app(random)]}]}),
            85..90 => {
                json!({"matchLabels": {"tier": random.pick(&TIERS)}, "matchExpressions": [{"key": "track", "operator": "NotIn", "values": ["canary"]}]})
            }
            _ => json!({}),
        }
    }

    fn app(&self, random: &mut SplitMix) -> &'static str {
        APPS[random.below(self.scale.apps)]
    }
}

fn labels(key: &str, value: &str) -> Value {
    json!({"matchLabels": {key: value}})
}

fn port(random: &mut SplitMix) -> Value {
    let transport = |random: &mut SplitMix| match random.below(100) {
        0..88 => "TCP",
        88..98 => "UDP",
        _ => "SCTP",
    };
    match random.below(100) {
        0..20 => {
            let first = 1024 + random.below(60_000);
            let last = (first + random.pick(&[9, 99, 999, 2767])).min(65_535);
            json!({"protocol": transport(random), "port": first, "endPort": last})
        }
        20..30 => json!({"protocol": "TCP", "port": random.pick(&["http", "metrics", "grpc"])}),
        30..40 => json!({"protocol": transport(random), "port": 1024 + random.below(20_000)}),
        40..43 => json!({"protocol": "UDP", "port": 53}),
        _ => json!({"protocol": transport(random), "port": COMMON_PORTS[random.skewed(COMMON_PORTS.len())]}),
    }
}
