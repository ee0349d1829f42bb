//! S1–S4 and X: apps in three tiers, namespaces of teams, policies drawn as people write them.
//!
//! A pod's app and tier and its namespace's team are all that selectors look at. Half of the rules that have an IPv4 block
//! have an IPv6 block beside it.

use super::blocks::Family;
use super::objects::{Cluster, Template, labels};
use crate::random::SplitMix;
use serde_json::{Value, json};
use sluice_policy::Snapshot;

/// How much of everything; the last three are percent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) pods: usize,
    pub(super) local: usize,
    pub(super) namespaces: usize,
    pub(super) apps: usize,
    pub(super) teams: usize,
    pub(super) policies: usize,
    /// Peers that are a block.
    pub(super) blocks: usize,
    /// Ports that are a range.
    pub(super) ranges: usize,
    /// Ports that are a name.
    pub(super) names: usize,
}

pub(super) const S1: Shape =
    Shape { pods: 1000, local: 100, namespaces: 10, apps: 10, teams: 3, policies: 50, blocks: 10, ranges: 5, names: 0 };
pub(super) const S2: Shape =
    Shape { pods: 10_000, local: 110, namespaces: 100, apps: 10, teams: 20, policies: 1000, blocks: 10, ranges: 10, names: 5 };
pub(super) const S3: Shape =
    Shape { pods: 100_000, local: 110, namespaces: 500, apps: 20, teams: 50, policies: 10_000, blocks: 25, ranges: 20, names: 10 };
pub(super) const S4: Shape =
    Shape { pods: 10_000, local: 110, namespaces: 5, apps: 200, teams: 5, policies: 6000, blocks: 25, ranges: 20, names: 10 };
pub(super) const X: Shape =
    Shape { pods: 1_000_000, local: 250, namespaces: 5000, apps: 20, teams: 500, policies: 100_000, blocks: 25, ranges: 20, names: 10 };

const TIERS: usize = 3;
const NAMED: [(&str, &[u16]); 3] = [("http", &[80, 8080, 8000, 3000]), ("metrics", &[9090, 9100, 9102]), ("grpc", &[50_051, 9000])];
/// The first ones are asked for most.
pub(crate) const COMMON_PORTS: [u16; 40] = [
    80, 443, 8080, 8443, 53, 5432, 3306, 6379, 9090, 9100, 27_017, 9092, 2181, 2379, 2380, 6443, 10_250, 22, 25, 389, 636, 993, 995, 1433,
    1521, 5000, 5601, 5671, 5672, 7000, 7001, 8000, 8081, 8888, 9000, 9042, 9200, 9300, 11_211, 15_672,
];

/// A cluster of that shape.
pub(super) fn generate(shape: Shape, random: &mut SplitMix) -> Snapshot {
    let (mut cluster, _) = pods(shape, random);
    let writer = Writer::new(shape, random);
    for _ in 0..shape.policies {
        let namespace = random.below(shape.namespaces);
        let spec = writer.policy(random);
        cluster.add_policy(&namespace_name(namespace), "allow", spec);
    }
    cluster.finish()
}

/// The same pods with few policies, each for a whole namespace that has a pod here: a policy elsewhere would cost nothing.
pub(super) fn generate_few(shape: Shape, policies: usize, random: &mut SplitMix) -> Snapshot {
    let (mut cluster, local) = pods(shape, random);
    let writer = Writer::new(shape, random);
    for index in 0..policies {
        let namespace = local[index % local.len()];
        let mut spec = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
        writer.rules(&mut spec, [true, true], random);
        cluster.add_policy(&namespace_name(namespace), "allow", spec);
    }
    cluster.finish()
}

fn namespace_name(index: usize) -> String {
    format!("ns-{index:04}")
}

fn app_name(index: usize) -> String {
    format!("app-{index:03}")
}

fn tier_name(index: usize) -> String {
    format!("tier-{index}")
}

fn team_name(index: usize) -> String {
    format!("team-{index:03}")
}

/// Namespaces and pods; also the namespaces that have a pod here.
fn pods(shape: Shape, random: &mut SplitMix) -> (Cluster, Vec<usize>) {
    let mut cluster = Cluster::new(shape.pods, shape.local, random);
    let mut templates = Vec::with_capacity(shape.namespaces * shape.apps);
    for namespace in 0..shape.namespaces {
        cluster.add_namespace(&namespace_name(namespace), [("team", &team_name(namespace % shape.teams))]);
        for app in 0..shape.apps {
            let (name, tier) = (app_name(app), tier_name(app % TIERS));
            let template = Template::new(&namespace_name(namespace), &name, [("app", &name), ("tier", &tier)]);
            templates.push(NAMED.iter().fold(template, |template, (name, numbers)| template.serving(name, *random.pick(numbers))));
        }
    }
    let mut local = Vec::new();
    for pod in 0..shape.pods {
        let template = pod % templates.len();
        if cluster.is_next_local() && !local.contains(&(template / shape.apps)) {
            local.push(template / shape.apps);
        }
        cluster.add_pod(&templates[template]);
    }
    (cluster, local)
}

struct Writer {
    shape: Shape,
    /// Blocks that policies share, the last two of each family open to all but a few addresses.
    v4: Vec<Value>,
    v6: Vec<Value>,
}

impl Writer {
    fn new(shape: Shape, random: &mut SplitMix) -> Self {
        let count = (shape.policies / 3).max(10);
        let v4 = (0..count).map(|_| {
            let (length, excepts) = (*random.pick(&[8, 12, 16, 16, 20, 22, 24, 24, 24, 28, 32]), random.below(4));
            Family::V4.block(length, 31, if length < 28 { excepts } else { 0 }, random)
        });
        let mut v4: Vec<Value> = v4.collect();
        let v6 = (0..count).map(|_| {
            let (length, excepts) = (*random.pick(&[40, 48, 48, 56, 64, 64, 128]), random.below(4));
            Family::V6.block(length, 64, excepts, random)
        });
        let mut v6: Vec<Value> = v6.collect();
        v4.push(json!({"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]}));
        v4.push(json!({"cidr": "0.0.0.0/0", "except": ["169.254.169.254/32"]}));
        v6.push(json!({"cidr": "::/0", "except": ["fc00::/7"]}));
        v6.push(json!({"cidr": "::/0", "except": ["fd00:ec2::254/128"]}));
        Self { shape, v4, v6 }
    }

    fn policy(&self, random: &mut SplitMix) -> Value {
        let selector = match random.below(100) {
            0..10 => json!({}),
            10..65 => labels("app", &app_name(random.below(self.shape.apps))),
            _ => labels("tier", &tier_name(random.below(TIERS))),
        };
        let (wanted, types) = match random.below(10) {
            0..5 => ([true, false], json!(["Ingress"])),
            5..7 => ([false, true], json!(["Egress"])),
            _ => ([true, true], json!(["Ingress", "Egress"])),
        };
        let mut spec = json!({"podSelector": selector, "policyTypes": types});
        self.rules(&mut spec, wanted, random);
        spec
    }

    fn rules(&self, spec: &mut Value, wanted: [bool; 2], random: &mut SplitMix) {
        for (list, peers, _) in [("ingress", "from", wanted[0]), ("egress", "to", wanted[1])].into_iter().filter(|(.., wanted)| *wanted) {
            let rules = (0..1 + random.below(3)).map(|_| json!({peers: self.peers(random), "ports": self.ports(random)}));
            spec[list] = rules.collect();
        }
    }

    fn peers(&self, random: &mut SplitMix) -> Vec<Value> {
        let mut peers = Vec::new();
        for _ in 0..1 + random.below(3) {
            if random.chance(self.shape.blocks) {
                peers.push(json!({"ipBlock": block(&self.v4, random)}));
                if random.chance(50) {
                    peers.push(json!({"ipBlock": block(&self.v6, random)}));
                }
            } else {
                peers.push(self.pod_peer(random));
            }
        }
        peers
    }

    /// Of the policy's own namespace, of a team's namespaces, or of all.
    fn pod_peer(&self, random: &mut SplitMix) -> Value {
        let pods = match random.below(10) {
            0..4 => labels("app", &app_name(random.below(self.shape.apps))),
            4..8 => labels("tier", &tier_name(random.below(TIERS))),
            _ => json!({}),
        };
        match random.below(100) {
            0..55 => json!({"podSelector": pods}),
            55..97 => json!({"namespaceSelector": labels("team", &team_name(random.below(self.shape.teams))), "podSelector": pods}),
            _ => json!({"namespaceSelector": {}, "podSelector": labels("app", &app_name(random.below(self.shape.apps)))}),
        }
    }

    fn ports(&self, random: &mut SplitMix) -> Vec<Value> {
        if random.chance(10) { Vec::new() } else { (0..1 + random.below(4)).map(|_| self.port(random)).collect() }
    }

    fn port(&self, random: &mut SplitMix) -> Value {
        let drawn = random.below(100);
        if drawn < self.shape.ranges {
            let first = 1024 + random.below(60_000);
            let last = (first + random.pick(&[9, 99, 999, 2767])).min(65_535);
            return json!({"protocol": if random.chance(80) { "TCP" } else { "UDP" }, "port": first, "endPort": last});
        }
        if drawn < self.shape.ranges + self.shape.names {
            return json!({"protocol": "TCP", "port": random.pick(&NAMED).0});
        }
        let common = COMMON_PORTS[random.skewed(COMMON_PORTS.len())];
        let number = if random.chance(15) { 1024 + random.below(20_000) as u16 } else { common };
        let protocol = match random.below(100) {
            _ if number == 53 => "UDP",
            0..5 => "UDP",
            5..7 => "SCTP",
            _ => "TCP",
        };
        json!({"protocol": protocol, "port": number})
    }
}

/// One in five is open to almost all.
fn block<'b>(pool: &'b [Value], random: &mut SplitMix) -> &'b Value {
    let (drawn, open) = pool.split_at(pool.len() - 2);
    let from = if random.chance(20) { open } else { drawn };
    random.pick(from)
}
