//! Which identities claim each address, as often as pods of them do.
//!
//! Nearly every address is claimed once, so those stand in tables of eight and of twenty bytes an entry: a cluster has
//! several hundred thousand of them.

use super::people::IdentityId;
use ahash::RandomState;
use std::collections::HashMap;
use std::net::IpAddr;

/// See the module. Addresses are canonical: no IPv4 address comes as a mapped one.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// Claimed once.
    v4: HashMap<u32, IdentityId, RandomState>,
    v6: HashMap<[u8; 16], IdentityId, RandomState>,
    /// Claimed more than once.
    several: HashMap<IpAddr, Vec<IdentityId>, RandomState>,
}

impl Claims {
    /// Makes room for so many addresses of IPv4.
    pub(super) fn reserve(&mut self, addresses: usize) {
        self.v4.reserve(addresses);
    }

    /// One more claim.
    pub(super) fn add(&mut self, address: IpAddr, identity: IdentityId) {
        if let Some(claims) = self.several.get_mut(&address) {
            return claims.push(identity);
        }
        if let Some(first) = self.put(address, Some(identity)) {
            self.put(address, None);
            self.several.insert(address, vec![first, identity]);
        }
    }

    /// One claim less. Panics where there is none: whoever leaves has entered.
    pub(super) fn remove(&mut self, address: IpAddr, identity: IdentityId) {
        let Some(claims) = self.several.get_mut(&address) else {
            assert_eq!(self.put(address, None), Some(identity), "whoever leaves has entered");
            return;
        };
        let at = claims.iter().position(|&claim| claim == identity).expect("whoever leaves has entered");
        claims.swap_remove(at);
        if let [last] = claims[..] {
            self.several.remove(&address);
            self.put(address, Some(last));
        }
    }

    /// The identities that claim it, each once, ascending.
    pub(super) fn at(&self, address: IpAddr) -> Vec<IdentityId> {
        let single = match address {
            IpAddr::V4(v4) => self.v4.get(&v4.to_bits()),
            IpAddr::V6(v6) => self.v6.get(&v6.octets()),
        };
        if let Some(&single) = single {
            return vec![single];
        }
        let mut claims = self.several.get(&address).cloned().unwrap_or_default();
        claims.sort_unstable();
        claims.dedup();
        claims
    }

    /// Every address that is claimed, in no order.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.v4.keys().map(|&bits| IpAddr::V4(bits.into()));
        v4.chain(self.v6.keys().map(|&octets| IpAddr::V6(octets.into()))).chain(self.several.keys().copied())
    }

    /// Sets or takes away what claims it once; returns what did.
    fn put(&mut self, address: IpAddr, identity: Option<IdentityId>) -> Option<IdentityId> {
        match (address, identity) {
            (IpAddr::V4(v4), Some(identity)) => self.v4.insert(v4.to_bits(), identity),
            (IpAddr::V4(v4), None) => self.v4.remove(&v4.to_bits()),
            (IpAddr::V6(v6), Some(identity)) => self.v6.insert(v6.octets(), identity),
            (IpAddr::V6(v6), None) => self.v6.remove(&v6.octets()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn they_are_a_multiset_for_each_address(steps in prop::collection::vec((0..4u8, 0..3u32, any::<bool>()), 0..200)) {
            let address = |number: u8| -> IpAddr {
                if number < 2 { [10, 0, 0, number].into() } else { [0xfd00, 0, 0, 0, 0, 0, 0, u16::from(number)].into() }
            };
            let (mut claims, mut known) = (Claims::default(), BTreeMap::<IpAddr, Vec<IdentityId>>::new());
            for (number, identity, comes) in steps {
                let (address, held) = (address(number), known.entry(address(number)).or_default());
                match held.iter().position(|&other| other == identity) {
                    Some(at) if !comes => {
                        held.remove(at);
                        claims.remove(address, identity);
                    }
                    _ => {
                        held.push(identity);
                        claims.add(address, identity);
                    }
                }
                known.retain(|_, held| !held.is_empty());
                let mut addresses: Vec<IpAddr> = claims.addresses().collect();
                addresses.sort_unstable();
                prop_assert_eq!(addresses, known.keys().copied().collect::<Vec<_>>());
                for (address, held) in &known {
                    let mut held = held.clone();
                    held.sort_unstable();
                    held.dedup();
                    prop_assert_eq!(claims.at(*address), held);
                }
            }
        }
    }
}
