//! Frames in and out of a pod's device, past its own stack: what a hostile or broken pod could send, and what really
//! arrived there. AF_PACKET, packet(7).

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netdevice, recv, send, socket_with};
use sluice_lab::NetNs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

const FRAME_BYTES_MAX: usize = 65_536;

/// An open device. It stays in its namespace wherever it is used from.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
}

impl PacketSocket {
    /// On a device of that namespace.
    ///
    /// # Errors
    /// No such device; not root.
    pub fn open(netns: &NetNs, device: &str) -> Result<Self> {
        netns.run(|| {
            let all = Protocol::from_raw(u32::from((libc::ETH_P_ALL as u16).to_be()).try_into()?);
            let fd = socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, Some(all)).context("packet socket")?;
            let index = netdevice::name_to_index(&fd, device).with_context(|| format!("device {device}"))?;
            rustix::net::sockopt::set_socket_recv_buffer_size_force(&fd, 16 << 20).context("receive buffer")?;
            bind(&fd, index).with_context(|| format!("bind to {device}"))?;
            ignore_own(&fd).context("ignore what we send")?;
            Ok(Self { fd })
        })
    }

    /// On the pod's `eth0`.
    ///
    /// # Errors
    /// As [`PacketSocket::open`].
    pub fn of_pod(netns: &NetNs) -> Result<Self> {
        Self::open(netns, "eth0")
    }

    /// Sends one frame as it is.
    ///
    /// # Errors
    /// The system's.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let sent = send(&self.fd, frame, SendFlags::empty()).context("send a frame")?;
        if sent != frame.len() {
            bail!("{sent} of {} bytes sent", frame.len());
        }
        Ok(())
    }

    /// Every frame that arrived since the last call and arrives within `limit`; what this machine sent is left out.
    ///
    /// # Errors
    /// The system's.
    pub fn frames(&self, limit: Duration) -> Result<Vec<Vec<u8>>> {
        let deadline = Instant::now() + limit;
        let mut frames = Vec::new();
        let mut buffer = vec![0; FRAME_BYTES_MAX];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            let ready = poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&timeout)).context("wait for frames")?;
            if ready == 0 {
                return Ok(frames);
            }
            match recv(&self.fd, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((bytes, _)) => frames.push(buffer[..bytes].to_vec()),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR | rustix::io::Errno::NETDOWN) => {}
                Err(error) => return Err(error).context("receive a frame"),
            }
        }
    }
}

#[allow(unsafe_code)]
fn bind(fd: &OwnedFd, ifindex: u32) -> std::io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: ifindex as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: `address` is a sockaddr_ll of exactly the length that is passed, and outlives the call.
    let result = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[allow(unsafe_code)]
fn ignore_own(fd: &OwnedFd) -> std::io::Result<()> {
    let on: i32 = 1;
    // SAFETY: the option takes an int; `on` is one and outlives the call.
    let result = unsafe {
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, (&raw const on).cast(), size_of_val(&on) as u32)
    };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
