//! One frame for each shape of bad input that is about parsing, with what it must be taken for.

use crate::layers::*;
use crate::{PEER, POD};

/// A frame worth a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// What is odd about it.
    pub name: &'static str,
    /// The row of "Bad input on the wire" it stands for, 0 for plain frames and shapes found since.
    pub row: u8,
    /// The frame, from the pod to its peer through its gateway.
    pub frame: Vec<u8>,
    /// The drop reason's name, or protocol and ports: `TCP 40000 80`, `ICMP 7 1` (identifier and class), or
    /// `error TCP 80 40000` (what an ICMP error quotes).
    pub becomes: &'static str,
}

fn v4_syn() -> Vec<u8> {
    V4::new(TCP).around(&syn())
}

fn syn() -> Vec<u8> {
    tcp([40_000, 80], flags("S"), 5, &[])
}

fn v6_syn(extensions: &[Extension]) -> Vec<u8> {
    ethernet(IPV6, &V6::with(extensions).around(TCP, &syn()))
}

/// All of them.
pub fn named() -> Vec<Named> {
    let mut all = plain();
    all.extend(extension_headers());
    all.extend(ipv4_fragments());
    all.extend(link_layer());
    all.extend(lengths());
    all.extend(icmp_errors());
    all.extend(transports());
    all
}

fn list<const N: usize>(row: u8, frames: [(&'static str, Vec<u8>, &'static str); N]) -> Vec<Named> {
    frames.map(|(name, frame, becomes)| Named { name, row, frame, becomes }).into()
}

fn plain() -> Vec<Named> {
    let datagram = udp([40_000, 53], None, b"hello");
    let echo = |kind: u8| icmp(kind, 0, [0, 7, 0, 1], b"ping");
    list(
        0,
        [
            ("plain TCP over IPv4", ethernet(IPV4, &v4_syn()), "TCP 40000 80"),
            ("plain TCP over IPv6", v6_syn(&[]), "TCP 40000 80"),
            ("plain UDP over IPv4", ethernet(IPV4, &V4::new(UDP).around(&datagram)), "UDP 40000 53"),
            ("plain UDP over IPv6", ethernet(IPV6, &V6::default().around(UDP, &datagram)), "UDP 40000 53"),
            ("echo request", ethernet(IPV4, &V4::new(ICMP).around(&echo(8))), "ICMP 7 1"),
            ("echo reply", ethernet(IPV4, &V4::new(ICMP).around(&echo(0))), "ICMP 7 2"),
            ("ICMPv6 echo request", ethernet(IPV6, &V6::default().around(ICMPV6, &echo(128))), "ICMPv6 7 1"),
            ("ICMPv6 echo reply", ethernet(IPV6, &V6::default().around(ICMPV6, &echo(129))), "ICMPv6 7 2"),
            ("timestamp request", ethernet(IPV4, &V4::new(ICMP).around(&echo(13))), "ICMP 0 3"),
            ("padded to the shortest Ethernet frame", padded(ethernet(IPV4, &v4_syn()), 60), "TCP 40000 80"),
        ],
    )
}

fn padded(mut frame: Vec<u8>, len: usize) -> Vec<u8> {
    frame.resize(len, 0);
    frame
}

fn extension_headers() -> Vec<Named> {
    let of = Extension::of;
    let atomic = Extension::fragment(0, false);
    let mut short_authentication = of(AUTHENTICATION);
    short_authentication.units = 0;
    let mut long = of(DESTINATION);
    long.claimed_units = Some(9);
    let mut beyond = of(DESTINATION);
    beyond.claimed_units = Some(255);
    let mut all = list(
        1,
        [
            ("two fragment headers", v6_syn(&[atomic, atomic]), "extension_chain"),
            ("destination options behind the fragment header", v6_syn(&[atomic, of(DESTINATION)]), "TCP 40000 80"),
            ("an atomic fragment", v6_syn(&[atomic]), "TCP 40000 80"),
            ("an IPv6 first fragment", v6_syn(&[Extension::fragment(0, true)]), "TCP 40000 80"),
            ("an IPv6 later fragment", v6_syn(&[Extension::fragment(185, false)]), "protocol 0 0 0"),
            ("a fragment header behind destination options", v6_syn(&[of(DESTINATION), atomic]), "TCP 40000 80"),
        ],
    );
    all.extend(list(
        2,
        [
            (
                "one extension header of each kind",
                v6_syn(&[HOP_BY_HOP, DESTINATION, ROUTING, AUTHENTICATION, MOBILITY, HIP, SHIM6].map(of)),
                "TCP 40000 80",
            ),
            ("eight extension headers", v6_syn(&[of(DESTINATION); 8]), "TCP 40000 80"),
            ("nine extension headers", v6_syn(&[of(DESTINATION); 9]), "extension_chain"),
            ("a hundred extension headers", v6_syn(&[of(DESTINATION); 100]), "extension_chain"),
            ("hop-by-hop options not first", v6_syn(&[of(DESTINATION), of(HOP_BY_HOP)]), "extension_chain"),
            ("hop-by-hop options twice", v6_syn(&[of(HOP_BY_HOP), of(HOP_BY_HOP)]), "extension_chain"),
            ("an extension header that ends inside the next one", v6_syn(&[long]), "malformed"),
            ("an extension header past the buffer", v6_syn(&[beyond]), "malformed"),
            ("a chain that the packet ends in", ethernet(IPV6, &V6::with(&[of(DESTINATION)]).around(ROUTING, &[])), "malformed"),
            ("an authentication header shorter than its fixed part", v6_syn(&[short_authentication]), "malformed"),
            ("no next header", ethernet(IPV6, &V6::default().around(NO_NEXT, &[])), "protocol 59 0 0"),
            (
                "hop-by-hop options before an echo request",
                ethernet(IPV6, &V6::with(&[of(HOP_BY_HOP)]).around(ICMPV6, &icmp(128, 0, [0, 7, 0, 1], &[]))),
                "ICMPv6 7 1",
            ),
            ("hop-by-hop options in IPv4", ethernet(IPV4, &V4::new(HOP_BY_HOP).around(&[0; 16])), "protocol 0 0 0"),
        ],
    ));
    all
}

fn ipv4_fragments() -> Vec<Named> {
    let fragment = |flags_and_offset: u16, payload: &[u8]| ethernet(IPV4, &V4 { flags_and_offset, ..V4::new(TCP) }.around(payload));
    list(
        3,
        [
            ("a first fragment with less than its TCP header", fragment(0x2000, &syn()[..8]), "malformed"),
            ("a first fragment", fragment(0x2000, &syn()), "TCP 40000 80"),
            ("a fragment at offset 1, over the TCP flags", fragment(0x0001, &syn()[8..]), "malformed"),
            ("a later fragment alone", fragment(0x00b9, &[0; 64]), "TCP 0 0"),
            ("the reserved bit, which is no fragment", fragment(0x8000, &syn()), "TCP 40000 80"),
            ("less than a TCP header, and no fragment", fragment(0x4000, &syn()[..8]), "malformed"),
        ],
    )
}

fn link_layer() -> Vec<Named> {
    let packet = v4_syn();
    let llc = [&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0][..], &packet].concat();
    list(
        4,
        [
            ("VLAN 0", ethernet(0x8100, &vlan_tag(0, IPV4, &packet)), "vlan_unsupported"),
            ("VLAN 5", ethernet(0x8100, &vlan_tag(5, IPV4, &packet)), "vlan_unsupported"),
            ("QinQ", ethernet(0x88a8, &vlan_tag(5, 0x8100, &vlan_tag(6, IPV4, &packet))), "vlan_unsupported"),
            ("802.3 with LLC and SNAP", ethernet(llc.len() as u16, &llc), "ethertype_unsupported"),
            ("MPLS", ethernet(0x8847, &packet), "ethertype_unsupported"),
            ("IPv6 under IPv4's type", ethernet(IPV4, &v6_syn(&[])[14..]), "malformed"),
            ("IPv4 under IPv6's type", ethernet(IPV6, &packet), "malformed"),
            ("nothing but an Ethernet header", ethernet(IPV4, &[]), "malformed"),
        ],
    )
}

fn lengths() -> Vec<Named> {
    let v4 = |change: fn(&mut V4)| {
        let mut header = V4::new(TCP);
        change(&mut header);
        ethernet(IPV4, &header.around(&syn()))
    };
    let v6 = |change: fn(&mut V6)| {
        let mut header = V6::default();
        change(&mut header);
        ethernet(IPV6, &header.around(TCP, &syn()))
    };
    let datagram = |length: u16| ethernet(IPV4, &V4::new(UDP).around(&udp([40_000, 53], Some(length), b"hello")));
    let words = |words: u8| ethernet(IPV4, &V4::new(TCP).around(&tcp([40_000, 80], flags("S"), words, &[])[..20]));
    list(
        4,
        [
            ("total length beyond the frame", v4(|h| h.total_length = Some(41)), "malformed"),
            ("total length below the header", v4(|h| h.total_length = Some(19)), "malformed"),
            ("total length that cuts the TCP header", v4(|h| h.total_length = Some(32)), "malformed"),
            ("total length 0", v4(|h| h.total_length = Some(0)), "malformed"),
            ("header length below 20", v4(|h| h.first_byte = Some(0x44)), "malformed"),
            ("header length beyond the packet", v4(|h| h.first_byte = Some(0x4f)), "malformed"),
            ("version 5", v4(|h| h.first_byte = Some(0x55)), "malformed"),
            ("options", v4(|h| h.options = vec![1; 40]), "TCP 40000 80"),
            ("a loose source route", v4(|h| h.options = vec![0x83, 7, 4, 10, 0, 0, 1, 0]), "TCP 40000 80"),
            ("payload length beyond the frame", v6(|h| h.payload_length = Some(21)), "malformed"),
            ("payload length 0", v6(|h| h.payload_length = Some(0)), "malformed"),
            ("an IPv4 address in an IPv6 header", v6(|h| h.src = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 244, 1, 2]), "malformed"),
            ("UDP length below its header", datagram(7), "malformed"),
            ("UDP length beyond the packet", datagram(14), "malformed"),
            ("UDP length 0", datagram(0), "malformed"),
            ("UDP length that leaves a rest", datagram(10), "UDP 40000 53"),
            ("TCP data offset below its header", words(4), "malformed"),
            ("TCP data offset beyond the packet", words(6), "malformed"),
        ],
    )
}

fn icmp_errors() -> Vec<Named> {
    // what the peer would have sent to the pod
    let answer = |protocol: u8, payload: &[u8]| V4 { src: PEER.v4, dst: POD.v4, ..V4::new(protocol) }.around(payload);
    let quoted = answer(TCP, &tcp([80, 40_000], flags("A"), 5, &[]));
    let error = |quoted: &[u8]| ethernet(IPV4, &V4::new(ICMP).around(&icmp(3, 3, [0; 4], quoted)));
    let quoted6 = V6 { src: PEER.v6, dst: POD.v6, ..V6::default() }.around(UDP, &udp([53, 40_000], None, &[]));
    let error6 = |quoted: &[u8]| ethernet(IPV6, &V6::default().around(ICMPV6, &icmp(1, 4, [0; 4], quoted)));
    let fragment = V4 { flags_and_offset: 0x2001, ..V4::new(TCP) }.around(&syn());
    let behind = V6::with(&[Extension::of(DESTINATION)]).around(TCP, &syn());
    list(
        6,
        [
            ("an error that quotes eight bytes of TCP", error(&quoted[..28]), "error TCP 80 40000"),
            ("an error that quotes less than the ports", error(&quoted[..22]), "malformed"),
            ("an error that quotes half an address", error(&quoted[..18]), "malformed"),
            ("an error that quotes nothing", error(&[]), "malformed"),
            ("an error about an error", error(&answer(ICMP, &icmp(3, 3, [0; 4], &quoted))), "malformed"),
            ("an error about an echo request", error(&answer(ICMP, &icmp(8, 0, [0, 7, 0, 1], &[]))), "error ICMP 7 1"),
            ("an error about a later fragment", error(&fragment), "malformed"),
            ("an error that quotes the other family", error(&quoted6), "malformed"),
            ("an error about GRE", error(&answer(GRE, &[0; 8])), "error protocol 47 0 0"),
            ("an ICMPv6 error", error6(&quoted6), "error UDP 53 40000"),
            ("an ICMPv6 error about a packet with extension headers", error6(&behind), "error TCP 40000 80"),
            ("an ICMPv6 error that quotes half a header", error6(&quoted6[..30]), "malformed"),
            ("ICMP over IPv6", ethernet(IPV6, &V6::default().around(ICMP, &icmp(8, 0, [0; 4], &[]))), "malformed"),
            ("ICMPv6 over IPv4", ethernet(IPV4, &V4::new(ICMPV6).around(&icmp(128, 0, [0; 4], &[]))), "malformed"),
            ("ICMP without its identifier", ethernet(IPV4, &V4::new(ICMP).around(&[8, 0, 0, 0])), "malformed"),
        ],
    )
}

fn transports() -> Vec<Named> {
    let segment = |initials: &str, payload: &[u8]| ethernet(IPV4, &V4::new(TCP).around(&tcp([40_000, 80], flags(initials), 5, payload)));
    let other = |protocol: u8, payload: &[u8]| ethernet(IPV4, &V4::new(protocol).around(payload));
    let vxlan = udp([40_000, 4789], None, &[&[8, 0, 0, 0, 0, 0, 1, 0][..], &ethernet(IPV4, &v4_syn())].concat());
    let mut all = list(
        7,
        [
            ("SYN with FIN", segment("SF", &[]), "TCP 40000 80"),
            ("no flag at all", segment("", &[]), "TCP 40000 80"),
            ("Xmas", segment("FPU", &[]), "TCP 40000 80"),
            ("SYN with data", segment("S", b"GET /"), "TCP 40000 80"),
            ("SCTP INIT with several chunks", other(SCTP, &sctp([40_000, 36_412], &[1, 1, 0])), "SCTP 40000 36412"),
            ("SCTP shorter than its header", other(SCTP, &[0; 8]), "malformed"),
            ("protocol 0", other(0, &[0; 8]), "protocol 0 0 0"),
            ("protocol 255", other(255, &[]), "protocol 255 0 0"),
            ("IPv4 in IPv4", other(IPIP, &v4_syn()), "protocol 4 0 0"),
            ("IPv6 in IPv4", other(IPV6_IN_IP, &v6_syn(&[])[14..]), "protocol 41 0 0"),
            ("GRE", other(GRE, &[&[0, 0, 8, 0][..], &v4_syn()].concat()), "protocol 47 0 0"),
            ("authentication header in IPv4", other(AUTHENTICATION, &[&[TCP, 1, 0, 0][..], &[0; 8], &syn()].concat()), "protocol 51 0 0"),
            ("VXLAN", other(UDP, &vxlan), "UDP 40000 4789"),
        ],
    );
    all.extend(list(9, [("a jumbo frame", segment("A", &[0; 3300]), "TCP 40000 80")]));
    all
}
