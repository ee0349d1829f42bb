//! What stands inside an IP packet: TCP, UDP, SCTP, ICMP of both families and neighbour discovery.
//!
//! Sources: RFC 9293, 768, 9260 (SCTP), 792, 4443, 4861 (neighbour discovery), 3810 (listener reports), 1071 (checksum).

use super::encode::{Encoded, Packet, Surroundings, encode_layers, v4_octets, v6_octets};
use super::layer::Layer;
use std::net::IpAddr;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

pub(super) fn encode(layer: &Layer, inside: &[Layer], packet: Packet, around: &Surroundings<'_>) -> Result<Encoded, String> {
    let inner = |packet| Ok::<_, String>(encode_layers(inside, Some(packet), around)?.bytes);
    match layer.name.as_str() {
        "tcp" => tcp(layer, &inner(packet)?, packet),
        "udp" => udp(layer, &inner(packet)?, packet),
        "sctp" => {
            let ports: [u16; 2] = [layer.required(0, "a source port")?, layer.required(1, "a destination port")?];
            let head = [&ports[0].to_be_bytes()[..], &ports[1].to_be_bytes(), &[0; 8]].concat();
            Ok(Encoded::of(SCTP, [head, inner(packet)?].concat()))
        }
        // a chunk of SCTP: type, flags, length, four bytes of nothing, then the next one
        "chunk" => Ok(Encoded::of(SCTP, [vec![layer.required(0, "a type")?, 0, 0, 8, 0, 0, 0, 0], inner(packet)?].concat())),
        "ping" | "pong" => {
            layer.knows(&["seq"])?;
            let (id, seq): (u16, u16) = (layer.required(0, "an identifier")?, layer.number("seq", 1)?);
            let kind = match (packet.is_v4(), layer.name == "ping") {
                (true, true) => 8,
                (true, false) => 0,
                (false, true) => 128,
                (false, false) => 129,
            };
            let body = [&id.to_be_bytes()[..], &seq.to_be_bytes(), &inner(packet)?].concat();
            Ok(icmp(kind, 0, &body, packet))
        }
        // its inside is the packet it complains about
        "unreachable" => {
            let (kind, code) = if packet.is_v4() { (3, 3) } else { (1, 4) };
            Ok(icmp(kind, code, &[vec![0; 4], encode_layers(inside, None, around)?.bytes].concat(), packet))
        }
        "icmp" | "icmpv6" => {
            let body = [vec![0; 4], inner(packet)?].concat();
            let mut encoded = icmp(layer.required(0, "a type")?, layer.required(1, "a code")?, &body, packet);
            encoded.protocol = if layer.name == "icmp" { ICMP } else { ICMPV6 };
            Ok(encoded)
        }
        "ns" | "na" | "rs" | "ra" | "redirect" | "report" => neighbour(layer, packet, around),
        other => Err(format!("there is no layer {other:?}")),
    }
}

fn tcp(layer: &Layer, inner: &[u8], packet: Packet) -> Result<Encoded, String> {
    layer.knows(&["words"])?;
    let (sport, dport): (u16, u16) = (layer.required(0, "a source port")?, layer.required(1, "a destination port")?);
    let mut flags = 0u8;
    for letter in layer.at(2).unwrap_or("-").chars() {
        flags |= match letter {
            'F' => 0x01,
            'S' => 0x02,
            'R' => 0x04,
            'P' => 0x08,
            'A' => 0x10,
            'U' => 0x20,
            '-' => 0,
            other => return Err(format!("{other:?} is no TCP flag")),
        };
    }
    let acknowledged = u32::from(flags & 0x10 != 0);
    let mut bytes = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
    bytes.extend([1u32.to_be_bytes(), acknowledged.to_be_bytes()].concat());
    bytes.extend([layer.number("words", 5u8)? << 4, flags]);
    bytes.extend(64_000u16.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(inner);
    seal(&mut bytes, 16, TCP, packet);
    Ok(Encoded::of(TCP, bytes))
}

fn udp(layer: &Layer, inner: &[u8], packet: Packet) -> Result<Encoded, String> {
    layer.knows(&["length"])?;
    let (sport, dport): (u16, u16) = (layer.required(0, "a source port")?, layer.required(1, "a destination port")?);
    let length = u16::try_from(8 + inner.len()).map_err(|_| "udp: too long")?;
    let mut bytes = [sport.to_be_bytes(), dport.to_be_bytes(), layer.number("length", length)?.to_be_bytes(), [0; 2]].concat();
    bytes.extend(inner);
    seal(&mut bytes, 6, UDP, packet);
    Ok(Encoded::of(UDP, bytes))
}

/// The ICMP of the packet's family.
fn icmp(kind: u8, code: u8, body: &[u8], packet: Packet) -> Encoded {
    let mut bytes = [&[kind, code, 0, 0], body].concat();
    if packet.is_v4() {
        let sum = checksum(&[&bytes]);
        bytes[2..4].copy_from_slice(&sum.to_be_bytes());
        return Encoded::of(ICMP, bytes);
    }
    seal(&mut bytes, 2, ICMPV6, packet);
    Encoded::of(ICMPV6, bytes)
}

/// `ns(TARGET, mac=)`, `na(TARGET, mac=)`, `rs`, `ra`, `redirect`, `report`: true unless it says otherwise.
fn neighbour(layer: &Layer, packet: Packet, around: &Surroundings<'_>) -> Result<Encoded, String> {
    layer.knows(&["mac"])?;
    let target = || -> Result<[u8; 16], String> {
        let text = layer.at(0).unwrap_or(around.pod);
        let address: IpAddr = text.parse().or_else(|_| (around.address)(text, false))?;
        Ok(v6_octets(address))
    };
    let mac = match layer.text("mac") {
        Some(text) if text.contains(':') => super::encode::hex(&text.replace(':', ""))?,
        Some(text) => (around.mac)(text)?.to_vec(),
        None => around.macs.0.to_vec(),
    };
    let option = |kind: u8| [&[kind, 1], mac.as_slice()].concat();
    let (kind, body) = match layer.name.as_str() {
        "rs" => (133, [vec![0; 4], option(1)].concat()),
        // a default route for half an hour
        "ra" => (134, vec![64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]),
        "ns" => (135, [&[0; 4][..], &target()?, &option(1)].concat()),
        // overriding what is known
        "na" => (136, [&[0x20, 0, 0, 0][..], &target()?, &option(2)].concat()),
        "redirect" => (137, [&[0; 4][..], &target()?, &v6_octets(packet.dst)].concat()),
        _ => (143, vec![0; 4]),
    };
    Ok(icmp(kind, 0, &body, packet))
}

/// Writes the checksum over the pseudo-header and `bytes` at `at`.
fn seal(bytes: &mut [u8], at: usize, protocol: u8, packet: Packet) {
    let length = (bytes.len() as u32).to_be_bytes();
    let pseudo = if packet.is_v4() {
        [&v4_octets(packet.src)[..], &v4_octets(packet.dst), &length, &[0, 0, 0, protocol]].concat()
    } else {
        [&v6_octets(packet.src)[..], &v6_octets(packet.dst), &length, &[0, 0, 0, protocol]].concat()
    };
    let sum = match checksum(&[&pseudo, bytes]) {
        // of UDP, 0 means that there is none
        0 if protocol == UDP => 0xffff,
        sum => sum,
    };
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// RFC 1071; every part but the last has an even length.
pub(super) fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2)).map(|pair| match pair {
        [high, low] => u32::from(*high) << 8 | u32::from(*low),
        [high] => u32::from(*high) << 8,
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
