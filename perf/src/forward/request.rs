//! Requests and responses over one established connection, one at a time, as netperf's TCP_RR: each crosses every hook and
//! wakes both ends.

use super::bench::{Bench, CLIENT, SERVER, pin};
use super::connect::{MESSAGE, PORT, STUCK};
use super::turns::{Latencies, Meter};
use super::{Drive, Sides};
use anyhow::{Context, Result};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Instant;

/// Round trips per second, and how long each took.
pub(super) fn run(bench: &Bench, drive: Drive<'_>) -> Result<Option<Sides>> {
    let meter = Meter::new();
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
        let client = scope.spawn(|| {
            bench.in_pod(CLIENT, || {
                pin(bench.cpus.client)?;
                ask(TcpStream::connect_timeout(&bench.server(PORT), STUCK).context("cannot connect")?, &meter)
            })
        });
        let taken = drive(&meter, None);
        meter.end();
        let latencies = client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(taken?.map(|taken| latencies.into_samples(taken)))
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

fn ask(mut stream: TcpStream, meter: &Meter) -> Result<Latencies> {
    stream.set_nodelay(true).context("cannot switch delays off")?;
    stream.set_read_timeout(Some(STUCK)).context("cannot bound the wait")?;
    let (mut latencies, mut message) = (Latencies::new()?, MESSAGE);
    while !meter.is_over() {
        let (turn, begin) = (meter.turn(), Instant::now());
        stream.write_all(&message).and_then(|()| stream.read_exact(&mut message)).context("no response")?;
        meter.count(1);
        latencies.record(turn, meter.turn(), begin.elapsed().as_nanos() as u64);
    }
    Ok(latencies)
}
