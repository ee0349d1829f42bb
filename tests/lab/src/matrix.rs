//! Who reaches whom: every ordered pair of pods, tried for real, beside what the oracle says should happen.
//!
//! The expectation comes from the control process's Explain, which reads the raw objects; the probe goes over the
//! wire. A refusal counts as reached: the packet was let through, only nobody listens there.

use crate::agents;
use crate::lab::Lab;
use crate::netns::NetNs;
use crate::probe::{self, Outcome};
use crate::state::{PodState, ServedPort, Transport};
use anyhow::{Context, Result};
use serde::Serialize;
use sluice_flow::{Family, ObjectName};
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Most probes of a strict cluster wait for their time-out, so many run at once; each is one thread.
const PARALLEL: usize = 64;

/// What to try.
#[derive(Debug, Clone)]
pub struct MatrixRequest {
    /// On every pair; empty means the TCP ports that each destination serves.
    pub ports: Vec<ServedPort>,
    /// Of the addresses.
    pub family: Family,
    /// For each probe.
    pub timeout: Duration,
    /// Whether the DNS pod takes part.
    pub with_dns: bool,
}

impl Default for MatrixRequest {
    fn default() -> Self {
        Self { ports: Vec::new(), family: Family::V4, timeout: probe::PROBE_TIMEOUT, with_dns: false }
    }
}

/// One attempt.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cell {
    /// Who asked.
    pub from: ObjectName,
    /// Who was asked.
    pub to: ObjectName,
    /// On which port.
    #[serde(serialize_with = "as_text")]
    pub port: ServedPort,
    /// What came of it.
    #[serde(flatten)]
    pub seen: Outcome,
    /// Whether it was reached.
    pub reached: bool,
    /// What the policies say; `None` where nobody could be asked.
    pub expected: Option<bool>,
}

fn as_text<S: serde::Serializer>(port: &ServedPort, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(port)
}

impl Cell {
    /// Whether what was seen contradicts the policies.
    pub fn is_wrong(&self) -> bool {
        self.expected.is_some_and(|expected| expected != self.reached)
    }
}

/// All attempts, by source, destination and port.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Matrix {
    /// Rows and columns.
    pub pods: Vec<ObjectName>,
    /// One for each ordered pair of different pods and each port.
    pub cells: Vec<Cell>,
    /// Why there are no expectations, if there are none.
    pub without_expectation: Option<String>,
}

struct Job<'a> {
    from: &'a PodState,
    to: &'a PodState,
    source: IpAddr,
    address: SocketAddr,
    port: ServedPort,
}

impl Lab {
    /// Tries every ordered pair of different pods.
    ///
    /// # Errors
    ///
    /// A pod vanished meanwhile. A connection that does not work is no error.
    pub fn matrix(&self, request: &MatrixRequest) -> Result<Matrix> {
        let state = self.state()?;
        let pods: Vec<&PodState> = state.pods.values().filter(|pod| request.with_dns || !pod.dns).collect();
        let jobs = jobs(&pods, request)?;
        let (expected, without_expectation) = if state.sluice {
            match jobs.iter().map(|job| self.expectation(job)).collect::<Result<Vec<bool>>>() {
                Ok(expected) => (expected.into_iter().map(Some).collect(), None),
                Err(error) => (vec![None; jobs.len()], Some(format!("{error:#}"))),
            }
        } else {
            (vec![None; jobs.len()], Some("this lab enforces no policy".to_owned()))
        };
        let seen = self.probe_all(&jobs, request.timeout)?;
        let cell = |((job, seen), expected): ((&Job<'_>, Outcome), Option<bool>)| Cell {
            from: job.from.pod.clone(),
            to: job.to.pod.clone(),
            port: job.port,
            reached: seen.reached(),
            seen,
            expected,
        };
        let cells = jobs.iter().zip(seen).zip(expected).map(cell).collect();
        Ok(Matrix { pods: pods.iter().map(|pod| pod.pod.clone()).collect(), cells, without_expectation })
    }

    /// By addresses, so that the answer is about the family that is probed.
    fn expectation(&self, job: &Job<'_>) -> Result<bool> {
        let protocol = match job.port.protocol {
            Transport::Tcp => "TCP",
            Transport::Udp => "UDP",
        };
        let (src, dst) = (job.source.to_string(), job.address.ip().to_string());
        Ok(agents::explain(&self.at(&job.from.node), &src, &dst, job.port.port, protocol)?.allowed)
    }

    fn probe_all(&self, jobs: &[Job<'_>], timeout: Duration) -> Result<Vec<Outcome>> {
        let next = AtomicUsize::new(0);
        let results: Vec<Mutex<Option<Result<Outcome>>>> = jobs.iter().map(|_| Mutex::new(None)).collect();
        std::thread::scope(|scope| {
            for _ in 0..PARALLEL.min(jobs.len()) {
                scope.spawn(|| {
                    // Relaxed: the counter hands out indices; each result is published by its mutex.
                    while let Some((job, result)) =
                        Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|index| jobs.get(index).zip(results.get(index)))
                    {
                        let outcome = NetNs::named(self.layout.pod_netns(&job.from.pod)).enter().map(|()| match job.port.protocol {
                            Transport::Tcp => probe::tcp(job.address, timeout).outcome,
                            Transport::Udp => probe::udp(job.address, timeout).outcome,
                        });
                        *result.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(outcome);
                    }
                });
            }
        });
        let outcome = |result: Mutex<Option<Result<Outcome>>>| {
            result.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).context("a probe did not run")?
        };
        results.into_iter().map(outcome).collect()
    }
}

fn jobs<'a>(pods: &[&'a PodState], request: &MatrixRequest) -> Result<Vec<Job<'a>>> {
    let mut jobs = Vec::new();
    for from in pods {
        for to in pods.iter().filter(|to| to.pod != from.pod) {
            let served: Vec<ServedPort> = if request.ports.is_empty() {
                to.served.iter().filter(|port| port.protocol == Transport::Tcp).copied().collect()
            } else {
                request.ports.clone()
            };
            for port in served {
                let source = address(from, request.family)?;
                let address = SocketAddr::new(address(to, request.family)?, port.port);
                jobs.push(Job { from, to, source, address, port });
            }
        }
    }
    Ok(jobs)
}

fn address(pod: &PodState, family: Family) -> Result<IpAddr> {
    let wanted = pod.addresses.iter().find(|address| address.is_ipv4() == (family == Family::V4));
    wanted.copied().with_context(|| format!("pod {} has no {family:?} address", pod.pod))
}
