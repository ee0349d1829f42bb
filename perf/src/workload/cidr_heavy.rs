//! G8: 1000 policies, each with a block of its own in both families, up to four excepts inside it, and two ports.

use super::blocks::Family;
use super::objects::{Cluster, Template, tcp};
use crate::random::SplitMix;
use serde_json::json;
use sluice_policy::Snapshot;

const NAMESPACES: usize = 10;
const PODS_OF_NAMESPACE: usize = 100;
const POLICIES_OF_NAMESPACE: usize = 100;

pub(super) fn generate(random: &mut SplitMix) -> Snapshot {
    let mut cluster = Cluster::new(NAMESPACES * PODS_OF_NAMESPACE, 100, random);
    for namespace in (0..NAMESPACES).map(|index| format!("cidr-{index}")) {
        cluster.add_namespace(&namespace, []);
        let template = Template::new(&namespace, "target", [("app", "target")]);
        (0..PODS_OF_NAMESPACE).for_each(|_| cluster.add_pod(&template));
        for _ in 0..POLICIES_OF_NAMESPACE {
            let (v4, v6) = (24 + random.below(9) as u32, 56 + random.below(73) as u32);
            let blocks = [Family::V4.block(v4, 32, random.below(5), random), Family::V6.block(v6, 128, random.below(5), random)];
            let to = blocks.map(|block| json!({"ipBlock": block}));
            let spec = json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": to, "ports": tcp(&[8080, 6355])}]});
            cluster.add_policy(&namespace, "load", spec);
        }
    }
    cluster.finish()
}
