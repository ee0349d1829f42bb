//! A host: a real IP stack (smoltcp) with an address of each family, some servers, and whatever it was asked to open.
//!
//! Servers echo. A client therefore knows every byte that must come back, and a stream that was cut, mixed up or answered
//! by somebody else shows at once. Time is an argument, and the stack's randomness comes from the seed.

use super::client::{Client, Kind, Progress};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

/// TCP ports with a server on every host; on any other port a stack resets.
pub(super) const TCP_PORTS: [u16; 2] = [80, 8080];
/// UDP ports with a server.
pub(super) const UDP_PORTS: [u16; 1] = [53];

const LISTENERS_PER_PORT: usize = 2;
const TCP_BUFFER_BYTES: usize = 1500;
const MTU_BYTES: usize = 1280;

/// The two queues of a host's interface: bare IP packets.
#[derive(Debug, Default)]
struct Queues {
    received: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
}

struct Received(Vec<u8>);
struct Sending<'a>(&'a mut Vec<Vec<u8>>);

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl phy::TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, bytes: usize, write: F) -> R {
        let mut packet = vec![0; bytes];
        let written = write(&mut packet);
        self.0.push(packet);
        written
    }
}

impl Device for Queues {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU_BYTES;
        capabilities
    }

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        let packet = self.received.pop_front()?;
        Some((Received(packet), Sending(&mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.sent))
    }
}

/// See the module's documentation.
pub(super) struct Host {
    interface: Interface,
    queues: Queues,
    sockets: SocketSet<'static>,
    tcp_servers: Vec<(SocketHandle, u16)>,
    udp_servers: Vec<SocketHandle>,
    clients: Vec<Client>,
    pub(super) addresses: Vec<IpAddr>,
}

fn instant(now_ns: u64) -> Instant {
    Instant::from_micros((now_ns / 1000) as i64)
}

impl Host {
    pub(super) fn new(addresses: &[IpAddr], seed: u64, now_ns: u64) -> Self {
        let mut queues = Queues::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut queues, instant(now_ns));
        interface.update_ip_addrs(|list| {
            for &address in addresses {
                // everything is on the link: the node routes
                list.push(IpCidr::new(address.into(), 0)).expect("one address of each family");
            }
        });
        let mut host = Self {
            interface,
            queues,
            sockets: SocketSet::new(Vec::new()),
            tcp_servers: Vec::new(),
            udp_servers: Vec::new(),
            clients: Vec::new(),
            addresses: addresses.to_vec(),
        };
        host.start_servers();
        host
    }

    fn start_servers(&mut self) {
        for port in TCP_PORTS {
            for _ in 0..LISTENERS_PER_PORT {
                let mut socket = tcp_socket();
                socket.listen(port).expect("a closed socket can listen");
                self.tcp_servers.push((self.sockets.add(socket), port));
            }
        }
        for port in UDP_PORTS {
            let mut socket = udp_socket();
            socket.bind(port).expect("an unbound socket can be bound");
            self.udp_servers.push(self.sockets.add(socket));
        }
    }

    /// All sockets are new: clients are forgotten, whatever was open is no longer known here.
    pub(super) fn restart(&mut self) {
        self.sockets = SocketSet::new(Vec::new());
        self.tcp_servers.clear();
        self.udp_servers.clear();
        self.clients.clear();
        self.queues = Queues::default();
        self.start_servers();
    }

    /// This host's address of the family of another.
    pub(super) fn address_like(&self, other: IpAddr) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| address.is_ipv4() == other.is_ipv4())
    }

    /// Opens something towards `peer` from `local_port` (ICMP: identifier). False: not of one family.
    pub(super) fn open(&mut self, kind: Kind, peer: SocketAddr, local_port: u16, now_ns: u64) -> bool {
        let Some(address) = self.address_like(peer.ip()) else { return false };
        let local = SocketAddr::new(address, local_port);
        self.clients.push(Client::open(&mut self.interface, &mut self.sockets, kind, local, peer, now_ns));
        true
    }

    /// What became of what was opened, in order.
    pub(super) fn progress(&self) -> impl Iterator<Item = &Progress> {
        self.clients.iter().map(|client| &client.progress)
    }

    /// A packet for the stack.
    pub(super) fn receive(&mut self, packet: Vec<u8>) {
        self.queues.received.push_back(packet);
    }

    /// Runs the stack and its programs; returns the packets it sends.
    pub(super) fn poll(&mut self, now_ns: u64) -> Vec<Vec<u8>> {
        for _ in 0..2 {
            self.interface.poll(instant(now_ns), &mut self.queues, &mut self.sockets);
            self.serve();
            for client in &mut self.clients {
                client.work(&mut self.sockets, now_ns);
            }
        }
        self.interface.poll(instant(now_ns), &mut self.queues, &mut self.sockets);
        std::mem::take(&mut self.queues.sent)
    }

    /// When it wants to be run again.
    pub(super) fn next_poll_ns(&mut self, now_ns: u64) -> Option<u64> {
        let stack = self.interface.poll_at(instant(now_ns), &self.sockets).map(|at| (at.total_micros() as u64 + 1) * 1000);
        self.clients.iter().filter_map(Client::next_ns).chain(stack).min()
    }

    fn serve(&mut self) {
        for &(handle, port) in &self.tcp_servers {
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
            echo(socket);
            if !socket.is_open() {
                socket.listen(port).expect("a closed socket can listen");
            }
        }
        for &handle in &self.udp_servers {
            let socket = self.sockets.get_mut::<udp::Socket<'_>>(handle);
            while let Ok((datagram, from)) = socket.recv() {
                let (datagram, to) = (datagram.to_vec(), udp::UdpMetadata { meta: Default::default(), ..from });
                // a full buffer is a lost datagram, as in any stack
                let _ = socket.send_slice(&datagram, to);
            }
        }
    }
}

/// Sends back what has come, and closes after the other side has.
fn echo(socket: &mut tcp::Socket<'_>) {
    let room = socket.send_capacity() - socket.send_queue();
    if socket.can_recv() && socket.may_send() && room > 0 {
        let bytes = socket.recv(|data| {
            let taken = data[..data.len().min(room)].to_vec();
            (taken.len(), taken)
        });
        let bytes = bytes.expect("it can receive");
        let sent = socket.send_slice(&bytes).expect("it may send");
        assert_eq!(sent, bytes.len(), "there is room for what was taken");
    }
    if socket.state() == tcp::State::CloseWait && socket.recv_queue() == 0 {
        socket.close();
    }
}

pub(super) fn tcp_socket() -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(vec![0; TCP_BUFFER_BYTES]);
    tcp::Socket::new(buffer(), buffer())
}

pub(super) fn udp_socket() -> udp::Socket<'static> {
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 8], vec![0; 512]);
    udp::Socket::new(buffer(), buffer())
}
