//! Who receives: answers on the open port, writes down whatever comes to the shut one.

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sluice_lab::NetNs;
use std::net::{Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Where only those come that policy lets in.
pub(super) const OPEN: u16 = 7000;
/// Where only those come that it does not.
pub(super) const SHUT: u16 = 7001;
const LOOK_AT_STOP: Duration = Duration::from_millis(20);

/// Sockets in one namespace and the thread that serves them. They may be made before the namespace has a device.
#[derive(Debug)]
pub struct Host {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<String>>>,
}

struct Sockets {
    udp: [UdpSocket; 2],
    tcp: [TcpListener; 2],
}

impl Host {
    /// Listens in a namespace, in both families.
    ///
    /// # Errors
    /// A port is taken.
    pub fn open(netns: &NetNs, name: String) -> Result<Self> {
        let sockets = netns.run(|| {
            let wildcard = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
            let udp = [UdpSocket::bind(wildcard(OPEN)).context("bind")?, UdpSocket::bind(wildcard(SHUT)).context("bind")?];
            let tcp = [TcpListener::bind(wildcard(OPEN)).context("bind")?, TcpListener::bind(wildcard(SHUT)).context("bind")?];
            udp.iter().try_for_each(|socket| socket.set_nonblocking(true))?;
            tcp.iter().try_for_each(|listener| listener.set_nonblocking(true))?;
            Ok(Sockets { udp, tcp })
        })?;
        let stop = Arc::<AtomicBool>::default();
        let flag = Arc::clone(&stop);
        Ok(Self { stop, thread: Some(std::thread::spawn(move || serve(&sockets, &name, &flag))) })
    }

    /// Stops, and tells what came to the shut port.
    ///
    /// # Panics
    /// When the thread did.
    pub fn close(mut self) -> Vec<String> {
        // Relaxed: a lone flag; the thread is joined
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(|thread| thread.join().expect("a host does not panic")).unwrap_or_default()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Until told to stop, and then until nothing is left in the sockets.
fn serve(sockets: &Sockets, name: &str, stop: &AtomicBool) -> Vec<String> {
    let mut forbidden = Vec::new();
    let patience = Timespec { tv_sec: 0, tv_nsec: LOOK_AT_STOP.subsec_nanos().into() };
    loop {
        let all = sockets.udp.iter().map(AsFd::as_fd).chain(sockets.tcp.iter().map(AsFd::as_fd));
        let mut ready: Vec<PollFd<'_>> = all.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        if matches!(poll(&mut ready, Some(&patience)), Ok(0)) && stop.load(Ordering::Relaxed) {
            return forbidden;
        }
        let mut buffer = [0; 128];
        while let Ok((bytes, from)) = sockets.udp[0].recv_from(&mut buffer) {
            // whoever it was misses the answer, and says so
            let _ = sockets.udp[0].send_to(&buffer[..bytes], from);
        }
        while let Ok((bytes, from)) = sockets.udp[1].recv_from(&mut buffer) {
            forbidden.push(format!("UDP {} from {from} at {name}", String::from_utf8_lossy(&buffer[..bytes])));
        }
        while sockets.tcp[0].accept().is_ok() {}
        while let Ok((_, from)) = sockets.tcp[1].accept() {
            forbidden.push(format!("TCP from {from} at {name}"));
        }
    }
}
