//! G1: the cluster of Kubernetes' own load test at 5000 nodes.
//!
//! 50 namespaces of 3000 pods, 30 on each node; deployments of 250, 30 and 5 pods, a policy for every tenth.
//! Source: kubernetes/perf-tests, clusterloader2/testing/load/config.yaml.

use super::objects::{Cluster, Template, labels, tcp};
use crate::random::SplitMix;
use serde_json::json;
use sluice_policy::Snapshot;

const NAMESPACES: usize = 50;
const PODS_PER_NODE: usize = 30;
/// Name, how many in each namespace, pods of each.
const DEPLOYMENTS: [(&str, usize, usize); 3] = [("big", 2, 250), ("medium", 23, 30), ("small", 298, 5)];
const PODS_OF_NAMESPACE: usize = 3000;

pub(super) fn generate(random: &mut SplitMix) -> Snapshot {
    let mut cluster = Cluster::new(NAMESPACES * PODS_OF_NAMESPACE, PODS_PER_NODE, random);
    for namespace in (0..NAMESPACES).map(|index| format!("test-{index:02}")) {
        cluster.add_namespace(&namespace, []);
        let deployments = DEPLOYMENTS.iter().flat_map(|&(size, count, pods)| (0..count).map(move |index| (size, index, pods)));
        let mut left = PODS_OF_NAMESPACE;
        for (size, index, pods) in deployments {
            let name = format!("{size}-deployment-{index}");
            let template = Template::new(&namespace, &name, [("name", &name), ("group", "load")]);
            left -= pods;
            (0..pods).for_each(|_| cluster.add_pod(&template));
            if index % 10 == 0 {
                let egress = json!([{"to": [{"ipBlock": {"cidr": "10.0.0.0/24"}}], "ports": tcp(&[8080])}]);
                let spec = json!({"podSelector": labels("name", &name), "policyTypes": ["Egress"], "egress": egress});
                cluster.add_policy(&namespace, "allow-egress", spec);
            }
        }
        // jobs and StatefulSets, which no policy selects
        let rest = Template::new(&namespace, "job", [("name", "job"), ("group", "load")]);
        (0..left).for_each(|_| cluster.add_pod(&rest));
    }
    cluster.finish()
}
