//! On which nodes each policy must be in force.

use super::of_namespace;
use imbl::ordmap::DiffItem;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use sluice_flow::{Direction, ObjectName};
use sluice_policy::pod::Pod;
use sluice_policy::{Objects, Oracle, Snapshot};
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};

/// On which nodes pods are that a policy selects.
#[derive(Debug, Default)]
pub(super) struct Selected {
    pods: Objects<ObjectName, Pod>,
    policies: Objects<ObjectName, NetworkPolicy>,
    nodes: BTreeMap<ObjectName, BTreeSet<SmolStr>>,
}

impl Selected {
    pub(super) fn nodes(&self, policy: &ObjectName) -> &BTreeSet<SmolStr> {
        static NONE: BTreeSet<SmolStr> = BTreeSet::new();
        self.nodes.get(policy).unwrap_or(&NONE)
    }

    /// Cost: that of the namespaces in which a pod or a policy changed.
    pub(super) fn update(&mut self, snapshot: &Snapshot) {
        let mut changed = namespaces_of(self.pods.diff(&snapshot.pods));
        changed.extend(namespaces_of(self.policies.diff(&snapshot.policies)));
        (self.pods, self.policies) = (snapshot.pods.clone(), snapshot.policies.clone());
        for namespace in changed {
            self.nodes.retain(|policy, _| policy.namespace != namespace);
            let inside = Snapshot {
                namespaces: snapshot.namespaces.clone(),
                policies: of_namespace(&snapshot.policies, &namespace),
                pods: of_namespace(&snapshot.pods, &namespace),
                ..Snapshot::default()
            };
            if inside.policies.is_empty() {
                continue;
            }
            let oracle = Oracle::new(&inside);
            for (name, pod) in &inside.pods {
                let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) else { continue };
                for direction in Direction::BOTH {
                    for policy in oracle.side(name, direction).isolating() {
                        self.nodes.entry(policy.clone()).or_default().insert(node.clone());
                    }
                }
            }
        }
    }
}

fn namespaces_of<'s, V: 's>(differences: impl Iterator<Item = DiffItem<'s, 's, ObjectName, V>>) -> BTreeSet<String> {
    let named = |difference| match difference {
        DiffItem::Add(name, _) | DiffItem::Remove(name, _) | DiffItem::Update { new: (name, _), .. } => name,
    };
    differences.map(named).map(|name: &ObjectName| name.namespace.clone()).collect()
}
