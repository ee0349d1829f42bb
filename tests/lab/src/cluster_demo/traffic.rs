//! Traffic of the demo that notices every packet: numbered datagrams of established flows, and new connections.

use anyhow::{Context, Result};
use sluice_flow::Family;
use sluice_lab::{Lab, probe};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const PORT: u16 = 80;
/// Between two datagrams of a flow.
const PACE: Duration = Duration::from_millis(1);
/// Between two connections.
const CONNECTION_PACE: Duration = Duration::from_millis(15);
/// What has not come back after so much silence never will.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// Who is to be connected to, as the endpoints of a service: changed while connections are made.
pub(super) type Endpoints = Arc<Mutex<Vec<SocketAddr>>>;

/// Web servers of these pods.
pub(super) fn addresses(lab: &Lab, pods: &[String]) -> Result<Vec<SocketAddr>> {
    pods.iter().map(|pod| Ok(SocketAddr::new(lab.pod_address(pod, Family::V4)?, PORT))).collect()
}

/// A thread's work until it is told to stop, also by a step that failed.
struct Running<T> {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<T>>,
}

impl<T: Send + 'static> Running<T> {
    /// `work` looks at the flag between two packets.
    fn start(work: impl FnOnce(&AtomicBool) -> T + Send + 'static) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let flag = Arc::clone(&stop);
        Self { stop, thread: Some(std::thread::spawn(move || work(&flag))) }
    }

    fn finish(mut self) -> Result<T> {
        // Relaxed: a lone flag; the thread is joined.
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("only this takes it")?;
        thread.join().map_err(|_| anyhow::anyhow!("a thread of the traffic panicked"))
    }
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Established UDP flows, one to each server and family; the servers send every datagram back.
pub(super) struct Flows(Vec<Running<Result<(u64, u64)>>>);

impl Flows {
    /// Begins to send from a pod to others.
    pub(super) fn start(lab: &Lab, from: &str, to: &[String]) -> Result<Self> {
        let mut flows = Vec::new();
        for (pod, family) in to.iter().flat_map(|pod| [(pod, Family::V4), (pod, Family::V6)]) {
            let address = SocketAddr::new(lab.pod_address(pod, family)?, PORT);
            let socket = lab.in_pod(from, || connected(address))?;
            open(&socket).with_context(|| format!("{from} to {address}"))?;
            flows.push(Running::start(move |stop| converse(&socket, stop)));
        }
        Ok(Self(flows))
    }

    /// Datagrams sent, and those that were not sent back.
    pub(super) fn finish(self) -> Result<(u64, u64)> {
        let (mut sent, mut lost) = (0, 0);
        for flow in self.0 {
            let (asked, answered) = flow.finish()??;
            sent += asked;
            lost += asked - answered;
        }
        Ok((sent, lost))
    }
}

fn connected(address: SocketAddr) -> Result<UdpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = socket.context("bind")?;
    socket.connect(address).context("connect")?;
    Ok(socket)
}

/// One datagram there and back, so that the flow is established.
fn open(socket: &UdpSocket) -> Result<()> {
    socket.set_read_timeout(Some(SILENCE_MAX))?;
    socket.send(b"open")?;
    socket.recv(&mut [0; 128]).context("no answer")?;
    Ok(())
}

/// Sends, and counts what comes back, to the last one.
fn converse(socket: &UdpSocket, stop: &AtomicBool) -> Result<(u64, u64)> {
    let answered = AtomicU64::new(0);
    let sending = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let listening = scope.spawn(|| -> Result<()> {
            socket.set_read_timeout(Some(Duration::from_millis(50)))?;
            let (mut buffer, mut heard) = ([0; 128], Instant::now());
            while sending.load(Ordering::Relaxed) || heard.elapsed() < SILENCE_MAX {
                if socket.recv(&mut buffer).is_ok() {
                    answered.fetch_add(1, Ordering::Relaxed);
                    heard = Instant::now();
                }
            }
            Ok(())
        });
        let mut sent = 0u64;
        while !stop.load(Ordering::Relaxed) {
            sent += u64::from(socket.send(&sent.to_le_bytes()).is_ok());
            std::thread::sleep(PACE);
        }
        sending.store(false, Ordering::Relaxed);
        listening.join().map_err(|_| anyhow::anyhow!("a thread of the traffic panicked"))??;
        Ok((sent, answered.load(Ordering::Relaxed)))
    })
}

/// One new connection after another, to each endpoint in turn.
pub(super) struct Connections(Running<Result<(u64, u64)>>);

impl Connections {
    /// Begins to connect from a pod.
    pub(super) fn start(lab: &Lab, from: &str, endpoints: Endpoints, patience: Duration) -> Result<Self> {
        let netns = lab.pod_netns(&lab.pod(from)?.pod.to_string());
        Ok(Self(Running::start(move |stop| {
            netns.enter()?;
            let (mut made, mut failed) = (0u64, 0);
            while !stop.load(Ordering::Relaxed) {
                let current = endpoints.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let Some(address) = current.get(made as usize % current.len().max(1)) else { continue };
                made += 1;
                failed += u64::from(!probe::tcp(*address, patience).outcome.reached());
                std::thread::sleep(CONNECTION_PACE);
            }
            Ok((made, failed))
        })))
    }

    /// Connections tried, and those that failed.
    pub(super) fn finish(self) -> Result<(u64, u64)> {
        self.0.finish()?
    }
}
