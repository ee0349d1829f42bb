//! One address type for both families: 128 bits, IPv4 mapped into `::ffff:0:0/96`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// An IPv4 or IPv6 address as 16 bytes in network order, IPv4 as `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2).
///
/// The parser refuses IPv6 packets that carry a mapped address, so the two families never share a value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Addr(pub [u8; 16]);

const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

impl Addr {
    /// From the four bytes of an IPv4 header field.
    #[inline]
    pub fn v4(octets: [u8; 4]) -> Self {
        let mut bytes = [0; 16];
        bytes[..12].copy_from_slice(&MAPPED);
        bytes[12..].copy_from_slice(&octets);
        Self(bytes)
    }

    /// The family; a mapped address is IPv4.
    #[inline]
    pub fn family(&self) -> Family {
        if self.0[..12] == MAPPED { Family::V4 } else { Family::V6 }
    }

    /// The IPv4 address as a number in host order, `None` for IPv6.
    #[inline]
    pub fn to_v4(&self) -> Option<u32> {
        match self.family() {
            Family::V4 => Some(u32::from_be_bytes([self.0[12], self.0[13], self.0[14], self.0[15]])),
            Family::V6 => None,
        }
    }

    /// All 128 bits as a number in host order.
    #[inline]
    pub fn to_u128(&self) -> u128 {
        u128::from_be_bytes(self.0)
    }

    /// `fe80::/10`.
    pub fn is_v6_link_local(&self) -> bool {
        self.0[0] == 0xfe && self.0[1] & 0xc0 == 0x80
    }

    /// `ff00::/8` or `224.0.0.0/4` or the limited broadcast address.
    pub fn is_multicast(&self) -> bool {
        match self.to_v4() {
            Some(v4) => v4 >> 28 == 0xe || v4 == u32::MAX,
            None => self.0[0] == 0xff,
        }
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Self::v4(v4.octets()),
            IpAddr::V6(v6) => Self(v6.octets()),
        }
    }
}

impl From<Addr> for IpAddr {
    fn from(addr: Addr) -> Self {
        match addr.to_v4() {
            Some(v4) => IpAddr::V4(Ipv4Addr::from(v4)),
            None => IpAddr::V6(Ipv6Addr::from(addr.0)),
        }
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        IpAddr::from(*self).fmt(f)
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_keep_apart_and_round_trip() {
        for (text, family) in [("10.1.2.3", Family::V4), ("0.0.0.0", Family::V4), ("::", Family::V6), ("fd00::1", Family::V6)] {
            let ip: IpAddr = text.parse().unwrap();
            let addr = Addr::from(ip);
            assert_eq!(addr.family(), family, "{text}");
            assert_eq!(IpAddr::from(addr), ip, "{text}");
            assert_eq!(addr.to_string(), text);
        }
    }
}
