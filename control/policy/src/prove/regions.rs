//! The address space cut by blocks, with nothing merged: each region is the part of one CIDR that no smaller CIDR of any
//! block or except takes away.
//!
//! ```text
//!   10.0.0.0/8   ├──────── a ────────┬─ b ─┬──────── a ───────┤      regions: a (outside of b), b
//!   10.9.0.0/16                      └─────┘
//! ```
//!
//! CIDRs are nested or disjoint, never crossing. So which of them hold an address follows from the smallest one that
//! does, and with it everything that blocks can say of the address.
//!
//! IPv4 in IPv6's clothes, `::ffff:0:0/96`, is IPv4 to the oracle and to a lookup, so no question is asked about IPv6
//! there. It is cut out like a CIDR of its own, so that an address in it never represents others.

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(super) type RegionId = u32;

/// A CIDR by its bounds: family, first address, last address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Net {
    v6: bool,
    first: u128,
    last: u128,
}

/// IPv6 addresses that nobody asks for as such.
const MAPPED: Net = Net { v6: true, first: 0xffff << 32, last: 0xffff_ffff_ffff };

/// One region.
#[derive(Debug, Clone)]
pub(super) struct Region {
    /// An address in it; every other address of it is like this one to every block.
    pub(super) representative: IpAddr,
    /// The CIDRs that hold it, as indexes into the list given to [`Regions::of`], the smallest first.
    pub(super) nets: Vec<u32>,
}

/// Both families' regions, and where each begins.
#[derive(Debug, Default)]
pub(super) struct Regions {
    pub(super) regions: Vec<Region>,
    v4: Vec<(u128, RegionId)>,
    v6: Vec<(u128, RegionId)>,
}

impl Regions {
    /// Of these CIDRs; equal ones may be repeated.
    pub(super) fn of(nets: &[IpNet]) -> Self {
        let mut regions = Self::default();
        regions.v4 = regions.family(nets, false);
        regions.v6 = regions.family(nets, true);
        regions
    }

    /// The first address of each piece of a region, ascending from 0; a region has a piece for each gap between the
    /// smaller CIDRs inside it.
    pub(super) fn pieces(&self, v6: bool) -> &[(u128, RegionId)] {
        if v6 { &self.v6 } else { &self.v4 }
    }

    /// The region of an address.
    pub(super) fn at(&self, address: IpAddr) -> RegionId {
        let (number, v6) = number_of(address);
        let pieces = self.pieces(v6);
        pieces[pieces.partition_point(|(first, _)| *first <= number) - 1].1
    }

    fn family(&mut self, nets: &[IpNet], v6: bool) -> Vec<(u128, RegionId)> {
        let nets = (0u32..).zip(nets).map(|(index, net)| (Net::of(net), Some(index)));
        let mut sorted: Vec<(Net, Option<u32>)> = nets.chain([(MAPPED, None)]).filter(|(net, _)| net.v6 == v6).collect();
        // a CIDR comes before those inside it
        sorted.sort_unstable_by_key(|(net, index)| (net.first, std::cmp::Reverse(net.last), *index));
        let end = if v6 { u128::MAX } else { u128::from(u32::MAX) };
        let mut pieces: Vec<(u128, RegionId)> = Vec::new();
        let mut open: Vec<Open> = vec![Open { net: Net { v6, first: 0, last: end }, indexes: Vec::new(), region: None }];
        let mut at = Some(0);
        for same in sorted.chunk_by(|a, b| a.0 == b.0) {
            let net = same[0].0;
            self.close(&mut open, &mut pieces, &mut at, net.first);
            if let Some(from) = at.filter(|&from| from < net.first) {
                pieces.push((from, self.region(&mut open, from)));
            }
            at = Some(net.first);
            open.push(Open { net, indexes: same.iter().filter_map(|(_, index)| *index).collect(), region: None });
        }
        self.close(&mut open, &mut pieces, &mut at, end);
        if let Some(from) = at {
            pieces.push((from, self.region(&mut open, from)));
        }
        pieces
    }

    /// Ends every open CIDR that ends before `before`.
    fn close(&mut self, open: &mut Vec<Open>, pieces: &mut Vec<(u128, RegionId)>, at: &mut Option<u128>, before: u128) {
        while open.len() > 1 && open[open.len() - 1].net.last < before {
            let last = open[open.len() - 1].net.last;
            if let Some(from) = at.filter(|&from| from <= last) {
                pieces.push((from, self.region(open, from)));
            }
            *at = last.checked_add(1);
            open.pop();
        }
    }

    /// The region of the innermost open CIDR.
    fn region(&mut self, open: &mut [Open], representative: u128) -> RegionId {
        let nets: Vec<u32> = open.iter().rev().flat_map(|open| open.indexes.iter().copied()).collect();
        let innermost = open.last_mut().expect("the whole space is always open");
        *innermost.region.get_or_insert_with(|| {
            self.regions.push(Region { representative: address_of(representative, innermost.net.v6), nets });
            (self.regions.len() - 1) as RegionId
        })
    }
}

struct Open {
    net: Net,
    indexes: Vec<u32>,
    region: Option<RegionId>,
}

impl Net {
    fn of(net: &IpNet) -> Self {
        let (first, v6) = number_of(net.network());
        Self { v6, first, last: number_of(net.broadcast()).0 }
    }
}

/// An address as a number of its family.
pub(super) fn number_of(address: IpAddr) -> (u128, bool) {
    match address {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)), false),
        IpAddr::V6(v6) => (u128::from(v6), true),
    }
}

/// Whether an IPv6 address is an IPv4 address to everybody who asks.
pub(super) fn is_mapped(address: IpAddr) -> bool {
    address.to_canonical() != address
}

/// The address behind a number of a family.
pub(super) fn address_of(number: u128, v6: bool) -> IpAddr {
    if v6 { Ipv6Addr::from(number).into() } else { Ipv4Addr::from(number as u32).into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_what_smaller_blocks_leave_of_larger_ones() {
        let nets: Vec<IpNet> =
            ["10.0.0.0/8", "10.0.0.0/16", "10.9.0.0/16", "10.255.0.0/16", "0.0.0.0/0", "10.9.0.0/16", "fd00::/8", "ffff::/16"]
                .map(|net| net.parse().unwrap())
                .to_vec();
        let regions = Regions::of(&nets);
        let at = |address: &str| {
            let region = &regions.regions[regions.at(address.parse().unwrap()) as usize];
            region.nets.clone()
        };
        for (address, nets) in [
            ("0.0.0.0", vec![4]),
            ("9.255.255.255", vec![4]),
            ("10.0.0.0", vec![1, 0, 4]),
            ("10.0.255.255", vec![1, 0, 4]),
            ("10.1.0.0", vec![0, 4]),
            ("10.9.1.1", vec![2, 5, 0, 4]),
            ("10.10.0.0", vec![0, 4]),
            ("10.255.255.255", vec![3, 0, 4]),
            ("11.0.0.0", vec![4]),
            ("255.255.255.255", vec![4]),
            ("::", vec![]),
            ("fd00::1", vec![6]),
            ("fe00::", vec![]),
            ("::ffff:10.0.0.0", vec![]),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", vec![7]),
        ] {
            assert_eq!(at(address), nets, "{address}");
        }
        for v6 in [false, true] {
            assert_eq!(regions.pieces(v6)[0].0, 0);
            assert!(regions.pieces(v6).is_sorted_by(|a, b| a.0 < b.0));
        }
        assert_ne!(regions.at("::ffff:10.0.0.0".parse().unwrap()), regions.at("::".parse().unwrap()), "no address for IPv6");
        assert_eq!(regions.at("10.1.0.0".parse().unwrap()), regions.at("10.10.0.0".parse().unwrap()), "one region on both sides of a hole");
    }
}
