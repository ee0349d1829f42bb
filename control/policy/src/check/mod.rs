//! Before an image is published, its verdicts are compared with the oracle's.
//!
//! Verdicts can change only where some object draws a line: at a pod's address, at the edges of an ipBlock or except, at
//! the ends of a port range, at the number behind a port's name. So a question on and beside each line, for each pod
//! attached here and each direction, stands for all questions.
//!
//! ```text
//!   endpoints × directions × remotes × (protocol, port)     compared: isolated? allowed? by which rule?
//! ```
//!
//! Where that product is beyond the budget, a sample of it is compared: spread evenly over each endpoint and direction,
//! the same one for the same snapshot, so that a failure can be repeated. The report says how much of the product was
//! done; nobody may call a sample a proof.

mod probes;
#[cfg(test)]
mod tests;

use crate::oracle::{Oracle, Rule, RuleRef, Side};
use crate::snapshot::Snapshot;
use probes::Probes;
use sluice_flow::limits::PORTS_MAX;
use sluice_flow::{Addr, Direction, LocalEndpoint, ObjectName, PortIndex, Protocol, Verdict};
use sluice_table::Table;
use std::net::IpAddr;

/// How much work a check may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckBudget {
    /// Verdicts compared.
    pub checks_max: u64,
    /// Peers of rules looked at, which is what the oracle's time goes into when policies are long.
    pub peers_max: u64,
}

impl Default for CheckBudget {
    /// About a second of one core.
    fn default() -> Self {
        Self { checks_max: 2_000_000, peers_max: 10_000_000 }
    }
}

/// What was compared. Everything agreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckReport {
    /// Verdicts compared.
    pub done: u64,
    /// Verdicts in the whole product.
    pub required: u64,
}

/// The first disagreement; the image must not be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
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
    /// A verdict, or the rule behind it.
    #[error("{pod} {direction}, remote {remote}, {port}/{protocol}: the oracle says {expected}, the table says {found}")]
    Verdict {
        /// Whose policy.
        pod: ObjectName,
        /// In which direction.
        direction: Direction,
        /// The other end.
        remote: IpAddr,
        /// The protocol.
        protocol: Protocol,
        /// The destination port.
        port: u16,
        /// The oracle's verdict and its reason.
        expected: String,
        /// The table's verdict.
        found: String,
    },
}

/// Compares `table` with the oracle on `snapshot`, from which it was compiled.
///
/// Cost: bounded by `budget`, apart from one visit to each object.
///
/// # Errors
/// The first disagreement in order of endpoints, directions, addresses and ports.
pub fn check(snapshot: &Snapshot, table: &Table, budget: CheckBudget) -> Result<CheckReport, Mismatch> {
    let oracle = Oracle::new(snapshot);
    check_endpoints(&oracle, snapshot, table)?;
    let probes = Probes::of(&oracle, snapshot);
    let known: Vec<&LocalEndpoint> = snapshot.endpoints.iter().filter(|endpoint| oracle.knows(endpoint)).collect();
    let pairs = 2 * known.len() as u64;
    let mut report = CheckReport { done: 0, required: pairs * probes.len() };
    for endpoint in known {
        for direction in Direction::BOTH {
            let side = oracle.side(&endpoint.pod, direction);
            check_isolation(&side, endpoint, direction, table)?;
            let pair = Pair { oracle: &oracle, table, side: &side, endpoint, direction };
            let seed = u64::from(endpoint.port.0) * 2 + direction as u64;
            report.done += pair.compare(&probes, &Quota::of(&side, &probes, budget, pairs), seed)?;
        }
    }
    Ok(report)
}

/// A share of the budget for one endpoint in one direction: so many remotes, and so many questions about each. Whoever
/// has looked at the peers of a long policy for one remote may as well ask many ports of it.
struct Quota {
    remotes: u64,
    ports: u64,
}

impl Quota {
    fn of(side: &Side<'_>, probes: &Probes, budget: CheckBudget, pairs: u64) -> Self {
        let checks = (budget.checks_max / pairs).max(1);
        let affordable = (budget.peers_max / pairs / side.peers().max(1) as u64).max(1);
        let remotes = probes.remotes_len().min(affordable).min(checks);
        Self { remotes, ports: checks / remotes }
    }
}

fn check_endpoints(oracle: &Oracle<'_>, snapshot: &Snapshot, table: &Table) -> Result<(), Mismatch> {
    let text = |pod: &ObjectName, incarnation: u32| format!("{pod} (incarnation {incarnation})");
    let nothing = || "nothing".to_owned();
    for port in 0..PORTS_MAX as u16 {
        let endpoint = snapshot.endpoints.iter().find(|e| e.port.0 == port && oracle.knows(e));
        let expected = endpoint.map_or_else(nothing, |e| text(&e.pod, e.incarnation.0));
        let found = table.endpoint(PortIndex(port)).map_or_else(nothing, |incarnation| {
            table.names().endpoint(PortIndex(port)).map_or_else(|| "a nameless endpoint".to_owned(), |e| text(&e.pod, incarnation.0))
        });
        if expected != found {
            return Err(Mismatch::Endpoint { port, expected, found });
        }
    }
    Ok(())
}

fn check_isolation(side: &Side<'_>, endpoint: &LocalEndpoint, direction: Direction, table: &Table) -> Result<(), Mismatch> {
    let names = table.names().endpoint(endpoint.port).map_or(&[][..], |names| names.isolating(direction));
    let list = |names: &mut dyn Iterator<Item = &ObjectName>| names.map(ObjectName::to_string).collect::<Vec<_>>().join(", ");
    let (expected, mut found) = (list(&mut side.isolating()), list(&mut names.iter()));
    let isolated = table.isolated(endpoint.port, direction);
    if isolated == names.is_empty() {
        found = format!("{found}; its rows say isolated: {isolated}");
    }
    if expected == found {
        return Ok(());
    }
    Err(Mismatch::Isolation { pod: endpoint.pod.clone(), direction, expected, found })
}

/// One endpoint in one direction.
struct Pair<'p, 'a> {
    oracle: &'p Oracle<'a>,
    table: &'p Table,
    side: &'p Side<'a>,
    endpoint: &'p LocalEndpoint,
    direction: Direction,
}

impl Pair<'_, '_> {
    /// Asks as many of the product's questions as the quota has room for; returns how many.
    fn compare(&self, probes: &Probes, quota: &Quota, seed: u64) -> Result<u64, Mismatch> {
        let mut done = 0;
        for (nth, remote) in (0u64..).zip(probes.remotes(quota.remotes, seed)) {
            // Peers depend on the remote alone, so its ports share one look at them.
            let matching = self.rules_for(remote);
            for (protocol, port) in probes.ports(remote, quota.ports, seed ^ nth << 10) {
                self.compare_one(&matching, remote, protocol, port)?;
                done += 1;
            }
        }
        Ok(done)
    }

    fn rules_for(&self, remote: IpAddr) -> Vec<&Rule<'_>> {
        self.side.rules().iter().filter(|rule| self.oracle.peers_match(rule, remote)).collect()
    }

    fn compare_one(&self, matching: &[&Rule<'_>], remote: IpAddr, protocol: Protocol, port: u16) -> Result<(), Mismatch> {
        let rule = matching.iter().find(|rule| self.oracle.ports_match(self.side, rule, remote, protocol, port));
        let verdict = self.table.lookup(self.endpoint.port, self.direction, Addr::from(remote), protocol, port);
        let agree = match verdict {
            Verdict::NotIsolated => !self.side.isolated(),
            Verdict::Deny => self.side.isolated() && rule.is_none(),
            Verdict::Allow(id) => match (self.table.rule(id), rule) {
                (Some(name), Some(rule)) => rule.is(&name.policy, name.direction, name.index as usize),
                _ => false,
            },
        };
        if agree {
            return Ok(());
        }
        let judgement = self.oracle.judge(&self.endpoint.pod, self.direction, remote, protocol, port);
        let expected = match (judgement.isolated, judgement.allowed_by, judgement.nearest_miss) {
            (false, ..) => "not isolated".to_owned(),
            (true, Some(rule), _) => format!("allowed by {rule}"),
            (true, None, Some(miss)) => format!("denied (nearest is {}: {})", miss.rule, miss.failed),
            (true, None, None) => "denied (no rule at all)".to_owned(),
        };
        let found = match verdict {
            Verdict::NotIsolated => "not isolated".to_owned(),
            Verdict::Deny => "denied".to_owned(),
            Verdict::Allow(id) => match self.table.rule(id) {
                Some(name) => {
                    let (policy, direction, index) = (name.policy.clone(), name.direction, name.index as usize);
                    format!("allowed by {}", RuleRef { policy, direction, index })
                }
                None => format!("allowed by a nameless rule, {}", id.0),
            },
        };
        let (pod, direction) = (self.endpoint.pod.clone(), self.direction);
        Err(Mismatch::Verdict { pod, direction, remote, protocol, port, expected, found })
    }
}
