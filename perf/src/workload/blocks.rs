//! CIDRs outside of the cluster, with excepts inside them.

use crate::random::SplitMix;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, Ipv6Addr};

/// A family's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    fn width(self) -> u32 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// 11.0.0.0 to 210.255.255.255, or 2001:db8::/32.
    fn outside(self, random: &mut SplitMix) -> u128 {
        match self {
            Self::V4 => within((11 + random.below(200) as u128) << 24, 24, random),
            Self::V6 => within(0x2001_0db8 << 96, 96, random),
        }
    }

    fn cidr(self, bits: u128, length: u32) -> String {
        let free = self.width() - length;
        let bits = if free == 128 { 0 } else { bits >> free << free };
        match self {
            Self::V4 => format!("{}/{length}", Ipv4Addr::from(bits as u32)),
            Self::V6 => format!("{}/{length}", Ipv6Addr::from(bits)),
        }
    }

    /// A block of that length with so many excepts, each longer than it and none longer than `longest`.
    pub(super) fn block(self, length: u32, longest: u32, excepts: usize, random: &mut SplitMix) -> Value {
        let bits = self.outside(random);
        let excepts = if length < longest { excepts } else { 0 };
        let excepts: Vec<String> = (0..excepts)
            .map(|_| {
                let longer = length + 1 + random.below((longest - length) as usize) as u32;
                self.cidr(within(bits, self.width() - length, random), longer)
            })
            .collect();
        json!({"cidr": self.cidr(bits, length), "except": excepts})
    }
}

/// `bits` with the lowest `free` ones drawn.
fn within(bits: u128, free: u32, random: &mut SplitMix) -> u128 {
    let drawn = u128::from(random.next()) << 64 | u128::from(random.next());
    let mask = (1u128 << free) - 1;
    bits & !mask | drawn & mask
}
