//! What two other parsers say of a frame: etherparse, and the wire module of smoltcp.
//!
//! smoltcp knows headers and leaves the way from one to the next to its interface; that way is written down here a second
//! time, straight from RFC 8200.

use etherparse::{IpNumber, NetSlice, SlicedPacket, TransportSlice};
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, Icmpv4Packet, Icmpv6Packet, IpProtocol, IpSecAuthHeaderPacket, Ipv4Packet, Ipv6ExtHeader,
    Ipv6FragmentHeader, Ipv6Packet, TcpPacket, UdpPacket,
};
use std::net::IpAddr;

/// Facts of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// Behind all extension headers.
    pub protocol: u8,
    /// A piece of a packet, or a packet with a fragment header.
    pub fragment: bool,
    /// What the transport header says, where the parser knows it.
    pub transport: Option<Transport>,
}

/// What a transport header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP: ports, SYN, ACK.
    Tcp(u16, u16, bool, bool),
    /// UDP: ports.
    Udp(u16, u16),
    /// ICMP of either family: type, and the two bytes where queries have their identifier.
    Icmp(u8, u16),
}

/// One parser's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opinion {
    /// A header is broken.
    Refused,
    /// Tagged, or no IP.
    NotIp,
    /// A packet.
    Packet(Facts),
}

/// etherparse's.
pub fn etherparse(frame: &[u8]) -> Opinion {
    let Ok(packet) = SlicedPacket::from_ethernet(frame) else { return Opinion::Refused };
    if !packet.link_exts.is_empty() {
        return Opinion::NotIp;
    }
    let (src, dst, payload, atomic): (IpAddr, IpAddr, _, bool) = match packet.net {
        Some(NetSlice::Ipv4(ip)) => (ip.header().source_addr().into(), ip.header().destination_addr().into(), ip.payload().clone(), false),
        Some(NetSlice::Ipv6(ip)) => {
            let mut extensions = ip.extensions().clone().into_iter();
            let atomic = extensions.any(|extension| matches!(extension, etherparse::Ipv6ExtensionSlice::Fragment(_)));
            (ip.header().source_addr().into(), ip.header().destination_addr().into(), ip.payload().clone(), atomic)
        }
        Some(NetSlice::Arp(_)) | None => return Opinion::NotIp,
    };
    let IpNumber(protocol) = payload.ip_number;
    let transport = packet.transport.and_then(|transport| match transport {
        TransportSlice::Tcp(tcp) => Some(Transport::Tcp(tcp.source_port(), tcp.destination_port(), tcp.syn(), tcp.ack())),
        TransportSlice::Udp(udp) => Some(Transport::Udp(udp.source_port(), udp.destination_port())),
        TransportSlice::Icmpv4(icmp) => Some(icmp_of(icmp.slice())),
        TransportSlice::Icmpv6(icmp) => Some(icmp_of(icmp.slice())),
        _ => None,
    });
    Opinion::Packet(Facts { src, dst, protocol, fragment: payload.fragmented || atomic, transport })
}

/// Of a message of at least eight bytes.
fn icmp_of(message: &[u8]) -> Transport {
    Transport::Icmp(message[0], u16::from_be_bytes([message[4], message[5]]))
}

/// smoltcp's.
pub fn smoltcp(frame: &[u8]) -> Opinion {
    let Ok(ethernet) = EthernetFrame::new_checked(frame) else { return Opinion::Refused };
    let facts = match ethernet.ethertype() {
        EthernetProtocol::Ipv4 => smoltcp_v4(ethernet.payload()),
        EthernetProtocol::Ipv6 => smoltcp_v6(ethernet.payload()),
        _ => return Opinion::NotIp,
    };
    facts.map_or(Opinion::Refused, Opinion::Packet)
}

fn smoltcp_v4(packet: &[u8]) -> Option<Facts> {
    let ip = Ipv4Packet::new_checked(packet).ok().filter(|ip| ip.version() == 4)?;
    let (protocol, fragment) = (ip.next_header(), ip.more_frags() || ip.frag_offset() != 0);
    let transport = if fragment { None } else { smoltcp_transport(protocol, ip.payload())? };
    Some(Facts { src: ip.src_addr().into(), dst: ip.dst_addr().into(), protocol: protocol.into(), fragment, transport })
}

fn smoltcp_v6(packet: &[u8]) -> Option<Facts> {
    let ip = Ipv6Packet::new_checked(packet).ok().filter(|ip| ip.version() == 6)?;
    let (mut protocol, mut rest, mut first) = (ip.next_header(), ip.payload(), true);
    let facts = |protocol: IpProtocol, fragment, transport| Facts {
        src: ip.src_addr().into(),
        dst: ip.dst_addr().into(),
        protocol: protocol.into(),
        fragment,
        transport,
    };
    loop {
        match u8::from(protocol) {
            0 if !first => return None,
            // RFC 6275, 7401 and 5533 give these three the general form
            0 | 43 | 60 | 135 | 139 | 140 => {
                let header = Ipv6ExtHeader::new_checked(rest).ok()?;
                (protocol, rest) = (header.next_header(), rest.get(8 + usize::from(header.header_len()) * 8..)?);
            }
            44 => {
                let header = Ipv6FragmentHeader::new_checked(rest.get(2..)?).ok()?;
                let whole = header.frag_offset() == 0 && !header.more_frags();
                // an atomic fragment is a whole packet to a host, and one with a fragment header to us
                return Some(facts(IpProtocol::from(rest[0]), true, None)).filter(|_| whole || rest.len() >= 8);
            }
            51 => {
                let header = IpSecAuthHeaderPacket::new_checked(rest).ok()?;
                (protocol, rest) = (header.next_header(), rest.get((usize::from(header.payload_len()) + 2) * 4..)?);
            }
            _ => return Some(facts(protocol, false, smoltcp_transport(protocol, rest)?)),
        }
        first = false;
    }
}

/// `None`: broken; `Some(None)`: not looked into.
fn smoltcp_transport(protocol: IpProtocol, payload: &[u8]) -> Option<Option<Transport>> {
    Some(match protocol {
        IpProtocol::Tcp => {
            let tcp = TcpPacket::new_checked(payload).ok()?;
            Some(Transport::Tcp(tcp.src_port(), tcp.dst_port(), tcp.syn(), tcp.ack()))
        }
        IpProtocol::Udp => {
            let udp = UdpPacket::new_checked(payload).ok()?;
            Some(Transport::Udp(udp.src_port(), udp.dst_port()))
        }
        IpProtocol::Icmp => {
            Icmpv4Packet::new_checked(payload).ok()?;
            payload.get(..8).map(icmp_of)
        }
        IpProtocol::Icmpv6 => {
            Icmpv6Packet::new_checked(payload).ok()?;
            payload.get(..8).map(icmp_of)
        }
        _ => None,
    })
}
