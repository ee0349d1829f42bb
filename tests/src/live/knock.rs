//! A process that is in a sandbox before there is a device: it sends as soon as it can, and does not stop.

use crate::traffic::now_ns;
use sluice_lab::NetNs;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Sends to `to` from the moment when there is a device, before, during and after ADD, until `stop`; each datagram says when.
/// Returns how many the sandbox's stack took.
///
/// # Panics
/// In the thread, when the namespace is gone.
pub fn knock(netns: NetNs, to: SocketAddr, stop: Arc<AtomicBool>) -> JoinHandle<u64> {
    std::thread::spawn(move || {
        netns.enter().expect("the sandbox's namespace");
        let mut sent = 0;
        let mut socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        while !stop.load(Ordering::Relaxed) {
            // what waits for a neighbour that ptp's first route made us look for must not fill the socket
            if sent % 32 == 0 {
                socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
                socket.set_nonblocking(true).expect("a socket that does not block");
            }
            sent += u64::from(socket.send_to(&now_ns().to_le_bytes(), to).is_ok());
            std::thread::sleep(Duration::from_micros(100));
        }
        sent
    })
}
