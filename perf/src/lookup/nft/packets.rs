//! Queries as real packets, sent through a raw socket.

use super::super::query::Query;
use crate::environment::thread_time;
use anyhow::{Context, Result};
use rustix::io::{Errno, IoSlice};
use rustix::net::{
    AddressFamily, MMsgHdr, RawProtocol, SendAncillaryBuffer, SendFlags, SocketAddrAny, SocketAddrV4, SocketType, sendmmsg, sendto, socket,
};
use sluice_flow::Direction;
use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;

/// An IPv4 header, and so much behind it that any protocol has its ports.
const PACKET_BYTES: usize = 40;
/// Packets of one system call.
const TOGETHER: usize = 512;

/// A packet and where it goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet {
    bytes: [u8; PACKET_BYTES],
    to: Ipv4Addr,
}

/// The packet of a query about the pod at that address; `None` where the kernel would not send it through the device.
pub(super) fn packet(query: &Query, pod: Ipv4Addr) -> Option<Packet> {
    let remote = Ipv4Addr::from(query.remote.to_v4()?);
    let [first, second, third, _] = remote.octets();
    // this network, this host, groups and broadcast, the namespace's own
    if first == 0 || first == 127 || first >= 224 || [first, second, third] == [192, 0, 2] {
        return None;
    }
    let (from, to) = match query.direction {
        Direction::Ingress => (remote, pod),
        Direction::Egress => (pod, remote),
    };
    let mut bytes = [0; PACKET_BYTES];
    // version and length; length of all; identification, so that the kernel need not find one; time to live; protocol
    (bytes[0], bytes[3], bytes[5], bytes[8], bytes[9]) = (0x45, PACKET_BYTES as u8, 1, 64, query.protocol.0);
    bytes[12..16].copy_from_slice(&from.octets());
    bytes[16..20].copy_from_slice(&to.octets());
    bytes[22..24].copy_from_slice(&query.dport.to_be_bytes());
    Some(Packet { bytes, to })
}

/// A socket that takes whole packets.
#[derive(Debug)]
pub(super) struct Sender(OwnedFd);

impl Sender {
    /// # Errors
    ///
    /// This process may not have one.
    pub(super) fn new() -> Result<Self> {
        // IPPROTO_RAW: the header is included. Source: raw(7).
        let protocol = RawProtocol::from(NonZeroU32::new(255).context("not 0")?);
        let socket = socket(AddressFamily::INET, SocketType::RAW, Some(rustix::net::Protocol::from_raw(protocol)));
        Ok(Self(socket.context("a raw socket (needs root)")?))
    }

    /// Whether rules let it pass: a packet that they drop on its way out is refused to its sender.
    ///
    /// # Errors
    ///
    /// It was not sent for another reason.
    pub(super) fn passes(&self, packet: &Packet) -> Result<bool> {
        match sendto(&self.0, &packet.bytes, SendFlags::empty(), &SocketAddrV4::new(packet.to, 0)) {
            Ok(_) => Ok(true),
            Err(Errno::PERM) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("a packet to {}", packet.to)),
        }
    }

    /// Nanoseconds of a packet, by the time on the CPU.
    ///
    /// # Errors
    ///
    /// One cannot be sent.
    pub(super) fn time(&self, packets: &[Packet]) -> Result<f64> {
        let addresses: Vec<SocketAddrAny> = packets.iter().map(|packet| SocketAddrV4::new(packet.to, 0).into()).collect();
        let slices: Vec<[IoSlice<'_>; 1]> = packets.iter().map(|packet| [IoSlice::new(&packet.bytes)]).collect();
        let mut controls: Vec<SendAncillaryBuffer<'_, '_, '_>> = packets.iter().map(|_| SendAncillaryBuffer::default()).collect();
        let places = addresses.iter().zip(&slices).zip(&mut controls);
        let mut messages: Vec<MMsgHdr<'_>> = places.map(|((to, slice), control)| MMsgHdr::new_with_addr(to, slice, control)).collect();
        let start = thread_time();
        let mut sent = 0;
        while sent < messages.len() {
            let end = messages.len().min(sent + TOGETHER);
            sent += sendmmsg(&self.0, &mut messages[sent..end], SendFlags::empty()).context("sending")?;
        }
        let took = thread_time().saturating_sub(start);
        Ok(took.as_nanos() as f64 / packets.len().max(1) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_flow::{Addr, PortIndex, Protocol};
    use std::net::IpAddr;

    fn query(remote: &str, direction: Direction) -> Query {
        let remote = Addr::from(remote.parse::<IpAddr>().unwrap());
        Query { remote, port: PortIndex(0), dport: 443, protocol: Protocol::TCP, direction }
    }

    #[test]
    fn the_pod_is_the_destination_of_ingress_and_the_source_of_egress() {
        let pod = Ipv4Addr::new(10, 64, 0, 2);
        for (direction, pod_at, remote_at) in [(Direction::Ingress, 16, 12), (Direction::Egress, 12, 16)] {
            let bytes = packet(&query("10.1.2.3", direction), pod).unwrap().bytes;
            assert_eq!((&bytes[pod_at..pod_at + 4], &bytes[remote_at..remote_at + 4]), (&[10, 64, 0, 2][..], &[10, 1, 2, 3][..]));
            assert_eq!((bytes[9], u16::from_be_bytes([bytes[22], bytes[23]])), (6, 443));
        }
    }

    #[test]
    fn what_would_not_leave_through_the_device_is_left_out() {
        for remote in ["127.0.0.1", "224.0.0.1", "255.255.255.255", "0.1.2.3", "192.0.2.1", "fd00::1"] {
            assert!(packet(&query(remote, Direction::Egress), Ipv4Addr::new(10, 64, 0, 2)).is_none(), "{remote}");
        }
    }
}
