//! Frame → packet: one bounded pass that either understands every header up to the ports or names the reason to drop.
//!
//! ```text
//!   Ethernet ─▶ IPv4 (options) ──────────────────────▶ TCP | UDP | SCTP | ICMP | other
//!            └▶ IPv6 ─▶ extension headers (≤ 8) ─────▶ TCP | UDP | SCTP | ICMPv6 | other
//! ```
//!
//! A first fragment is a packet like others and must have its whole transport header; a later one has no ports, and follows
//! its first by addresses, protocol and identification. One of IPv4 that could overwrite what the first was judged by is refused; those of IPv6 that
//! overlap are refused by receivers (RFC 5722).
//!
//! The BPF programs derive the same key from the packets they can parse and punt all others, so a frame that reaches
//! this parser may be anything. What it refuses is dropped; nothing is passed unparsed. Ports and identifiers are in
//! host order. Sources: RFC 791, 8200 (and 7112: the chain must be in the first fragment), 9293, 768, 9260, 792, 4443.

use crate::limits::EXTENSION_HEADERS_MAX;
use crate::{Addr, DropReason, IcmpClass, Protocol};

/// TCP flags as in the header's 14th byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TcpFlags(pub u8);

impl Kind {
    /// Flags of a protocol whose connections are opened explicitly.
    #[inline]
    pub fn flags(&self) -> Option<TcpFlags> {
        match *self {
            Self::Tcp(flags) | Self::Sctp(flags) => Some(flags),
            _ => None,
        }
    }
}

impl TcpFlags {
    /// FIN.
    pub const FIN: u8 = 0x01;
    /// SYN.
    pub const SYN: u8 = 0x02;
    /// RST.
    pub const RST: u8 = 0x04;
    /// ACK.
    pub const ACK: u8 = 0x10;

    /// SYN without ACK: the first packet of a connection, whatever other flags stand beside it.
    #[inline]
    pub fn opens(self) -> bool {
        self.0 & (Self::SYN | Self::ACK) == Self::SYN
    }

    /// SYN with ACK: surely an answer.
    #[inline]
    pub fn answers(self) -> bool {
        self.0 & (Self::SYN | Self::ACK) == Self::SYN | Self::ACK
    }

    /// What the first chunk of an SCTP packet means in TCP's words: INIT opens, INIT ACK answers, ABORT and SHUTDOWN COMPLETE
    /// end, everything else goes on. INIT stands alone in its packet, so no other chunk need be looked at (RFC 9260, 6.10).
    #[inline]
    pub fn of_sctp(first_chunk: Option<u8>) -> Self {
        Self(match first_chunk {
            Some(1) => Self::SYN,
            Some(2) => Self::SYN | Self::ACK,
            Some(6 | 14) => Self::RST,
            _ => Self::ACK,
        })
    }
}

/// The packet an ICMP error complains about, as its headers were quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IcmpError {
    /// Quoted protocol.
    pub protocol: Protocol,
    /// Quoted source.
    pub src: Addr,
    /// Quoted destination.
    pub dst: Addr,
    /// Quoted source port or ICMP identifier.
    pub sport: u16,
    /// Quoted destination port or ICMP class.
    pub dport: u16,
}

/// What the packet is, as far as tracking a connection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A TCP segment.
    Tcp(TcpFlags),
    /// A UDP datagram.
    Udp,
    /// An ICMP or ICMPv6 message that is no error.
    Icmp(IcmpClass),
    /// An ICMP or ICMPv6 error and what it quotes.
    IcmpError(IcmpError),
    /// SCTP, and its first chunk as [`TcpFlags::of_sctp`] has it.
    Sctp(TcpFlags),
    /// Any other protocol: no ports.
    Other,
}

/// A piece of a packet, by its identification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragment {
    /// With the transport header; more follow.
    First(u32),
    /// Without it.
    Later(u32),
}

/// A parsed packet; its [`crate::FlowKey`] lacks only the port and direction, which the trunk header tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// The protocol behind all extension headers. Of a later fragment of IPv6 nobody knows: 0.
    pub protocol: Protocol,
    /// Source port, or ICMP identifier, or 0.
    pub sport: u16,
    /// Destination port, or [`IcmpClass`], or 0.
    pub dport: u16,
    /// What it is.
    pub kind: Kind,
    /// Where it is but a piece.
    pub fragment: Option<Fragment>,
}

/// Why a frame has no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(pub DropReason);

const ETHERNET: usize = 14;

fn be16(bytes: &[u8], at: usize) -> Result<u16, ParseError> {
    match bytes.get(at..at + 2) {
        Some(&[high, low]) => Ok(u16::from_be_bytes([high, low])),
        _ => Err(ParseError(DropReason::Malformed)),
    }
}

fn byte(bytes: &[u8], at: usize) -> Result<u8, ParseError> {
    bytes.get(at).copied().ok_or(ParseError(DropReason::Malformed))
}

/// Parses an Ethernet frame. Cost: one pass over the headers, no allocation. Panics: never.
///
/// # Errors
/// The reason under which the frame is to be dropped.
pub fn parse_frame(frame: &[u8]) -> Result<Packet, ParseError> {
    let ethertype = be16(frame, 12)?;
    let l3 = &frame[ETHERNET..];
    match ethertype {
        0x0800 => parse_v4(l3),
        0x86dd => parse_v6(l3),
        0x8100 | 0x88a8 => Err(ParseError(DropReason::Vlan)),
        _ => Err(ParseError(DropReason::EtherType)),
    }
}

fn parse_v4(l3: &[u8]) -> Result<Packet, ParseError> {
    let malformed = ParseError(DropReason::Malformed);
    let header_bytes = usize::from(byte(l3, 0)? & 0xf) * 4;
    let total_bytes = usize::from(be16(l3, 2)?);
    if l3[0] >> 4 != 4 || header_bytes < 20 || total_bytes < header_bytes || total_bytes > l3.len() {
        return Err(malformed);
    }
    let (src, dst) = v4_addresses(l3)?;
    let (protocol, field, id) = (Protocol(l3[9]), be16(l3, 6)?, u32::from(be16(l3, 4)?));
    let (offset, more) = (field & 0x1fff, field & 0x2000 != 0);
    match (offset, more) {
        (0, false) => transport(protocol, &l3[header_bytes..total_bytes], src, dst, false, None),
        (0, true) => transport(protocol, &l3[header_bytes..total_bytes], src, dst, false, Some(Fragment::First(id))),
        _ if usize::from(offset) * 8 < judged_bytes(protocol) => Err(malformed),
        _ => Ok(later(protocol, src, dst, id)),
    }
}

/// How much of the transport header a verdict hangs on; no later fragment may lie over it (RFC 1858, 3128).
fn judged_bytes(protocol: Protocol) -> usize {
    match protocol {
        Protocol::TCP => 20,
        // up to the first chunk's type
        Protocol::SCTP => 16,
        _ => 8,
    }
}

fn later(protocol: Protocol, src: Addr, dst: Addr, id: u32) -> Packet {
    Packet { src, dst, protocol, sport: 0, dport: 0, kind: Kind::Other, fragment: Some(Fragment::Later(id)) }
}

fn v4_addresses(l3: &[u8]) -> Result<(Addr, Addr), ParseError> {
    match l3.get(12..20) {
        Some(&[a, b, c, d, e, f, g, h]) => Ok((Addr::v4([a, b, c, d]), Addr::v4([e, f, g, h]))),
        _ => Err(ParseError(DropReason::Malformed)),
    }
}

fn v6_addresses(l3: &[u8]) -> Result<(Addr, Addr), ParseError> {
    let take = |at: usize| -> Result<Addr, ParseError> {
        let bytes = l3.get(at..at + 16).and_then(|b| b.first_chunk::<16>()).ok_or(ParseError(DropReason::Malformed))?;
        Ok(Addr(*bytes))
    };
    let (src, dst) = (take(8)?, take(24)?);
    // a mapped address on the wire would take the identity of an IPv4 one
    if src.to_v4().is_some() || dst.to_v4().is_some() {
        return Err(ParseError(DropReason::Malformed));
    }
    Ok((src, dst))
}

fn parse_v6(l3: &[u8]) -> Result<Packet, ParseError> {
    let malformed = ParseError(DropReason::Malformed);
    if byte(l3, 0)? >> 4 != 6 {
        return Err(malformed);
    }
    let end = 40 + usize::from(be16(l3, 4)?);
    if end > l3.len() {
        return Err(malformed);
    }
    let (src, dst) = v6_addresses(l3)?;
    match extension_chain(l3[6], &l3[..end])? {
        Chain { fragment: Some(Fragment::Later(id)), .. } => Ok(later(Protocol(0), src, dst, id)),
        Chain { protocol, at, fragment } => transport(protocol, &l3[at..end], src, dst, true, fragment),
    }
}

/// What extension headers lead to: the upper protocol and where it begins, unless it is in another fragment.
struct Chain {
    protocol: Protocol,
    at: usize,
    fragment: Option<Fragment>,
}

/// Walks the extension headers; `l3` ends where the packet ends. A fragment that is the whole packet (RFC 6946) is none.
fn extension_chain(first: u8, l3: &[u8]) -> Result<Chain, ParseError> {
    let chain = ParseError(DropReason::ExtensionChain);
    let (mut next, mut at) = (first, 40);
    let (mut fragment, mut has_been) = (None, false);
    for index in 0..=EXTENSION_HEADERS_MAX {
        match next {
            // hop-by-hop options stand first or nowhere
            0 if index != 0 => return Err(chain),
            0 | 43 | 60 | 135 | 139 | 140 => {
                next = byte(l3, at)?;
                at += 8 + usize::from(byte(l3, at + 1)?) * 8;
            }
            51 => {
                next = byte(l3, at)?;
                let header_bytes = (usize::from(byte(l3, at + 1)?) + 2) * 4;
                // RFC 4302: twelve bytes before the check value
                if header_bytes < 12 {
                    return Err(ParseError(DropReason::Malformed));
                }
                at += header_bytes;
            }
            // one, and none behind it
            44 if has_been => return Err(chain),
            44 => {
                has_been = true;
                next = byte(l3, at)?;
                let (field, id) = (be16(l3, at + 2)?, u32::from(be16(l3, at + 4)?) << 16 | u32::from(be16(l3, at + 6)?));
                match (field >> 3, field & 1 != 0) {
                    (0, false) => {}
                    (0, true) => fragment = Some(Fragment::First(id)),
                    _ => return Ok(Chain { protocol: Protocol(0), at, fragment: Some(Fragment::Later(id)) }),
                }
                at += 8;
            }
            upper => {
                if at > l3.len() {
                    return Err(ParseError(DropReason::Malformed));
                }
                return Ok(Chain { protocol: Protocol(upper), at, fragment });
            }
        }
    }
    Err(chain)
}

fn transport(protocol: Protocol, l4: &[u8], src: Addr, dst: Addr, v6: bool, fragment: Option<Fragment>) -> Result<Packet, ParseError> {
    let malformed = ParseError(DropReason::Malformed);
    let packet = |sport, dport, kind| Ok(Packet { src, dst, protocol, sport, dport, kind, fragment });
    match protocol {
        Protocol::TCP => {
            let header_bytes = usize::from(byte(l4, 12)? >> 4) * 4;
            if header_bytes < 20 || header_bytes > l4.len() {
                return Err(malformed);
            }
            packet(be16(l4, 0)?, be16(l4, 2)?, Kind::Tcp(TcpFlags(l4[13])))
        }
        Protocol::UDP => {
            let len = usize::from(be16(l4, 4)?);
            // a length of 0 is legal only in IPv6 jumbograms, which the frame size rules out
            // that of all fragments together stands in the first
            if len < 8 || l4.len() < 8 || (len > l4.len() && fragment.is_none()) {
                return Err(malformed);
            }
            packet(be16(l4, 0)?, be16(l4, 2)?, Kind::Udp)
        }
        Protocol::SCTP => {
            if l4.len() < 12 {
                return Err(malformed);
            }
            packet(be16(l4, 0)?, be16(l4, 2)?, Kind::Sctp(TcpFlags::of_sctp(l4.get(12).copied())))
        }
        // each family's ICMP belongs to it alone
        Protocol::ICMP if v6 => Err(malformed),
        Protocol::ICMPV6 if !v6 => Err(malformed),
        Protocol::ICMP | Protocol::ICMPV6 => icmp(protocol, l4, src, dst).map(|packet| Packet { fragment, ..packet }),
        _ => packet(0, 0, Kind::Other),
    }
}

fn icmp(protocol: Protocol, l4: &[u8], src: Addr, dst: Addr) -> Result<Packet, ParseError> {
    if l4.len() < 8 {
        return Err(ParseError(DropReason::Malformed));
    }
    let v6 = protocol == Protocol::ICMPV6;
    let query = |class: IcmpClass| {
        let id = if class == IcmpClass::Other { 0 } else { be16(l4, 4)? };
        Ok(Packet { src, dst, protocol, sport: id, dport: class as u16, kind: Kind::Icmp(class), fragment: None })
    };
    match (v6, l4[0]) {
        (false, 8) | (true, 128) => query(IcmpClass::Request),
        (false, 0) | (true, 129) => query(IcmpClass::Reply),
        (false, 3 | 4 | 11 | 12) | (true, 1..=4) => {
            let inner = if v6 { quoted_v6(&l4[8..])? } else { quoted_v4(&l4[8..])? };
            Ok(Packet { src, dst, protocol, sport: 0, dport: 0, kind: Kind::IcmpError(inner), fragment: None })
        }
        _ => query(IcmpClass::Other),
    }
}

fn quoted_v4(quoted: &[u8]) -> Result<IcmpError, ParseError> {
    let header_bytes = usize::from(byte(quoted, 0)? & 0xf) * 4;
    if quoted[0] >> 4 != 4 || header_bytes < 20 || be16(quoted, 6)? & 0x1fff != 0 {
        return Err(ParseError(DropReason::Malformed));
    }
    let (src, dst) = v4_addresses(quoted)?;
    let l4 = quoted.get(header_bytes..).ok_or(ParseError(DropReason::Malformed))?;
    quoted_ports(Protocol(quoted[9]), l4, src, dst)
}

fn quoted_v6(quoted: &[u8]) -> Result<IcmpError, ParseError> {
    if byte(quoted, 0)? >> 4 != 6 || quoted.len() < 40 {
        return Err(ParseError(DropReason::Malformed));
    }
    let (src, dst) = v6_addresses(quoted)?;
    let Chain { protocol, at, fragment } = extension_chain(quoted[6], quoted)?;
    if matches!(fragment, Some(Fragment::Later(_))) {
        return Err(ParseError(DropReason::Malformed));
    }
    quoted_ports(protocol, &quoted[at..], src, dst)
}

fn quoted_ports(protocol: Protocol, l4: &[u8], src: Addr, dst: Addr) -> Result<IcmpError, ParseError> {
    let (sport, dport) = match protocol {
        Protocol::TCP | Protocol::UDP | Protocol::SCTP => (be16(l4, 0)?, be16(l4, 2)?),
        Protocol::ICMP | Protocol::ICMPV6 => match byte(l4, 0)? {
            8 | 128 => (be16(l4, 4)?, IcmpClass::Request as u16),
            0 | 129 => (be16(l4, 4)?, IcmpClass::Reply as u16),
            // errors about errors do not exist
            _ => return Err(ParseError(DropReason::Malformed)),
        },
        _ => (0, 0),
    };
    Ok(IcmpError { protocol, src, dst, sport, dport })
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    fn built(builder: etherparse::PacketBuilderStep<etherparse::UdpHeader>, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        builder.write(&mut frame, payload).unwrap();
        frame
    }

    fn udp4() -> Vec<u8> {
        built(PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(4000, 53), b"hello")
    }

    #[test]
    fn plain_packets_give_their_key() {
        let packet = parse_frame(&udp4()).unwrap();
        assert_eq!((packet.sport, packet.dport, packet.kind), (4000, 53, Kind::Udp));
        assert_eq!(packet.src.to_string(), "10.0.0.1");
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv6([0xfd; 16], [0xfc; 16], 64)
            .tcp(4000, 80, 1, 1000)
            .syn()
            .write(&mut frame, b"")
            .unwrap();
        let packet = parse_frame(&frame).unwrap();
        assert_eq!(packet.protocol, Protocol::TCP);
        assert!(matches!(packet.kind, Kind::Tcp(flags) if flags.opens()));
    }

    #[test]
    fn each_bad_header_has_its_reason() {
        let edit = |at: usize, value: u8| {
            let mut frame = udp4();
            frame[at] = value;
            parse_frame(&frame).unwrap_err().0
        };
        assert_eq!(edit(12, 0x81), DropReason::Vlan);
        assert_eq!(edit(12, 0x88), DropReason::EtherType);
        assert_eq!(edit(14, 0x44), DropReason::Malformed, "header length below 20");
        assert_eq!(edit(14, 0x55), DropReason::Malformed, "version 5");
        assert_eq!(edit(17, 200), DropReason::Malformed, "total length beyond the frame");
        assert_eq!(edit(39, 7), DropReason::Malformed, "UDP length below its header");
        assert_eq!(edit(23, 58), DropReason::Malformed, "ICMPv6 in IPv4");
        for len in 0..udp4().len() {
            assert!(parse_frame(&udp4()[..len]).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn fragments_are_told_apart_and_none_lies_over_a_header() {
        let edit = |edits: &[(usize, u8)]| {
            let mut frame = udp4();
            edits.iter().for_each(|(at, value)| frame[*at] = *value);
            parse_frame(&frame)
        };
        let first = edit(&[(18, 1), (19, 2), (20, 0x20)]).unwrap();
        assert_eq!((first.sport, first.dport, first.fragment), (4000, 53, Some(Fragment::First(0x102))));
        let later = edit(&[(19, 2), (21, 1)]).unwrap();
        assert_eq!((later.protocol, later.sport, later.fragment), (Protocol::UDP, 0, Some(Fragment::Later(2))));
        assert_eq!(edit(&[(20, 0x20), (38, 0xff)]).unwrap().dport, 53, "the length of all fragments");
        for (protocol, offsets) in [(6, 1..3u8), (132, 1..2), (17, 1..1)] {
            for offset in 1..4 {
                let refused = edit(&[(23, protocol), (21, offset)]).is_err();
                assert_eq!(refused, offsets.contains(&offset), "protocol {protocol} at {offset}");
            }
        }
        // TCP's flags are not in it
        assert!(edit(&[(23, 6), (20, 0x20)]).is_err());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(frame in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_frame(&frame);
        }

        #[test]
        fn parsing_never_panics_on_nearly_good_frames(edits in proptest::collection::vec((0usize..60, any::<u8>()), 0..6)) {
            let mut frame = udp4();
            for (at, value) in edits {
                let at = at % frame.len();
                frame[at] = value;
            }
            let _ = parse_frame(&frame);
        }
    }
}
