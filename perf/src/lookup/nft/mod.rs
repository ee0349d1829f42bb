//! Sets of nftables as a peer: what rules in the kernel add to a packet's way.
//!
//! A rule set cannot be asked, only passed. So packets are sent through a device that frees them at once, in a network
//! namespace of the bench's own, with the rules in force and without, in turn; the difference is what the rules cost. All of
//! it happens on one core, in the system call of the sender, and by its time on the CPU.
//!
//! ```text
//!  round 1   ingress: without │ with    egress: without │ with       (with − without) / packets
//!  round 2   ingress: with │ without    egress: with │ without       median over the rounds
//! ```

#[allow(unsafe_code)]
mod namespace;

mod cells;
mod packets;
mod ruleset;

use super::flat::flat_rules;
use super::measure::{Figure, Metric, State};
use super::query::{Expected, Trace};
use super::report::Built;
use super::resolved::{Resolved, side_index};
use crate::progress::progress;
use crate::stats::Summary;
use anyhow::{Context, Result, ensure};
use cells::cells;
use namespace::Namespace;
use packets::{Packet, Sender, packet};
use ruleset::Denied;
use sluice_flow::{Direction, LocalEndpoint};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

pub(super) const NAME: &str = "nftables sets, marginal";
/// Elements of all sets, and how long they may take. More would take minutes and gigabytes; fewer pods flatter it, since less
/// competes for the caches (S3: 1.1 µs with 400k elements, 3.7 µs with 4M).
const ELEMENTS_MAX: usize = 1_000_000;
const BUILD_MAX: Duration = Duration::from_secs(60);
/// Packets of each direction that are timed, at most.
const TIMED_MAX: usize = 1 << 15;
/// Packets of a trace whose fate is compared with the oracle's.
const CHECKED_MAX: usize = 1 << 14;

/// See the module.
#[derive(Debug)]
pub(super) struct Rules {
    namespace: Namespace,
    /// IPv4 addresses of the pods attached here.
    pods: Vec<Option<Ipv4Addr>>,
    /// By side: whether its rules are in the kernel as they should be.
    covered: Vec<bool>,
}

impl Rules {
    /// Puts the rules of as many pods as fit into a namespace.
    ///
    /// # Errors
    ///
    /// This process may not, or nft refuses something.
    pub(super) fn of(resolved: &Resolved, endpoints: &[LocalEndpoint]) -> Result<(Self, Built)> {
        let start = Instant::now();
        let namespace = Namespace::new()?;
        namespace.nft(&Direction::BOTH.map(ruleset::frame).concat())?;
        let pods: Vec<Option<Ipv4Addr>> = endpoints.iter().map(|endpoint| endpoint.addresses.iter().find_map(ipv4)).collect();
        let (mut elements, mut covered) = (0, Vec::with_capacity(resolved.sides.len()));
        for (number, side) in resolved.sides.iter().enumerate() {
            progress(&format!("{NAME}: {} of {} pods and directions, {elements} elements", number + 1, resolved.sides.len()));
            let Some(address) = pods[usize::from(side.port.0)].filter(|_| side.isolated) else {
                covered.push(true);
                continue;
            };
            let cells = if start.elapsed() < BUILD_MAX { Some(cells(&flat_rules(resolved, side))) } else { None };
            let cells = cells.filter(|cells| elements + cells.len() <= ELEMENTS_MAX);
            covered.push(cells.is_some());
            if let Some(cells) = cells {
                elements += cells.len();
                namespace.nft(&ruleset::pod(side.direction, number, address, &cells)).with_context(|| format!("{address}"))?;
            }
        }
        let part = covered.iter().filter(|covered| **covered).count();
        let all = covered.len();
        let limited = if part < all { ", for more there is no room: packets of these" } else { "" };
        let note = format!("; {elements} elements; rules of {part} of {all} pods and directions{limited}");
        let built = Built { backend: NAME.to_owned(), build_ms: start.elapsed().as_secs_f64() * 1e3, bytes: None, note };
        Ok((Self { namespace, pods, covered }, built))
    }

    /// Sends packets of `trace` one by one, and compares what becomes of each with the oracle's answer.
    ///
    /// # Errors
    ///
    /// One is let through or held up wrongly.
    pub(super) fn check(&self, trace: &Trace) -> Result<()> {
        for direction in Direction::BOTH {
            self.namespace.nft(&(ruleset::deny(direction, Denied::Drop) + &ruleset::wake(direction, true)))?;
            let asked = self.packets(trace, direction);
            let asked = &asked[..asked.len().min(CHECKED_MAX / 2)];
            self.namespace.inside(|| {
                let sender = Sender::new()?;
                for (number, packet) in asked {
                    let (found, expected) = (sender.passes(packet)?, trace.expected[*number] != Expected::Deny);
                    let query = &trace.queries[*number];
                    ensure!(found == expected, "{NAME}: {query:?}: passes: {found}, the oracle says {expected}");
                }
                Ok(())
            })?;
            self.namespace.nft(&(ruleset::wake(direction, false) + &ruleset::deny(direction, Denied::Accept)))?;
        }
        Ok(())
    }

    /// What the rules add to a packet.
    ///
    /// # Errors
    ///
    /// A packet cannot be sent, or none is left to send.
    pub(super) fn time(&self, trace: &Trace, rounds: usize) -> Result<Figure> {
        let packets = Direction::BOTH.map(|direction| {
            let packets = self.packets(trace, direction);
            packets.into_iter().take(TIMED_MAX).map(|(_, packet)| packet).collect::<Vec<Packet>>()
        });
        let total: usize = packets.iter().map(Vec::len).sum();
        let mut marginal = Vec::with_capacity(rounds);
        for round in 0..rounds {
            let mut sum = 0.0;
            for (direction, packets) in Direction::BOTH.into_iter().zip(&packets) {
                let mut ns = [0.0; 2];
                for awake in [round % 2 == 1, round % 2 == 0] {
                    self.namespace.nft(&ruleset::wake(direction, awake))?;
                    ns[usize::from(awake)] = self.namespace.inside(|| {
                        let sender = Sender::new()?;
                        // the first ones meet caches that nft left behind
                        sender.time(&packets[..packets.len().min(4096)])?;
                        sender.time(packets)
                    })?;
                }
                self.namespace.nft(&ruleset::wake(direction, false))?;
                sum += (ns[1] - ns[0]) * packets.len() as f64;
            }
            marginal.push(sum / total.max(1) as f64);
        }
        let ns = Summary::of(&marginal).filter(|_| total > 0).context("no packet that could be sent")?;
        Ok(Figure { backend: NAME.to_owned(), trace: trace.kind, state: State::Warm, metric: Metric::Throughput, ns, tail: None })
    }

    /// Packets of one direction at pods whose rules are there, with their places in the trace.
    fn packets(&self, trace: &Trace, direction: Direction) -> Vec<(usize, Packet)> {
        let meant = trace.queries.iter().enumerate().filter(|(_, query)| query.direction == direction);
        let covered = meant.filter(|(_, query)| self.covered[side_index(query.port, query.direction)]);
        covered.filter_map(|(number, query)| Some((number, packet(query, self.pods[usize::from(query.port.0)]?)?))).collect()
    }
}

fn ipv4(address: &IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::query::Kind;
    use super::super::trace::{Length, trace};
    use super::*;
    use crate::workload::Workload;
    use sluice_policy::Oracle;
    use std::io::Write;

    #[test]
    fn packets_through_the_kernel_fare_as_the_oracle_says_and_a_wrong_answer_is_found() {
        if !rustix::process::geteuid().is_root() {
            // not through eprintln!, which the test runner keeps to itself
            let _ = writeln!(std::io::stderr(), "SKIPPED: nftables as a peer needs root, nft and ip");
            return;
        }
        let snapshot = Workload::S1.generate(1).unwrap();
        let oracle = Oracle::new(&snapshot);
        let resolved = Resolved::of(&snapshot, &oracle);
        let (rules, _) = Rules::of(&resolved, &snapshot.endpoints).unwrap();
        let mut trace = trace(Kind::Zipf, &snapshot, &oracle, &resolved, Length::of(2048), 1);
        rules.check(&trace).unwrap();
        assert!(rules.time(&trace, 2).unwrap().ns.count == 2);
        let (wrong, _) = rules.packets(&trace, Direction::Egress)[17];
        trace.expected[wrong] = if trace.expected[wrong] == Expected::Deny { Expected::NotIsolated } else { Expected::Deny };
        assert!(rules.check(&trace).unwrap_err().to_string().contains("the oracle says"));
    }
}
