//! The rules as those see them that give every address a label first: longest prefix → label, (side, label) → ports.
//! IPv4 only.
//!
//! A label stands for what blocks and selectors can tell apart: the smallest CIDR around an address, and the identity of
//! the pod that has it. This is the shape of Cilium's maps, and of a FIB with a hash table behind it.

use super::resolved::{Identity, Peer, Ports, Resolved, Rule, ranges, side_index};
use sluice_flow::{Addr, Direction};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// An IPv4 prefix: address in host order, length.
type Prefix = (u32, u8);

/// Ports of one protocol, or of all where that is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub(super) struct PortRange {
    pub(super) protocol: u8,
    pub(super) padding: u8,
    pub(super) first: u16,
    pub(super) last: u16,
}

const ALL_PORTS: PortRange = PortRange { protocol: 0, padding: 0, first: 0, last: u16::MAX };

/// See the module.
#[derive(Debug)]
pub(super) struct Labelled {
    /// The whole space first, with label 0.
    pub(super) prefixes: Vec<(Prefix, u32)>,
    /// What a side allows to a label; nothing where there is no entry.
    pub(super) allowed: Vec<(u16, u32, Vec<PortRange>)>,
    /// By side.
    pub(super) isolated: Vec<bool>,
}

/// Which rules match a label, and whose names count in egress.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Meaning {
    rules: Vec<u32>,
    identity: Option<u32>,
}

impl Labelled {
    pub(super) fn of(resolved: &Resolved) -> Self {
        let rules = Rules::of(resolved);
        let regions = Regions::of(&rules.list);
        let mut labelled = Self { prefixes: Vec::new(), allowed: Vec::new(), isolated: Vec::new() };
        let mut labels: HashMap<Meaning, u32> = HashMap::new();
        for (&(length, address), by_block) in &regions.rules {
            labelled.add((address, length), Meaning { rules: by_block.clone(), identity: None }, &mut labels, resolved, &rules);
        }
        for (number, identity) in (0u32..).zip(&resolved.identities) {
            for address in identity.addresses.iter().filter_map(Addr::to_v4) {
                let mut matched = regions.rules[&regions.around(address)].clone();
                matched.extend(&rules.by_identity[number as usize]);
                matched.sort_unstable();
                matched.dedup();
                let meaning = Meaning { rules: matched, identity: Some(number) };
                labelled.add((address, 32), meaning, &mut labels, resolved, &rules);
            }
        }
        labelled.isolated = resolved.sides.iter().map(|side| side.isolated).collect();
        labelled
    }

    fn add(&mut self, prefix: Prefix, meaning: Meaning, labels: &mut HashMap<Meaning, u32>, resolved: &Resolved, rules: &Rules) {
        let next = labels.len() as u32;
        let label = *labels.entry(meaning).or_insert_with_key(|meaning| {
            let identity = meaning.identity.map(|identity| &resolved.identities[identity as usize]);
            for (side, ports) in rules.ports(meaning, identity, resolved) {
                self.allowed.push((side, next, ports));
            }
            next
        });
        self.prefixes.push((prefix, label));
    }
}

/// Every rule once.
struct Rules {
    list: Vec<Arc<Rule>>,
    /// Sides that ask it.
    sides: Vec<Vec<u16>>,
    by_identity: Vec<Vec<u32>>,
}

impl Rules {
    fn of(resolved: &Resolved) -> Self {
        let (mut list, mut sides): (Vec<Arc<Rule>>, Vec<Vec<u16>>) = (Vec::new(), Vec::new());
        let mut by_identity = vec![Vec::new(); resolved.identities.len()];
        let mut known: HashMap<*const Rule, usize> = HashMap::new();
        for side in &resolved.sides {
            for rule in &side.rules {
                let number = *known.entry(Arc::as_ptr(rule)).or_insert_with(|| {
                    let number = list.len();
                    let pods = rule.peers.iter().filter_map(|peer| if let Peer::Identities(list) = peer { Some(list) } else { None });
                    pods.flat_map(|list| list.iter()).for_each(|&identity| by_identity[identity as usize].push(number as u32));
                    list.push(Arc::clone(rule));
                    sides.push(Vec::new());
                    number
                });
                sides[number].push(side_index(side.port, side.direction) as u16);
            }
        }
        Self { list, sides, by_identity }
    }

    /// What each side allows to a label.
    fn ports(&self, meaning: &Meaning, identity: Option<&Identity>, resolved: &Resolved) -> BTreeMap<u16, Vec<PortRange>> {
        let mut by_side: BTreeMap<u16, BTreeSet<PortRange>> = BTreeMap::new();
        for &rule in &meaning.rules {
            let ports: &[Ports] = &self.list[rule as usize].ports;
            for &number in &self.sides[rule as usize] {
                let side = &resolved.sides[usize::from(number)];
                let destination = match side.direction {
                    Direction::Ingress => Some(&resolved.identities[side.identity as usize]),
                    Direction::Egress => identity,
                };
                let ports = ranges(ports, destination).into_iter();
                by_side.entry(number).or_default().extend(ports.map(|(protocol, first, last)| PortRange {
                    protocol,
                    padding: 0,
                    first,
                    last,
                }));
            }
        }
        let merged = by_side.into_iter().filter(|(_, ports)| !ports.is_empty()).map(|(side, ports)| (side, merged(ports)));
        merged.collect()
    }
}

/// Neighbours of one protocol become one; all ports swallow the others.
fn merged(ports: BTreeSet<PortRange>) -> Vec<PortRange> {
    if ports.contains(&ALL_PORTS) {
        return vec![ALL_PORTS];
    }
    let mut merged: Vec<PortRange> = Vec::with_capacity(ports.len());
    for range in ports {
        match merged.last_mut() {
            Some(last) if last.protocol == range.protocol && u32::from(range.first) <= u32::from(last.last) + 1 => {
                last.last = last.last.max(range.last);
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// The prefixes of all blocks and excepts, each with the rules whose blocks hold it.
struct Regions {
    /// By length, then address: the whole space first.
    rules: BTreeMap<(u8, u32), Vec<u32>>,
    lengths: Vec<u8>,
}

impl Regions {
    fn of(rules: &[Arc<Rule>]) -> Self {
        let prefix = |span: &(u128, u128)| (((span.1 - span.0) as u32).leading_zeros() as u8, span.0 as u32);
        let mut regions: BTreeMap<(u8, u32), Vec<u32>> = BTreeMap::from([((0, 0), Vec::new())]);
        for peer in rules.iter().flat_map(|rule| &rule.peers) {
            if let Peer::Block { v6: false, span, excepts } = peer {
                regions.extend([span].into_iter().chain(excepts).map(|span| (prefix(span), Vec::new())));
            }
        }
        for (&(length, address), matched) in &mut regions {
            let last = address | (u64::from(u32::MAX) >> length) as u32;
            let within = |span: &(u128, u128)| span.0 as u32 <= address && last <= span.1 as u32;
            let holds = |peer: &Peer| match peer {
                Peer::Everybody => true,
                Peer::Block { v6: false, span, excepts } => within(span) && !excepts.iter().any(within),
                _ => false,
            };
            matched.extend((0u32..).zip(rules).filter(|(_, rule)| rule.peers.iter().any(holds)).map(|(number, _)| number));
        }
        let lengths: BTreeSet<u8> = regions.keys().map(|region| region.0).collect();
        Self { rules: regions, lengths: lengths.into_iter().rev().collect() }
    }

    /// The smallest one around an address.
    fn around(&self, address: u32) -> (u8, u32) {
        let of_length = |&length: &u8| (length, address & !((u64::from(u32::MAX) >> length) as u32));
        self.lengths.iter().map(of_length).find(|region| self.rules.contains_key(region)).expect("the whole space is one")
    }
}
