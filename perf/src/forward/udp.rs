//! Small packets of UDP flows: a sender that does nothing but `sendmmsg`, and the kernel's own count of what reached the other
//! end: the socket, or, of many flows, a rule in front of where the stack would look for one.
//!
//! Nobody reads the one flow's socket. Its small buffer is full at once; from then on the kernel looks the socket up, refuses the
//! datagram and counts it. So the figure is the way to the socket, not the speed of a reader that would compete with
//! the sender for two cores.

use super::bench::{Bench, CLIENT, SERVER, pin};
use super::cluster::FLOW_PORTS;
use super::{Sample, peers};
use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg, sockopt};
use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

const PORT: u16 = 5202;
/// With Ethernet's, IP's and UDP's headers and the frame check sequence: 64 bytes.
const PAYLOAD_BYTES: usize = 18;
const BATCH: usize = 64;
/// What is still queued when the sender stops gets through meanwhile.
const DRAIN: Duration = Duration::from_millis(20);

/// Packets per second that reached the socket.
pub(super) fn run(bench: &Bench, duration: Duration) -> Result<Sample> {
    let _sink = bench.in_pod(SERVER, sink)?;
    let before = bench.in_pod(SERVER, received)?;
    let (sent, elapsed) = bench.in_pod(CLIENT, || {
        pin(bench.cpus.client)?;
        blast(bench, duration)
    })?;
    std::thread::sleep(DRAIN);
    let received = bench.in_pod(SERVER, received)? - before;
    bench.check_interrupted()?;
    let lost = 1.0 - received as f64 / sent.max(1) as f64;
    Ok(Sample { value: received as f64 / elapsed.as_secs_f64(), lost: Some(lost.max(0.0)), ..Sample::default() })
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

    fn arrived(&self, bench: &Bench) -> Result<u64> {
        self.pairs.iter().map(|pair| peers::counted(&bench.lab().pod_netns(&pair.server))).sum()
    }

    /// Packets per second that arrived, of all flows in turn, each of which has sent one a moment before: no state of the node
    /// pays here for a pause of theirs.
    pub(super) fn run(&mut self, bench: &Bench, duration: Duration) -> Result<Sample> {
        for _ in 0..self.batches() {
            self.send_batch()?;
        }
        let before = self.arrived(bench)?;
        let (sent, elapsed) = std::thread::scope(|scope| {
            let blast = scope.spawn(|| -> Result<_> {
                pin(bench.cpus.client)?;
                let (mut sent, start) = (0, Instant::now());
                while start.elapsed() < duration && !bench.is_interrupted() {
                    sent += self.send_batch()?;
                }
                Ok((sent, start.elapsed()))
            });
            blast.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        std::thread::sleep(DRAIN);
        let arrived = self.arrived(bench)? - before;
        bench.check_interrupted()?;
        let lost = 1.0 - arrived as f64 / sent.max(1) as f64;
        Ok(Sample { value: arrived as f64 / elapsed.as_secs_f64(), lost: Some(lost.max(0.0)), ..Sample::default() })
    }
}

fn sink() -> Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).context("cannot bind the receiver")?;
    sockopt::set_socket_recv_buffer_size(&socket, 1).context("cannot make the receive buffer small")?;
    Ok(socket)
}

/// Sends until the time is over; says how many and how long that took.
fn blast(bench: &Bench, duration: Duration) -> Result<(u64, Duration)> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot bind the sender")?;
    socket.connect(bench.server(PORT)).context("cannot address the receiver")?;
    let payload = [0x5a; PAYLOAD_BYTES];
    let iov = [IoSlice::new(&payload)];
    let mut controls: Vec<SendAncillaryBuffer<'_, '_, '_>> = (0..BATCH).map(|_| SendAncillaryBuffer::default()).collect();
    let mut batch: Vec<MMsgHdr<'_>> = controls.iter_mut().map(|control| MMsgHdr::new(&iov, control)).collect();
    let (mut sent, start) = (0, Instant::now());
    loop {
        let elapsed = start.elapsed();
        if elapsed >= duration || bench.is_interrupted() {
            return Ok((sent, elapsed));
        }
        match sendmmsg(&socket, &mut batch, SendFlags::empty()) {
            Ok(count) => sent += count as u64,
            Err(Errno::INTR | Errno::AGAIN | Errno::NOBUFS) => {}
            Err(error) => return Err(error).context("cannot send"),
        }
    }
}

/// Datagrams that reached a socket of this thread's network namespace, read or not.
fn received() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/net/snmp").context("cannot read the UDP counters")?;
    udp_received(&text).context("no UDP counters in /proc/thread-self/net/snmp")
}

/// The counters come as two lines, names and values.
fn udp_received(snmp: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (lines.next()?.split(' '), lines.next()?.split(' '));
    let wanted = |name: &str| matches!(name, "InDatagrams" | "RcvbufErrors" | "MemErrors");
    names.zip(values).filter(|(name, _)| wanted(name)).map(|(_, value)| value.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_count_whether_they_were_read_or_refused_by_the_full_buffer() {
        let snmp = "Tcp: A B\nTcp: 7 8\nUdp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors MemErrors\n\
                    Udp: 3 9 40 9 40 9 2\nUdpLite: InDatagrams\nUdpLite: 5\n";
        assert_eq!(udp_received(snmp), Some(45));
        assert_eq!(udp_received("Tcp: A\nTcp: 7\n"), None);
    }
}
