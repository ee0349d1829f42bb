//! Headers written by hand. Every field that may lie can be made to: lengths are right unless told otherwise.

use crate::{GATEWAY, PEER, POD};

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;

/// IPv6 hop-by-hop options.
pub const HOP_BY_HOP: u8 = 0;
/// ICMP.
pub const ICMP: u8 = 1;
/// IPv4 in IP.
pub const IPIP: u8 = 4;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// IPv6 in IP.
pub const IPV6_IN_IP: u8 = 41;
/// IPv6 routing header.
pub const ROUTING: u8 = 43;
/// IPv6 fragment header.
pub const FRAGMENT: u8 = 44;
/// GRE.
pub const GRE: u8 = 47;
/// Authentication header.
pub const AUTHENTICATION: u8 = 51;
/// ICMPv6.
pub const ICMPV6: u8 = 58;
/// IPv6: nothing follows.
pub const NO_NEXT: u8 = 59;
/// IPv6 destination options.
pub const DESTINATION: u8 = 60;
/// SCTP.
pub const SCTP: u8 = 132;
/// IPv6 mobility header.
pub const MOBILITY: u8 = 135;
/// Host identity protocol.
pub const HIP: u8 = 139;
/// Shim6.
pub const SHIM6: u8 = 140;

/// A frame from the pod to its gateway.
pub fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&GATEWAY.mac[..], &POD.mac, &ethertype.to_be_bytes(), payload].concat()
}

/// A tag and the type behind it, to stand behind an EtherType of 0x8100 or 0x88a8.
pub fn vlan_tag(id: u16, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&id.to_be_bytes()[..], &ethertype.to_be_bytes(), payload].concat()
}

/// An IPv4 header. `None`: the true value.
#[derive(Debug, Clone)]
pub struct V4 {
    /// Source.
    pub src: [u8; 4],
    /// Destination.
    pub dst: [u8; 4],
    /// What it carries.
    pub protocol: u8,
    /// Reserved bit, DF, MF and the offset in units of 8 bytes.
    pub flags_and_offset: u16,
    /// Whole words.
    pub options: Vec<u8>,
    /// Version and header length.
    pub first_byte: Option<u8>,
    /// Of header and payload.
    pub total_length: Option<u16>,
}

impl V4 {
    /// From the pod to its peer.
    pub fn new(protocol: u8) -> Self {
        let (flags_and_offset, options) = (0x4000, Vec::new());
        Self { src: POD.v4, dst: PEER.v4, protocol, flags_and_offset, options, first_byte: None, total_length: None }
    }

    /// The packet.
    pub fn around(&self, payload: &[u8]) -> Vec<u8> {
        let header_bytes = 20 + self.options.len();
        let true_length = u16::try_from(header_bytes + payload.len()).unwrap_or(u16::MAX);
        let mut packet = vec![self.first_byte.unwrap_or(0x40 | (header_bytes / 4) as u8 & 0xf), 0];
        packet.extend(self.total_length.unwrap_or(true_length).to_be_bytes());
        packet.extend([0, 1]);
        packet.extend(self.flags_and_offset.to_be_bytes());
        packet.extend([64, self.protocol, 0, 0]);
        [&packet[..], &self.src, &self.dst, &self.options, payload].concat()
    }
}

/// An IPv6 header. `None`: the true value.
#[derive(Debug, Clone)]
pub struct V6 {
    /// Source.
    pub src: [u8; 16],
    /// Destination.
    pub dst: [u8; 16],
    /// 255 for neighbour discovery.
    pub hop_limit: u8,
    /// Version and the upper half of the traffic class.
    pub first_byte: Option<u8>,
    /// Of everything behind this header.
    pub payload_length: Option<u16>,
    /// Between it and what it carries.
    pub extensions: Vec<Extension>,
}

impl Default for V6 {
    /// From the pod to its peer.
    fn default() -> Self {
        Self { src: POD.v6, dst: PEER.v6, hop_limit: 64, first_byte: None, payload_length: None, extensions: Vec::new() }
    }
}

impl V6 {
    /// With these extension headers.
    pub fn with(extensions: &[Extension]) -> Self {
        Self { extensions: extensions.to_vec(), ..Self::default() }
    }

    /// The packet.
    pub fn around(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut next = protocol;
        let mut body = payload.to_vec();
        for extension in self.extensions.iter().rev() {
            body = [extension.bytes(next), body].concat();
            next = extension.kind;
        }
        let true_length = u16::try_from(body.len()).unwrap_or(u16::MAX);
        let mut packet = vec![self.first_byte.unwrap_or(0x60), 0, 0, 0];
        packet.extend(self.payload_length.unwrap_or(true_length).to_be_bytes());
        packet.extend([next, self.hop_limit]);
        [&packet[..], &self.src, &self.dst, &body].concat()
    }
}

/// One IPv6 extension header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extension {
    /// Its own number.
    pub kind: u8,
    /// Units of 8 bytes beyond the first 8 (authentication: of 4 beyond the first 8).
    pub units: u8,
    /// What its length field says, where that is a lie.
    pub claimed_units: Option<u8>,
    /// Fragment: offset, reserved bits and M.
    pub fragment: u16,
}

impl Extension {
    /// The shortest of a kind.
    pub fn of(kind: u8) -> Self {
        Self { kind, units: u8::from(kind == AUTHENTICATION), claimed_units: None, fragment: 0 }
    }

    /// A fragment header: offset in units of 8 bytes, and whether more follow.
    pub fn fragment(offset: u16, more: bool) -> Self {
        Self { fragment: offset << 3 | u16::from(more), ..Self::of(FRAGMENT) }
    }

    fn bytes(&self, next: u8) -> Vec<u8> {
        let unit = if self.kind == AUTHENTICATION { 4 } else { 8 };
        let mut bytes = vec![0; 8 + usize::from(self.units) * unit];
        (bytes[0], bytes[1]) = (next, self.claimed_units.unwrap_or(self.units));
        match self.kind {
            FRAGMENT => bytes[2..4].copy_from_slice(&self.fragment.to_be_bytes()),
            // one option that pads the rest, as far as its length reaches
            HOP_BY_HOP | DESTINATION => (bytes[2], bytes[3]) = (1, (bytes.len() - 4).min(255) as u8),
            _ => {}
        }
        bytes
    }
}

/// TCP flags by initials, in the order of the header: `FSRPAUEC`.
pub fn flags(initials: &str) -> u8 {
    initials.chars().filter_map(|initial| "FSRPAUEC".find(initial)).fold(0, |flags, bit| flags | 1 << bit)
}

/// A segment; `words` is its header's length in units of 4 bytes as the header says it, options are zeros.
pub fn tcp(ports: [u16; 2], flags: u8, words: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = [ports[0].to_be_bytes(), ports[1].to_be_bytes()].concat();
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, words << 4, flags, 4, 0, 0, 0, 0, 0]);
    segment.resize((usize::from(words) * 4).max(20), 0);
    [&segment[..], payload].concat()
}

/// A datagram; `None`: its true length.
pub fn udp(ports: [u16; 2], length: Option<u16>, payload: &[u8]) -> Vec<u8> {
    let true_length = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX);
    let header = [ports[0], ports[1], length.unwrap_or(true_length), 0].map(u16::to_be_bytes).concat();
    [&header[..], payload].concat()
}

/// An ICMP or ICMPv6 message.
pub fn icmp(kind: u8, code: u8, word: [u8; 4], body: &[u8]) -> Vec<u8> {
    [&[kind, code, 0, 0], &word[..], body].concat()
}

/// SCTP with chunks of these types, four bytes of value each.
pub fn sctp(ports: [u16; 2], chunks: &[u8]) -> Vec<u8> {
    let mut packet = [ports[0].to_be_bytes(), ports[1].to_be_bytes()].concat();
    packet.extend([0; 8]);
    chunks.iter().for_each(|&kind| packet.extend([kind, 0, 0, 8, 0, 0, 0, 0]));
    packet
}
