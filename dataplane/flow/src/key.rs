//! The key of a flow, exactly as the BPF programs build it.

use crate::{Addr, Direction};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A pod's attachment on this node; stable across table generations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortIndex(pub u16);

/// Which use of a [`PortIndex`] is meant: a reused index has a new incarnation, so nothing old ever matches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Incarnation(pub u32);

/// An IP protocol number. Source: IANA protocol numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Protocol(pub u8);

impl Protocol {
    /// ICMP for IPv4.
    pub const ICMP: Self = Self(1);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// ICMP for IPv6.
    pub const ICMPV6: Self = Self(58);
    /// SCTP.
    pub const SCTP: Self = Self(132);

    /// The protocols that rules can name, in the order of the table's port sections; everything else is one class.
    pub const WITH_PORTS: [Self; 3] = [Self::TCP, Self::UDP, Self::SCTP];

    /// Whether rules see a port in this protocol.
    #[inline]
    pub fn has_ports(self) -> bool {
        matches!(self, Self::TCP | Self::UDP | Self::SCTP)
    }

    /// ICMP of either family.
    #[inline]
    pub fn is_icmp(self) -> bool {
        matches!(self, Self::ICMP | Self::ICMPV6)
    }

    /// Whether a packet can be told to open a connection, and only such a one does: TCP by SYN, SCTP by INIT.
    #[inline]
    pub fn is_opened_explicitly(self) -> bool {
        matches!(self, Self::TCP | Self::SCTP)
    }

    /// From `TCP`, `udp`, `sctp`, `icmp`, `icmpv6` or a number.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name.to_ascii_uppercase().as_str() {
            "TCP" => Self::TCP,
            "UDP" => Self::UDP,
            "SCTP" => Self::SCTP,
            "ICMP" => Self::ICMP,
            "ICMPV6" => Self::ICMPV6,
            number => Self(number.parse().ok()?),
        })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ICMP => f.write_str("ICMP"),
            Self::TCP => f.write_str("TCP"),
            Self::UDP => f.write_str("UDP"),
            Self::ICMPV6 => f.write_str("ICMPv6"),
            Self::SCTP => f.write_str("SCTP"),
            Self(other) => write!(f, "protocol {other}"),
        }
    }
}

/// What stands in place of ports in the key of an ICMP query: requests and their replies are two classes, so that a
/// request never meets the entry that was made for replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum IcmpClass {
    /// Echo request.
    Request = 1,
    /// Echo reply.
    Reply = 2,
    /// Any other message that is neither an error nor neighbour discovery; it has no reply class.
    Other = 3,
}

/// Port, direction and 5-tuple of a packet. For ICMP queries `sport` is the identifier and `dport` the
/// [`IcmpClass`]; for protocols without ports both are 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// The pod's attachment whose policy judges.
    pub port: PortIndex,
    /// Which way the packet crosses it.
    pub direction: Direction,
    /// Of egress: it left its pod untranslated, to a service or to its node, and this is what it is where it departs.
    /// Its answers never cross that place.
    pub departs: bool,
    /// The protocol behind all extension headers.
    pub protocol: Protocol,
    /// The packet's source.
    pub src: Addr,
    /// The packet's destination.
    pub dst: Addr,
    /// Source port in host order, or ICMP identifier.
    pub sport: u16,
    /// Destination port in host order, or ICMP class.
    pub dport: u16,
}

impl FlowKey {
    /// Direction and departure as one number, as the programs have it.
    #[inline]
    pub fn way(&self) -> u8 {
        self.direction as u8 | u8::from(self.departs) << 1
    }

    /// Direction and departure of [`FlowKey::way`].
    pub fn of_way(way: u8) -> Option<(Direction, bool)> {
        Some((Direction::from_index(way & 1)?, way & 2 != 0)).filter(|_| way < 4)
    }

    /// The key of the packets that answer this one.
    #[inline]
    pub fn reversed(&self) -> Self {
        let (sport, dport) = if self.protocol.is_icmp() {
            let class = match self.dport {
                1 => 2,
                2 => 1,
                other => other,
            };
            (self.sport, class)
        } else {
            (self.dport, self.sport)
        };
        Self { direction: self.direction.reversed(), src: self.dst, dst: self.src, sport, dport, ..*self }
    }

    /// The address at the other end, as the pod sees it.
    #[inline]
    pub fn remote(&self) -> Addr {
        match self.direction {
            Direction::Ingress => self.src,
            Direction::Egress => self.dst,
        }
    }

    /// The pod's own address in this packet.
    #[inline]
    pub fn local(&self) -> Addr {
        match self.direction {
            Direction::Ingress => self.dst,
            Direction::Egress => self.src,
        }
    }

    /// The port that rules look at: the destination's, 0 where the protocol has none.
    #[inline]
    pub fn policy_port(&self) -> u16 {
        if self.protocol.has_ports() { self.dport } else { 0 }
    }
}

impl fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "port {} {}{} {} [{}]:{} -> [{}]:{}",
            self.port.0,
            self.direction,
            if self.departs { " (departs)" } else { "" },
            self.protocol,
            self.src,
            self.sport,
            self.dst,
            self.dport
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(protocol: Protocol, sport: u16, dport: u16) -> FlowKey {
        FlowKey {
            port: PortIndex(3),
            direction: Direction::Egress,
            departs: false,
            protocol,
            src: Addr::v4([10, 0, 0, 1]),
            dst: Addr::v4([10, 0, 0, 2]),
            sport,
            dport,
        }
    }

    #[test]
    fn reversing_twice_is_the_same_flow() {
        for key in [key(Protocol::TCP, 4000, 80), key(Protocol::ICMP, 77, 1), key(Protocol(47), 0, 0)] {
            assert_eq!(key.reversed().reversed(), key);
            assert_eq!(key.reversed().remote(), key.remote());
            assert_eq!(key.reversed().local(), key.local());
        }
    }

    #[test]
    fn an_echo_request_is_never_the_answer_to_an_echo_request() {
        let request = key(Protocol::ICMP, 77, IcmpClass::Request as u16);
        let other_way = FlowKey { direction: Direction::Ingress, src: request.dst, dst: request.src, ..request };
        assert_ne!(request.reversed(), other_way);
    }
}
