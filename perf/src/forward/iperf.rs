//! TCP throughput by iperf3: a server process in one pod, a client in the other, and the kernel's own count of what came in.
//!
//! What answers the client is steered to the client's CPU (RPS), in all states alike: else the CPU of the server sends a part of
//! what the answers make room for, the two overtake each other on their queues, and what TCP repeats for it is most of the noise.

use super::bench::{Bench, CLIENT, SERVER};
use super::turns::Meter;
use super::{Drive, Sides, kernel_counts};
use crate::forward::Sample;
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Read};
use std::net::IpAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

const PORT: u16 = 5201;
/// Longer than any turns: it is ended.
const SECONDS: u32 = 600;

/// Bits per second that came in, over `streams` connections of the client pod to an address behind which the server pod stands.
pub(super) fn run(bench: &Bench, to: IpAddr, streams: u32, drive: Drive<'_>) -> Result<Option<Sides>> {
    let _steered = Steered::start(bench)?;
    let _server = Server::start(bench)?;
    let mut command = Command::new("iperf3");
    command.args(["-c", &to.to_string(), "-p", &PORT.to_string()]);
    // -A pins client and server; -i 0 leaves the intermediate reports out.
    command.args(["-A", &format!("{},{}", bench.cpus.client, bench.cpus.server), "-i", "0"]);
    command.args(["-t", &SECONDS.to_string(), "-P", &streams.to_string()]);
    let mut client = Running::start(bench, CLIENT, &mut command)?;
    let retransmits = || bench.in_pod(CLIENT, kernel_counts::retransmits);
    let before = retransmits()?;
    let taken = drive(&Meter::new(), Some(&|| bench.in_pod(SERVER, kernel_counts::bytes)))?;
    if let Some(status) = client.child.try_wait().context("cannot look at iperf3")? {
        bail!("iperf3 ended ({status}): {}", client.said()?);
    }
    let again = retransmits()? - before;
    Ok(taken.map(|taken| taken.map(|taken| Sample { value: 8.0 * taken.rate(), retransmits: Some(again), taken, ..Sample::default() })))
}

/// While it lives, the CPU of the client handles what comes to its pod.
struct Steered<'a>(&'a Bench);

impl<'a> Steered<'a> {
    fn start(bench: &'a Bench) -> Result<Self> {
        steer(bench, 1 << bench.cpus.client)?;
        Ok(Self(bench))
    }
}

impl Drop for Steered<'_> {
    fn drop(&mut self) {
        // the pod ends with the bench
        let _ = steer(self.0, 0);
    }
}

/// By a mask of CPUs; none: where it came in.
fn steer(bench: &Bench, cpus: u64) -> Result<()> {
    let netns = bench.lab().pod_netns(CLIENT);
    let write = format!("echo {cpus:x} > /sys/class/net/eth0/queues/rx-0/rps_cpus");
    // this command also shows the namespace's own /sys
    let output = Command::new("ip").args(["netns", "exec", netns.name(), "sh", "-c", &write]).output().context("is iproute2 installed?")?;
    if !output.status.success() {
        bail!("cannot steer a pod's packets to a CPU: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// A server for one test. Its output is kept open: it would end on a closed pipe.
struct Server {
    _running: Running,
    _output: BufReader<ChildStdout>,
}

impl Server {
    fn start(bench: &Bench) -> Result<Self> {
        let mut command = Command::new("iperf3");
        command.args(["-s", "-1", "-p", &PORT.to_string(), "--forceflush"]);
        let mut running = Running::start(bench, SERVER, &mut command)?;
        let mut output = BufReader::new(running.child.stdout.take().context("a piped stdout is there")?);
        let mut said = String::new();
        while !said.contains("listening") {
            if output.read_line(&mut said).context("cannot hear from the iperf3 server")? == 0 {
                bail!("the iperf3 server did not start: {}", said.trim());
            }
        }
        Ok(Self { _running: running, _output: output })
    }
}

/// A process that ends with its owner.
struct Running {
    child: Child,
}

impl Running {
    fn start(bench: &Bench, pod: &str, command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = bench.lab().spawn(pod, command).context("is iperf3 installed?")?;
        Ok(Self { child })
    }

    /// All that it said, after its end.
    fn said(&mut self) -> Result<String> {
        let mut text = String::new();
        if let Some(stdout) = &mut self.child.stdout {
            stdout.read_to_string(&mut text).context("cannot hear from iperf3")?;
        }
        if let Some(stderr) = &mut self.child.stderr {
            stderr.read_to_string(&mut text).context("cannot hear from iperf3")?;
        }
        Ok(text.trim().to_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Harmless where it has ended: the child is ours until it is waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
