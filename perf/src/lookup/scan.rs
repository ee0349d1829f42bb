//! The rules of a pod one after another until one allows: what a filter does that has no structure.

use super::backend::{Backend, Ways, touch};
use super::clock::after;
use super::query::{Kind, Query};
use super::resolved::{Peer, Ports, Resolved, Side, Span, side_index};
use sluice_flow::{Direction, Protocol};
use std::collections::HashMap;
use std::sync::Arc;

/// See the module.
#[derive(Debug)]
pub(super) struct Scan<'r> {
    resolved: &'r Resolved,
    sides: Vec<Vec<Rule>>,
    queries: Vec<Query>,
}

#[derive(Debug, Clone)]
struct Rule {
    everybody: bool,
    /// One bit for each identity.
    identities: Arc<[u64]>,
    blocks: Vec<(bool, Span, Vec<Span>)>,
    /// Protocol (`None` for all of everything), first, last.
    ports: Vec<(Option<Protocol>, u16, u16)>,
    /// Names whose meaning depends on the destination: for egress.
    named: Vec<(Protocol, String)>,
}

impl<'r> Scan<'r> {
    pub(super) fn of(resolved: &'r Resolved) -> Self {
        let mut sets = HashMap::new();
        let sides = resolved.sides.iter().map(|side| side.rules.iter().map(|rule| Rule::of(resolved, side, rule, &mut sets)).collect());
        Self { resolved, sides: sides.collect(), queries: Vec::new() }
    }

    fn answer(&self, query: &Query) -> bool {
        let side = side_index(query.port, query.direction);
        if !self.resolved.sides[side].isolated {
            return true;
        }
        let identity = self.resolved.identity_at(query.remote);
        self.sides[side].iter().any(|rule| rule.has_peer(query, identity) && rule.has_port(query, identity, self.resolved))
    }
}

impl Rule {
    /// `sets`: what is known already of each rule.
    fn of(resolved: &Resolved, side: &Side, rule: &Arc<super::resolved::Rule>, sets: &mut HashMap<usize, Arc<[u64]>>) -> Self {
        let set = sets.entry(Arc::as_ptr(rule) as usize).or_insert_with(|| {
            let mut bits = vec![0; resolved.identities.len().div_ceil(64)];
            for peer in &rule.peers {
                if let Peer::Identities(list) = peer {
                    list.iter().for_each(|&identity| bits[identity as usize / 64] |= 1 << (identity % 64));
                }
            }
            bits.into()
        });
        let mut made = Self { everybody: false, identities: Arc::clone(set), blocks: Vec::new(), ports: Vec::new(), named: Vec::new() };
        for peer in &rule.peers {
            match peer {
                Peer::Everybody => made.everybody = true,
                Peer::Identities(_) => {}
                Peer::Block { v6, span, excepts } => made.blocks.push((*v6, *span, excepts.clone())),
            }
        }
        for ports in &rule.ports {
            match ports {
                Ports::All => made.ports.push((None, 0, u16::MAX)),
                &Ports::Range { protocol, first, last } => made.ports.push((Some(protocol), first, last)),
                Ports::Named { protocol, name } if side.direction == Direction::Ingress => {
                    let own = &resolved.identities[side.identity as usize];
                    made.ports.extend(own.named(name, *protocol).map(|number| (Some(*protocol), number, number)));
                }
                Ports::Named { protocol, name } => made.named.push((*protocol, name.clone())),
            }
        }
        made
    }

    fn has_peer(&self, query: &Query, identity: Option<u32>) -> bool {
        let in_set = |identity: u32| self.identities[identity as usize / 64] >> (identity % 64) & 1 == 1;
        if self.everybody || identity.is_some_and(in_set) {
            return true;
        }
        let (address, is_v6) = (query.remote.to_u128(), query.remote.to_v4().is_none());
        let within = |span: &Span| span.0 <= address && address <= span.1;
        self.blocks.iter().any(|(v6, span, excepts)| *v6 == is_v6 && within(span) && !excepts.iter().any(within))
    }

    fn has_port(&self, query: &Query, identity: Option<u32>, resolved: &Resolved) -> bool {
        let matches = |(protocol, first, last): &(Option<Protocol>, u16, u16)| {
            protocol.is_none_or(|protocol| protocol == query.protocol) && (*first..=*last).contains(&query.dport)
        };
        let named = |(protocol, name): &(Protocol, String)| {
            *protocol == query.protocol
                && identity.is_some_and(|identity| resolved.identities[identity as usize].named(name, *protocol).any(|n| n == query.dport))
        };
        self.ports.iter().any(matches) || self.named.iter().any(named)
    }
}

impl Backend for Scan<'_> {
    fn name(&self) -> &str {
        "linear scan"
    }

    fn takes(&self, _: Kind) -> bool {
        true
    }

    fn ways(&self) -> Ways {
        Ways::Both
    }

    fn prepare(&mut self, queries: &[Query]) {
        self.queries = queries.to_vec();
    }

    fn touch(&self, first: usize, count: usize) {
        touch(&self.queries[first..first + count]);
    }

    fn serial(&mut self, first: usize, passes: &mut [u8]) {
        let mut last = 0;
        for (query, passes) in self.queries[first..].iter().zip(passes) {
            last = u32::from(self.answer(after(query, last)));
            *passes = last as u8;
        }
    }

    fn batch(&mut self, first: usize, passes: &mut [u8]) {
        for (query, passes) in self.queries[first..].iter().zip(passes) {
            *passes = u8::from(self.answer(query));
        }
    }
}
