//! Which addresses are taken: each node has a range of its own for each family.

use std::collections::BTreeMap;

/// Hosts of a node's range that pods get; what is behind them is never needed for the pods that fit on a node.
const HOSTS: std::ops::Range<usize> = 2..250;

/// The leases of pods.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// Per node, the pod's key by the host part of its addresses.
    leases: BTreeMap<usize, BTreeMap<usize, String>>,
}

impl Addresses {
    /// The lowest address of a node that no live pod has; `is_live` says which pods still have theirs. `None` if
    /// there is none left.
    pub(super) fn lease(&mut self, key: &str, node: usize, is_live: impl Fn(&str) -> bool) -> Option<[String; 2]> {
        let leases = self.leases.entry(node).or_default();
        leases.retain(|_, holder| holder != key && is_live(holder));
        let host = HOSTS.into_iter().find(|host| !leases.contains_key(host))?;
        leases.insert(host, key.to_owned());
        Some([format!("10.{}.{}.{host}", 128 + node / 256, node % 256), format!("fd00:10:{node:x}::{host:x}")])
    }
}

/// The node's own addresses.
pub(super) fn of_node(node: usize) -> [String; 2] {
    [format!("172.18.{}.{}", node / 250, node % 250 + 2), format!("fd00:172:18::{node:x}")]
}

/// The node's ranges for pods.
pub(super) fn ranges(node: usize) -> [String; 2] {
    [format!("10.{}.{}.0/24", 128 + node / 256, node % 256), format!("fd00:10:{node:x}::/64")]
}
