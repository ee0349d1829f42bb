//! Layers → bytes. Each layer is written around what lies inside it, so that lengths and checksums come out right unless
//! the layer says otherwise.
//!
//! Sources: RFC 791, 8200, 4302 (authentication header), 826 (ARP), 2784 (GRE), 7348 (VXLAN), IEEE 802.1Q, 802.2.

use super::layer::Layer;
use super::transport;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const V4: u16 = 0x0800;
const V6: u16 = 0x86dd;
/// For bytes that belong to no protocol: RFC 3692, for experiments.
const EXPERIMENT: u8 = 253;

/// Where a frame stands: who is at both ends of the link, and who is who.
pub(in crate::cases) struct Surroundings<'a> {
    /// Ethernet source and destination.
    pub(in crate::cases) macs: ([u8; 6], [u8; 6]),
    /// The pod whose hook it is.
    pub(in crate::cases) pod: &'a str,
    /// Whether it leaves that pod.
    pub(in crate::cases) leaves: bool,
    /// The address of a pod or of `node`, in a family.
    pub(in crate::cases) address: &'a dyn Fn(&str, bool) -> Result<IpAddr, String>,
    /// MAC of a pod or of `gateway`.
    pub(in crate::cases) mac: &'a dyn Fn(&str) -> Result<[u8; 6], String>,
}

/// What an inner layer must know of the packet around it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
}

impl Packet {
    pub(super) fn is_v4(&self) -> bool {
        self.src.is_ipv4()
    }
}

/// Bytes with what the layer around them must call them.
pub(super) struct Encoded {
    pub(super) bytes: Vec<u8>,
    /// IP protocol number.
    pub(super) protocol: u8,
    /// Ethernet type.
    ethertype: u16,
}

impl Encoded {
    pub(super) fn of(protocol: u8, bytes: Vec<u8>) -> Self {
        Self { bytes, protocol, ethertype: 0 }
    }
}

/// Writes a frame.
pub(in crate::cases) fn encode(layers: &[Layer], around: &Surroundings<'_>) -> Result<Vec<u8>, String> {
    let is_edit = |layer: &Layer| matches!(layer.name.as_str(), "cut" | "pad" | "at");
    let body = layers.iter().position(is_edit).unwrap_or(layers.len());
    let mut frame = match layers.first() {
        Some(first) if first.name == "hex" && body == 1 => hex(first.at(0).unwrap_or_default())?,
        Some(first) if first.name == "eth" => ethernet(Some(first), &layers[1..body], around)?,
        _ => ethernet(None, &layers[..body], around)?,
    };
    for edit in &layers[body..] {
        match edit.name.as_str() {
            "cut" => frame.truncate(edit.required(0, "a length")?),
            "pad" => frame.resize(frame.len().max(edit.required(0, "a length")?), 0),
            "at" => {
                let (at, bytes): (usize, _) = (edit.required(0, "an offset")?, hex(edit.at(1).unwrap_or_default())?);
                let place = frame.get_mut(at..at + bytes.len()).ok_or("at: beyond the frame")?;
                place.copy_from_slice(&bytes);
            }
            other => return Err(format!("{other} stands behind the end of the frame")),
        }
    }
    Ok(frame)
}

fn ethernet(layer: Option<&Layer>, inside: &[Layer], around: &Surroundings<'_>) -> Result<Vec<u8>, String> {
    let inner = encode_layers(inside, None, around)?;
    let (mut src, mut dst, mut ethertype) = (around.macs.0, around.macs.1, inner.ethertype);
    if let Some(layer) = layer {
        layer.knows(&["src", "dst", "type"])?;
        src = layer.text("src").map_or(Ok(src), |text| mac(text, around))?;
        dst = layer.text("dst").map_or(Ok(dst), |text| mac(text, around))?;
        ethertype = layer.number("type", ethertype)?;
    }
    Ok([&dst[..], &src, &ethertype.to_be_bytes(), &inner.bytes].concat())
}

fn mac(text: &str, around: &Surroundings<'_>) -> Result<[u8; 6], String> {
    if !text.contains(':') {
        return (around.mac)(text);
    }
    let bytes: Result<Vec<u8>, _> = text.split(':').map(|part| u8::from_str_radix(part, 16)).collect();
    bytes.ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| format!("{text:?} is no MAC"))
}

/// The layers from here on, inside `packet` if any.
pub(super) fn encode_layers(layers: &[Layer], packet: Option<Packet>, around: &Surroundings<'_>) -> Result<Encoded, String> {
    let Some((layer, inside)) = layers.split_first() else { return Ok(Encoded::of(EXPERIMENT, Vec::new())) };
    match layer.name.as_str() {
        "vlan" | "qinq" => {
            let inner = encode_layers(inside, None, around)?;
            let tag: u16 = layer.required(0, "a VLAN")?;
            let bytes = [&tag.to_be_bytes()[..], &inner.ethertype.to_be_bytes(), &inner.bytes].concat();
            let ethertype = if layer.name == "vlan" { 0x8100 } else { 0x88a8 };
            Ok(Encoded { ethertype, ..Encoded::of(EXPERIMENT, bytes) })
        }
        // IEEE 802.3: a length where the type would be, then LLC, then perhaps SNAP
        "llc" | "snap" => {
            let inner = encode_layers(inside, None, around)?;
            let mut bytes = if layer.name == "llc" { vec![0x42, 0x42, 3] } else { vec![0xaa, 0xaa, 3, 0, 0, 0] };
            if layer.name == "snap" {
                bytes.extend(inner.ethertype.to_be_bytes());
            }
            bytes.extend(inner.bytes);
            let ethertype = u16::try_from(bytes.len()).map_err(|_| "llc: too long")?;
            Ok(Encoded { ethertype, ..Encoded::of(EXPERIMENT, bytes) })
        }
        "arp" => arp(layer, around),
        "ipv4" => ipv4(layer, inside, around),
        "ipv6" => ipv6(layer, inside, around),
        "hop-by-hop" | "routing" | "destination" | "mobility" | "hip" | "shim6" | "fragment" | "auth" => {
            extension(layer, inside, packet, around)
        }
        "esp" => Ok(Encoded::of(50, [&[0; 8][..], &encode_layers(inside, packet, around)?.bytes].concat())),
        "no-next" => Ok(Encoded::of(59, Vec::new())),
        "gre" => {
            let inner = encode_layers(inside, None, around)?;
            Ok(Encoded::of(47, [&[0, 0][..], &inner.ethertype.to_be_bytes(), &inner.bytes].concat()))
        }
        "vxlan" => {
            let network: u32 = layer.required(0, "a network identifier")?;
            let inner = ethernet(None, inside, around)?;
            Ok(Encoded::of(EXPERIMENT, [&[8, 0, 0, 0][..], &(network << 8).to_be_bytes(), &inner].concat()))
        }
        "protocol" => Ok(Encoded::of(layer.required(0, "a number")?, encode_layers(inside, packet, around)?.bytes)),
        "data" => Ok(Encoded::of(EXPERIMENT, vec![0x2e; layer.required(0, "a length")?])),
        "hex" => Ok(Encoded::of(EXPERIMENT, hex(layer.at(0).unwrap_or_default())?)),
        _ => transport::encode(layer, inside, packet.ok_or("a transport header stands inside ipv4 or ipv6")?, around),
    }
}

/// Source and destination: the peer is the first argument, `src=` and `dst=` overrule.
fn ends(layer: &Layer, v4: bool, around: &Surroundings<'_>) -> Result<Packet, String> {
    let resolve = |text: &str| match text.parse() {
        Ok(address) => Ok(address),
        Err(_) => (around.address)(text, v4),
    };
    let peer = layer.at(0).filter(|text| !matches!(*text, "more" | "df")).map(&resolve);
    let side = |key: &str, is_pod: bool| match (layer.text(key), is_pod, &peer) {
        (Some(text), ..) => resolve(text),
        (None, true, _) => resolve(around.pod),
        (None, false, Some(peer)) => peer.clone(),
        (None, false, None) => Err(format!("{} needs the other end as its first argument", layer.name)),
    };
    let packet = Packet { src: side("src", around.leaves)?, dst: side("dst", !around.leaves)? };
    if packet.src.is_ipv4() != v4 || packet.dst.is_ipv4() != v4 {
        return Err(format!("{}: {} and {} are not both of its family", layer.name, packet.src, packet.dst));
    }
    Ok(packet)
}

fn ipv4(layer: &Layer, inside: &[Layer], around: &Surroundings<'_>) -> Result<Encoded, String> {
    layer.knows(&["src", "dst", "ttl", "proto", "total", "ihl", "version", "options", "id", "offset"])?;
    let packet = ends(layer, true, around)?;
    let inner = encode_layers(inside, Some(packet), around)?;
    let options: usize = layer.number("options", 0)?;
    let header_bytes = 20 + options;
    let words = u8::try_from(header_bytes / 4).map_err(|_| "ipv4: too many options")?;
    let total = u16::try_from(header_bytes + inner.bytes.len()).map_err(|_| "ipv4: too long")?;
    let flags = u16::from(layer.has("more")) << 13 | u16::from(layer.has("df")) << 14;
    let mut header = vec![layer.number("version", 4u8)? << 4 | layer.number("ihl", words)?, 0];
    header.extend(layer.number("total", total)?.to_be_bytes());
    header.extend(layer.number("id", 1u16)?.to_be_bytes());
    header.extend((flags | layer.number("offset", 0u16)?).to_be_bytes());
    header.extend([layer.number("ttl", 64u8)?, layer.number("proto", inner.protocol)?, 0, 0]);
    header.extend([v4_octets(packet.src), v4_octets(packet.dst)].concat());
    // no-operation options
    header.resize(header_bytes, 1);
    let sum = transport::checksum(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header.extend(inner.bytes);
    Ok(Encoded { ethertype: V4, ..Encoded::of(4, header) })
}

fn ipv6(layer: &Layer, inside: &[Layer], around: &Surroundings<'_>) -> Result<Encoded, String> {
    layer.knows(&["src", "dst", "hop", "next", "length", "version"])?;
    let packet = ends(layer, false, around)?;
    let inner = encode_layers(inside, Some(packet), around)?;
    let length = u16::try_from(inner.bytes.len()).map_err(|_| "ipv6: too long")?;
    let mut bytes = vec![layer.number("version", 6u8)? << 4, 0, 0, 0];
    bytes.extend(layer.number("length", length)?.to_be_bytes());
    bytes.extend([layer.number("next", inner.protocol)?, layer.number("hop", 64u8)?]);
    bytes.extend([v6_octets(packet.src), v6_octets(packet.dst)].concat());
    bytes.extend(inner.bytes);
    Ok(Encoded { ethertype: V6, ..Encoded::of(41, bytes) })
}

/// An IPv6 extension header. The argument is how long it is beyond the smallest, in its own units.
fn extension(layer: &Layer, inside: &[Layer], packet: Option<Packet>, around: &Surroundings<'_>) -> Result<Encoded, String> {
    layer.knows(&["next", "length", "offset", "id"])?;
    let inner = encode_layers(inside, packet, around)?;
    let next = layer.number("next", inner.protocol)?;
    let longer: usize = layer.at(0).and_then(|text| text.parse().ok()).unwrap_or(0);
    let length = layer.number("length", u8::try_from(longer).map_err(|_| "an extension header: too long")?)?;
    let (number, mut bytes) = match layer.name.as_str() {
        "fragment" => {
            let offset = layer.number("offset", 0u16)? << 3 | u16::from(layer.has("more"));
            (44, [&[next, 0][..], &offset.to_be_bytes(), &layer.number("id", 1u32)?.to_be_bytes()].concat())
        }
        // length in units of four bytes, minus two
        "auth" => (51, [&[next, layer.number("length", 1u8)?, 0, 0][..], &[0; 8]].concat()),
        name => {
            let number = match name {
                "hop-by-hop" => 0,
                "routing" => 43,
                "destination" => 60,
                "mobility" => 135,
                "hip" => 139,
                _ => 140,
            };
            let mut bytes = vec![next, length];
            // PadN fills options; a routing header has no segment left
            bytes.extend(if number == 43 { [0, 0, 0, 0, 0, 0] } else { [1, 4, 0, 0, 0, 0] });
            bytes.resize(8 + longer * 8, 0);
            (number, bytes)
        }
    };
    bytes.extend(inner.bytes);
    Ok(Encoded::of(number, bytes))
}

/// `arp(request|reply, sender=, mac=, target=)`; true unless it says otherwise.
fn arp(layer: &Layer, around: &Surroundings<'_>) -> Result<Encoded, String> {
    layer.knows(&["sender", "mac", "target"])?;
    let address = |text: &str| text.parse().or_else(|_| (around.address)(text, true));
    let sender = layer.text("sender").map_or_else(|| address(around.pod), address)?;
    let target = layer.text("target").map_or_else(|| address("node"), address)?;
    let sender_mac = layer.text("mac").map_or(Ok(around.macs.0), |text| mac(text, around))?;
    let operation = if layer.has("reply") { 2 } else { 1 };
    let head = [0, 1, 8, 0, 6, 4, 0, operation];
    let bytes = [&head[..], &sender_mac, &v4_octets(sender), &[0; 6], &v4_octets(target)].concat();
    Ok(Encoded { ethertype: 0x0806, ..Encoded::of(EXPERIMENT, bytes) })
}

pub(super) fn v4_octets(address: IpAddr) -> [u8; 4] {
    match address {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(v6) => v6.to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED).octets(),
    }
}

pub(super) fn v6_octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => Ipv6Addr::octets(&v6),
    }
}

/// Pairs of hexadecimal digits.
pub(super) fn hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !matches!(byte, b' ' | b'_')).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(|pair| if pair.len() == 2 { byte(pair) } else { None }).collect();
    bytes.ok_or_else(|| format!("{text:?} is not hexadecimal"))
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;
    use etherparse::PacketBuilder;

    fn frame(text: &str) -> Vec<u8> {
        let address = |name: &str, v4: bool| match (name, v4) {
            ("x/web", true) => Ok("10.0.0.1".parse().unwrap()),
            ("x/web", false) => Ok("fd00::1".parse().unwrap()),
            _ => Err(format!("who is {name}?")),
        };
        let around =
            Surroundings { macs: ([2; 6], [4; 6]), pod: "x/web", leaves: true, address: &address, mac: &|_| Err("nobody".to_owned()) };
        encode(&read(text).unwrap(), &around).unwrap()
    }

    fn expected<T>(build: impl FnOnce(&mut Vec<u8>) -> Result<(), T>) -> Vec<u8> {
        let mut frame = Vec::new();
        assert!(build(&mut frame).is_ok());
        frame
    }

    /// A second opinion, checksums included.
    #[test]
    fn ordinary_frames_are_those_of_etherparse() {
        let ethernet = || PacketBuilder::ethernet2([2; 6], [4; 6]);
        let v4 = || ethernet().ipv4([10, 0, 0, 1], [192, 0, 2, 9], 64);
        let v6 = || ethernet().ipv6("fd00::1".parse::<Ipv6Addr>().unwrap().octets(), "fc00::9".parse::<Ipv6Addr>().unwrap().octets(), 64);
        // etherparse does not number its packets and sets DF
        let fixed = |mut frame: Vec<u8>| {
            frame[18..22].copy_from_slice(&[0, 1, 0, 0]);
            frame[24..26].fill(0);
            let sum = transport::checksum(&[&frame[14..34]]);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
            frame
        };
        let data = [0x2e; 5];
        for (text, frame_expected) in [
            ("ipv4(192.0.2.9) udp(1000, 53) data(5)", fixed(expected(|to| v4().udp(1000, 53).write(to, &data)))),
            ("ipv6(fc00::9) udp(1000, 53) data(5)", expected(|to| v6().udp(1000, 53).write(to, &data))),
            ("ipv4(192.0.2.9) tcp(1000, 80, S)", fixed(expected(|to| v4().tcp(1000, 80, 1, 64_000).syn().write(to, &[])))),
            ("ipv6(fc00::9) tcp(1000, 80, SA) data(5)", expected(|to| v6().tcp(1000, 80, 1, 64_000).syn().ack(1).write(to, &data))),
            ("ipv4(192.0.2.9) ping(7) data(5)", fixed(expected(|to| v4().icmpv4_echo_request(7, 1).write(to, &data)))),
            ("ipv6(fc00::9) pong(7) data(5)", expected(|to| v6().icmpv6_echo_reply(7, 1).write(to, &data))),
        ] {
            assert_eq!(frame(text), frame_expected, "{text}");
        }
    }

    #[test]
    fn every_layer_has_a_key_or_its_reason() {
        use sluice_flow::{DropReason, parse_frame};
        for (text, reason) in [
            ("vlan(5) ipv4(192.0.2.9) udp(1, 2)", DropReason::Vlan),
            ("qinq(5) vlan(6) ipv4(192.0.2.9) udp(1, 2)", DropReason::Vlan),
            ("llc ipv4(192.0.2.9) udp(1, 2)", DropReason::EtherType),
            ("ipv6(fc00::9) fragment fragment udp(1, 2)", DropReason::ExtensionChain),
            ("ipv4(192.0.2.9, offset=1, proto=6) data(8)", DropReason::Malformed),
            ("ipv6(fc00::9) destination hop-by-hop udp(1, 2)", DropReason::ExtensionChain),
            ("ipv4(192.0.2.9, total=999) udp(1, 2)", DropReason::Malformed),
            ("ipv4(192.0.2.9) udp(1, 2) cut(30)", DropReason::Malformed),
        ] {
            assert_eq!(parse_frame(&frame(text)).unwrap_err().0, reason, "{text}");
        }
        for text in [
            "ipv4(192.0.2.9, options=8) udp(1, 2)",
            "ipv6(fc00::9) hop-by-hop(1) routing destination auth mobility udp(1, 2)",
            "ipv4(192.0.2.9) udp(1, 2) pad(64)",
        ] {
            let packet = parse_frame(&frame(text)).unwrap();
            assert_eq!((packet.sport, packet.dport), (1, 2), "{text}");
        }
    }
}
