//! Frames made by hand, true and forged, and what a frame that arrived is.

use super::PacketSocket;
use anyhow::{Context, Result};
use etherparse::{Icmpv4Type, Icmpv6Type, IpNumber, NetSlice, PacketBuilder, PacketBuilderStep, SlicedPacket, TransportSlice};
use serde_json::Value;
use sluice_flow::Family;
use sluice_lab::{Lab, NetNs};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::time::Duration;

/// An Ethernet address.
pub type Mac = [u8; 6];

const TTL: u8 = 64;
/// Neighbour discovery is only believed with this hop limit (RFC 4861, 7.1).
const NEIGHBOUR_TTL: u8 = 255;
const SCTP: u8 = 132;
const BROADCAST: Mac = [0xff; 6];

/// Where a pod's frames come from and go to.
#[derive(Debug, Clone, Copy)]
pub struct Link {
    /// The pod's end.
    pub pod: Mac,
    /// The node's end.
    pub gateway: Mac,
}

impl Link {
    /// Of an attached pod.
    ///
    /// # Errors
    /// The pod or a device is not there.
    pub fn of(lab: &Lab, pod: &str) -> Result<Self> {
        let host_ifname = lab.pod(pod)?.host_ifname;
        Ok(Self { pod: mac(&lab.pod_netns(pod), "eth0")?, gateway: mac(&lab.node(), &host_ifname)? })
    }
}

/// The Ethernet address of a device.
///
/// # Errors
/// No such device.
pub fn mac(netns: &NetNs, device: &str) -> Result<Mac> {
    let links = ip_json(netns, &["link", "show", "dev", device])?;
    let text = links[0]["address"].as_str().with_context(|| format!("no address on {device}: {links}"))?;
    let bytes = text.split(':').map(|part| u8::from_str_radix(part, 16)).collect::<Result<Vec<u8>, _>>()?;
    Mac::try_from(bytes.as_slice()).with_context(|| format!("no Ethernet address: {text}"))
}

/// What `ip -json` says in a namespace.
///
/// # Errors
/// It fails.
pub fn ip_json(netns: &NetNs, args: &[&str]) -> Result<Value> {
    let output = Command::new("ip").args(["-n", netns.name(), "-json"]).args(args).output().context("run ip")?;
    anyhow::ensure!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    if output.stdout.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_slice(&output.stdout)?) }
}

fn ip(link: Link, src: IpAddr, dst: IpAddr, ttl: u8) -> PacketBuilderStep<etherparse::IpHeaders> {
    let frame = PacketBuilder::ethernet2(link.pod, link.gateway);
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => frame.ipv4(src.octets(), dst.octets(), ttl),
        (IpAddr::V6(src), IpAddr::V6(dst)) => frame.ipv6(src.octets(), dst.octets(), ttl),
        (src, dst) => panic!("{src} and {dst} are of two families"),
    }
}

/// A datagram.
pub fn udp(link: Link, src: (IpAddr, u16), dst: (IpAddr, u16), payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = ip(link, src.0, dst.0, TTL).udp(src.1, dst.1);
    builder.write(&mut frame, payload).expect("writing to memory");
    frame
}

/// Types of SCTP's first chunks, and the tag of both ends. Source: RFC 9260, 3.3.2.
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const TAG: [u8; 4] = [0, 0, 0, 7];

/// An SCTP packet with chunks of these types. Its checksum is as the wire wants it (RFC 9260, appendix A).
pub fn sctp(link: Link, src: (IpAddr, u16), dst: (IpAddr, u16), chunks: &[u8]) -> Vec<u8> {
    let mut packet = [src.1.to_be_bytes(), dst.1.to_be_bytes()].concat();
    // verification tag, none where it is about to be agreed on; then room for the checksum
    let tag = if chunks.first() == Some(&INIT) { [0; 4] } else { TAG };
    packet.extend([tag, [0; 4]].concat());
    for &kind in chunks {
        match kind {
            // tag, window, streams, first number
            INIT | INIT_ACK => packet.extend([&[kind, 0, 0, 20][..], &TAG, &[0, 1, 0, 0], &[0, 1, 0, 1], &[0, 0, 0, 1]].concat()),
            _ => packet.extend([kind, 0, 0, 8, 0, 0, 0, 0]),
        }
    }
    let sum = crc32c(&packet);
    packet[8..12].copy_from_slice(&sum.to_le_bytes());
    let mut frame = Vec::new();
    ip(link, src.0, dst.0, TTL).write(&mut frame, IpNumber(SCTP), &packet).expect("writing to memory");
    frame
}

fn crc32c(bytes: &[u8]) -> u32 {
    let step = |sum: u32, _| sum >> 1 ^ if sum & 1 == 1 { 0x82f6_3b78 } else { 0 };
    !bytes.iter().fold(!0, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), step))
}

/// A TCP SYN.
pub fn syn(link: Link, src: (IpAddr, u16), dst: (IpAddr, u16), sequence: u32) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = ip(link, src.0, dst.0, TTL).tcp(src.1, dst.1, sequence, 64_000).syn();
    builder.write(&mut frame, &[]).expect("writing to memory");
    frame
}

/// A TCP segment in mid-flow, without data.
pub fn ack(link: Link, src: (IpAddr, u16), dst: (IpAddr, u16)) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = ip(link, src.0, dst.0, TTL).tcp(src.1, dst.1, 1, 64_000).ack(1);
    builder.write(&mut frame, &[]).expect("writing to memory");
    frame
}

/// An echo request or reply.
pub fn echo(link: Link, src: IpAddr, dst: IpAddr, id: u16, seq: u16, request: bool) -> Vec<u8> {
    let mut frame = Vec::new();
    let (builder, body) = (ip(link, src, dst, TTL), b"sluice live test");
    let written = match (src.is_ipv4(), request) {
        (true, true) => builder.icmpv4_echo_request(id, seq).write(&mut frame, body),
        (true, false) => builder.icmpv4_echo_reply(id, seq).write(&mut frame, body),
        (false, true) => builder.icmpv6_echo_request(id, seq).write(&mut frame, body),
        (false, false) => builder.icmpv6_echo_reply(id, seq).write(&mut frame, body),
    };
    written.expect("writing to memory");
    frame
}

/// An ARP message that claims `claimed` for `mac`: a request for itself or a reply to everybody.
pub fn arp_claim(link: Link, mac: Mac, claimed: Ipv4Addr, reply: bool) -> Vec<u8> {
    let operation = if reply { 2 } else { 1 };
    let mut frame = [&BROADCAST[..], &link.pod, &[0x08, 0x06]].concat();
    frame.extend([0, 1, 0x08, 0, 6, 4, 0, operation]);
    frame.extend([&mac[..], &claimed.octets(), &BROADCAST, &claimed.octets()].concat());
    frame
}

/// A neighbour advertisement that claims `claimed` for `mac`, overriding what is known (RFC 4861, 4.4).
pub fn neighbour_claim(link: Link, src: Ipv6Addr, dst: Ipv6Addr, claimed: Ipv6Addr, mac: Mac) -> Vec<u8> {
    const OVERRIDE: [u8; 4] = [0x20, 0, 0, 0];
    const TARGET_LINK_LAYER: [u8; 2] = [2, 1];
    let body = [&claimed.octets()[..], &TARGET_LINK_LAYER, &mac].concat();
    icmpv6_raw(link, src, dst, 136, OVERRIDE, &body)
}

/// A router advertisement from a link-local address: a default route for half an hour (RFC 4861, 4.2).
pub fn router_advertisement(link: Link) -> Vec<u8> {
    const HOP_LIMIT_AND_LIFETIME: [u8; 4] = [64, 0, 0x07, 0x08];
    let src: Ipv6Addr = "fe80::bad".parse().expect("an address");
    let all_nodes: Ipv6Addr = "ff02::1".parse().expect("an address");
    icmpv6_raw(link, src, all_nodes, 134, HOP_LIMIT_AND_LIFETIME, &[0; 8])
}

fn icmpv6_raw(link: Link, src: Ipv6Addr, dst: Ipv6Addr, kind: u8, word: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = ip(link, src.into(), dst.into(), NEIGHBOUR_TTL).icmpv6_raw(kind, 0, word);
    builder.write(&mut frame, body).expect("writing to memory");
    frame
}

/// What a frame is, as far as these tests ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// The rest.
    pub what: What,
}

/// See [`Arrival`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// SYN without ACK.
    Syn(u16, u16),
    /// Other TCP: source and destination port.
    Tcp(u16, u16),
    /// Source and destination port.
    Udp(u16, u16),
    /// Source and destination port, and the first chunk.
    Sctp(u16, u16, u8),
    /// With its identifier.
    EchoRequest(u16),
    /// With its identifier.
    EchoReply(u16),
    /// Other IP.
    Other(u8),
}

/// The IP packets that arrive at a tap within `limit`.
///
/// # Errors
/// The tap's.
pub fn arrivals(tap: &PacketSocket, limit: Duration) -> Result<Vec<Arrival>> {
    Ok(tap.frames(limit)?.iter().filter_map(|frame| arrival(frame)).collect())
}

fn arrival(frame: &[u8]) -> Option<Arrival> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (src, dst, body): (IpAddr, IpAddr, _) = match packet.net? {
        NetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into(), ip.payload().clone()),
        NetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into(), ip.payload().clone()),
        NetSlice::Arp(_) => return None,
    };
    let IpNumber(protocol) = body.ip_number;
    let what = match packet.transport {
        Some(TransportSlice::Tcp(tcp)) if tcp.syn() && !tcp.ack() => What::Syn(tcp.source_port(), tcp.destination_port()),
        Some(TransportSlice::Tcp(tcp)) => What::Tcp(tcp.source_port(), tcp.destination_port()),
        Some(TransportSlice::Udp(udp)) => What::Udp(udp.source_port(), udp.destination_port()),
        Some(TransportSlice::Icmpv4(icmp)) => match icmp.icmp_type() {
            Icmpv4Type::EchoRequest(echo) => What::EchoRequest(echo.id),
            Icmpv4Type::EchoReply(echo) => What::EchoReply(echo.id),
            _ => What::Other(protocol),
        },
        Some(TransportSlice::Icmpv6(icmp)) => match icmp.icmp_type() {
            Icmpv6Type::EchoRequest(echo) => What::EchoRequest(echo.id),
            Icmpv6Type::EchoReply(echo) => What::EchoReply(echo.id),
            _ => What::Other(protocol),
        },
        _ => match (protocol, body.payload) {
            (SCTP, &[s0, s1, d0, d1, _, _, _, _, _, _, _, _, chunk, ..]) => {
                What::Sctp(u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]), chunk)
            }
            _ => What::Other(protocol),
        },
    };
    Some(Arrival { src, dst, what })
}

/// A pod's IPv4 and IPv6 addresses.
///
/// # Errors
/// It has only one family.
pub fn addresses(lab: &Lab, pod: &str) -> Result<(Ipv4Addr, Ipv6Addr)> {
    match (lab.pod_address(pod, Family::V4)?, lab.pod_address(pod, Family::V6)?) {
        (IpAddr::V4(v4), IpAddr::V6(v6)) => Ok((v4, v6)),
        other => anyhow::bail!("{pod}: {other:?}"),
    }
}
