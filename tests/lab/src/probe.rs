//! One question asked on the wire: does this connection work, seen from inside a pod?
//!
//! A probe is a socket on a thread that has joined the pod's network namespace: no process, so that hundreds at once
//! are cheap. It tells apart what a person would want told apart: a name that did not resolve, an address that did
//! not answer, and a refusal, which proves that the packet arrived although nobody listens.

use crate::dns::resolve;
use crate::lab::Lab;
use crate::pod;
use crate::state::{ServedPort, Transport};
use anyhow::{Context, Result};
use hickory_proto::op::Message;
use serde::Serialize;
use sluice_flow::{Family, ObjectName};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

/// Below the first retransmission of a SYN (one second), so that a probe is one attempt and not two.
pub const PROBE_TIMEOUT: Duration = Duration::from_millis(950);
const PAGE_BYTES_MAX: u64 = 64 << 10;

/// What came of a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "camelCase")]
pub enum Outcome {
    /// It worked; with the HTTP status line or the echoed datagram.
    Open {
        /// What the other end said.
        said: String,
    },
    /// The packet arrived and nobody listens.
    Refused,
    /// No answer.
    TimedOut,
    /// The name did not resolve.
    Unresolved {
        /// Why.
        reason: String,
    },
    /// Something else.
    Failed {
        /// Why.
        reason: String,
    },
}

impl Outcome {
    /// Whether packets got to the destination and back, which is what policies decide.
    pub fn reached(&self) -> bool {
        matches!(self, Self::Open { .. } | Self::Refused)
    }

    fn of_error(error: &std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Self::Refused,
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Self::TimedOut,
            _ => Self::Failed { reason: error.to_string() },
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open { said } => write!(f, "{said}"),
            Self::Refused => f.write_str("refused: reached, but nobody listens"),
            Self::TimedOut => f.write_str("no answer"),
            Self::Unresolved { reason } | Self::Failed { reason } => f.write_str(reason),
        }
    }
}

/// A probe's outcome and how long it took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Probe {
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// From the first packet to the answer or the decision that there is none.
    #[serde(rename = "tookUs", serialize_with = "as_micros")]
    pub took: Duration,
}

fn as_micros<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(duration.as_micros() as u64)
}

fn timed(probe: impl FnOnce() -> Outcome) -> Probe {
    let start = Instant::now();
    let outcome = probe();
    Probe { outcome, took: start.elapsed() }
}

/// Connects, and where somebody listens asks for a page. Call it inside the pod's network namespace.
pub fn tcp(address: SocketAddr, timeout: Duration) -> Probe {
    timed(|| match connect_and_get(address, &address.to_string(), "/", timeout) {
        Ok(said) => Outcome::Open { said },
        Err(error) => Outcome::of_error(&error),
    })
}

/// Sends a datagram and waits for an answer; asks a second time at half of the timeout. The datagram is a DNS query, so
/// that the DNS server answers it as the pods' echo servers do.
pub fn udp(address: SocketAddr, timeout: Duration) -> Probe {
    timed(|| match udp_echo(address, timeout) {
        Ok(said) => Outcome::Open { said },
        Err(error) => Outcome::of_error(&error),
    })
}

fn connect_and_get(address: SocketAddr, host: &str, path: &str, timeout: Duration) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: sluice-lab\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    match stream.take(PAGE_BYTES_MAX).read_to_end(&mut answer) {
        Ok(_) => {}
        // The handshake went through both pods' policies; a server that does not speak HTTP is open all the same.
        Err(error) if answer.is_empty() && matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            return Ok("connected".into());
        }
        Err(error) if answer.is_empty() => return Err(error),
        Err(_) => {}
    }
    let text = String::from_utf8_lossy(&answer);
    Ok(text.lines().next().filter(|line| line.starts_with("HTTP/")).unwrap_or("connected").to_owned())
}

fn udp_echo(address: SocketAddr, timeout: Duration) -> std::io::Result<String> {
    let wildcard = if address.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((wildcard, 0))?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(timeout / 2))?;
    let query = Message::query().to_vec().map_err(std::io::Error::other)?;
    let mut buffer = [0; 2048];
    let mut outcome = Err(ErrorKind::TimedOut.into());
    for _ in 0..2 {
        socket.send(&query)?;
        outcome = socket.recv(&mut buffer);
        match &outcome {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            _ => break,
        }
    }
    let answer = &buffer[..outcome?];
    // An echo begins with the pod's name.
    Ok(match answer.strip_suffix(&query[..]) {
        Some(name) => format!("echo from {}", String::from_utf8_lossy(name).trim_end_matches(": ")),
        None => format!("{} bytes", answer.len()),
    })
}

/// `http://host[:port][/path]`, the scheme optional.
fn split_url(url: &str) -> Result<(String, u16, String)> {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    // A bare IPv6 address has several colons and no port.
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if host.ends_with(']') || !host.contains(':') => {
            (host, port.parse().with_context(|| format!("{url}: {port:?} is no port"))?)
        }
        _ => (authority, 80),
    };
    Ok((host.into(), port, format!("/{path}")))
}

impl Lab {
    /// Runs a command in a pod to its end, with the pod's DNS.
    pub fn exec(&self, pod: &str, command: &[&str]) -> Result<Output> {
        let (program, args) = command.split_first().context("no command given")?;
        pod::output(&self.layout, &self.pod(pod)?.pod, Command::new(program).args(args))
    }

    /// Starts a command in a pod. It ends with the pod at the latest.
    pub fn spawn(&self, pod: &str, command: &mut Command) -> Result<Child> {
        pod::spawn(&self.layout, &self.pod(pod)?.pod, command)
    }

    /// Runs code on a thread inside a pod's network namespace.
    pub fn in_pod<T: Send>(&self, pod: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.pod_netns(&self.pod(pod)?.pod.to_string()).run(work)
    }

    /// GETs a URL from inside a pod, names resolved by the lab's DNS server over the wire.
    pub fn probe_http(&self, from: &str, url: &str) -> Result<Probe> {
        self.probe_http_within(from, url, Family::V4, PROBE_TIMEOUT)
    }

    /// As [`Lab::probe_http`] in a chosen family, for which a name is resolved.
    pub fn probe_http_within(&self, from: &str, url: &str, family: Family, timeout: Duration) -> Result<Probe> {
        let (host, port, path) = split_url(url)?;
        let state = self.state()?;
        let nameserver = crate::pods::nameserver(&state.pods).context("the lab has no DNS server")?;
        let search = crate::cluster::search_list(&ObjectName::parse(from));
        self.in_pod(from, || {
            Ok(timed(|| {
                let resolved = resolve(nameserver, &search, &host, family, timeout);
                let address = match resolved.map(|addresses| addresses.first().copied()) {
                    Ok(Some(address)) => SocketAddr::new(address, port),
                    Ok(None) => return Outcome::Unresolved { reason: format!("{host} has no {family:?} address") },
                    Err(error) => return Outcome::Unresolved { reason: format!("{error:#}") },
                };
                match connect_and_get(address, &host, &path, timeout) {
                    Ok(said) => Outcome::Open { said },
                    Err(error) => Outcome::of_error(&error),
                }
            }))
        })
    }

    /// Connects from one pod to an address.
    pub fn probe_tcp(&self, from: &str, address: SocketAddr) -> Result<Probe> {
        self.in_pod(from, || Ok(tcp(address, PROBE_TIMEOUT)))
    }

    /// Sends a datagram from one pod to an address and waits for the echo.
    pub fn probe_udp(&self, from: &str, address: SocketAddr) -> Result<Probe> {
        self.in_pod(from, || Ok(udp(address, PROBE_TIMEOUT)))
    }

    /// Probes a pod's port from another pod.
    pub fn probe_pod(&self, from: &str, to: &str, port: ServedPort, family: Family) -> Result<Probe> {
        let address = SocketAddr::new(self.pod_address(to, family)?, port.port);
        match port.protocol {
            Transport::Tcp => self.probe_tcp(from, address),
            Transport::Udp => self.probe_udp(from, address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_split_as_people_write_them() {
        for (url, host, port, path) in [
            ("backend", "backend", 80, "/"),
            ("http://10.88.0.3:8080/x/y", "10.88.0.3", 8080, "/x/y"),
            ("http://[fd88::3]:81/", "[fd88::3]", 81, "/"),
            ("fd88::3", "fd88::3", 80, "/"),
        ] {
            assert_eq!(split_url(url).unwrap(), (host.into(), port, path.into()), "{url}");
        }
        assert!(split_url("web:http").is_err());
    }

    #[test]
    fn a_refusal_counts_as_reached_and_silence_does_not() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(tcp(free, PROBE_TIMEOUT).outcome, Outcome::Refused);
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let probe = udp(silent.local_addr().unwrap(), Duration::from_millis(20));
        assert_eq!(probe.outcome, Outcome::TimedOut);
        assert!(!probe.outcome.reached());
    }
}
