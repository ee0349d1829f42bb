//! Streams whose reader knows every byte beforehand.

use super::gauge::Stop;
use super::{Gauge, wildcard};
use anyhow::{Context, Result, anyhow};
use sluice_flow::Family;
use sluice_lab::Lab;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const CHUNK_BYTES: usize = 16 << 10;
/// Prime, so that no loss of whole segments or pages leaves the sequence looking right.
const PERIOD: usize = 65_521;
const PATIENCE: Duration = Duration::from_millis(100);
/// After the end of writing, how long a reader waits for the rest.
const REST_MAX: Duration = Duration::from_secs(2);

/// What to send.
#[derive(Debug, Clone, Copy)]
pub struct TcpPlan {
    /// The listener's port.
    pub port: u16,
    /// How many at once.
    pub streams: usize,
    /// Of each stream.
    pub bytes_per_second: u64,
}

/// Streams on their way.
#[derive(Debug)]
pub struct TcpStreams {
    /// Bytes that arrive, one for each stream.
    pub gauges: Vec<Arc<Gauge>>,
    stop: Stop,
    pairs: Vec<(JoinHandle<Written>, JoinHandle<Taken>)>,
}

struct Written {
    bytes: u64,
    error: Option<String>,
}

struct Taken {
    bytes: u64,
    ended: bool,
    error: Option<String>,
}

/// What became of the streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpReport {
    /// How many there were.
    pub streams: usize,
    /// Bytes that were written and read, in order and unchanged.
    pub bytes: u64,
    /// Streams that broke, stalled to the end, or carried something wrong.
    pub cut: Vec<String>,
    /// The longest time in which nothing arrived on one of them.
    pub longest_silence: Duration,
}

impl TcpReport {
    /// No stream was cut.
    ///
    /// # Panics
    /// Otherwise, with the report.
    pub fn assert_whole(&self) {
        assert!(self.cut.is_empty() && self.bytes > 0, "{self:#?}");
    }
}

impl TcpStreams {
    /// Connects from one pod to another and begins to send.
    ///
    /// # Errors
    /// A connection could not be made.
    pub fn start(lab: &Lab, from: &str, to: &str, family: Family, plan: TcpPlan) -> Result<Self> {
        let address = SocketAddr::new(lab.pod_address(to, family)?, plan.port);
        let listener = lab.in_pod(to, || Ok(TcpListener::bind((wildcard(address.ip()), plan.port))?))?;
        let stop = Stop::default();
        let (mut gauges, mut pairs) = (Vec::new(), Vec::new());
        for _ in 0..plan.streams {
            let connect = || Ok(TcpStream::connect_timeout(&address, Duration::from_secs(3))?);
            let near = lab.in_pod(from, connect).with_context(|| format!("connect {from} to {address}"))?;
            let (far, _) = listener.accept().context("accept")?;
            near.set_write_timeout(Some(PATIENCE))?;
            far.set_read_timeout(Some(PATIENCE))?;
            let gauge = Arc::<Gauge>::default();
            gauges.push(gauge.clone());
            let (stop_writing, stop_reading) = (stop.flag(), stop.flag());
            let writer = std::thread::spawn(move || write(near, plan, &stop_writing));
            let reader = std::thread::spawn(move || read(far, &gauge, &stop_reading));
            pairs.push((writer, reader));
        }
        Ok(Self { gauges, stop, pairs })
    }

    /// Bytes that arrived so far.
    pub fn arrived(&self) -> u64 {
        self.gauges.iter().map(|gauge| gauge.arrived()).sum()
    }

    /// Ends the streams and accounts for every byte.
    ///
    /// # Errors
    /// A thread panicked.
    pub fn finish(self) -> Result<TcpReport> {
        self.stop.now();
        let (mut bytes, mut cut) = (0, Vec::new());
        for (index, (writer, reader)) in self.pairs.into_iter().enumerate() {
            let written = writer.join().map_err(|_| anyhow!("a writer panicked"))?;
            let taken = reader.join().map_err(|_| anyhow!("a reader panicked"))?;
            bytes += taken.bytes;
            if let Some(error) = written.error.or(taken.error) {
                cut.push(format!("stream {index}: {error}"));
            } else if !taken.ended || written.bytes != taken.bytes {
                cut.push(format!("stream {index}: {} bytes written, {} read", written.bytes, taken.bytes));
            }
        }
        let longest_silence = self.gauges.iter().map(|gauge| gauge.longest_silence()).max().unwrap_or_default();
        Ok(TcpReport { streams: self.gauges.len(), bytes, cut, longest_silence })
    }
}

/// What stands at byte `at` of every stream, and on: a sequence without order inside its period.
#[derive(Debug)]
struct Sequence(Vec<u8>);

impl Sequence {
    fn new() -> Self {
        // the high byte of a linear congruential generator (Knuth's MMIX)
        let next = |state: &mut u64| {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            Some((*state >> 56) as u8)
        };
        let mut state = 1;
        let period: Vec<u8> = std::iter::from_fn(|| next(&mut state)).take(PERIOD).collect();
        Self(period.repeat(2))
    }

    /// At most one period.
    fn at(&self, at: u64, bytes: usize) -> &[u8] {
        let begin = (at % PERIOD as u64) as usize;
        &self.0[begin..begin + bytes]
    }
}

fn write(mut stream: TcpStream, plan: TcpPlan, stop: &AtomicBool) -> Written {
    let (sequence, mut bytes) = (Sequence::new(), 0u64);
    let begin = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let due = (begin.elapsed().as_secs_f64() * plan.bytes_per_second as f64) as u64;
        if bytes >= due {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        match stream.write(sequence.at(bytes, CHUNK_BYTES)) {
            Ok(written) => bytes += written as u64,
            // the window is full: the reader is slow, or the path is closed
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
            Err(error) => return Written { bytes, error: Some(format!("write: {error}")) },
        }
    }
    let error = stream.shutdown(Shutdown::Write).err().map(|error| format!("shutdown: {error}"));
    Written { bytes, error }
}

fn read(mut stream: TcpStream, gauge: &Gauge, stop: &AtomicBool) -> Taken {
    let (sequence, mut bytes) = (Sequence::new(), 0u64);
    let mut stopped: Option<Instant> = None;
    let mut buffer = vec![0; 2 * CHUNK_BYTES];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Taken { bytes, ended: true, error: None },
            Ok(read) => {
                gauge.note(read as u64);
                if buffer[..read] != *sequence.at(bytes, read) {
                    return Taken {
                        bytes,
                        ended: false,
                        error: Some(format!("between bytes {bytes} and {}: not what was written", bytes + read as u64)),
                    };
                }
                bytes += read as u64;
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {
                if stop.load(Ordering::Relaxed) && stopped.get_or_insert_with(Instant::now).elapsed() > REST_MAX {
                    return Taken { bytes, ended: false, error: None };
                }
            }
            Err(error) => return Taken { bytes, ended: false, error: Some(format!("read: {error}")) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_piece_never_goes_unnoticed() {
        let sequence = Sequence::new();
        assert_eq!(sequence.at(5, 100), sequence.at(5 + PERIOD as u64, 100));
        for lost in [1, 8, 1448, 4096, 65_536] {
            assert_ne!(sequence.at(1000, 100), sequence.at(1000 + lost, 100), "{lost}");
        }
    }
}
