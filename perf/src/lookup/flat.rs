//! The rules of each pod and direction written out: every peer a prefix, every port a range. IPv4 only.
//!
//! What a filter needs that knows addresses and ports, and nothing of pods.

use super::resolved::{Identity, Peer, Ports, Resolved, Rule, Side, Span, ranges};
use sluice_flow::{Addr, Direction};
use std::collections::BTreeSet;

/// Allows what matches all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub(super) struct FlatRule {
    pub(super) prefix: u32,
    pub(super) length: u8,
    /// 0 for all.
    pub(super) protocol: u8,
    pub(super) first: u16,
    pub(super) last: u16,
}

const EVERYTHING: FlatRule = FlatRule { prefix: 0, length: 0, protocol: 0, first: 0, last: u16::MAX };

/// What one side allows; everything where nothing isolates it.
pub(super) fn flat_rules(resolved: &Resolved, side: &Side) -> Vec<FlatRule> {
    if !side.isolated {
        return vec![EVERYTHING];
    }
    let mut flat = BTreeSet::new();
    side.rules.iter().for_each(|rule| add_rule(&mut flat, resolved, side, rule));
    flat.into_iter().collect()
}

fn add_rule(flat: &mut BTreeSet<FlatRule>, resolved: &Resolved, side: &Side, rule: &Rule) {
    let own = match side.direction {
        Direction::Ingress => Some(&resolved.identities[side.identity as usize]),
        Direction::Egress => None,
    };
    for peer in &rule.peers {
        match peer {
            Peer::Identities(list) => list.iter().for_each(|&identity| {
                let identity = &resolved.identities[identity as usize];
                let ranges = ranges(&rule.ports, own.or(Some(identity)));
                add_addresses(flat, identity.addresses.iter().copied(), &ranges);
            }),
            Peer::Everybody | Peer::Block { v6: false, .. } => {
                let ranges = ranges(&rule.ports, own);
                for (prefix, length) in prefixes(peer) {
                    flat.extend(ranges.iter().map(|&(protocol, first, last)| FlatRule { prefix, length, protocol, first, last }));
                }
                add_names(flat, resolved, rule, peer, own);
            }
            Peer::Block { .. } => {}
        }
    }
}

/// A name in egress means what the pod at the other end calls so, wherever in the block that pod is.
fn add_names(flat: &mut BTreeSet<FlatRule>, resolved: &Resolved, rule: &Rule, peer: &Peer, own: Option<&Identity>) {
    let named: Vec<Ports> = rule.ports.iter().filter(|ports| matches!(ports, Ports::Named { .. })).cloned().collect();
    if own.is_some() || named.is_empty() {
        return;
    }
    for identity in &resolved.identities {
        let inside = identity.addresses.iter().copied().filter(|address| holds(peer, *address));
        add_addresses(flat, inside, &ranges(&named, Some(identity)));
    }
}

fn add_addresses(flat: &mut BTreeSet<FlatRule>, addresses: impl Iterator<Item = Addr>, ranges: &[(u8, u16, u16)]) {
    for prefix in addresses.filter_map(|address| address.to_v4()) {
        flat.extend(ranges.iter().map(|&(protocol, first, last)| FlatRule { prefix, length: 32, protocol, first, last }));
    }
}

fn holds(peer: &Peer, address: Addr) -> bool {
    let Peer::Block { span, excepts, .. } = peer else { return true };
    let within = |span: &Span| (span.0..=span.1).contains(&address.to_u128());
    within(span) && !excepts.iter().any(within)
}

/// The fewest prefixes that cover a block and none of its excepts.
fn prefixes(peer: &Peer) -> Vec<(u32, u8)> {
    let Peer::Block { span, excepts, .. } = peer else { return vec![(0, 0)] };
    let mut prefixes = Vec::new();
    cut((span.0 as u32, span.1 as u32), excepts, &mut prefixes);
    prefixes
}

/// A span is an aligned power of two, and excepts lie within it, apart from it, or around it.
fn cut((first, last): (u32, u32), excepts: &[Span], prefixes: &mut Vec<(u32, u8)>) {
    let excepted = |span: &Span| span.0 as u32 <= first && last <= span.1 as u32;
    if excepts.iter().any(excepted) {
        return;
    }
    if !excepts.iter().any(|span| first <= span.1 as u32 && span.0 as u32 <= last) {
        prefixes.push((first, (last - first).leading_zeros() as u8));
        return;
    }
    let middle = first + (last - first) / 2;
    cut((first, middle), excepts, prefixes);
    cut((middle + 1, last), excepts, prefixes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_without_its_excepts_is_a_few_prefixes() {
        let number = |text: &str| Addr::from(text.parse::<std::net::IpAddr>().unwrap()).to_u128();
        let excepts = vec![(number("10.0.0.64"), number("10.0.0.127")), (number("10.0.0.255"), number("10.0.0.255"))];
        let block = Peer::Block { v6: false, span: (number("10.0.0.0"), number("10.0.0.255")), excepts };
        let prefixes = prefixes(&block);
        assert_eq!(prefixes.iter().map(|prefix| prefix.1).collect::<Vec<_>>(), [26, 26, 27, 28, 29, 30, 31, 32]);
        let covered: u32 = prefixes.iter().map(|prefix| 1u32 << (32 - prefix.1)).sum();
        assert_eq!(covered, 256 - 64 - 1);
        let all = Peer::Block { v6: false, span: (number("0.0.0.0"), number("255.255.255.255")), excepts: Vec::new() };
        assert_eq!(self::prefixes(&all), [(0, 0)]);
    }
}
