//! The twin of `bpf/src/c/parse.h`: frame → key, for the packets that need no more than one look.

use sluice_bpf::abi::Key;
use sluice_flow::limits::EXTENSION_HEADERS_MAX;
use sluice_flow::{Addr, DropReason, IcmpClass, Protocol, TcpFlags};

pub(super) const ETHERNET_BYTES: usize = 14;

pub(super) const ETHERTYPE_V4: u16 = 0x0800;
pub(super) const ETHERTYPE_ARP: u16 = 0x0806;
pub(super) const ETHERTYPE_V6: u16 = 0x86dd;

pub(super) const HOP_BY_HOP: u8 = 0;
pub(super) const ROUTING: u8 = 43;
pub(super) const FRAGMENT: u8 = 44;
pub(super) const AUTHENTICATION: u8 = 51;
pub(super) const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
const HOST_IDENTITY: u8 = 139;
const SHIM6: u8 = 140;

/// Whether a frame is but a piece of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    Whole,
    First,
    Later,
}

/// How a packet came to its hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Brought {
    ByKernel,
    /// Another pod's hook brought it.
    Direct,
    /// By way of a worker that judged it for both pods.
    DirectJudged,
}

/// What one look tells about a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parsed {
    pub(super) key: Key,
    pub(super) ethertype: u16,
    pub(super) tcp_flags: u8,
    /// The key is whole.
    pub(super) keyed: bool,
    pub(super) fragment: Piece,
    /// TCP: SYN without ACK.
    pub(super) opens: bool,
    pub(super) hop_limit: u8,
    pub(super) l4_offset: usize,
    pub(super) fragment_id: u32,
    pub(super) direct: Brought,
}

impl Parsed {
    pub(super) fn src(&self) -> Addr {
        Addr(self.key.src)
    }

    pub(super) fn dst(&self) -> Addr {
        Addr(self.key.dst)
    }
}

/// `bpf_skb_load_bytes`: all of them or none.
pub(super) fn load<const N: usize>(frame: &[u8], at: usize) -> Option<[u8; N]> {
    frame.get(at..)?.first_chunk().copied()
}

/// The key lacks port, incarnation and direction, which `key` brings. ARP leaves everything but the type empty.
pub(super) fn parse(frame: &[u8], key: Key) -> Result<Parsed, DropReason> {
    let ethertype = u16::from_be_bytes(load(frame, 12).ok_or(DropReason::Malformed)?);
    let mut parsed = Parsed {
        key,
        ethertype,
        tcp_flags: 0,
        keyed: false,
        fragment: Piece::Whole,
        opens: false,
        hop_limit: 0,
        l4_offset: 0,
        fragment_id: 0,
        direct: Brought::ByKernel,
    };
    match ethertype {
        ETHERTYPE_V4 => parse_v4(frame, &mut parsed)?,
        ETHERTYPE_V6 => parse_v6(frame, &mut parsed)?,
        ETHERTYPE_ARP => {}
        0x8100 | 0x88a8 => return Err(DropReason::Vlan),
        _ => return Err(DropReason::EtherType),
    }
    Ok(parsed)
}

fn parse_v4(frame: &[u8], p: &mut Parsed) -> Result<(), DropReason> {
    let ip: [u8; 20] = load(frame, ETHERNET_BYTES).ok_or(DropReason::Malformed)?;
    let header_bytes = usize::from(ip[0] & 0xf) * 4;
    if ip[0] >> 4 != 4 || header_bytes < 20 {
        return Err(DropReason::Malformed);
    }
    let total_bytes = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    p.key.src = Addr::v4([ip[12], ip[13], ip[14], ip[15]]).0;
    p.key.dst = Addr::v4([ip[16], ip[17], ip[18], ip[19]]).0;
    p.key.protocol = ip[9];
    p.l4_offset = ETHERNET_BYTES + header_bytes;
    if total_bytes < header_bytes || total_bytes > frame.len() - ETHERNET_BYTES {
        return Ok(());
    }
    let field = u16::from_be_bytes([ip[6], ip[7]]);
    let offset = usize::from(field & 0x1fff) * 8;
    p.fragment_id = u32::from(u16::from_be_bytes([ip[4], ip[5]]));
    p.fragment = match (offset, field & 0x2000 != 0) {
        (0, false) => Piece::Whole,
        (0, true) => Piece::First,
        _ => Piece::Later,
    };
    if p.fragment == Piece::Later {
        return if offset < judged_bytes(Protocol(ip[9])) { Err(DropReason::Malformed) } else { Ok(()) };
    }
    parse_l4(frame, p, total_bytes - header_bytes);
    Ok(())
}

/// How much of the transport header a verdict hangs on; no later fragment may lie over it (RFC 1858, 3128).
fn judged_bytes(protocol: Protocol) -> usize {
    match protocol {
        Protocol::TCP => 20,
        Protocol::SCTP => 16,
        _ => 8,
    }
}

fn parse_v6(frame: &[u8], p: &mut Parsed) -> Result<(), DropReason> {
    let ip: [u8; 40] = load(frame, ETHERNET_BYTES).ok_or(DropReason::Malformed)?;
    if ip[0] >> 4 != 6 {
        return Err(DropReason::Malformed);
    }
    let payload_bytes = usize::from(u16::from_be_bytes([ip[4], ip[5]]));
    p.key.src.copy_from_slice(&ip[8..24]);
    p.key.dst.copy_from_slice(&ip[24..40]);
    p.key.protocol = ip[6];
    p.hop_limit = ip[7];
    p.l4_offset = ETHERNET_BYTES + 40;
    // mapped addresses would take an IPv4 identity
    if p.src().to_v4().is_some() || p.dst().to_v4().is_some() {
        return Err(DropReason::Malformed);
    }
    let packet_end = p.l4_offset + payload_bytes;
    if packet_end > frame.len() {
        return Ok(());
    }
    extension_chain(frame, p, packet_end)?;
    if p.fragment != Piece::Later {
        parse_l4(frame, p, packet_end - p.l4_offset);
    }
    Ok(())
}

/// Walks the extension headers to the upper protocol, header by header as the worker does: what the guard must see can
/// stand behind them. A chain that cannot be walked is refused here, because the stack would walk it. A later fragment ends the
/// walk; one that is the whole packet (RFC 6946) is none.
fn extension_chain(frame: &[u8], p: &mut Parsed, packet_end: usize) -> Result<(), DropReason> {
    let mut has_been = false;
    for index in 0..=EXTENSION_HEADERS_MAX {
        let kind = p.key.protocol;
        match kind {
            // one, and none behind it
            FRAGMENT if has_been => return Err(DropReason::ExtensionChain),
            FRAGMENT => {
                has_been = true;
                let header: Option<[u8; 8]> = load(frame, p.l4_offset).filter(|_| p.l4_offset + 8 <= packet_end);
                let [next, _, high, low, id @ ..] = header.ok_or(DropReason::Malformed)?;
                p.fragment_id = u32::from_be_bytes(id);
                if high != 0 || low & 0xf8 != 0 {
                    (p.fragment, p.key.protocol) = (Piece::Later, 0);
                    return Ok(());
                }
                p.fragment = if low & 1 != 0 { Piece::First } else { Piece::Whole };
                p.key.protocol = next;
                p.l4_offset += 8;
                continue;
            }
            // hop-by-hop options stand first or nowhere
            HOP_BY_HOP if index != 0 => return Err(DropReason::ExtensionChain),
            HOP_BY_HOP | ROUTING | AUTHENTICATION | DESTINATION_OPTIONS | MOBILITY | HOST_IDENTITY | SHIM6 => {}
            _ if p.l4_offset > packet_end => return Err(DropReason::Malformed),
            _ => return Ok(()),
        }
        let header = load(frame, p.l4_offset).filter(|_| p.l4_offset + 2 <= packet_end);
        let [next, units] = header.ok_or(DropReason::Malformed)?;
        // RFC 4302: twelve bytes before the check value
        if kind == AUTHENTICATION && units < 1 {
            return Err(DropReason::Malformed);
        }
        p.key.protocol = next;
        p.l4_offset += if kind == AUTHENTICATION { (usize::from(units) + 2) * 4 } else { 8 + usize::from(units) * 8 };
    }
    Err(DropReason::ExtensionChain)
}

/// Ports, flags, ICMP identifier. Leaves `keyed` unset where the worker should look.
fn parse_l4(frame: &[u8], p: &mut Parsed, l4_bytes: usize) {
    let be16 = |at: usize| load(frame, p.l4_offset + at).map_or(0, u16::from_be_bytes);
    let byte = |at: usize| frame.get(p.l4_offset + at).copied().unwrap_or(0);
    match Protocol(p.key.protocol) {
        Protocol::TCP => {
            let header_bytes = usize::from(byte(12) >> 4) * 4;
            if l4_bytes < 20 || header_bytes < 20 || header_bytes > l4_bytes {
                return;
            }
            let (sport, dport, flags) = (be16(0), be16(2), TcpFlags(byte(13)));
            (p.key.sport, p.key.dport, p.tcp_flags, p.opens) = (sport, dport, flags.0, flags.opens());
        }
        Protocol::UDP => {
            let udp_bytes = usize::from(be16(4));
            // of a first fragment, that of all fragments
            if l4_bytes < 8 || udp_bytes < 8 || (udp_bytes > l4_bytes && p.fragment == Piece::Whole) {
                return;
            }
            (p.key.sport, p.key.dport) = (be16(0), be16(2));
        }
        protocol if protocol.is_icmp() => {
            let v6 = protocol == Protocol::ICMPV6;
            if v6 != (p.ethertype == ETHERTYPE_V6) || l4_bytes < 8 {
                return;
            }
            let class = match (v6, byte(0)) {
                (false, 8) | (true, 128) => IcmpClass::Request,
                (false, 0) | (true, 129) => IcmpClass::Reply,
                // errors are judged by what they quote, others are rare
                _ => return,
            };
            (p.key.sport, p.key.dport) = (be16(4), class as u16);
        }
        Protocol::SCTP => {
            if l4_bytes < 12 {
                return;
            }
            let flags = TcpFlags::of_sctp((l4_bytes > 12).then(|| byte(12)));
            (p.key.sport, p.key.dport, p.tcp_flags, p.opens) = (be16(0), be16(2), flags.0, flags.opens());
        }
        _ => {}
    }
    p.keyed = true;
}
