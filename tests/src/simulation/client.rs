//! What a host opens: a TCP stream, a few datagrams, a few pings. Each knows every byte that must come back.

use super::host::{tcp_socket, udp_socket};
use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::{icmp, tcp, udp};
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpAddress};
use std::net::{IpAddr, SocketAddr};

/// Between two datagrams, pings, or pieces of a slow stream.
const INTERVAL_NS: u64 = 200_000_000;
const CHUNK_BYTES: usize = 256;

/// The number of echo messages that were made by hand.
pub(super) const STRAY_NUMBER: usize = 0xffff;

/// What to open, and how much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A stream of so many bytes, echoed.
    Tcp(usize),
    /// The same with pauses, so that it lives through swaps and deaths.
    SlowTcp(usize),
    /// So many datagrams, echoed.
    Udp(usize),
    /// So many pings.
    Ping(usize),
}

impl Kind {
    fn units(self) -> usize {
        match self {
            Kind::Tcp(units) | Kind::SlowTcp(units) | Kind::Udp(units) | Kind::Ping(units) => units,
        }
    }
}

/// How far it came.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    pub(super) kind: Kind,
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
    /// TCP was established.
    pub(super) established: bool,
    /// Bytes, datagrams or pings that came back.
    pub(super) echoed: usize,
    /// What came back was not what was sent.
    pub(super) corrupt: Option<String>,
}

impl Progress {
    /// Everything came back.
    pub(super) fn complete(&self) -> bool {
        self.echoed >= self.kind.units()
    }

    /// Anything at all came back.
    pub(super) fn answered(&self) -> bool {
        self.established || self.echoed > 0
    }
}

pub(super) struct Client {
    handle: SocketHandle,
    sent: usize,
    /// When the next piece is due; meaningless while nothing can be sent.
    next_ns: u64,
    can_send: bool,
    pub(super) progress: Progress,
}

/// The byte at a position of the stream that `local_port` sends.
fn pattern(local_port: u16, at: usize) -> u8 {
    (at.wrapping_mul(31) ^ (at >> 8) ^ usize::from(local_port).wrapping_mul(167)) as u8
}

/// A whole datagram: its number, and bytes that follow from it.
fn datagram(local_port: u16, number: usize) -> Vec<u8> {
    (0..16).map(|at| if at == 0 { number as u8 } else { pattern(local_port, number * 16 + at) }).collect()
}

impl Client {
    pub(super) fn open(
        interface: &mut Interface,
        sockets: &mut SocketSet<'static>,
        kind: Kind,
        local: SocketAddr,
        peer: SocketAddr,
        now_ns: u64,
    ) -> Self {
        let handle = match kind {
            Kind::Tcp(_) | Kind::SlowTcp(_) => {
                let mut socket = tcp_socket();
                socket.connect(interface.context(), peer, local).expect("a closed socket can connect");
                sockets.add(socket)
            }
            Kind::Udp(_) => {
                let mut socket = udp_socket();
                socket.bind(local).expect("an unbound socket can be bound");
                sockets.add(socket)
            }
            Kind::Ping(_) => {
                let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 8], vec![0; 512]);
                let mut socket = icmp::Socket::new(buffer(), buffer());
                socket.bind(icmp::Endpoint::Ident(local.port())).expect("an unbound socket can be bound");
                sockets.add(socket)
            }
        };
        let progress = Progress { kind, local, peer, established: false, echoed: 0, corrupt: None };
        let can_send = matches!(kind, Kind::Udp(_) | Kind::Ping(_));
        Self { handle, sent: 0, next_ns: now_ns, can_send, progress }
    }

    /// When it has something to send by itself.
    pub(super) fn next_ns(&self) -> Option<u64> {
        (self.can_send && self.sent < self.progress.kind.units()).then_some(self.next_ns)
    }

    /// Sends what is due, takes what has come.
    pub(super) fn work(&mut self, sockets: &mut SocketSet<'static>, now_ns: u64) {
        match self.progress.kind {
            Kind::Tcp(bytes) => self.stream(sockets.get_mut(self.handle), bytes, 0, now_ns),
            Kind::SlowTcp(bytes) => self.stream(sockets.get_mut(self.handle), bytes, INTERVAL_NS, now_ns),
            Kind::Udp(count) => self.datagrams(sockets.get_mut(self.handle), count, now_ns),
            Kind::Ping(count) => self.pings(sockets.get_mut(self.handle), count, now_ns),
        }
    }

    fn stream(&mut self, socket: &mut tcp::Socket<'static>, bytes: usize, pause_ns: u64, now_ns: u64) {
        let port = self.progress.local.port();
        self.progress.established |= matches!(socket.state(), tcp::State::Established | tcp::State::CloseWait);
        while socket.can_send() && self.sent < bytes && (pause_ns == 0 || now_ns >= self.next_ns) {
            let end = bytes.min(self.sent + CHUNK_BYTES);
            let chunk: Vec<u8> = (self.sent..end).map(|at| pattern(port, at)).collect();
            self.sent += socket.send_slice(&chunk).expect("it can send");
            self.next_ns = now_ns + pause_ns;
        }
        self.can_send = pause_ns > 0 && socket.can_send();
        while socket.can_recv() {
            let chunk = socket.recv(|data| (data.len(), data.to_vec())).expect("it can receive");
            for byte in chunk {
                let (at, expected) = (self.progress.echoed, pattern(port, self.progress.echoed));
                if byte != expected || at >= bytes {
                    self.progress.corrupt = Some(format!("byte {at} of {bytes} is {byte:#04x}, not {expected:#04x}"));
                }
                self.progress.echoed += 1;
            }
        }
        if self.progress.complete() && socket.may_send() {
            socket.close();
        }
    }

    fn datagrams(&mut self, socket: &mut udp::Socket<'static>, count: usize, now_ns: u64) {
        let Progress { local, peer, .. } = self.progress;
        if self.sent < count && now_ns >= self.next_ns {
            // a full buffer is a lost datagram
            let _ = socket.send_slice(&datagram(local.port(), self.sent), peer);
            (self.sent, self.next_ns) = (self.sent + 1, now_ns + INTERVAL_NS);
        }
        while let Ok((data, from)) = socket.recv() {
            let number = data.first().map_or(0, |number| usize::from(*number));
            let from = SocketAddr::from((IpAddr::from(from.endpoint.addr), from.endpoint.port));
            if data != datagram(local.port(), number) || from != peer {
                self.progress.corrupt = Some(format!("datagram {number} from {from}: {data:?}"));
            }
            self.progress.echoed += 1;
        }
    }

    fn pings(&mut self, socket: &mut icmp::Socket<'static>, count: usize, now_ns: u64) {
        let Progress { local, peer, .. } = self.progress;
        if self.sent < count && now_ns >= self.next_ns {
            send_ping(socket, local, peer.ip(), self.sent);
            (self.sent, self.next_ns) = (self.sent + 1, now_ns + INTERVAL_NS);
        }
        while let Ok((packet, from)) = socket.recv() {
            match ping_reply(packet, local, peer) {
                Some(number) if IpAddr::from(from) == peer.ip() && number < self.sent => self.progress.echoed += 1,
                // an error that quotes one of ours is no answer, and a stray is nobody's
                None | Some(STRAY_NUMBER) => {}
                Some(number) => self.progress.corrupt = Some(format!("reply {number} from {from}, {} were sent", self.sent)),
            }
        }
    }
}

fn send_ping(socket: &mut icmp::Socket<'static>, local: SocketAddr, peer: IpAddr, number: usize) {
    let (ident, seq_no, data) = (local.port(), number as u16, datagram(local.port(), number));
    let checksums = ChecksumCapabilities::default();
    match (local.ip(), peer) {
        (IpAddr::V4(_), _) => {
            let request = Icmpv4Repr::EchoRequest { ident, seq_no, data: &data };
            if let Ok(buffer) = socket.send(request.buffer_len(), IpAddress::from(peer)) {
                request.emit(&mut Icmpv4Packet::new_unchecked(buffer), &checksums);
            }
        }
        (IpAddr::V6(own), IpAddr::V6(other)) => {
            let request = Icmpv6Repr::EchoRequest { ident, seq_no, data: &data };
            if let Ok(buffer) = socket.send(request.buffer_len(), IpAddress::from(peer)) {
                request.emit(&own, &other, &mut Icmpv6Packet::new_unchecked(buffer), &checksums);
            }
        }
        _ => unreachable!("both ends are of one family"),
    }
}

/// The number of the ping that this answers, if it is an answer.
fn ping_reply(packet: &[u8], local: SocketAddr, peer: SocketAddr) -> Option<usize> {
    let checksums = ChecksumCapabilities::default();
    match (local.ip(), peer.ip()) {
        (IpAddr::V4(_), _) => match Icmpv4Repr::parse(&Icmpv4Packet::new_checked(packet).ok()?, &checksums).ok()? {
            Icmpv4Repr::EchoReply { seq_no, .. } => Some(usize::from(seq_no)),
            _ => None,
        },
        (IpAddr::V6(own), IpAddr::V6(other)) => {
            match Icmpv6Repr::parse(&other, &own, &Icmpv6Packet::new_checked(packet).ok()?, &checksums).ok()? {
                Icmpv6Repr::EchoReply { seq_no, .. } => Some(usize::from(seq_no)),
                _ => None,
            }
        }
        _ => None,
    }
}
