//! Namespaces and nodes: coming, being relabelled, going with what is in them.

use super::Script;
use super::addresses::{of_node, ranges};
use super::objects::{TEAMS, namespace, node};
use crate::store::{DeleteOptions, Object, Part};
use serde_json::json;

/// Names of the namespaces that scripts made begin so.
const NAMESPACE_PREFIX: &str = "team-";
const NODE_PREFIX: &str = "node-";

/// Whether a script made this namespace.
pub(super) fn is_ours(namespace: &Object) -> bool {
    namespace.name().starts_with(NAMESPACE_PREFIX)
}

fn node_name(number: usize) -> String {
    format!("{NODE_PREFIX}{number}")
}

/// The number in a node's name.
pub(super) fn node_number(name: &str) -> Option<usize> {
    name.strip_prefix(NODE_PREFIX)?.parse().ok()
}

impl Script {
    pub(super) fn change_namespaces(&mut self) -> String {
        let ours: Vec<_> = self.list("namespaces").iter().filter(|namespace| is_ours(namespace)).cloned().collect();
        if ours.len() < self.size.namespaces || (ours.len() < self.size.namespaces * 2 && self.chance(15)) {
            return self.add_namespace();
        }
        let namespace = &ours[self.random.usize(..ours.len())];
        if self.chance(15) {
            return self.delete("namespaces", namespace, &DeleteOptions::default());
        }
        let team = if self.chance(20) { None } else { Some(self.one_of(&TEAMS)) };
        self.patch("namespaces", namespace, Part::Main, &json!({"metadata": {"labels": {"team": team}}}))
    }

    pub(super) fn add_namespace(&mut self) -> String {
        let (name, team) = (format!("{NAMESPACE_PREFIX}{}", self.number()), self.one_of(&TEAMS));
        self.create("namespaces", namespace(&name, team))
    }

    pub(super) fn change_nodes(&mut self) -> String {
        let nodes = self.list("nodes");
        if nodes.len() <= self.size.nodes {
            return self.add_node();
        }
        let node = &nodes[self.random.usize(..nodes.len())];
        // The pod garbage collector takes the node's pods along.
        for pod in self.list("pods").iter().filter(|pod| pod.node_name() == node.name()) {
            self.delete("pods", pod, &DeleteOptions::now());
        }
        self.delete("nodes", node, &DeleteOptions::default())
    }

    pub(super) fn add_node(&mut self) -> String {
        let free = |number: &usize| self.store.place("nodes", "", &node_name(*number)).and_then(|place| self.store.get(place)).is_err();
        let number = (self.count("nodes")..).find(free).unwrap_or_default();
        self.create("nodes", node(&node_name(number), &of_node(number), &ranges(number)))
    }
}
