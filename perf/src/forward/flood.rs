//! One pod that floods, and what its neighbours can do meanwhile.

use super::bench::{Bench, CLIENT, NOISY, SERVER, pin};
use super::cluster::{FLOW_PORTS, PAIRS};
use super::{Drive, Sample, Sides, connect, iperf};
use anyhow::{Context, Result};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// TCP throughput of the client pod beside a flood of datagrams to ever other ports that no policy allows.
pub(super) fn denied(bench: &Bench, drive: Drive<'_>) -> Result<Option<Sides>> {
    let victim = bench.at(CLIENT, 0)?;
    beside(bench, |number| SocketAddr::new(victim.ip(), (number % 60_000) as u16 + 1), || iperf::run(bench, bench.server(0).ip(), 1, drive))
}

/// Connections of the client pod beside a flood of new flows that policy allows: each to another
/// server and port, and from a new socket once all have been.
pub(super) fn opening(bench: &Bench, drive: Drive<'_>) -> Result<Option<Sides>> {
    let servers: Vec<SocketAddr> = (0..PAIRS).map(|pair| bench.at(&format!("flows/s{pair}"), 0)).collect::<Result<_>>()?;
    let to = |number: u64| {
        let port = FLOW_PORTS.start + (number / servers.len() as u64 % FLOW_PORTS.len() as u64) as u16;
        SocketAddr::new(servers[number as usize % servers.len()].ip(), port)
    };
    beside(bench, to, || connect::run(bench, [CLIENT, SERVER], drive))
}

fn beside(bench: &Bench, to: impl Fn(u64) -> SocketAddr + Sync, measure: impl FnOnce() -> Result<Option<Sides>>) -> Result<Option<Sides>> {
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            bench.in_pod(NOISY, || {
                pin(bench.cpus.server)?;
                let mut socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot bind what floods")?;
                // Relaxed: a count and a flag
                while !stop.load(Ordering::Relaxed) {
                    let number = sent.fetch_add(1, Ordering::Relaxed);
                    // an error is the answer to an earlier one
                    let _ = socket.send_to(&[0x5a; 18], to(number));
                    if number % 100_000 == 99_999 {
                        socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot bind what floods")?;
                    }
                }
                Ok(())
            })
        });
        // it has begun
        std::thread::sleep(Duration::from_millis(50));
        let sides = measure();
        // Relaxed: see above
        stop.store(true, Ordering::Relaxed);
        flood.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let flooded = Some(sent.load(Ordering::Relaxed));
        Ok(sides?.map(|sides| sides.map(|sample| Sample { flooded, ..sample })))
    })
}
