//! TCP throughput by iperf3: a server process in one pod, a client in the other, both new for every half of a round.

use super::Sample;
use super::bench::{Bench, CLIENT, SERVER};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::io::{BufRead, BufReader, Read};
use std::net::IpAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

const PORT: u16 = 5201;
/// How long iperf3 may take beyond the time it was asked for.
const GRACE: Duration = Duration::from_secs(10);

/// Received bits per second over `streams` connections of the client pod to an address behind which the server pod stands.
pub(super) fn run(bench: &Bench, to: IpAddr, streams: u32, duration: Duration) -> Result<Sample> {
    let _server = Server::start(bench)?;
    let mut command = Command::new("iperf3");
    command.args(["-c", &to.to_string(), "-p", &PORT.to_string()]);
    // -A pins client and server; -i 0 leaves the intermediate reports out.
    command.args(["-A", &format!("{},{}", bench.cpus.client, bench.cpus.server), "-i", "0", "-J"]);
    command.args(["-t", &duration.as_secs().max(1).to_string(), "-P", &streams.to_string()]);
    let mut client = Running::start(bench, CLIENT, &mut command)?;
    let text = client.read_to_end(bench, duration + GRACE)?;
    let report: Report = serde_json::from_str(&text).with_context(|| format!("iperf3 said: {text}"))?;
    if let Some(error) = report.error {
        bail!("iperf3: {error}");
    }
    let received = report.end.sum_received.context("iperf3 reports nothing received")?;
    let retransmits = report.end.sum_sent.and_then(|sent| sent.retransmits);
    Ok(Sample { value: received.bits_per_second, retransmits, ..Sample::default() })
}

#[derive(Debug, Deserialize)]
struct Report {
    error: Option<String>,
    #[serde(default)]
    end: End,
}

#[derive(Debug, Default, Deserialize)]
struct End {
    sum_sent: Option<Sum>,
    sum_received: Option<Sum>,
}

#[derive(Debug, Deserialize)]
struct Sum {
    bits_per_second: f64,
    retransmits: Option<u64>,
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
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let child = bench.lab().spawn(pod, command).context("is iperf3 installed?")?;
        Ok(Self { child })
    }

    /// All that it says, until it ends, the user interrupts or `limit` is over.
    fn read_to_end(&mut self, bench: &Bench, limit: Duration) -> Result<String> {
        let mut stdout = self.child.stdout.take().context("a piped stdout is there")?;
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            let mut text = String::new();
            let read = stdout.read_to_string(&mut text).map(|_| text);
            let _ = sender.send(read);
        });
        let deadline = Instant::now() + limit;
        loop {
            match receiver.recv_timeout(Duration::from_millis(50)) {
                Ok(read) => {
                    bench.check_interrupted()?;
                    return read.context("cannot hear from the iperf3 client");
                }
                Err(RecvTimeoutError::Timeout) => bench.check_interrupted()?,
                Err(RecvTimeoutError::Disconnected) => bail!("lost the iperf3 client"),
            }
            if Instant::now() > deadline {
                bail!("iperf3 does not end {GRACE:?} after its time");
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Harmless where it has ended: the child is ours until it is waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_as_iperf3_writes_it() {
        let text = r#"{"start": {}, "end": {"sum_sent": {"bits_per_second": 2.0, "retransmits": 3, "sender": true},
            "sum_received": {"bits_per_second": 1.5, "sender": true}}}"#;
        let report: Report = serde_json::from_str(text).unwrap();
        assert_eq!(report.end.sum_received.unwrap().bits_per_second, 1.5);
        assert_eq!(report.end.sum_sent.unwrap().retransmits, Some(3));
        let failed: Report = serde_json::from_str(r#"{"start": {}, "end": {}, "error": "unable to connect"}"#).unwrap();
        assert_eq!(failed.error.as_deref(), Some("unable to connect"));
    }
}
