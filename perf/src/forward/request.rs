//! Requests and responses over one established connection, one at a time, as netperf's TCP_RR: each crosses every hook and
//! wakes both ends.

use super::Sample;
use super::bench::{Bench, CLIENT, SERVER, pin};
use super::connect::{LATENCY_MAX_NS, MESSAGE, PORT, STUCK};
use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Round trips per second, and how long each took.
pub(super) fn run(bench: &Bench, duration: Duration) -> Result<Sample> {
    let listener = bench.in_pod(SERVER, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).context("cannot bind the server"))?;
    set_socket_timeout(&listener, Timeout::Recv, Some(2 * STUCK)).context("cannot bound the server's waiting")?;
    std::thread::scope(|scope| {
        let server = scope.spawn(|| -> Result<()> {
            pin(bench.cpus.server)?;
            let (stream, _) = listener.accept().context("nobody connects")?;
            // its end is the client's, whatever ended it
            let _ = answer(stream);
            Ok(())
        });
        let sample = bench.in_pod(CLIENT, || {
            pin(bench.cpus.client)?;
            ask(bench, TcpStream::connect_timeout(&bench.server(PORT), STUCK).context("cannot connect")?, duration)
        });
        server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        bench.check_interrupted()?;
        sample
    })
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(2 * STUCK))?;
    let mut message = MESSAGE;
    loop {
        stream.read_exact(&mut message)?;
        stream.write_all(&message)?;
    }
}

fn ask(bench: &Bench, mut stream: TcpStream, duration: Duration) -> Result<Sample> {
    stream.set_nodelay(true).context("cannot switch delays off")?;
    stream.set_read_timeout(Some(STUCK)).context("cannot bound the wait")?;
    let mut latency_ns = Histogram::<u64>::new_with_max(LATENCY_MAX_NS, 3).context("bounds of the histogram")?;
    let (start, mut message) = (Instant::now(), MESSAGE);
    let mut begin = start;
    while begin - start < duration && !bench.is_interrupted() {
        stream.write_all(&message).and_then(|()| stream.read_exact(&mut message)).context("no response")?;
        let end = Instant::now();
        latency_ns.saturating_record((end - begin).as_nanos() as u64);
        begin = end;
    }
    let value = latency_ns.len() as f64 / start.elapsed().as_secs_f64();
    Ok(Sample { value, latency_ns: Some(latency_ns), ..Sample::default() })
}
