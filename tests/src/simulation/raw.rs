//! Packets that no stack would send here and now: strays of every protocol, attacks on the connections of others, forged
//! identities, and frames that this release does not serve.

use super::client::STRAY_NUMBER;
use super::cluster::{chance, pick};
use super::facts::Forged;
use crate::live::frames::{self, Link};
use etherparse::{IpNumber, PacketBuilder, PacketBuilderStep};
use fastrand::Rng;
use sluice_flow::DropReason;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A frame, and the reason under which it must end, if its very form is the offence.
pub(super) type Raw = (Vec<u8>, Option<Forged>);

const TTL: u8 = 64;
/// So that no server answers another server for ever.
const SPORTS: std::ops::Range<u16> = 2000..60_000;

fn ip(link: Link, src: IpAddr, dst: IpAddr) -> Option<PacketBuilderStep<etherparse::IpHeaders>> {
    let frame = PacketBuilder::ethernet2(link.pod, link.gateway);
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => Some(frame.ipv4(src.octets(), dst.octets(), TTL)),
        (IpAddr::V6(src), IpAddr::V6(dst)) => Some(frame.ipv6(src.octets(), dst.octets(), TTL)),
        _ => None,
    }
}

/// A packet that is well formed and in its sender's own name, and whose place nobody expects. `None`: not of one family.
pub(super) fn stray(rng: &mut Rng, link: Link, src: SocketAddr, dst: SocketAddr, quoted: &[u8]) -> Option<Vec<u8>> {
    let step = ip(link, src.ip(), dst.ip())?;
    let mut frame = Vec::new();
    let (v4, ident) = (src.is_ipv4(), src.port());
    let [[high, low], [number_high, number_low]] = [ident.to_be_bytes(), (STRAY_NUMBER as u16).to_be_bytes()];
    let word = [high, low, number_high, number_low];
    let written = match rng.u32(0..11) {
        0..6 => {
            let mut tcp = step.tcp(src.port(), dst.port(), rng.u32(..), 1000);
            // alone and together, also as nobody should: SYN with FIN, nothing at all, everything
            let flags = *pick(rng, &["S", "S", "SA", "A", "A", "R", "RA", "F", "FA", "SF", "", "SAFR"]);
            for flag in flags.chars() {
                tcp = match flag {
                    'S' => tcp.syn(),
                    'A' => tcp.ack(rng.u32(..)),
                    'F' => tcp.fin(),
                    _ => tcp.rst(),
                };
            }
            let payload: &[u8] = if chance(rng, 20) { b"data" } else { b"" };
            tcp.write(&mut frame, payload)
        }
        6 if v4 => step.icmpv4_raw(8, 0, word).write(&mut frame, b"ping"),
        6 => step.icmpv6_raw(128, 0, word).write(&mut frame, b"ping"),
        7 if v4 => step.icmpv4_raw(0, 0, word).write(&mut frame, b"pong"),
        7 => step.icmpv6_raw(129, 0, word).write(&mut frame, b"pong"),
        8 if quoted.len() > 14 => {
            let quoted = &quoted[14..quoted.len().min(14 + 64)];
            if v4 {
                step.icmpv4_raw(3, 1, [0; 4]).write(&mut frame, quoted)
            } else {
                step.icmpv6_raw(1, 4, [0; 4]).write(&mut frame, quoted)
            }
        }
        9 => {
            let mut packet = [src.port().to_be_bytes(), dst.port().to_be_bytes(), word[..2].try_into().expect("two"), [0; 2]].concat();
            packet.extend([0; 4]);
            // INIT, INIT ACK, DATA, ABORT, SHUTDOWN, SHUTDOWN COMPLETE; INIT where it must not stand; none at all
            let chunks: &[u8] = pick::<&[u8]>(rng, &[&[1], &[1], &[2], &[0], &[6], &[7], &[14], &[1, 0], &[0, 1], &[]]);
            chunks.iter().for_each(|&kind| packet.extend([kind, 0, 0, 8, 0, 0, 0, 0]));
            step.write(&mut frame, IpNumber(132), &packet)
        }
        // GRE
        _ => step.write(&mut frame, IpNumber(47), &[0; 16]),
    };
    written.expect("writing to memory");
    Some(frame)
}

/// A datagram from an unused port.
pub(super) fn datagram(rng: &mut Rng, link: Link, src: IpAddr, dst: SocketAddr) -> Option<Vec<u8>> {
    let mut frame = Vec::new();
    ip(link, src, dst.ip())?.udp(rng.u16(SPORTS), dst.port()).write(&mut frame, b"stray").expect("writing to memory");
    Some(frame)
}

/// A packet from outside that is routed to a pod whose address it does not bear.
pub(super) fn misrouted(link: Link) -> Raw {
    let [src, dst] = [[192, 0, 2, 10], [10, 9, 9, 9]].map(IpAddr::from);
    (frames::udp(link, (src, 3000), (dst, 53), b"misrouted"), Some(Forged { reason: DropReason::WrongDestination, isolated_only: false }))
}

/// A frame that must be refused whatever the policy says, when it leaves a pod with this identity.
pub(super) fn forged(rng: &mut Rng, link: Link, own: &[IpAddr], victim: SocketAddr) -> Option<Raw> {
    let always = |reason| Some(Forged { reason, isolated_only: false });
    let isolated = |reason| Some(Forged { reason, isolated_only: true });
    let like = |other: IpAddr| own.iter().copied().find(|address| address.is_ipv4() == other.is_ipv4());
    let src = like(victim.ip())?;
    let plain = frames::udp(link, (src, 3000), (victim.ip(), victim.port()), b"forged");
    let other_mac = [2, 0xbd, 0, 0, 0, 1];
    let (v4, v6) = (like(Ipv4Addr::UNSPECIFIED.into()), like(Ipv6Addr::UNSPECIFIED.into()));
    let router = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let changed = |at: usize, bytes: &[u8]| {
        let mut frame = plain.clone();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    Some(match (rng.u32(0..14), v4, v6) {
        (0, ..) => (changed(6, &other_mac), always(DropReason::SpoofedMac)),
        (1, ..) => {
            let stolen = frames::udp(link, (victim.ip(), 3000), (src, 53), b"forged");
            (stolen, always(DropReason::SpoofedAddress))
        }
        (2, Some(_), _) => {
            let IpAddr::V4(claimed) = victim.ip() else { return None };
            (frames::arp_claim(link, link.pod, claimed, chance(rng, 50)), always(DropReason::SpoofedArp))
        }
        (3, Some(IpAddr::V4(own)), _) => (frames::arp_claim(link, other_mac, own, true), always(DropReason::SpoofedArp)),
        (4, _, Some(IpAddr::V6(own))) => {
            let IpAddr::V6(claimed) = victim.ip() else { return None };
            (frames::neighbour_claim(link, own, router, claimed, link.pod), always(DropReason::SpoofedNeighbour))
        }
        (5, _, Some(IpAddr::V6(own))) => (frames::neighbour_claim(link, own, router, own, other_mac), always(DropReason::SpoofedNeighbour)),
        (6, _, Some(_)) => (frames::router_advertisement(link), always(DropReason::RogueRouter)),
        (7, Some(own), _) => {
            let group = Ipv4Addr::new(224, 0, 0, 251).into();
            (frames::udp(link, (own, 3000), (group, 5353), b"forged"), always(DropReason::Multicast))
        }
        (8, ..) => (changed(12, &[0x81, 0x00]), always(DropReason::Vlan)),
        (9, ..) => (changed(12, &[0x88, 0xcc]), always(DropReason::EtherType)),
        (10, ..) => (plain[..rng.usize(14..34)].to_vec(), always(DropReason::Malformed)),
        // more fragments
        (11, ..) if src.is_ipv4() => (changed(20, &[0, 5]), isolated(DropReason::FragmentUnmatched)),
        // a UDP length beyond the packet
        // hop-by-hop options that do not stand first
        (13, ..) if src.is_ipv6() => {
            let mut frame = Vec::new();
            let options = [&[0, 0, 1, 4, 0, 0, 0, 0][..], &[17, 0, 1, 4, 0, 0, 0, 0], &plain[54..]].concat();
            ip(link, src, victim.ip())?.write(&mut frame, IpNumber::IPV6_DESTINATION_OPTIONS, &options).expect("writing to memory");
            (frame, always(DropReason::ExtensionChain))
        }
        (12, ..) => (changed(if src.is_ipv4() { 38 } else { 58 }, &[0xff, 0xff]), isolated(DropReason::Malformed)),
        _ => {
            // shorter than its header
            let mut frame = Vec::new();
            ip(link, src, victim.ip())?.write(&mut frame, IpNumber(132), &[0; 11]).expect("writing to memory");
            (frame, isolated(DropReason::Malformed))
        }
    })
}
