//! Small packets of one UDP flow: a sender that does nothing but `sendmmsg`, and the kernel's own count of what reached
//! the socket at the other end.
//!
//! Nobody reads that socket. Its small buffer is full at once; from then on the kernel looks the socket up, refuses the
//! datagram and counts it. So the figure is the way to the socket, not the speed of a reader that would compete with
//! the sender for two cores.

use super::Sample;
use super::bench::{Bench, CLIENT, SERVER, pin};
use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg, sockopt};
use std::io::IoSlice;
use std::net::{Ipv4Addr, UdpSocket};
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
    Ok(Sample { rate: received as f64 / elapsed.as_secs_f64(), lost: Some(lost.max(0.0)), ..Sample::default() })
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
