//! The twin of `bpf/src/c/guard.h`: nobody speaks in another's name.

use super::parse::{ETHERNET_BYTES, ETHERTYPE_ARP, ETHERTYPE_V4, ETHERTYPE_V6, Parsed, load};
use sluice_bpf::abi::Port;
use sluice_flow::{Addr, DropReason, Protocol};

/// What the guard makes of a packet that it does not drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guarded {
    /// Policy decides.
    Judge,
    /// Neighbour discovery or a listener report: past policy, to the stack.
    Neighbour,
}

/// The port's address of the packet's family.
fn is_port_address(port: &Port, p: &Parsed, address: &[u8; 16]) -> bool {
    match p.ethertype {
        ETHERTYPE_V4 => port.ip4 != [0; 4] && address[12..] == port.ip4,
        _ => port.has_ip6 != 0 && *address == port.ip6,
    }
}

fn guard_arp(frame: &[u8], port: &Port) -> Result<Guarded, DropReason> {
    let arp: [u8; 28] = load(frame, ETHERNET_BYTES).ok_or(DropReason::Malformed)?;
    let ethernet_and_v4 = arp[..6] == [0, 1, 8, 0, 6, 4];
    // 0.0.0.0 asks whether an address is taken (RFC 5227) and claims nothing
    let claims_nothing_else = arp[14..18] == [0; 4] || arp[14..18] == port.ip4;
    if !ethernet_and_v4 || arp[8..14] != port.mac || !claims_nothing_else {
        return Err(DropReason::SpoofedArp);
    }
    Ok(Guarded::Neighbour)
}

fn link_local(address: &[u8; 16]) -> bool {
    Addr(*address).is_v6_link_local()
}

/// Addresses that `bpf_fib_lookup` never forwards, at either end of a packet: multicast, link-local, loopback.
fn never_forwarded(address: &[u8; 16]) -> bool {
    address[0] == 0xff || link_local(address) || u128::from_be_bytes(*address) == 1
}

/// Link-local destinations, and this node's own addresses: probes of the gateway are unicast to its global address.
fn stays_on_link(p: &Parsed, is_node: &dyn Fn(Addr) -> bool) -> bool {
    let (src, dst) = (&p.key.src, &p.key.dst);
    match dst[0] {
        0xff => dst[1] & 0xf <= 2,
        _ => never_forwarded(src) || never_forwarded(dst) || is_node(p.dst()),
    }
}

/// Neighbour discovery and listener reports leaving a pod (RFC 4861, 3810). `Judge`: not of this kind.
fn guard_neighbour(frame: &[u8], port: &Port, p: &Parsed, is_node: &dyn Fn(Addr) -> bool) -> Result<Guarded, DropReason> {
    if p.key.protocol != Protocol::ICMPV6.0 || p.ethertype != ETHERTYPE_V6 {
        return Ok(Guarded::Judge);
    }
    let [kind] = load(frame, p.l4_offset).ok_or(DropReason::Malformed)?;
    let router = matches!(kind, 134 | 137);
    // beyond the link these are packets like others: the kernel would forward them
    if !stays_on_link(p, is_node) {
        return if router { Err(DropReason::RogueRouter) } else { Ok(Guarded::Judge) };
    }
    let (own, local) = (is_port_address(port, p, &p.key.src), link_local(&p.key.src));
    let unspecified = p.key.src == [0; 16];
    match kind {
        131 | 132 | 133 | 143 if own || local || unspecified => return Ok(Guarded::Neighbour),
        131 | 132 | 133 | 143 => return Err(DropReason::SpoofedNeighbour),
        _ if router => return Err(DropReason::RogueRouter),
        135 | 136 => {}
        _ => return Ok(Guarded::Judge),
    }
    let spoofed = DropReason::SpoofedNeighbour;
    let body: [u8; 24] = load(frame, p.l4_offset).filter(|_| p.hop_limit == 255).ok_or(spoofed)?;
    let speaks_for_itself = own || local || (unspecified && kind == 135);
    if !speaks_for_itself {
        return Err(spoofed);
    }
    let target = body[8..].first_chunk().expect("16 of 24 bytes");
    // who advertises an address must have it
    if kind == 136 && !is_port_address(port, p, target) && !link_local(target) {
        return Err(spoofed);
    }
    // the link-layer address option must be the port's
    if let Some(option) = load::<8>(frame, p.l4_offset + 24)
        && matches!(option[0], 1 | 2)
        && option[2..] != port.mac
    {
        return Err(spoofed);
    }
    Ok(Guarded::Neighbour)
}

/// What leaves a pod.
pub(super) fn guard_leaving(frame: &[u8], port: &Port, p: &Parsed, is_node: &dyn Fn(Addr) -> bool) -> Result<Guarded, DropReason> {
    if load::<6>(frame, 6) != Some(port.mac) {
        return Err(DropReason::SpoofedMac);
    }
    if p.ethertype == ETHERTYPE_ARP {
        return guard_arp(frame, port);
    }
    if guard_neighbour(frame, port, p, is_node)? == Guarded::Neighbour {
        return Ok(Guarded::Neighbour);
    }
    if !is_port_address(port, p, &p.key.src) {
        return Err(DropReason::SpoofedAddress);
    }
    let many = match p.ethertype {
        ETHERTYPE_V4 => p.key.dst[12] >> 4 == 0xe || p.key.dst[12] == 0xff,
        _ => p.key.dst[0] == 0xff,
    };
    if many { Err(DropReason::Multicast) } else { Ok(Guarded::Judge) }
}

/// What enters a pod from elsewhere than its node.
pub(super) fn guard_entering(port: &Port, p: &Parsed) -> Result<Guarded, DropReason> {
    if p.ethertype == ETHERTYPE_ARP {
        return Err(DropReason::SpoofedArp);
    }
    if is_port_address(port, p, &p.key.dst) { Ok(Guarded::Judge) } else { Err(DropReason::WrongDestination) }
}
