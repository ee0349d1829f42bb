//! Nodes and their addresses.
//!
//! ```text
//!   on a directory: node            pods 10.88.0.0/16, fd88::/64
//!   in a cluster:   node1, node2…   172.30.0.10+N, fd30::10+N on the underlay
//!                                   pods 10.88.N.0/24, fd88:0:0:N::/64
//!   services                        10.96.0.0/16, fd96::/112
//!   API server                      172.30.0.1, fd30::1, port 6443
//! ```

use crate::layout::ONLY_NODE;
use crate::state::NodeState;
use anyhow::{Result, ensure};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Their numbers stand in the third byte of pods' addresses and behind [`NODE_ADDRESS_BASE`] in the fourth of their own.
pub(crate) const NODES_MAX: usize = 64;
/// The first address of a network after its own and the gateway's.
const FIRST_HOST: u32 = 2;
const NODE_ADDRESS_BASE: u8 = 10;
/// Of all pods, as kube-proxy is told.
pub(crate) const CLUSTER_NETWORKS: [&str; 2] = ["10.88.0.0/16", "fd88::/48"];
/// Services get addresses from these, each with 16 bits of its own.
pub(crate) const SERVICE_NETWORKS: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(10, 96, 0, 0), Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 0, 0));
/// Length of the underlay's networks.
pub(crate) const UNDERLAY_PREFIXES: [u8; 2] = [24, 64];

/// The only node of a lab on a directory.
pub(crate) fn only() -> BTreeMap<String, NodeState> {
    BTreeMap::from([(ONLY_NODE.to_owned(), NodeState::default())])
}

/// `node1` to `nodeN`.
///
/// # Errors
///
/// None, or more than there is room for.
pub(crate) fn several(count: usize) -> Result<BTreeMap<String, NodeState>> {
    ensure!((1..=NODES_MAX).contains(&count), "a cluster has 1 to {NODES_MAX} nodes, not {count}");
    let node = |number: usize| (format!("node{number}"), NodeState { number: number as u8, ..NodeState::default() });
    Ok((1..=count).map(node).collect())
}

/// The API server's addresses, also the underlay's own.
pub(crate) fn api_addresses() -> [IpAddr; 2] {
    underlay_addresses(1)
}

fn underlay_addresses(host: u8) -> [IpAddr; 2] {
    [Ipv4Addr::new(172, 30, 0, host).into(), Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, host.into()).into()]
}

impl NodeState {
    /// Its own addresses on the underlay, one of each family.
    pub fn addresses(&self) -> [IpAddr; 2] {
        underlay_addresses(NODE_ADDRESS_BASE + self.number)
    }

    /// The networks of its pods.
    pub fn pod_networks(&self) -> [String; 2] {
        match self.number {
            0 => ["10.88.0.0/16".into(), "fd88::/64".into()],
            number => [format!("10.88.{number}.0/24"), format!("fd88:0:0:{number:x}::/64")],
        }
    }

    /// Pods that its IPv4 network has room for.
    pub(crate) fn slots_max(&self) -> u32 {
        if self.number == 0 { 65_000 } else { 252 }
    }

    /// The addresses of the pod in this place.
    pub(crate) fn pod_addresses(&self, slot: u32) -> [IpAddr; 2] {
        let host = slot + FIRST_HOST;
        let [_, _, high, low] = host.to_be_bytes();
        let (third, segment) = if self.number == 0 { (high, 0) } else { (self.number, self.number.into()) };
        [Ipv4Addr::new(10, 88, third, low).into(), Ipv6Addr::new(0xfd88, 0, 0, segment, 0, 0, 0, host as u16).into()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(addresses: [IpAddr; 2]) -> [String; 2] {
        addresses.map(|address| address.to_string())
    }

    #[test]
    fn the_first_pods_follow_the_gateway() {
        let only = NodeState::default();
        assert_eq!(text(only.pod_addresses(0)), ["10.88.0.2", "fd88::2"]);
        assert_eq!(text(only.pod_addresses(298)), ["10.88.1.44", "fd88::12c"]);
    }

    #[test]
    fn the_last_pod_of_the_last_node_is_within_its_network() {
        let nodes = several(NODES_MAX).unwrap();
        let last = &nodes["node64"];
        assert_eq!(text(last.pod_addresses(last.slots_max() - 1)), ["10.88.64.253", "fd88:0:0:40::fd"]);
        assert_eq!(last.pod_networks(), ["10.88.64.0/24", "fd88:0:0:40::/64"]);
        assert_eq!(text(last.addresses()), ["172.30.0.74", "fd30::4a"]);
        assert!(several(0).is_err() && several(NODES_MAX + 1).is_err());
    }
}
