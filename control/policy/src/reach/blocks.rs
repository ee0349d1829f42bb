//! The regions into which policies' CIDRs cut the addresses.
//!
//! CIDRs are nested or disjoint, so they form a tree, with all addresses of a family as its root. The *region* of a CIDR
//! is what lies in it and in none inside it:
//!
//! ```text
//!   0.0.0.0/0   ├──────────────────────────────────────────────┤
//!   10.0.0.0/8        ├─────────────────────────┤
//!   10.1.0.0/16            ├──────┤
//!   regions     │ /0  │ /8 │ /16  │     /8      │     /0        │
//! ```

use crate::Snapshot;
use crate::oracle::rules;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sluice_flow::{Direction, Family};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// All CIDRs that policies of some states mention, by family.
#[derive(Debug)]
pub(super) struct Blocks {
    v4: Tree,
    v6: Tree,
}

/// The CIDRs of one family.
#[derive(Debug)]
struct Tree {
    /// Ascending, an outer one before those inside it; the first is the root.
    nets: Vec<IpNet>,
    /// Where the innermost CIDR changes, and its index in `nets` from there on. The first starts at 0.
    pieces: Vec<(u128, usize)>,
    root_is_mentioned: bool,
}

impl Blocks {
    /// Reads the blocks and excepts of all policies. Text that is no CIDR cuts nothing.
    pub(super) fn of<'a>(snapshots: impl IntoIterator<Item = &'a Snapshot>) -> Self {
        let mut nets = BTreeSet::new();
        for (name, policy) in snapshots.into_iter().flat_map(|snapshot| &snapshot.policies) {
            for rule in Direction::BOTH.into_iter().flat_map(|direction| rules(name, policy, direction)) {
                for block in rule.peers().iter().filter_map(|peer| peer.ip_block.as_ref()) {
                    let texts = std::iter::once(&block.cidr).chain(block.except.iter().flatten());
                    nets.extend(texts.filter_map(|text| text.parse::<IpNet>().ok()).map(|net| net.trunc()));
                }
            }
        }
        let (v4, v6): (BTreeSet<IpNet>, BTreeSet<IpNet>) = nets.into_iter().partition(|net| net.addr().is_ipv4());
        Self { v4: Tree::new(root(Family::V4), v4), v6: Tree::new(root(Family::V6), v6) }
    }

    fn tree(&self, family: Family) -> &Tree {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// The innermost CIDR that holds `address`.
    pub(super) fn innermost(&self, address: IpAddr) -> IpNet {
        let tree = self.tree(family_of(address));
        let after = tree.pieces.partition_point(|(start, _)| *start <= number(address));
        tree.nets[tree.pieces[after - 1].1]
    }

    /// The CIDRs that policies mention, roots included if they are.
    pub(super) fn mentioned(&self, family: Family) -> impl Iterator<Item = IpNet> + '_ {
        let tree = self.tree(family);
        tree.nets.iter().enumerate().filter(|(index, _)| *index > 0 || tree.root_is_mentioned).map(|(_, net)| *net)
    }

    /// Every CIDR of a family with an address in its region that is not `taken`, and the first such address.
    pub(super) fn free(&self, family: Family, taken: &BTreeSet<IpAddr>) -> Vec<(IpNet, IpAddr)> {
        let tree = self.tree(family);
        let mut free: Vec<Option<u128>> = vec![None; tree.nets.len()];
        for (first, last, net) in tree.stretches(root(family)) {
            if free[net].is_none() {
                free[net] = first_free(first, last, |number| taken.contains(&address(family, number)));
            }
        }
        tree.nets.iter().zip(free).filter_map(|(net, number)| Some((*net, address(family, number?)))).collect()
    }

    /// The stretches of `within` between changes of the innermost CIDR: first and last address.
    pub(super) fn stretches(&self, within: IpNet) -> impl Iterator<Item = (u128, u128)> + '_ {
        let tree = self.tree(family_of(within.addr()));
        tree.stretches(within).map(|(first, last, _)| (first, last))
    }
}

impl Tree {
    fn new(root: IpNet, mentioned: BTreeSet<IpNet>) -> Self {
        let root_is_mentioned = mentioned.contains(&root);
        let mut nets: Vec<IpNet> = std::iter::once(root).chain(mentioned.into_iter().filter(|net| *net != root)).collect();
        nets.sort_by_key(|net| (number(net.network()), net.prefix_len()));
        let mut changes: Vec<(u128, usize)> = Vec::new();
        let mut open: Vec<usize> = Vec::new();
        for (index, net) in nets.iter().enumerate() {
            let start = number(net.network());
            close(&nets, &mut open, Some(start), &mut changes);
            changes.push((start, index));
            open.push(index);
        }
        close(&nets, &mut open, None, &mut changes);
        // Of several changes at one place the last counts: CIDRs inside each other may begin or end together.
        let mut pieces: Vec<(u128, usize)> = Vec::with_capacity(changes.len());
        for change in changes {
            if pieces.last().is_some_and(|last| last.0 == change.0) {
                pieces.pop();
            }
            pieces.push(change);
        }
        let end = number(root.broadcast());
        pieces.retain(|(start, _)| *start <= end);
        Self { nets, pieces, root_is_mentioned }
    }

    /// First and last address of each piece inside `within`, and the CIDR's index.
    fn stretches(&self, within: IpNet) -> impl Iterator<Item = (u128, u128, usize)> + '_ {
        let (low, high) = (number(within.network()), number(within.broadcast()));
        let from = self.pieces.partition_point(|(start, _)| *start <= low) - 1;
        let pieces = self.pieces[from..].iter().take_while(move |(start, _)| *start <= high);
        pieces.enumerate().map(move |(offset, (start, net))| {
            let end = self.pieces.get(from + offset + 1).map_or(high, |(next, _)| (next - 1).min(high));
            ((*start).max(low), end, *net)
        })
    }
}

/// Ends every open CIDR that does not reach `start` (all of them without a start). What follows one belongs to the
/// CIDR around it.
fn close(nets: &[IpNet], open: &mut Vec<usize>, start: Option<u128>, changes: &mut Vec<(u128, usize)>) {
    while let Some(&inner) = open.last() {
        let end = number(nets[inner].broadcast());
        if start.is_some_and(|start| end >= start) {
            return;
        }
        open.pop();
        if let (Some(&outer), Some(next)) = (open.last(), end.checked_add(1)) {
            changes.push((next, outer));
        }
    }
}

/// All addresses of a family.
fn root(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::V4(Ipv4Net::default()),
        Family::V6 => IpNet::V6(Ipv6Net::default()),
    }
}

pub(super) fn family_of(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// The address of a number that came from one of the family.
pub(super) fn address(family: Family, number: u128) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(u32::try_from(number).expect("a number of the family").into()),
        Family::V6 => IpAddr::V6(number.into()),
    }
}

/// Looks at no more addresses than there are taken ones, and one.
fn first_free(first: u128, last: u128, is_taken: impl Fn(u128) -> bool) -> Option<u128> {
    let mut number = first;
    while is_taken(number) {
        if number == last {
            return None;
        }
        number += 1;
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(nets: &[&str]) -> Blocks {
        let (v4, v6) = nets.iter().map(|net| net.parse::<IpNet>().unwrap()).partition(|net| net.addr().is_ipv4());
        Blocks { v4: Tree::new(root(Family::V4), v4), v6: Tree::new(root(Family::V6), v6) }
    }

    #[test]
    fn the_innermost_cidr_is_the_longest_that_holds_the_address() {
        use proptest::prelude::*;
        let net = (0..4u8, prop_oneof![Just(0u8), 6..9u8, 24..33u8], any::<bool>()).prop_map(|(last, length, high)| {
            let address = IpAddr::from(if high { [255, 255, 255, 252 + last] } else { [0, 0, 0, last] });
            IpNet::new(address, length).unwrap().trunc()
        });
        proptest!(|(nets in proptest::collection::btree_set(net, 0..8), low in 0..6u8, high in 250..=255u8)| {
            let blocks = Blocks { v4: Tree::new(root(Family::V4), nets.clone()), v6: Tree::new(root(Family::V6), BTreeSet::new()) };
            for asked in [[0, 0, 0, low], [255, 255, 255, high], [2, 0, 0, low], [1, 255, 255, high]].map(IpAddr::from) {
                let holding = nets.iter().copied().chain([root(Family::V4)]).filter(|net| net.contains(&asked));
                let expected = holding.max_by_key(IpNet::prefix_len).unwrap();
                prop_assert_eq!(blocks.innermost(asked), expected, "{}", asked);
            }
        });
    }

    #[test]
    fn a_region_without_a_free_address_is_none() {
        let blocks = blocks(&["10.0.0.0/31", "10.0.0.0/30", "10.0.0.2/31", "fd00::/8"]);
        let taken = BTreeSet::from(["10.0.0.0".parse().unwrap()]);
        let free = |taken: &BTreeSet<IpAddr>| -> Vec<String> {
            blocks.free(Family::V4, taken).iter().map(|(net, address)| format!("{net} {address}")).collect()
        };
        assert_eq!(free(&taken), ["0.0.0.0/0 0.0.0.0", "10.0.0.0/31 10.0.0.1", "10.0.0.2/31 10.0.0.2"], "the /30 is covered");
        let taken = BTreeSet::from(["10.0.0.0", "10.0.0.1"].map(|text| text.parse().unwrap()));
        assert_eq!(free(&taken), ["0.0.0.0/0 0.0.0.0", "10.0.0.2/31 10.0.0.2"]);
        assert_eq!(blocks.free(Family::V6, &taken).len(), 2);
    }
}
