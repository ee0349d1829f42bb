//! Small packets of UDP flows: a sender that does nothing but `sendmmsg`, and the kernel's own count of what reached the other
//! end: the socket, or, of many flows, a rule in front of where the stack would look for one.
//!
//! Nobody reads the one flow's socket. Its small buffer is full at once; from then on the kernel looks the socket up, refuses the
//! datagram and counts it. So the figure is the way to the socket, not the speed of a reader that would compete with
//! the sender for two cores.

use super::bench::{Bench, CLIENT, SERVER, pin};
use super::cluster::FLOW_PORTS;
use super::turns::{Meter, Taken};
use super::{Drive, Sample, Sides, kernel_counts};
use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg, sockopt};
use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;

const PORT: u16 = 5202;
/// With Ethernet's, IP's and UDP's headers and the frame check sequence: 64 bytes.
const PAYLOAD_BYTES: usize = 18;
const BATCH: usize = 64;

/// Packets per second that reached the socket.
pub(super) fn run(bench: &Bench, drive: Drive<'_>) -> Result<Option<Sides>> {
    let (_sink, meter) = (bench.in_pod(SERVER, sink)?, Meter::new());
    std::thread::scope(|scope| {
        let blaster = scope.spawn(|| {
            bench.in_pod(CLIENT, || {
                pin(bench.cpus.client)?;
                blast(bench, &meter)
            })
        });
        let taken = drive(&meter, Some(&|| bench.in_pod(SERVER, kernel_counts::datagrams)));
        meter.end();
        blaster.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(sides(taken?, &meter))
    })
}

/// What arrived, beside what the meter counted as sent.
fn sides(taken: Option<[Taken; 2]>, meter: &Meter) -> Option<Sides> {
    let mut side = 0..;
    taken.map(|taken| {
        taken.map(|taken| {
            let sent = meter.done(side.next().unwrap_or_default()).max(1);
            let lost = (1.0 - taken.units as f64 / sent as f64).max(0.0);
            Sample { value: taken.rate(), lost: Some(lost), taken, ..Sample::default() }
        })
    })
}

/// Senders of many flows: a socket in each pod of the pairs, a destination port for each of its flows.
pub(super) struct Flows {
    pairs: Vec<Pair>,
    batch_at: usize,
}

struct Pair {
    socket: UdpSocket,
    server: String,
    to: Vec<SocketAddrV4>,
}

impl Flows {
    /// So many, over as few pairs as they fit into.
    pub(super) fn new(bench: &Bench, count: usize) -> Result<Self> {
        let pairs = count.div_ceil(FLOW_PORTS.len());
        let pair = |pair: usize| {
            let (client, server) = (format!("flows/c{pair}"), format!("flows/s{pair}"));
            let IpAddr::V4(address) = bench.at(&server, 0)?.ip() else { bail!("{server} has no IPv4 address") };
            let to = FLOW_PORTS.take(count / pairs).map(|port| SocketAddrV4::new(address, port)).collect();
            // the same ports each time: the same flows
            let socket = bench.in_pod(&client, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).context("cannot bind a sender"))?;
            Ok(Pair { socket, server, to })
        };
        Ok(Self { pairs: (0..pairs).map(pair).collect::<Result<_>>()?, batch_at: 0 })
    }

    /// Sends one packet of each flow, slowly enough for workers that know none of them.
    pub(super) fn introduce(&mut self, bench: &Bench) -> Result<()> {
        for _ in 0..self.batches() {
            bench.check_interrupted()?;
            self.send_batch()?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn batches(&self) -> usize {
        self.pairs.iter().map(|pair| pair.to.len().div_ceil(BATCH)).sum()
    }

    /// The next packets: of each pair in turn, and there of each flow.
    fn send_batch(&mut self) -> Result<u64> {
        let pair = &self.pairs[self.batch_at % self.pairs.len()];
        let batches = pair.to.len().div_ceil(BATCH);
        let from = self.batch_at / self.pairs.len() % batches * BATCH;
        self.batch_at += 1;
        let payload = [0x5a; PAYLOAD_BYTES];
        let iov = [IoSlice::new(&payload)];
        let to = &pair.to[from..(from + BATCH).min(pair.to.len())];
        let mut controls: Vec<SendAncillaryBuffer<'_, '_, '_>> = to.iter().map(|_| SendAncillaryBuffer::default()).collect();
        let addresses: Vec<_> = to.iter().map(|to| SocketAddrAny::from(*to)).collect();
        let messages = addresses.iter().zip(&mut controls).map(|(to, control)| MMsgHdr::new_with_addr(to, &iov, control));
        let mut batch: Vec<MMsgHdr<'_>> = messages.collect();
        match sendmmsg(&pair.socket, &mut batch, SendFlags::empty()) {
            Ok(count) => Ok(count as u64),
            Err(Errno::INTR | Errno::AGAIN | Errno::NOBUFS) => Ok(0),
            Err(error) => Err(error).context("cannot send"),
        }
    }

    /// Packets per second that arrived, of all flows in turn, each of which has sent one a moment before: no state of the node
    /// pays here for a pause of theirs.
    pub(super) fn run(&mut self, bench: &Bench, drive: Drive<'_>) -> Result<Option<Sides>> {
        for _ in 0..self.batches() {
            self.send_batch()?;
        }
        let (servers, meter) = (self.pairs.iter().map(|pair| pair.server.clone()).collect::<Vec<_>>(), Meter::new());
        let arrived = || servers.iter().map(|server| bench.in_pod(server, kernel_counts::packets)).sum();
        std::thread::scope(|scope| {
            let blaster = scope.spawn(|| -> Result<()> {
                pin(bench.cpus.client)?;
                while !meter.is_over() {
                    meter.count(self.send_batch()?);
                }
                Ok(())
            });
            let taken = drive(&meter, Some(&arrived));
            meter.end();
            blaster.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok(sides(taken?, &meter))
        })
    }
}

fn sink() -> Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).context("cannot bind the receiver")?;
    sockopt::set_socket_recv_buffer_size(&socket, 1).context("cannot make the receive buffer small")?;
    Ok(socket)
}

/// Sends until it is over.
fn blast(bench: &Bench, meter: &Meter) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot bind the sender")?;
    socket.connect(bench.server(PORT)).context("cannot address the receiver")?;
    let payload = [0x5a; PAYLOAD_BYTES];
    let iov = [IoSlice::new(&payload)];
    let mut controls: Vec<SendAncillaryBuffer<'_, '_, '_>> = (0..BATCH).map(|_| SendAncillaryBuffer::default()).collect();
    let mut batch: Vec<MMsgHdr<'_>> = controls.iter_mut().map(|control| MMsgHdr::new(&iov, control)).collect();
    while !meter.is_over() {
        match sendmmsg(&socket, &mut batch, SendFlags::empty()) {
            Ok(count) => meter.count(count as u64),
            Err(Errno::INTR | Errno::AGAIN | Errno::NOBUFS) => {}
            Err(error) => return Err(error).context("cannot send"),
        }
    }
    Ok(())
}
