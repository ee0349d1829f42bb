//! Who sends: one datagram and one connection to each of some addresses, all at once and each only once.

use super::host::{OPEN, SHUT};
use crate::traffic::wildcard;
use anyhow::{Context, Result};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// A busy machine is slow; what is lost does not come at all.
const PATIENCE: Duration = Duration::from_secs(5);

/// Somebody to turn to, and whether policy lets us.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) address: IpAddr,
    pub(super) is_allowed: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Knocked {
    pub(super) allowed: usize,
    pub(super) forbidden: usize,
    pub(super) lost: Vec<String>,
    pub(super) first_packet: Option<Instant>,
}

/// Sends to all of them, then waits for the answers of those that must answer. Call it inside the sender's namespace.
pub(super) fn knock(from: &str, targets: &[Target]) -> Result<Knocked> {
    let mut knocked = Knocked::default();
    let mut asked = Vec::new();
    for target in targets {
        let address = SocketAddr::new(target.address, if target.is_allowed { OPEN } else { SHUT });
        let udp = UdpSocket::bind((wildcard(target.address), 0)).context("bind")?;
        udp.connect(address).context("connect")?;
        knocked.first_packet.get_or_insert_with(Instant::now);
        udp.send(from.as_bytes()).with_context(|| format!("{from}: send to {address}"))?;
        let tcp = begin_connect(address).with_context(|| format!("{from}: connect to {address}"))?;
        asked.push((target, udp, tcp));
    }
    for (target, udp, tcp) in asked {
        if !target.is_allowed {
            // the connection's attempt ends with its socket: it was one packet
            knocked.forbidden += 2;
            continue;
        }
        knocked.allowed += 2;
        udp.set_read_timeout(Some(PATIENCE))?;
        if udp.recv(&mut [0; 128]).is_err() {
            knocked.lost.push(format!("UDP from {from} to {} ({})", target.name, target.address));
        }
        if let Err(reason) = finish_connect(&tcp) {
            knocked.lost.push(format!("TCP from {from} to {} ({}): {reason}", target.name, target.address));
        }
    }
    Ok(knocked)
}

/// The SYN leaves; nobody waits.
fn begin_connect(address: SocketAddr) -> Result<TcpStream> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
    match connect(&fd, &address) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(fd.into()),
        Err(error) => Err(error.into()),
    }
}

/// Waits until it is connected, and asks the kernel whether the first SYN was enough.
fn finish_connect(stream: &TcpStream) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match stream.peer_addr() {
            Ok(_) => break,
            Err(error) if error.kind() == ErrorKind::NotConnected && Instant::now() < deadline => {
                if let Ok(Some(error)) = stream.take_error() {
                    return Err(error.to_string());
                }
                std::thread::sleep(Duration::from_micros(200));
            }
            Err(error) => return Err(format!("not connected after {PATIENCE:?}: {error}")),
        }
    }
    match retransmissions(stream) {
        Ok(0) => Ok(()),
        Ok(count) => Err(format!("connected after {count} repeated packets")),
        Err(error) => Err(error.to_string()),
    }
}

/// `tcpi_total_retrans`. Source: tcp(7), linux/tcp.h.
#[allow(unsafe_code)]
fn retransmissions(stream: &TcpStream) -> std::io::Result<u32> {
    // SAFETY: all-zero bytes are a valid tcp_info, which holds integers only.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut bytes = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the kernel writes at most `bytes` bytes to `info`; both live through the call.
    let result = unsafe { libc::getsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut info).cast(), &raw mut bytes) };
    if result == 0 { Ok(info.tcpi_total_retrans) } else { Err(std::io::Error::last_os_error()) }
}
