//! Draws traces, and asks the oracle about every different query of them.

use super::query::{Expected, Kind, Query, Trace, grouped, zipf};
use super::resolved::{Peer, Ports, Resolved, Side, Span, side_index};
use crate::random::SplitMix;
use crate::workload::COMMON_PORTS;
use sluice_flow::{Addr, Protocol};
use sluice_policy::oracle::RuleRef;
use sluice_policy::{Oracle, Snapshot};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

/// Different flows of the traces that repeat them.
const FLOWS: usize = 1 << 16;
/// Packets of one pod and direction in a row.
pub(crate) const BURST_MAX: usize = 64;
const V4_MAPPED: Span = (0xffff_0000_0000, 0xffff_ffff_ffff);

/// How many packets a trace has and how many flows they are drawn from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Length {
    pub(crate) packets: usize,
    pub(crate) flows: usize,
}

impl Length {
    pub(crate) fn of(packets: usize) -> Self {
        Self { packets, flows: FLOWS.min(packets) }
    }
}

/// Draws a trace of that kind and has it answered.
pub(crate) fn trace(kind: Kind, snapshot: &Snapshot, oracle: &Oracle<'_>, resolved: &Resolved, length: Length, seed: u64) -> Trace {
    let mut draw = Draw { resolved, random: SplitMix::new(seed ^ 0x7ace), families: families(kind), isolated: isolated(resolved) };
    let Length { packets, flows } = length;
    let queries = match kind {
        Kind::Uniform => (0..packets).map(|_| draw.packet()).collect(),
        Kind::Deny => (0..packets).map(|_| draw.unwanted()).collect(),
        Kind::Attack => (0..packets).map(|_| draw.attack()).collect(),
        Kind::Zipf | Kind::V6 | Kind::Dual | Kind::Bursts => {
            let flows: Vec<Query> = (0..flows).map(|_| draw.packet()).collect();
            let drawn = zipf(&flows, packets, &mut draw.random);
            if kind == Kind::Bursts { grouped(&drawn, BURST_MAX) } else { drawn }
        }
        Kind::Isolated => {
            let flows: Vec<Query> = (0..flows).map(|_| draw.packet_at_isolated()).collect();
            grouped(&zipf(&flows, packets, &mut draw.random), BURST_MAX)
        }
    };
    answer(kind, queries, snapshot, oracle)
}

/// Percent of IPv6.
fn families(kind: Kind) -> usize {
    match kind {
        Kind::V6 => 100,
        Kind::Dual => 50,
        _ => 0,
    }
}

fn isolated(resolved: &Resolved) -> Vec<usize> {
    (0..resolved.sides.len()).filter(|&side| resolved.sides[side].isolated).collect()
}

struct Draw<'r> {
    resolved: &'r Resolved,
    random: SplitMix,
    /// Percent of IPv6.
    families: usize,
    isolated: Vec<usize>,
}

impl<'r> Draw<'r> {
    /// A packet at any pod; seven of ten are aimed at a rule.
    fn packet(&mut self) -> Query {
        let side = self.random.below(self.resolved.sides.len());
        self.packet_at(side)
    }

    /// The same at a pod that policies isolate, where there is one.
    fn packet_at_isolated(&mut self) -> Query {
        let side = self.isolated_side();
        self.packet_at(side)
    }

    fn isolated_side(&mut self) -> usize {
        match self.isolated.is_empty() {
            true => self.random.below(self.resolved.sides.len()),
            false => *self.random.pick(&self.isolated),
        }
    }

    fn packet_at(&mut self, side: usize) -> Query {
        let resolved: &'r Resolved = self.resolved;
        let side = &resolved.sides[side];
        let v6 = self.random.chance(self.families);
        let mut query = self.background(side, v6);
        match self.random.below(100) {
            0..70 if !side.rules.is_empty() => self.aim(&mut query, side, v6),
            88..92 => query.dport = self.random.next() as u16,
            92.. => query.remote = self.anywhere(v6),
            _ => {}
        }
        if self.random.chance(1) {
            (query.protocol, query.dport) = (if v6 { Protocol::ICMPV6 } else { Protocol::ICMP }, 0);
        }
        query
    }

    /// Some pod, some common port.
    fn background(&mut self, side: &Side, v6: bool) -> Query {
        let identity = &self.resolved.identities[self.random.below(self.resolved.identities.len())];
        let remote = self.of_family(&identity.addresses, v6).unwrap_or_else(|| self.anywhere(v6));
        let protocol = if self.random.chance(85) { Protocol::TCP } else { Protocol::UDP };
        let dport = *self.random.pick(&COMMON_PORTS);
        Query { remote, dport, port: side.port, direction: side.direction, protocol }
    }

    /// At what a rule allows; in three of twenty cases at its peers only.
    fn aim(&mut self, query: &mut Query, side: &Side, v6: bool) {
        let rule = self.random.pick(&side.rules);
        let peers: Vec<&Peer> = rule.peers.iter().filter(|peer| has_family(peer, v6)).collect();
        if peers.is_empty() {
            return;
        }
        match *self.random.pick(&peers) {
            Peer::Everybody => {}
            Peer::Block { span, .. } => query.remote = self.within(*span),
            Peer::Identities(list) => {
                let identity = &self.resolved.identities[*self.random.pick(list) as usize];
                query.remote = self.of_family(&identity.addresses, v6).unwrap_or(query.remote);
            }
        }
        if self.random.chance(85) {
            self.aim_port(query, self.resolved, side, &rule.ports);
        }
    }

    fn aim_port(&mut self, query: &mut Query, resolved: &Resolved, side: &Side, ports: &[Ports]) {
        match self.random.pick(ports) {
            Ports::All => query.dport = self.random.next() as u16,
            &Ports::Range { protocol, first, last } => {
                (query.protocol, query.dport) = (protocol, first + self.random.below(usize::from(last - first) + 1) as u16);
            }
            Ports::Named { protocol, name } => {
                let destination = match query.direction {
                    sluice_flow::Direction::Ingress => Some(side.identity),
                    sluice_flow::Direction::Egress => resolved.identity_at(query.remote),
                };
                let number = destination.and_then(|identity| resolved.identities[identity as usize].named(name, *protocol).next());
                if let Some(number) = number {
                    (query.protocol, query.dport) = (*protocol, number);
                }
            }
        }
    }

    /// Nine of ten from a pod that nobody aimed.
    fn unwanted(&mut self) -> Query {
        let side = self.isolated_side();
        if self.random.chance(10) {
            return self.packet_at(side);
        }
        let mut query = self.background(&self.resolved.sides[side], false);
        query.dport = self.random.next() as u16;
        query
    }

    fn attack(&mut self) -> Query {
        let side = self.isolated_side();
        let mut query = self.background(&self.resolved.sides[side], false);
        (query.remote, query.dport) = (self.anywhere(false), self.random.next() as u16);
        query
    }

    fn of_family(&mut self, addresses: &[Addr], v6: bool) -> Option<Addr> {
        let meant: Vec<Addr> = addresses.iter().copied().filter(|address| address.to_v4().is_none() == v6).collect();
        if meant.is_empty() { None } else { Some(*self.random.pick(&meant)) }
    }

    /// Any IPv4 address, or one of 2000::/3.
    fn anywhere(&mut self, v6: bool) -> Addr {
        self.within(if v6 { (0x2000 << 112, (0x4000 << 112) - 1) } else { V4_MAPPED })
    }

    /// Blocks are aligned powers of two.
    fn within(&mut self, (first, last): Span) -> Addr {
        let drawn = u128::from(self.random.next()) << 64 | u128::from(self.random.next());
        Addr::from(IpAddr::from(Ipv6Addr::from(first | drawn & (last - first))).to_canonical())
    }
}

fn has_family(peer: &Peer, v6: bool) -> bool {
    match peer {
        Peer::Everybody => true,
        Peer::Identities(list) => !list.is_empty(),
        Peer::Block { v6: of_v6, .. } => *of_v6 == v6,
    }
}

/// Asks the oracle once about each different query.
fn answer(kind: Kind, queries: Vec<Query>, snapshot: &Snapshot, oracle: &Oracle<'_>) -> Trace {
    let sides: Vec<_> =
        snapshot.endpoints.iter().flat_map(|e| sluice_flow::Direction::BOTH.map(|direction| oracle.side(&e.pod, direction))).collect();
    let mut rules: Vec<RuleRef> = Vec::new();
    // a rule lives as long as its side, so that its address stands for it there; its name does everywhere
    let mut at_address: HashMap<usize, u32> = HashMap::new();
    let mut by_name: HashMap<RuleRef, u32> = HashMap::new();
    let mut known: HashMap<Query, Expected, ahash::RandomState> = HashMap::default();
    let expected = queries.iter().map(|query| {
        *known.entry(*query).or_insert_with(|| {
            let side = &sides[side_index(query.port, query.direction)];
            if !side.isolated() {
                return Expected::NotIsolated;
            }
            let remote = IpAddr::from(Ipv6Addr::from(query.remote.to_u128())).to_canonical();
            let Some(rule) = oracle.first_allowing(side, remote, query.protocol, query.dport) else { return Expected::Deny };
            Expected::Allow(*at_address.entry(std::ptr::from_ref(rule) as usize).or_insert_with(|| {
                *by_name.entry(rule.name()).or_insert_with_key(|name| {
                    rules.push(name.clone());
                    rules.len() as u32 - 1
                })
            }))
        })
    });
    let expected = expected.collect();
    Trace { kind, queries, expected, rules, distinct: known.len() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Workload;
    use clap::ValueEnum;
    use sluice_flow::Verdict;
    use sluice_policy::compile;
    use sluice_table::Table;

    #[test]
    fn a_trace_is_what_it_says_and_the_table_answers_it_like_the_oracle() {
        let snapshot = Workload::S1.generate(1).unwrap();
        let oracle = Oracle::new(&snapshot);
        let resolved = Resolved::of(&snapshot, &oracle);
        let table = Table::from_bytes(&compile(&snapshot, 1).unwrap()).unwrap();
        for &kind in Kind::value_variants() {
            let trace = trace(kind, &snapshot, &oracle, &resolved, Length::of(4096), 1);
            for (query, expected) in trace.queries.iter().zip(&trace.expected) {
                let found = table.lookup(query.port, query.direction, query.remote, query.protocol, query.dport);
                let found = match found {
                    Verdict::Deny => Expected::Deny,
                    Verdict::NotIsolated => Expected::NotIsolated,
                    Verdict::Allow(id) => {
                        let rule = table.rule(id).unwrap();
                        let named = RuleRef { policy: rule.policy.clone(), direction: rule.direction, index: rule.index as usize };
                        Expected::Allow(trace.rules.iter().position(|rule| *rule == named).unwrap() as u32)
                    }
                };
                assert_eq!(found, *expected, "{kind:?}: {query:?}");
            }
            let v6 = trace.queries.iter().filter(|query| query.remote.to_v4().is_none()).count() * 100 / trace.queries.len();
            let (allowed, range) = (trace.allowed_percent(), |low: f64, high: f64| low..high);
            let (wanted_v6, wanted) = match kind {
                Kind::V6 => (100..101, range(20.0, 95.0)),
                Kind::Dual => (35..65, range(20.0, 95.0)),
                Kind::Deny | Kind::Attack => (0..1, range(0.0, 40.0)),
                _ => (0..1, range(20.0, 95.0)),
            };
            assert!(wanted_v6.contains(&v6) && wanted.contains(&allowed), "{kind:?}: {v6} % IPv6, {allowed} % allowed");
            assert!(!matches!(kind, Kind::Bursts | Kind::Isolated) || trace.queries.len().is_multiple_of(BURST_MAX), "{kind:?}");
        }
    }

    #[test]
    fn one_seed_gives_one_trace() {
        let snapshot = Workload::S1.generate(1).unwrap();
        let oracle = Oracle::new(&snapshot);
        let resolved = Resolved::of(&snapshot, &oracle);
        let queries = |seed| trace(Kind::Dual, &snapshot, &oracle, &resolved, Length::of(1000), seed).queries;
        assert_eq!(queries(1), queries(1));
        assert_ne!(queries(1), queries(2));
    }
}
