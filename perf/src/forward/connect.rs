//! Short connections, one after another: connect, request, response, close.
//!
//! The server closes first, as HTTP/1.0 does, so that the client's ports are free again at once. Every connection is
//! new to the dataplane: this is where its first-packet cost shows, and whether it forgets what has ended in time for
//! what begins.

use super::bench::{Bench, pin};
use super::turns::{Latencies, Meter};
use super::{Drive, Sample, Sides};
use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout, set_tcp_nodelay};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, connect, ipproto, recv, send, socket};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

pub(super) const PORT: u16 = 5203;
pub(super) const MESSAGE: [u8; 64] = [0x5a; 64];
/// A lost SYN is repeated after one second, and then after two more: who waits longer than this has lost two.
pub(super) const STUCK: Duration = Duration::from_millis(2500);
const STOP_POLL: Duration = Duration::from_millis(100);

/// Round trips per second of one pod to another, and how long each took.
pub(super) fn run(bench: &Bench, [client, server]: [&str; 2], drive: Drive<'_>) -> Result<Option<Sides>> {
    let meter = Meter::new();
    let to = bench.at(server, PORT)?;
    let listener = bench.in_pod(server, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).context("cannot bind the server"))?;
    set_socket_timeout(&listener, Timeout::Recv, Some(STOP_POLL)).context("cannot bound the server's waiting")?;
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            pin(bench.cpus.server)?;
            serve(&listener, &meter)
        });
        let client = scope.spawn(|| {
            bench.in_pod(client, || {
                pin(bench.cpus.client)?;
                ask(to, &meter)
            })
        });
        let taken = drive(&meter, None);
        meter.end();
        let (latencies, stuck) = client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(taken?.map(|taken| latencies.into_samples(taken).map(|sample| Sample { stuck, ..sample })))
    })
}

fn serve(listener: &TcpListener, meter: &Meter) -> Result<()> {
    while !meter.is_over() {
        match listener.accept() {
            // A client that was cut off is seen, and told, at the client's end.
            Ok((stream, _)) => drop(answer(stream)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error).context("cannot accept"),
        }
    }
    Ok(())
}

/// The listener's short time-out came with the stream and would cut off a client on a busy machine.
fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(2 * STUCK))?;
    stream.set_nodelay(true)?;
    stream.read_exact(&mut [0; MESSAGE.len()])?;
    stream.write_all(&MESSAGE)
}

/// Also says how many connections got stuck.
fn ask(server: SocketAddr, meter: &Meter) -> Result<(Latencies, u64)> {
    let (mut latencies, mut stuck, mut count) = (Latencies::new()?, 0, 0u64);
    while !meter.is_over() {
        let (turn, begin) = (meter.turn(), Instant::now());
        match round_trip(server).with_context(|| format!("after {count} connections"))? {
            Trip::Done => {
                meter.count(1);
                latencies.record(turn, meter.turn(), begin.elapsed().as_nanos() as u64);
            }
            Trip::Stuck => stuck += 1,
        }
        count += 1;
    }
    Ok((latencies, stuck))
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trip {
    /// As it should.
    Done,
    /// No answer within [`STUCK`].
    Stuck,
}

/// The time-outs bound connecting too, which std cannot without a poll for each connection.
fn round_trip(server: SocketAddr) -> Result<Trip> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::TCP)).context("no socket")?;
    set_socket_timeout(&socket, Timeout::Send, Some(STUCK)).context("cannot bound connecting")?;
    set_socket_timeout(&socket, Timeout::Recv, Some(STUCK)).context("cannot bound the wait")?;
    set_tcp_nodelay(&socket, true).context("cannot switch delays off")?;
    match connect(&socket, &server) {
        Ok(()) => {}
        // What connect(2) says when SO_SNDTIMEO is over.
        Err(Errno::INPROGRESS | Errno::AGAIN | Errno::TIMEDOUT) => return Ok(Trip::Stuck),
        Err(error) => return Err(error).context("cannot connect"),
    }
    send(&socket, &MESSAGE, SendFlags::NOSIGNAL).context("cannot send the request")?;
    let (mut buffer, mut total) = ([0; 2 * MESSAGE.len()], 0);
    loop {
        match recv(&socket, &mut buffer, RecvFlags::empty()) {
            Ok((_, 0)) if total == MESSAGE.len() => return Ok(Trip::Done),
            Ok((_, 0)) => bail!("the server closed after {total} bytes"),
            Ok((_, count)) => total += count,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(Trip::Stuck),
            Err(error) => return Err(error).context("no response"),
        }
    }
}
