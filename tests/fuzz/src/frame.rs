//! Target `frame`: our parser against two others, on frames made of the fuzzer's bytes.
//!
//! Two promises, each with the differences that it permits and why:
//!
//! 1. Where ours accepts, the others accept too, and see the same addresses, protocol, ports, flags and identifiers, and a
//!    fragment where ours does, or one that is its whole packet.
//! 2. Where both others see a whole packet, ours accepts it.

use crate::opinion::{Facts, Opinion, Transport, etherparse, smoltcp};
use sluice_flow::{Addr, DropReason, Fragment, IcmpClass, Kind, Packet, Protocol, parse_frame};
use std::net::IpAddr;

/// What our parser says.
pub type Ours = Result<Packet, DropReason>;

/// A difference that is meant.
pub struct Permitted {
    /// Why it is.
    pub reason: &'static str,
    applies: fn(&Ours, &Opinion) -> bool,
}

/// Every difference that is meant, and nothing else.
pub const PERMITTED: [Permitted; 11] = [
    Permitted {
        reason: "the length in a first fragment is that of all fragments",
        applies: |ours, other| *other == Opinion::Refused && matches!(ours, Ok(packet) if packet.fragment.is_some()),
    },
    Permitted {
        reason: "extension headers beyond eight: bounded work (limits::EXTENSION_HEADERS_MAX)",
        applies: |ours, _| *ours == Err(DropReason::ExtensionChain),
    },
    Permitted {
        reason: "an IPv4-mapped address in an IPv6 header would take an IPv4 identity",
        applies: |ours, other| *ours == Err(DropReason::Malformed) && mapped(other),
    },
    Permitted {
        reason: "an ICMP error whose quotation does not hold the quoted packet's ports: nobody can tell what it is about",
        applies: |ours, other| ours.is_err() && is_error(other),
    },
    Permitted {
        reason: "ICMP over IPv6 and ICMPv6 over IPv4 do not exist",
        applies: |ours, other| *ours == Err(DropReason::Malformed) && icmp_of_the_other_family(other),
    },
    Permitted {
        reason: "SCTP: the others do not look inside, ours wants its header of 12 bytes",
        applies: |ours, other| *ours == Err(DropReason::Malformed) && protocol(other) == Some(132),
    },
    Permitted {
        reason: "etherparse ends at mobility, HIP and shim6 headers, which IANA lists as extension headers",
        applies: |ours, other| ours.is_ok() && matches!(protocol(other), Some(135 | 139 | 140)),
    },
    Permitted {
        reason: "etherparse wants timestamp messages of exactly 20 bytes; no rule looks into one",
        applies: |ours, other| *other == Opinion::Refused && is_kind(ours, Protocol::ICMP, Kind::Icmp(IcmpClass::Other)),
    },
    Permitted {
        reason: "smoltcp refuses ICMPv6 messages of types it does not know or that are short for their type",
        applies: |ours, other| *other == Opinion::Refused && is_kind(ours, Protocol::ICMPV6, Kind::Icmp(IcmpClass::Other)),
    },
    Permitted {
        reason: "etherparse wants a whole IGMP header; to us that is a protocol without ports",
        applies: |ours, other| *other == Opinion::Refused && is_kind(ours, Protocol(2), Kind::Other),
    },
    Permitted {
        reason: "etherparse looks behind an authentication header in IPv4; to us that is a protocol without ports",
        applies: |ours, _| matches!(ours, Ok(packet) if packet.protocol == Protocol(51) && packet.src.to_v4().is_some()),
    },
];

/// Panics on a difference that is not permitted.
pub fn check(data: &[u8]) {
    if let Some(difference) = difference(&sluice_frames::frame(data)) {
        panic!("{difference}");
    }
}

/// What is wrong with the opinions of one frame.
pub fn difference(frame: &[u8]) -> Option<String> {
    unless_permitted(frame, &|ours, other| PERMITTED.iter().any(|difference| (difference.applies)(ours, other)))
}

fn unless_permitted(frame: &[u8], permitted: &dyn Fn(&Ours, &Opinion) -> bool) -> Option<String> {
    let ours: Ours = parse_frame(frame).map_err(|error| error.0);
    let others = [("etherparse", etherparse(frame)), ("smoltcp", smoltcp(frame))];
    let wrong = match &ours {
        Ok(packet) => {
            let agrees = |other: &Opinion| matches!(other, Opinion::Packet(facts) if same(packet, facts));
            let differs = others.iter().find(|(_, other)| !agrees(other) && !permitted(&ours, other));
            differs.map(|(who, _)| format!("{who} sees another packet"))
        }
        Err(_) => {
            let whole = |other: &Opinion| matches!(other, Opinion::Packet(facts) if !facts.fragment);
            let alone = others.iter().all(|(_, other)| whole(other));
            let meant = others.iter().any(|(_, other)| permitted(&ours, other));
            (alone && !meant).then(|| "only ours refuses".to_owned())
        }
    };
    wrong.map(|wrong| format!("{wrong}\n frame  {frame:02x?}\n ours   {ours:?}\n others {others:?}"))
}

fn same(packet: &Packet, facts: &Facts) -> bool {
    let addresses = (Addr::from(facts.src), Addr::from(facts.dst)) == (packet.src, packet.dst);
    let transport = || facts.transport.is_none_or(|other| same_transport(packet, other));
    let later = matches!(packet.fragment, Some(Fragment::Later(_)));
    addresses
        && match facts.fragment {
            // they look no further than its header, or into what ours knows to be no transport header
            true => (packet.fragment.is_some() || facts.src.is_ipv6()) && (later || transport()),
            false => packet.fragment.is_none() && packet.protocol == Protocol(facts.protocol) && transport(),
        }
}

fn same_transport(packet: &Packet, other: Transport) -> bool {
    match (packet.kind, other) {
        (Kind::Tcp(flags), Transport::Tcp(sport, dport, syn, ack)) => {
            (packet.sport, packet.dport, flags.opens(), flags.answers()) == (sport, dport, syn && !ack, syn && ack)
        }
        (Kind::Udp, Transport::Udp(sport, dport)) => (packet.sport, packet.dport) == (sport, dport),
        (Kind::Icmp(IcmpClass::Request), Transport::Icmp(kind, id)) => matches!(kind, 8 | 128) && packet.sport == id,
        (Kind::Icmp(IcmpClass::Reply), Transport::Icmp(kind, id)) => matches!(kind, 0 | 129) && packet.sport == id,
        (Kind::Icmp(IcmpClass::Other), Transport::Icmp(kind, _)) => match packet.protocol {
            Protocol::ICMP => !matches!(kind, 0 | 3 | 4 | 8 | 11 | 12),
            _ => !matches!(kind, 1..=4 | 128 | 129),
        },
        (Kind::IcmpError(_), Transport::Icmp(kind, _)) => matches!(kind, 1..=4 | 11 | 12),
        _ => false,
    }
}

fn is_kind(ours: &Ours, protocol: Protocol, kind: Kind) -> bool {
    matches!(ours, Ok(packet) if packet.protocol == protocol && packet.kind == kind)
}

fn facts(other: &Opinion) -> Option<&Facts> {
    if let Opinion::Packet(facts) = other { Some(facts) } else { None }
}

fn protocol(other: &Opinion) -> Option<u8> {
    facts(other).map(|facts| facts.protocol)
}

fn mapped(other: &Opinion) -> bool {
    let is_mapped = |address: IpAddr| matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    facts(other).is_some_and(|facts| is_mapped(facts.src) || is_mapped(facts.dst))
}

fn is_error(other: &Opinion) -> bool {
    match facts(other) {
        Some(Facts { protocol: 1, transport: Some(Transport::Icmp(kind, _)), .. }) => matches!(kind, 3 | 4 | 11 | 12),
        Some(Facts { protocol: 58, transport: Some(Transport::Icmp(kind, _)), .. }) => matches!(kind, 1..=4),
        _ => false,
    }
}

fn icmp_of_the_other_family(other: &Opinion) -> bool {
    facts(other).is_some_and(|facts| facts.protocol == if facts.src.is_ipv4() { 58 } else { 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> impl Iterator<Item = Vec<u8>> {
        let named = sluice_frames::named().into_iter().map(|case| case.frame);
        named.chain((0..50_000).map(|seed| sluice_frames::frame(&sluice_frames::random_bytes(seed, 192))))
    }

    #[test]
    fn named_and_generated_frames_show_no_difference_that_is_not_meant() {
        let differences: Vec<String> = frames().filter_map(|frame| difference(&frame)).collect();
        assert!(differences.is_empty(), "{} differences\n{}", differences.len(), differences[..differences.len().min(20)].join("\n"));
    }

    #[test]
    fn every_permitted_difference_is_needed() {
        let differing: Vec<_> = frames().filter(|frame| unless_permitted(frame, &|_, _| false).is_some()).collect();
        for (index, unneeded) in PERMITTED.iter().enumerate() {
            let others = |ours: &Ours, other: &Opinion| {
                PERMITTED.iter().enumerate().any(|(at, difference)| at != index && (difference.applies)(ours, other))
            };
            assert!(differing.iter().any(|frame| unless_permitted(frame, &others).is_some()), "not needed: {}", unneeded.reason);
        }
    }
}
