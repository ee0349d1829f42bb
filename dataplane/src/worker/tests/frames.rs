//! Real frames, written as people speak of them: `tcp("10.0.1.1:4000", "10.0.0.1:80", "S")`.

use etherparse::{IpHeaders, IpNumber, PacketBuilder, PacketBuilderStep};
use sluice_bpf::abi::{KIND_PUNT, TRUNK_BYTES, TRUNK_MAGIC, TrunkHeader};
use sluice_flow::{Addr, Direction, FlowKey, PortIndex, Protocol, parse_frame};
use std::net::{IpAddr, SocketAddr};

/// The source of every frame here.
pub(super) const FRAME_MAC: [u8; 6] = [2; 6];

fn packet(src: IpAddr, dst: IpAddr) -> PacketBuilderStep<IpHeaders> {
    let ethernet = PacketBuilder::ethernet2(FRAME_MAC, [4; 6]);
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => ethernet.ipv4(src.octets(), dst.octets(), 64),
        (IpAddr::V6(src), IpAddr::V6(dst)) => ethernet.ipv6(src.octets(), dst.octets(), 64),
        _ => panic!("{src} and {dst} are of two families"),
    }
}

fn sockets(src: &str, dst: &str) -> (SocketAddr, SocketAddr) {
    (src.parse().unwrap(), dst.parse().unwrap())
}

fn addresses(src: &str, dst: &str) -> (IpAddr, IpAddr) {
    (src.parse().unwrap(), dst.parse().unwrap())
}

/// A segment with the flags named by their initials: S, A, F, R.
pub(super) fn tcp(src: &str, dst: &str, flags: &str) -> Vec<u8> {
    let (src, dst) = sockets(src, dst);
    let mut builder = packet(src.ip(), dst.ip()).tcp(src.port(), dst.port(), 1, 1000);
    for flag in flags.chars() {
        builder = match flag {
            'S' => builder.syn(),
            'A' => builder.ack(1),
            'F' => builder.fin(),
            'R' => builder.rst(),
            other => panic!("no flag {other}"),
        };
    }
    let mut frame = Vec::new();
    builder.write(&mut frame, b"").unwrap();
    frame
}

/// A datagram.
pub(super) fn udp(src: &str, dst: &str) -> Vec<u8> {
    let (src, dst) = sockets(src, dst);
    let mut frame = Vec::new();
    packet(src.ip(), dst.ip()).udp(src.port(), dst.port()).write(&mut frame, b"hello").unwrap();
    frame
}

/// An echo request with an identifier.
pub(super) fn echo_request(src: &str, dst: &str, id: u16) -> Vec<u8> {
    icmp(src, dst, [8, 128], 0, word(id), b"ping")
}

/// An echo reply with an identifier.
pub(super) fn echo_reply(src: &str, dst: &str, id: u16) -> Vec<u8> {
    icmp(src, dst, [0, 129], 0, word(id), b"ping")
}

/// "Port unreachable" in answer to a frame.
pub(super) fn unreachable(src: &str, dst: &str, about: &[u8]) -> Vec<u8> {
    icmp(src, dst, [3, 1], 3, [0; 4], &about[14..])
}

fn word(id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [high, low, 0, 1]
}

/// `types`: of ICMP and of ICMPv6.
fn icmp(src: &str, dst: &str, types: [u8; 2], code: u8, word: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let (src, dst) = addresses(src, dst);
    let builder = packet(src, dst);
    let mut frame = Vec::new();
    match src {
        IpAddr::V4(_) => builder.icmpv4_raw(types[0], code, word).write(&mut frame, payload).unwrap(),
        IpAddr::V6(_) => builder.icmpv6_raw(types[1], code, word).write(&mut frame, payload).unwrap(),
    }
    frame
}

/// A packet of a protocol without ports.
pub(super) fn other(src: &str, dst: &str, protocol: u8) -> Vec<u8> {
    let (src, dst) = addresses(src, dst);
    let mut frame = Vec::new();
    packet(src, dst).write(&mut frame, IpNumber(protocol), &[0; 16]).unwrap();
    frame
}

/// A packet of SCTP with these chunks.
pub(super) fn sctp(src: &str, dst: &str, chunks: &[u8]) -> Vec<u8> {
    let (src, dst) = sockets(src, dst);
    let mut body = [src.port().to_be_bytes(), dst.port().to_be_bytes(), [0; 2], [7; 2], [0; 2], [0; 2]].concat();
    chunks.iter().for_each(|&kind| body.extend([kind, 0, 0, 8, 0, 0, 0, 0]));
    let mut frame = Vec::new();
    packet(src.ip(), dst.ip()).write(&mut frame, IpNumber(Protocol::SCTP.0), &body).unwrap();
    frame
}

/// What a hook makes of a frame: a punt to worker 0.
pub(super) fn punt(port: &sluice_bpf::abi::Port, index: PortIndex, direction: Direction, frame: &[u8]) -> Vec<u8> {
    punt_as(port, index, direction as u8, None, frame)
}

/// The same of any way, with the source before translation.
pub(super) fn punt_as(port: &sluice_bpf::abi::Port, index: PortIndex, way: u8, origin: Option<Addr>, frame: &[u8]) -> Vec<u8> {
    let header = TrunkHeader {
        dst: [2; 6],
        src: [2; 6],
        ethertype: *frame.get(12..14).and_then(|bytes| bytes.first_chunk()).unwrap_or(&[0; 2]),
        magic: TRUNK_MAGIC,
        version: sluice_bpf::ABI_VERSION as u8,
        kind: KIND_PUNT,
        direction: way,
        flags: 0,
        port: index.0,
        worker: port.worker,
        incarnation: port.incarnation,
        epoch: port.epoch,
        mark: 0xabcd,
        exit_ifindex: 7,
        origin: origin.map_or([0; 16], |origin| origin.0),
    };
    [bytemuck::bytes_of(&header), frame].concat()
}

/// The trunk header and the frame behind it.
pub(super) fn unpunt(frame: &[u8]) -> (TrunkHeader, &[u8]) {
    let (header, inner) = frame.split_at(TRUNK_BYTES);
    (bytemuck::pod_read_unaligned(header), inner)
}

/// The key of a frame at a port's hook.
pub(super) fn flow(port: PortIndex, direction: Direction, frame: &[u8]) -> FlowKey {
    let sluice_flow::Packet { protocol, src, dst, sport, dport, .. } = parse_frame(frame).unwrap();
    FlowKey { port, direction, departs: false, protocol, src, dst, sport, dport }
}
