//! G7: a node full of pods in a cluster of 150 000, with 100 policies on each of them and one pod that allows about 16 000
//! (identity, port, protocol) tuples, the limit of an endpoint's policy map in Cilium.

use super::objects::{Cluster, Template, labels, tcp};
use crate::random::SplitMix;
use serde_json::json;
use sluice_policy::Snapshot;

const NAMESPACES: usize = 1500;
const APPS: usize = 10;
const PODS: usize = NAMESPACES * 100;
const TEAMS: usize = 15;
const POLICIES_OF_POD: usize = 100;
/// 100 namespaces of a team × 10 apps × 16 ports.
const OPEN_PORTS: u16 = 16;

pub(super) fn generate(local: usize, random: &mut SplitMix) -> Snapshot {
    let mut cluster = Cluster::new(PODS, local, random);
    let names: Vec<String> = (0..NAMESPACES).map(|index| format!("dense-{index:04}")).collect();
    for (index, name) in names.iter().enumerate() {
        cluster.add_namespace(name, [("team", &team(index))]);
    }
    let mut isolated = vec![false; NAMESPACES];
    let mut is_first = true;
    for pod in 0..PODS {
        let (namespace, app) = (pod % NAMESPACES, app(pod / NAMESPACES % APPS));
        let template = Template::new(&names[namespace], &app, [("app", &app)]);
        if cluster.is_next_local() {
            if !std::mem::replace(&mut isolated[namespace], true) {
                add_policies(&mut cluster, &names[namespace], random);
            }
            if std::mem::take(&mut is_first) {
                let ports: Vec<u16> = (7000..7000 + OPEN_PORTS).collect();
                let rule = json!({"from": [{"namespaceSelector": labels("team", &team(0))}], "ports": tcp(&ports)});
                let spec = json!({"podSelector": labels("app", &app), "policyTypes": ["Ingress"], "ingress": [rule]});
                cluster.add_policy(&names[namespace], "wide", spec);
            }
        }
        cluster.add_pod(&template);
    }
    cluster.finish()
}

fn add_policies(cluster: &mut Cluster, namespace: &str, random: &mut SplitMix) {
    for _ in 0..POLICIES_OF_POD {
        let peer = json!({
            "namespaceSelector": labels("team", &team(random.below(TEAMS))),
            "podSelector": labels("app", &app(random.below(APPS))),
        });
        let ports = tcp(&[1024 + random.below(20_000) as u16, 1024 + random.below(20_000) as u16]);
        let rule = |peers: &str| json!([{peers: [peer], "ports": ports}]);
        let (list, types) = if random.chance(50) { ("ingress", "Ingress") } else { ("egress", "Egress") };
        let rules = rule(if list == "ingress" { "from" } else { "to" });
        cluster.add_policy(namespace, "allow", json!({"podSelector": {}, "policyTypes": [types], list: rules}));
    }
}

fn team(index: usize) -> String {
    format!("team-{}", index % TEAMS)
}

fn app(index: usize) -> String {
    format!("app-{index}")
}
