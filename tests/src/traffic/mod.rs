//! Traffic between pods that notices every packet: numbered datagrams in many flows, and TCP streams whose every byte is
//! known beforehand.
//!
//! ```text
//!   pod A: sender thread ── flow f, number n ──▶ pod B: receiver thread ── every 16th is answered ──▶ A
//!   pod A: 8 writers ════ 0, 1, 2, … as u64 ════▶ pod B: 8 readers, who know what comes next
//! ```
//!
//! Sockets are made inside the pods' namespaces and stay there; the threads that use them are ordinary ones.

mod gauge;
mod tcp;
mod udp;

pub use gauge::{Gauge, now_ns};
pub use tcp::{TcpPlan, TcpReport, TcpStreams};
pub use udp::{UdpFlows, UdpPlan, UdpReport};

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Time as people read it in a report.
pub fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

/// The middle and the largest of some durations.
pub fn median_and_max(durations: &[Duration]) -> (Duration, Duration) {
    let mut sorted = durations.to_vec();
    sorted.sort();
    (sorted.get(sorted.len() / 2).copied().unwrap_or_default(), sorted.last().copied().unwrap_or_default())
}

/// `0.0.0.0` or `::`, whichever is of the family of `address`.
pub fn wildcard(address: IpAddr) -> IpAddr {
    if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}
