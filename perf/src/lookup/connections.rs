//! Lookups in the connection table of a worker, beside those in the policy table: they are what it saves, or does not.

use super::backend::{Backend, Ways};
use super::clock::after;
use super::machine::Machine;
use super::measure::{Figure, Timed, warm};
use super::query::{Kind, Query};
use crate::random::SplitMix;
use anyhow::{Result, ensure};
use serde::Serialize;
use sluice_dataplane::conntrack::{Connection, Connections};
use sluice_flow::limits::CONNECTIONS_PER_PORT_MAX;
use sluice_flow::{Addr, Direction, FlowKey, Incarnation, PortIndex, Protocol};

/// Pods of the node.
const PORTS: usize = 250;
/// Packets of a trace; every flow is as frequent as any other, which no cache likes.
const PACKETS: usize = 1 << 17;

/// A connection table of one size.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Measured {
    pub(super) flows: usize,
    pub(super) figures: Vec<Figure>,
}

/// Tables of those sizes, one after another.
///
/// # Errors
///
/// A known flow is not found, or an unknown one is.
pub(super) fn measure(sizes: &[usize], rounds: usize, seed: u64, machine: &Machine) -> Result<Vec<Measured>> {
    sizes
        .iter()
        .map(|&flows| {
            crate::progress::progress(&format!("connection table, {flows} flows"));
            let mut known = Known::of(flows, seed)?;
            let timed = Timed { kind: Kind::Uniform, queries: known.packets.len() };
            Ok(Measured { flows, figures: warm(&mut [&mut known], timed, rounds, machine) })
        })
        .collect()
}

impl Measured {
    pub(super) fn print(&self) {
        print!("  {:>9} flows:", self.flows);
        for figure in &self.figures {
            let ns = &figure.ns;
            print!("  {} {:.1} ({:.1}–{:.1}; {:.1})", figure.metric.name(), ns.median, ns.q1, ns.q3, ns.min);
        }
        println!();
    }
}

struct Known {
    connections: Connections,
    packets: Vec<FlowKey>,
}

impl Known {
    fn of(flows: usize, seed: u64) -> Result<Self> {
        assert!(flows <= PORTS * CONNECTIONS_PER_PORT_MAX, "{flows} flows");
        let mut random = SplitMix::new(seed);
        let keys: Vec<FlowKey> = (0..flows).map(|number| key(number, &mut random)).collect();
        let mut connections = Connections::with_seed(seed);
        for key in &keys {
            let connection = Connection {
                incarnation: Incarnation(1),
                allowed: true,
                deferred: false,
                both_ways: false,
                origin: None,
                rule: None,
                seen_ns: 0,
            };
            connections.insert(*key, connection);
        }
        ensure!(keys.iter().all(|key| connections.find(key).is_some()), "a known flow is not found");
        let unknown = (0..flows).map(|number| FlowKey { dport: 1, ..key(number, &mut random) });
        ensure!(unknown.into_iter().all(|key| connections.find(&key).is_none()), "an unknown flow is found");
        let packets = (0..PACKETS).map(|_| *random.pick(&keys)).collect();
        Ok(Self { connections, packets })
    }
}

/// From a pod to somewhere; the number makes it unlike all others.
fn key(number: usize, random: &mut SplitMix) -> FlowKey {
    let pod = number % PORTS;
    FlowKey {
        port: PortIndex(pod as u16),
        direction: Direction::Egress,
        departs: false,
        protocol: Protocol::TCP,
        src: Addr::v4([10, 64, 0, pod as u8 + 2]),
        dst: Addr::v4((random.next() as u32).to_be_bytes()),
        sport: (number / PORTS) as u16 + 32_768,
        dport: 443,
    }
}

impl Backend for Known {
    fn name(&self) -> &str {
        "connections"
    }

    fn takes(&self, _: Kind) -> bool {
        true
    }

    fn ways(&self) -> Ways {
        Ways::Both
    }

    fn prepare(&mut self, _: &[Query]) {}

    fn touch(&self, first: usize, count: usize) {
        std::hint::black_box(self.packets[first..first + count].iter().fold(0, |sum, key| sum ^ key.sport));
    }

    fn serial(&mut self, first: usize, passes: &mut [u8]) {
        let mut last = 0;
        for (packet, passes) in self.packets[first..].iter().zip(passes) {
            last = u32::from(self.connections.find(after(packet, last)).is_some_and(|found| found.1.allowed));
            *passes = last as u8;
        }
    }

    fn batch(&mut self, first: usize, passes: &mut [u8]) {
        for (key, passes) in self.packets[first..].iter().zip(passes) {
            *passes = u8::from(self.connections.find(key).is_some_and(|found| found.1.allowed));
        }
    }
}
