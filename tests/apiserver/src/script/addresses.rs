//! Which addresses are taken: each node has a range of its own for each family.

use std::collections::{BTreeMap, BTreeSet};

/// Hosts of a node's range that pods get; what is behind them is never needed for the pods that fit on a node.
const HOSTS: std::ops::Range<usize> = 2..250;

/// The leases of pods.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// Node number and host, by the pod's uid.
    leases: BTreeMap<String, (usize, usize)>,
}

impl Addresses {
    /// The lowest address of a node that no live pod has; `live` says which uids are. `None` if there is none left.
    pub(super) fn lease(&mut self, uid: &str, node: usize, live: &BTreeSet<String>) -> Option<[String; 2]> {
        self.leases.retain(|uid, _| live.contains(uid));
        let taken: BTreeSet<usize> = self.leases.values().filter(|(leased, _)| *leased == node).map(|(_, host)| *host).collect();
        let host = HOSTS.into_iter().find(|host| !taken.contains(host))?;
        self.leases.insert(uid.to_owned(), (node, host));
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
