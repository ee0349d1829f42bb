//! A difference between a table and the oracle, for people.

use super::cells::Cell;
use crate::oracle::{Oracle, RuleRef};
use crate::snapshot::Snapshot;
use sluice_flow::{Addr, Direction, LocalEndpoint, ObjectName, Protocol, Verdict};
use sluice_table::Table;
use std::fmt;
use std::net::IpAddr;

/// Where a table says something else than the oracle. It must not be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Counterexample {
    /// The table's endpoints are not the snapshot's.
    #[error("port {port}: the snapshot has {expected}, the table has {found}")]
    Endpoint {
        /// Which port.
        port: u16,
        /// A pod, or nothing.
        expected: String,
        /// A pod, or nothing.
        found: String,
    },
    /// One says that policies isolate the pod, the other that none does; or they name different ones.
    #[error("{pod} {direction}: the oracle finds it isolated by [{expected}], the table by [{found}]")]
    Isolation {
        /// Which pod.
        pod: ObjectName,
        /// In which direction.
        direction: Direction,
        /// Policies.
        expected: String,
        /// Policies.
        found: String,
    },
    /// An address is a service's for one and an ordinary one for the other.
    #[error("{address}: the oracle finds it {expected}, the table {found}")]
    Service {
        /// Which address.
        address: IpAddr,
        /// What it is.
        expected: &'static str,
        /// What the table takes it for.
        found: &'static str,
    },
    /// A verdict, or the rule behind it.
    #[error("{0}")]
    Verdict(Box<WrongVerdict>),
}

/// A packet that the table judges wrongly.
///
/// ```text
/// y/client (10.0.1.1) → x/web (10.0.0.1) 91/TCP, ingress of x/web
///   oracle: denied; nearest is x/p ingress[1]: the port: rule allows 80-90/TCP, asked 91/TCP
///   table:  allowed by x/p ingress[1]
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongVerdict {
    /// Whose policy.
    pub endpoint: LocalEndpoint,
    /// In which direction.
    pub direction: Direction,
    /// The other end.
    pub remote: IpAddr,
    /// The pods that claim that address, by name.
    pub remote_pods: Vec<ObjectName>,
    /// The protocol.
    pub protocol: Protocol,
    /// The destination port; 0 where the protocol has none.
    pub port: u16,
    /// The oracle's verdict and its reason.
    pub expected: String,
    /// The table's verdict.
    pub found: String,
}

impl fmt::Display for WrongVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = self.endpoint.addresses.iter().find(|own| own.is_ipv4() == self.remote.is_ipv4());
        let own = own.map_or_else(|| self.endpoint.pod.to_string(), |own| format!("{} ({own})", self.endpoint.pod));
        let names: Vec<String> = self.remote_pods.iter().map(ObjectName::to_string).collect();
        let remote = if names.is_empty() { self.remote.to_string() } else { format!("{} ({})", names.join(" and "), self.remote) };
        let (from, to) = match self.direction {
            Direction::Ingress => (remote, own),
            Direction::Egress => (own, remote),
        };
        let port = if self.protocol.has_ports() { format!("{}/{}", self.port, self.protocol) } else { self.protocol.to_string() };
        writeln!(f, "{from} → {to} {port}, {} of {}", self.direction, self.endpoint.pod)?;
        writeln!(f, "  oracle: {}", self.expected)?;
        write!(f, "  table:  {}", self.found)
    }
}

impl WrongVerdict {
    /// Asks both sides about one packet.
    pub(super) fn of(
        snapshot: &Snapshot,
        table: &Table,
        (endpoint, direction): (&LocalEndpoint, Direction),
        remote: IpAddr,
        (cell, port): (Cell, u16),
    ) -> Self {
        let icmp = if remote.is_ipv4() { Protocol::ICMP } else { Protocol::ICMPV6 };
        let protocol = cell.protocol.unwrap_or(icmp);
        let port = if cell.protocol.is_some() { port } else { 0 };
        let oracle = Oracle::new(snapshot);
        let judgement = oracle.judge(&endpoint.pod, direction, remote, protocol, port);
        let expected = match (judgement.isolated, judgement.allowed_by, judgement.nearest_miss) {
            (false, ..) => "not isolated".to_owned(),
            (true, Some(rule), _) => format!("allowed by {rule}"),
            (true, None, Some(miss)) => format!("denied; nearest is {}: {}", miss.rule, miss.failed),
            (true, None, None) => "denied; no rule at all".to_owned(),
        };
        let found = match table.lookup(endpoint.port, direction, Addr::from(remote), protocol, port) {
            Verdict::NotIsolated => "not isolated".to_owned(),
            Verdict::Deny => "denied".to_owned(),
            Verdict::Allow(id) => match table.rule(id) {
                Some(name) => {
                    let (policy, direction, index) = (name.policy.clone(), name.direction, name.index as usize);
                    format!("allowed by {}", RuleRef { policy, direction, index })
                }
                None => format!("allowed by a nameless rule, {}", id.0),
            },
        };
        let remote_pods = oracle.pods_at(remote).iter().map(|&pod| pod.clone()).collect();
        Self { endpoint: endpoint.clone(), direction, remote, remote_pods, protocol, port, expected, found }
    }
}
