//! G6: 100 nodes of 110 pods, 1100 namespaces of ten pods and ten policies, as kube-burner writes them, and a default deny
//! in each. Source: kube-burner/kube-burner-ocp, pkg/workloads/network-policy.go.

use super::blocks::Family;
use super::objects::{Cluster, Template, deny_all};
use crate::random::SplitMix;
use serde_json::{Value, json};
use sluice_policy::Snapshot;

const NAMESPACES: usize = 1100;
const PODS: usize = 10;
const POLICIES: usize = 10;

pub(super) fn generate(random: &mut SplitMix) -> Snapshot {
    let mut cluster = Cluster::new(NAMESPACES * PODS, 110, random);
    for namespace in 0..NAMESPACES {
        let name = namespace_name(namespace);
        cluster.add_namespace(&name, []);
        (0..PODS).for_each(|pod| cluster.add_pod(&Template::new(&name, "test", [("num", &pod.to_string())])));
        cluster.add_policy(&name, "deny-all", deny_all());
        for policy in 0..POLICIES {
            cluster.add_policy(&name, "ingress", spec(namespace, policy, random));
        }
    }
    cluster.finish()
}

fn namespace_name(index: usize) -> String {
    format!("burner-{index:04}")
}

/// Two local pods are open to two pods in each of two other namespaces and to two CIDRs, at two ports and two ranges.
fn spec(namespace: usize, policy: usize, random: &mut SplitMix) -> Value {
    let one_of =
        |pods: [usize; 2]| json!({"matchExpressions": [{"key": "num", "operator": "In", "values": pods.map(|pod| pod.to_string())}]});
    let mut from: Vec<Value> = [1, 2]
        .map(|step| {
            let other = (namespace + 1 + policy * 2 + step * 7) % NAMESPACES;
            let namespaces = json!({"matchLabels": {"kubernetes.io/metadata.name": namespace_name(other)}});
            json!({"namespaceSelector": namespaces, "podSelector": one_of([random.below(PODS), random.below(PODS)])})
        })
        .into();
    from.extend([Family::V4.block(24, 32, 0, random), Family::V6.block(64, 128, 0, random)].map(|block| json!({"ipBlock": block})));
    let first = 1000 + policy * 100;
    let ports = json!([
        {"protocol": "TCP", "port": first},
        {"protocol": "TCP", "port": first + 1},
        {"protocol": "TCP", "port": first + 10, "endPort": first + 19},
        {"protocol": "TCP", "port": first + 30, "endPort": first + 49},
    ]);
    let selected = one_of([policy, (policy + 1) % PODS]);
    json!({"podSelector": selected, "policyTypes": ["Ingress"], "ingress": [{"from": from, "ports": ports}]})
}
