//! Round trips of small datagrams: of one established flow at a fixed pace, and of flows that begin.
//!
//! At a fixed pace (open loop) each answer's time counts from when its question was due, so that a stall delays all questions
//! behind it, as it would in life, instead of holding them back.

use super::Sample;
use super::bench::{Bench, CLIENT, SERVER, pin};
use super::cluster::COLD_PORTS;
use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const ESTABLISHED_PORT: u16 = 5205;
/// Where flows begin; it answers for many ports, see [`super::peers::gather`].
pub(super) const FIRST_PORT: u16 = 5206;
const EVERY: Duration = Duration::from_micros(200);
/// Between two new flows: long enough for whoever waits for packets to fall asleep.
const PAUSE: Duration = Duration::from_micros(800);
const PATIENCE: Duration = Duration::from_millis(200);
const STOP_POLL: Duration = Duration::from_millis(20);
/// A tenth of a second's questions.
const WINDOW: usize = 500;
const LATENCY_MAX_NS: u64 = 60_000_000_000;

fn histogram() -> Result<Histogram<u64>> {
    Histogram::new_with_max(LATENCY_MAX_NS, 3).context("bounds of the histogram")
}

/// Runs a client beside a server that sends back what it gets.
fn beside_echo(bench: &Bench, port: u16, client: impl FnOnce() -> Result<Sample> + Send) -> Result<Sample> {
    let stop = AtomicBool::new(false);
    let socket = bench.in_pod(SERVER, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).context("cannot bind the server"))?;
    socket.set_read_timeout(Some(STOP_POLL)).context("cannot bound the server's waiting")?;
    std::thread::scope(|scope| {
        let server = scope.spawn(|| -> Result<()> {
            pin(bench.cpus.server)?;
            let mut buffer = [0; 64];
            // Relaxed: a lone flag; the thread is joined
            while !stop.load(Ordering::Relaxed) {
                if let Ok((bytes, from)) = socket.recv_from(&mut buffer) {
                    // a client that has gone does not matter here
                    let _ = socket.send_to(&buffer[..bytes], from);
                }
            }
            Ok(())
        });
        let sample = bench.in_pod(CLIENT, || {
            pin(bench.cpus.client)?;
            client()
        });
        // Relaxed: see above
        stop.store(true, Ordering::Relaxed);
        server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        bench.check_interrupted()?;
        sample
    })
}

/// The median of the 99th percentiles of windows of a tenth of a second, in microseconds: one stall of the machine in a second is
/// in the histogram, where the 99.9th percentile shows it, and does not hide what the other windows say.
fn windowed_p99(times_ns: &[u64]) -> f64 {
    let p99 = |window: &[u64]| {
        let mut window = window.to_vec();
        window.sort_unstable();
        window[(window.len() - 1) * 99 / 100]
    };
    let mut of_windows: Vec<u64> = times_ns.chunks_exact(WINDOW).map(p99).collect();
    of_windows.sort_unstable();
    of_windows.get(of_windows.len() / 2).map_or(0.0, |ns| *ns as f64 / 1e3)
}

/// One flow, 5000 questions a second; the value is [`windowed_p99`].
pub(super) fn established(bench: &Bench, duration: Duration) -> Result<Sample> {
    beside_echo(bench, ESTABLISHED_PORT, || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot bind the client")?;
        socket.connect(bench.server(ESTABLISHED_PORT)).context("cannot address the server")?;
        socket.set_nonblocking(true).context("cannot make the client not wait")?;
        let (mut latency_ns, mut times_ns, start) = (histogram()?, Vec::new(), Instant::now());
        let (mut sent, mut buffer) = (0u32, [0; 64]);
        while start.elapsed() < duration + STOP_POLL && !bench.is_interrupted() {
            if start.elapsed() >= EVERY * sent && start.elapsed() < duration {
                let _ = socket.send(&sent.to_ne_bytes());
                sent += 1;
            }
            match socket.recv(&mut buffer) {
                Ok(4) => {
                    let number = u32::from_ne_bytes(*buffer.first_chunk().expect("64 bytes"));
                    // the first ones begin the flow
                    if number >= 50 {
                        let ns = start.elapsed().saturating_sub(EVERY * number).as_nanos() as u64;
                        latency_ns.saturating_record(ns);
                        times_ns.push(ns);
                    }
                }
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionRefused) => {}
                Err(error) => return Err(error).context("cannot receive"),
            }
        }
        let lost = 1.0 - (latency_ns.len() + 50) as f64 / f64::from(sent.max(1));
        Ok(Sample { value: windowed_p99(&times_ns), lost: Some(lost.max(0.0)), latency_ns: Some(latency_ns), ..Sample::default() })
    })
}

/// Flows that differ in their source port alone, one after another; the value is the median in microseconds.
pub(super) fn first(bench: &Bench, duration: Duration) -> Result<Sample> {
    begin(bench, duration, || FIRST_PORT)
}

/// Flows to ports that nobody has asked for before.
pub(super) fn cold(bench: &Bench, duration: Duration) -> Result<Sample> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    // Relaxed: a plain count
    begin(bench, duration, || COLD_PORTS.start + (NEXT.fetch_add(1, Ordering::Relaxed) % COLD_PORTS.len()) as u16)
}

fn begin(bench: &Bench, duration: Duration, port: impl Fn() -> u16 + Sync) -> Result<Sample> {
    beside_echo(bench, FIRST_PORT, || {
        let (mut latency_ns, start) = (histogram()?, Instant::now());
        let (mut sent, mut buffer) = (0u64, [0; 64]);
        while start.elapsed() < duration && !bench.is_interrupted() {
            std::thread::sleep(PAUSE);
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot bind a client")?;
            socket.set_read_timeout(Some(PATIENCE)).context("cannot bound the wait")?;
            let (to, begin) = (bench.server(port()), Instant::now());
            socket.send_to(&[0x5a; 18], to).context("cannot send")?;
            sent += 1;
            if socket.recv(&mut buffer).is_ok() {
                latency_ns.saturating_record(begin.elapsed().as_nanos() as u64);
            }
        }
        let lost = 1.0 - latency_ns.len() as f64 / sent.max(1) as f64;
        let value = latency_ns.value_at_quantile(0.5) as f64 / 1e3;
        Ok(Sample { value, lost: Some(lost.max(0.0)), latency_ns: Some(latency_ns), ..Sample::default() })
    })
}

#[cfg(test)]
mod tests {
    use super::{WINDOW, windowed_p99};

    #[test]
    fn one_stall_is_not_the_rule() {
        let quiet: Vec<u64> = (0..10 * WINDOW as u64).map(|number| 20_000 + number % 100).collect();
        assert!((windowed_p99(&quiet) - 20.098).abs() < 0.01, "{}", windowed_p99(&quiet));
        let mut stalled = quiet.clone();
        stalled[..100].fill(4_000_000);
        assert_eq!(windowed_p99(&stalled), windowed_p99(&quiet));
        // in most windows it is
        let slow: Vec<u64> = quiet.iter().enumerate().map(|(number, ns)| if number % 50 == 0 { 1_000_000 } else { *ns }).collect();
        assert_eq!(windowed_p99(&slow), 1000.0);
        assert_eq!(windowed_p99(&[]), 0.0);
    }
}
