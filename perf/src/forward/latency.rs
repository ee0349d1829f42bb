//! Round trips of small datagrams: of one established flow at a fixed pace, and of flows that begin.
//!
//! At a fixed pace (open loop) each answer's time counts from when its question was due, so that a stall delays all questions
//! behind it, as it would in life, instead of holding them back.

use super::bench::{Bench, CLIENT, SERVER, pin};
use super::cluster::COLD_PORTS;
use super::turns::{Latencies, Meter, Taken};
use super::{Drive, Sample, Sides};
use anyhow::{Context, Result};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const ESTABLISHED_PORT: u16 = 5205;
/// Where flows begin; it answers for many ports, see [`super::peers::gather`].
pub(super) const FIRST_PORT: u16 = 5206;
const EVERY: Duration = Duration::from_micros(200);
/// Between two new flows: long enough for whoever waits for packets to fall asleep, and for all rounds to find room in the pods, which
/// keep an answered flow for minutes.
const PAUSE: Duration = Duration::from_millis(9);
const PATIENCE: Duration = Duration::from_millis(200);
const STOP_POLL: Duration = Duration::from_millis(20);
/// A tenth of a second's questions.
const WINDOW: usize = 500;

/// Runs a client beside a server that sends back what it gets.
fn beside_echo<T: Send>(
    bench: &Bench,
    port: u16,
    drive: Drive<'_>,
    client: impl FnOnce(&Meter) -> Result<T> + Send,
) -> Result<(Option<[Taken; 2]>, T)> {
    let meter = Meter::new();
    let socket = bench.in_pod(SERVER, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).context("cannot bind the server"))?;
    socket.set_read_timeout(Some(STOP_POLL)).context("cannot bound the server's waiting")?;
    std::thread::scope(|scope| {
        let server = scope.spawn(|| -> Result<()> {
            pin(bench.cpus.server)?;
            let mut buffer = [0; 64];
            while !meter.is_over() {
                if let Ok((bytes, from)) = socket.recv_from(&mut buffer) {
                    // a client that has gone does not matter here
                    let _ = socket.send_to(&buffer[..bytes], from);
                }
            }
            Ok(())
        });
        let client = scope.spawn(|| {
            bench.in_pod(CLIENT, || {
                pin(bench.cpus.client)?;
                client(&meter)
            })
        });
        let taken = drive(&meter, None);
        meter.end();
        let told = client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok((taken?, told))
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
pub(super) fn established(bench: &Bench, drive: Drive<'_>) -> Result<Option<Sides>> {
    let (taken, (latencies, times_ns)) = beside_echo(bench, ESTABLISHED_PORT, drive, |meter| pace(bench, meter))?;
    let mut times = times_ns.iter();
    let values = |sample: Sample| Sample { value: windowed_p99(times.next().map_or(&[], Vec::as_slice)), ..sample };
    Ok(taken.map(|taken| latencies.into_samples(taken).map(values)))
}

/// By side: how long answers took, and each of them in turn.
fn pace(bench: &Bench, meter: &Meter) -> Result<(Latencies, [Vec<u64>; 2])> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot bind the client")?;
    socket.connect(bench.server(ESTABLISHED_PORT)).context("cannot address the server")?;
    socket.set_nonblocking(true).context("cannot make the client not wait")?;
    let (mut latencies, mut times_ns, start) = (Latencies::new()?, <[Vec<u64>; 2]>::default(), Instant::now());
    // of each question: whose turn it was
    let mut turns: Vec<usize> = Vec::new();
    let mut buffer = [0; 64];
    while !meter.is_over() {
        if start.elapsed() >= EVERY * turns.len() as u32 {
            let _ = socket.send(&(turns.len() as u32).to_ne_bytes());
            turns.push(meter.turn());
        }
        match socket.recv(&mut buffer) {
            Ok(4) => {
                let number = u32::from_ne_bytes(*buffer.first_chunk().expect("64 bytes"));
                let ns = start.elapsed().saturating_sub(EVERY * number).as_nanos() as u64;
                let (asked, now) = (turns.get(number as usize).copied().context("an answer to no question")?, meter.turn());
                latencies.record(asked, now, ns);
                if let Some(times) = times_ns.get_mut(now).filter(|_| asked == now) {
                    times.push(ns);
                }
            }
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionRefused) => {}
            Err(error) => return Err(error).context("cannot receive"),
        }
    }
    Ok((latencies, times_ns))
}

/// Flows that differ in their source port alone, one after another; the value is the median in microseconds.
pub(super) fn first(bench: &Bench, drive: Drive<'_>) -> Result<Option<Sides>> {
    begin(bench, drive, || FIRST_PORT)
}

/// Flows to ports that nobody has asked for before.
pub(super) fn cold(bench: &Bench, drive: Drive<'_>) -> Result<Option<Sides>> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    // Relaxed: a plain count
    begin(bench, drive, || COLD_PORTS.start + (NEXT.fetch_add(1, Ordering::Relaxed) % COLD_PORTS.len()) as u16)
}

fn begin(bench: &Bench, drive: Drive<'_>, port: impl Fn() -> u16 + Sync) -> Result<Option<Sides>> {
    let ask = |meter: &Meter| -> Result<(Latencies, u64, u64)> {
        let (mut latencies, mut buffer) = (Latencies::new()?, [0; 64]);
        let (mut sent, mut answered) = (0u64, 0u64);
        while !meter.is_over() {
            std::thread::sleep(PAUSE);
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot bind a client")?;
            socket.set_read_timeout(Some(PATIENCE)).context("cannot bound the wait")?;
            let (to, turn, begin) = (bench.server(port()), meter.turn(), Instant::now());
            socket.send_to(&[0x5a; 18], to).context("cannot send")?;
            sent += 1;
            if socket.recv(&mut buffer).is_ok() {
                answered += 1;
                latencies.record(turn, meter.turn(), begin.elapsed().as_nanos() as u64);
            }
        }
        Ok((latencies, sent, answered))
    };
    let (taken, (latencies, sent, answered)) = beside_echo(bench, FIRST_PORT, drive, ask)?;
    let lost = Some(1.0 - answered as f64 / sent.max(1) as f64);
    let median = |sample: Sample| {
        let value = sample.latency_ns.as_ref().map_or(0.0, |times| times.value_at_quantile(0.5) as f64 / 1e3);
        Sample { value, lost, ..sample }
    };
    Ok(taken.map(|taken| latencies.into_samples(taken).map(median)))
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
