//! Bytes → a frame: layers put together by choice, most of them plain, and sometimes damaged as a whole.

use crate::choices::Choices;
use crate::layers::*;
use crate::{GATEWAY, PEER, POD};

const RAW_MAX: usize = 2048;
const JUMBO_BYTES: usize = 3000;

const EXTENSIONS: [u8; 10] = [HOP_BY_HOP, DESTINATION, ROUTING, FRAGMENT, AUTHENTICATION, MOBILITY, HIP, SHIM6, NO_NEXT, 253];
const PORTS: [u16; 10] = [80, 40_000, 53, 0, 1, 443, 4789, 8080, 36_412, 65_535];
const TCP_FLAGS: [&str; 12] = ["S", "A", "SA", "PA", "FA", "R", "RA", "SF", "", "FPU", "SEC", "FSRPAUEC"];

/// The frame these bytes stand for: the first one chooses between a composed frame and the bytes as they are.
pub fn frame(bytes: &[u8]) -> Vec<u8> {
    let mut choices = Choices::new(bytes);
    if choices.byte() >= 0xf0 {
        let raw = choices.rest();
        return raw[..raw.len().min(RAW_MAX)].to_vec();
    }
    let mut frame = linked(&mut choices);
    damage(&mut choices, &mut frame);
    frame
}

/// Changed bytes, mostly among the headers; a cut or a padding.
fn damage(c: &mut Choices<'_>, frame: &mut Vec<u8>) {
    let edits = if c.sometimes() { 1 + c.below(4) } else { 0 };
    for _ in 0..edits {
        let at = usize::from(c.byte()) % frame.len();
        frame[at] = c.byte();
    }
    if c.rarely() {
        frame.truncate(usize::from(c.byte()) % frame.len());
    } else if c.sometimes() {
        frame.resize(frame.len() + c.below(64), 0);
    }
}

fn linked(c: &mut Choices<'_>) -> Vec<u8> {
    let v6 = c.below(2) == 1;
    let (ethertype, packet) = if v6 { (IPV6, ipv6(c, 1)) } else { (IPV4, ipv4(c, 1)) };
    if !c.rarely() {
        return ethernet(ethertype, &packet);
    }
    match c.below(7) {
        // 802.1Q; identifier 0 is a mere priority tag
        0 => ethernet(0x8100, &vlan_tag(c.pick(&[0, 5, 0xe000, 0xffff]), ethertype, &packet)),
        1 => ethernet(0x88a8, &vlan_tag(c.word(), 0x8100, &vlan_tag(c.word(), ethertype, &packet))),
        // 802.3: a length instead of a type, then LLC and SNAP
        2 => {
            let body = [&[0xaa, 0xaa, 3, 0, 0, 0][..], &ethertype.to_be_bytes(), &packet].concat();
            ethernet((body.len() as u16).min(1500), &body)
        }
        3 => ethernet(0x0806, &arp(c)),
        // the other family's type
        4 => ethernet(if v6 { IPV4 } else { IPV6 }, &packet),
        5 => ethernet(c.pick(&[0x8847, 0x8863, 0x88cc, 0, 0x9100, 0x88e5]), &packet),
        _ => ethernet(c.word(), &packet),
    }
}

fn arp(c: &mut Choices<'_>) -> Vec<u8> {
    let (mac, ip) = (c.pick(&[POD.mac, PEER.mac]), c.pick(&[POD.v4, PEER.v4, [0; 4]]));
    let head = [0, 1, 8, 0, c.pick(&[6, 8]), 4, 0, c.pick(&[1, 2])];
    [&head[..], &mac, &ip, &GATEWAY.mac, &GATEWAY.v4].concat()
}

/// `depth`: how many packets may still stand inside this one.
fn ipv4(c: &mut Choices<'_>, depth: usize) -> Vec<u8> {
    let (protocol, payload) = upper(c, false, depth);
    let mut header = V4::new(protocol);
    if c.sometimes() {
        header.src = c.pick(&[POD.v4, PEER.v4, [0; 4], [127, 0, 0, 1], [255; 4]]);
        header.dst = c.pick(&[PEER.v4, POD.v4, GATEWAY.v4, [224, 0, 0, 251], [255; 4], [10, 244, 1, 255]]);
    }
    if c.sometimes() {
        header.options = vec![c.pick(&[1, 0, 7, 0x83, 0x94]); 4 * c.below(11)];
    }
    if c.rarely() {
        // more fragments; offset 1; later; last; beyond 64 kB; the reserved bit; all bits
        header.flags_and_offset = c.pick(&[0x2000, 0x0001, 0x2001, 0x0010, 0x1fff, 0x8000, 0xffff, 0x0000]);
    }
    if c.rarely() {
        header.first_byte = Some(c.pick(&[0x45, 0x44, 0x40, 0x4f, 0x46, 0x65, 0x05, 0xff]));
    }
    if c.rarely() {
        header.total_length = Some(c.pick(&[0, 19, 20, 21, 28, 40, 41, 60, 0xffff]));
    }
    header.around(&payload)
}

fn ipv6(c: &mut Choices<'_>, depth: usize) -> Vec<u8> {
    let (protocol, payload) = upper(c, true, depth);
    let mut header = V6::default();
    if c.sometimes() {
        header.src = c.pick(&[POD.v6, PEER.v6, [0; 16], link_local(2), mapped(), GATEWAY.v6]);
        header.dst = c.pick(&[PEER.v6, POD.v6, GATEWAY.v6, link_local(1), multicast(), mapped()]);
        header.hop_limit = c.pick(&[255, 64, 1, 0]);
    }
    let count = if c.sometimes() { c.below(12) } else { 0 };
    header.extensions = (0..count).map(|_| extension(c)).collect();
    if c.rarely() {
        header.first_byte = Some(c.pick(&[0x6f, 0x40, 0x00, 0xff]));
    }
    if c.rarely() {
        header.payload_length = Some(c.pick(&[0, 1, 7, 8, 20, 40, 60, 0xffff]));
    }
    header.around(protocol, &payload)
}

fn extension(c: &mut Choices<'_>) -> Extension {
    let mut extension = Extension::of(c.pick(&EXTENSIONS));
    if c.rarely() {
        extension.units = c.pick(&[1, 2, 7, 255]);
    }
    if c.rarely() {
        extension.claimed_units = Some(c.pick(&[0, 1, 2, 16, 255]));
    }
    if extension.kind == FRAGMENT {
        // atomic; first; later; last; offset 1; reserved bits alone
        extension.fragment = c.pick(&[0, 1, 0x00b9, 0x00b8, 0x0008, 0x0006, 0xffff]);
    }
    extension
}

/// What an IP header carries: its protocol and its bytes.
fn upper(c: &mut Choices<'_>, v6: bool, depth: usize) -> (u8, Vec<u8>) {
    let ports = [c.pick(&PORTS), c.pick(&PORTS)];
    match c.below(16) {
        0..=3 => (TCP, segment(c, ports)),
        4..=6 => (UDP, datagram(c, ports)),
        7..=8 => message(c, v6, depth, false),
        9 => (SCTP, sctp(ports, c.pick(&[&[1], &[0], &[1, 0], &[1, 1, 1], &[], &[9]]))),
        10 => message(c, v6, depth, true),
        11 if depth > 0 => match c.below(2) {
            0 => (IPIP, ipv4(c, depth - 1)),
            _ => (IPV6_IN_IP, ipv6(c, depth - 1)),
        },
        12 if depth > 0 => (GRE, [&[0, 0, 8, 0][..], &ipv4(c, depth - 1)].concat()),
        13 if depth > 0 => {
            let inner = ethernet(IPV4, &ipv4(c, depth - 1));
            (UDP, udp([40_000, 4789], None, &[&[8, 0, 0, 0, 0, 0, 1, 0][..], &inner].concat()))
        }
        _ => (c.pick(&[255, 0, 50, AUTHENTICATION, NO_NEXT, 253, 2, 103, HIP, FRAGMENT]), payload(c)),
    }
}

fn payload(c: &mut Choices<'_>) -> Vec<u8> {
    if c.rarely() && c.sometimes() {
        return vec![0xa5; JUMBO_BYTES];
    }
    vec![0xa5; c.below(40)]
}

fn segment(c: &mut Choices<'_>, ports: [u16; 2]) -> Vec<u8> {
    let words = if c.rarely() { c.pick(&[0, 4, 15, 6, 8]) } else { c.pick(&[5, 5, 8, 15]) };
    let flags = if c.rarely() { c.byte() } else { flags(c.pick(&TCP_FLAGS)) };
    let mut segment = tcp(ports, flags, words, &payload(c));
    cut(c, &mut segment);
    segment
}

fn datagram(c: &mut Choices<'_>, ports: [u16; 2]) -> Vec<u8> {
    let length = c.rarely().then(|| c.pick(&[0, 7, 8, 9, 0xffff, 20]));
    let mut datagram = udp(ports, length, &payload(c));
    cut(c, &mut datagram);
    datagram
}

/// A header that the packet ends in.
fn cut(c: &mut Choices<'_>, bytes: &mut Vec<u8>) {
    if c.rarely() {
        bytes.truncate(c.below(24));
    }
}

/// A query, an answer, neighbour discovery, or an error about another packet; of this family or the other one.
fn message(c: &mut Choices<'_>, v6: bool, depth: usize, error: bool) -> (u8, Vec<u8>) {
    let v6_message = v6 != c.rarely();
    let protocol = if v6_message { ICMPV6 } else { ICMP };
    let id = c.word().to_be_bytes();
    if error && depth > 0 {
        let mut quoted = if v6 { ipv6(c, depth - 1) } else { ipv4(c, depth - 1) };
        if c.sometimes() {
            quoted.truncate(c.pick(&[28, 48, 20, 40, 24, 44, 7, 0, 33]));
        }
        let kind = if v6_message { c.pick(&[1, 2, 3, 4]) } else { c.pick(&[3, 4, 11, 12]) };
        return (protocol, icmp(kind, c.pick(&[3, 0, 1]), [0; 4], &quoted));
    }
    if v6_message && c.sometimes() {
        return (protocol, neighbour(c));
    }
    let queries = if v6_message { [128, 129, 130, 143, 0, 255] } else { [8, 0, 13, 5, 9, 255] };
    let mut message = icmp(c.pick(&queries), 0, [id[0], id[1], 0, 1], &payload(c));
    cut(c, &mut message);
    (protocol, message)
}

/// Solicitations, advertisements and listener reports, of the pod's own address or of another's.
fn neighbour(c: &mut Choices<'_>) -> Vec<u8> {
    let kind = c.pick(&[135, 136, 133, 134, 137, 143, 131, 132]);
    let target = c.pick(&[GATEWAY.v6, POD.v6, PEER.v6, link_local(2)]);
    let option = [&[c.pick(&[1, 2, 3]), 1][..], &c.pick(&[POD.mac, PEER.mac])].concat();
    let body = if c.sometimes() { target.to_vec() } else { [&target[..], &option].concat() };
    icmp(kind, 0, [0x20, 0, 0, 0], &body)
}

fn link_local(host: u8) -> [u8; 16] {
    [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]
}

fn multicast() -> [u8; 16] {
    [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x16]
}

/// An IPv4 address in an IPv6 header.
fn mapped() -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 244, 1, 2]
}
