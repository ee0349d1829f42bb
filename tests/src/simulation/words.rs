//! Packets and fates in words, for traces and violations.

use crate::node::Fate;
use sluice_flow::{Direction, Kind, PortIndex, parse_frame};

/// What became of a packet.
pub(super) fn verb(fate: &Fate) -> String {
    match fate {
        Fate::Passed(_) => "passed".to_owned(),
        Fate::Deferred(_) => "deferred".to_owned(),
        Fate::Dropped(reason) => format!("dropped ({reason})"),
    }
}

/// The same for the digest: drops by their number, then the rest.
pub(super) fn fate_number(fate: &Fate) -> u8 {
    match fate {
        Fate::Passed(_) => 200,
        Fate::Deferred(_) => 201,
        Fate::Dropped(reason) => *reason as u8,
    }
}

/// A packet at a hook in one line.
pub(super) fn describe(port: PortIndex, direction: Direction, frame: &[u8]) -> String {
    let verb = if direction == Direction::Egress { "leaving" } else { "entering" };
    match parse_frame(frame) {
        Err(reason) => format!("{verb} port {}: {} bytes, {reason}", port.0, frame.len()),
        Ok(packet) => {
            let ends = format!("[{}]:{} -> [{}]:{}", packet.src, packet.sport, packet.dst, packet.dport);
            format!("{verb} port {}: {} {ends} {}", port.0, packet.protocol, kind_in_words(&packet.kind))
        }
    }
}

fn kind_in_words(kind: &Kind) -> String {
    match kind {
        Kind::Tcp(flags) | Kind::Sctp(flags) => {
            let names = [(0x02, "SYN"), (0x10, "ACK"), (0x01, "FIN"), (0x04, "RST")];
            let set: Vec<&str> = names.into_iter().filter(|(bit, _)| flags.0 & bit != 0).map(|(_, name)| name).collect();
            if set.is_empty() { "no flags".to_owned() } else { set.join("+") }
        }
        Kind::Udp => "datagram".to_owned(),
        Kind::Icmp(class) => format!("{class:?}").to_lowercase(),
        Kind::IcmpError(about) => {
            format!("error about {} [{}]:{} -> [{}]:{}", about.protocol, about.src, about.sport, about.dst, about.dport)
        }
        Kind::Other => String::new(),
    }
}
