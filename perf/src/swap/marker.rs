//! A policy that says of which generation a table is.
//!
//! It allows some of 32 ports of one pod from one address. Whoever asks about all of them reads 32 bits:
//!
//! ```text
//!  bits  0 … 15   every second one, and the others in the next generation: two tables in a row agree in none of them
//!  bits 16 … 31   drawn from the generation
//! ```

use crate::random::SplitMix;
use anyhow::{Context, Result, bail};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::json;
use sluice_flow::{Addr, Direction, LocalEndpoint, Protocol, Verdict};
use sluice_policy::{ObjectName, Snapshot};
use sluice_table::{Query, Table};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// Ports of the marker.
pub(super) const BITS: usize = 32;
/// Bits that are others in each generation.
pub(super) const FLIPPING: usize = 16;
/// Of a range for benchmarks (RFC 2544), so that it is nobody's.
const PEER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const NAME: &str = "marker-of-the-generation";
/// Ports that no change of the bench touches.
const PORTS: std::ops::Range<u16> = 61_000..65_500;

/// What the marker says in that generation.
pub(super) fn word(generation: u64) -> u32 {
    let flipping = if generation.is_multiple_of(2) { 0x5555 } else { 0xaaaa };
    let drawn = SplitMix::new(generation).next() as u32 & 0xffff;
    drawn << FLIPPING | flipping
}

/// Where the marker stands.
#[derive(Debug, Clone)]
pub(super) struct Marker {
    endpoint: LocalEndpoint,
    labels: serde_json::Value,
    first_port: u16,
}

impl Marker {
    /// Finds a pod attached here and ports of it that nothing else allows. `table` is that of `snapshot`.
    ///
    /// # Errors
    ///
    /// Every pod allows everything.
    pub(super) fn find(snapshot: &Snapshot, table: &Table) -> Result<Self> {
        for endpoint in snapshot.endpoints.iter().filter(|endpoint| table.isolated(endpoint.port, Direction::Ingress)) {
            for first_port in PORTS.step_by(BITS) {
                let labels = snapshot.pods.get(&endpoint.pod).context("an endpoint without a pod")?.metadata.labels.clone();
                let marker = Self { endpoint: endpoint.clone(), labels: json!(labels.unwrap_or_default()), first_port };
                if marker.read(table) == 0 {
                    return Ok(marker);
                }
            }
        }
        bail!("no pod attached here denies {BITS} ports in a row")
    }

    /// The policy of that generation.
    pub(super) fn policy(&self, generation: u64) -> (ObjectName, Arc<NetworkPolicy>) {
        let allowed = (0..BITS).filter(|bit| word(generation) >> bit & 1 == 1);
        let ports: Vec<_> = allowed.map(|bit| json!({"protocol": "TCP", "port": self.first_port + bit as u16})).collect();
        let namespace = &self.endpoint.pod.namespace;
        let object = json!({
            "metadata": {"namespace": namespace, "name": NAME},
            "spec": {
                "podSelector": {"matchLabels": self.labels},
                "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"ipBlock": {"cidr": format!("{PEER}/32")}}], "ports": ports}],
            },
        });
        (ObjectName::new(namespace, NAME), Arc::new(serde_json::from_value(object).expect("a policy")))
    }

    /// The question about one bit.
    pub(super) fn query(&self, bit: usize) -> Query {
        let (remote, dport) = (Addr::from(IpAddr::from(PEER)), self.first_port + bit as u16);
        Query { remote, port: self.endpoint.port, dport, protocol: Protocol::TCP, direction: Direction::Ingress }
    }

    /// What a table's marker says.
    pub(super) fn read(&self, table: &Table) -> u32 {
        let says = |bit: usize| {
            let Query { remote, port, dport, protocol, direction } = self.query(bit);
            u32::from(table.lookup(port, direction, remote, protocol, dport) != Verdict::Deny) << bit
        };
        (0..BITS).map(says).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Workload;
    use sluice_policy::compile;

    #[test]
    fn tables_in_a_row_agree_in_no_flipping_bit_and_no_two_say_the_same() {
        let mask = (1 << FLIPPING) - 1;
        for generation in 1..1000 {
            assert_eq!((word(generation) ^ word(generation + 1)) & mask, mask, "{generation}");
            assert_ne!(word(generation) & mask, 0, "a policy without ports would allow all of them");
        }
        let words: std::collections::HashSet<u32> = (1..=64).map(word).collect();
        assert_eq!(words.len(), 64);
    }

    #[test]
    fn a_table_says_its_generation() {
        let mut snapshot = Workload::S1.generate(1).unwrap();
        let marker = Marker::find(&snapshot, &Table::from_bytes(&compile(&snapshot, 1).unwrap()).unwrap()).unwrap();
        for generation in [7, 8] {
            let (name, policy) = marker.policy(generation);
            snapshot.policies.insert(name, policy);
            let table = Table::from_bytes(&compile(&snapshot, generation).unwrap()).unwrap();
            assert_eq!(marker.read(&table), word(generation));
        }
    }
}
