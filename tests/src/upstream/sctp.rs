//! SCTP by frames: every pod answers INIT with INIT ACK, and remembers what was answered to it.

use crate::live::PacketSocket;
use crate::live::frames::{Link, What, arrivals, sctp};
use anyhow::{Context, Result};
use sluice_lab::{Lab, NetNs};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Types of chunks. Source: RFC 9260, 3.2.
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const LOOK_EVERY: Duration = Duration::from_millis(20);
const FIRST_PORT: u16 = 20_000;

/// Answers by their ends: where from, and to which port of the pod.
type Answers = Arc<Mutex<BTreeSet<(SocketAddr, u16)>>>;

/// A pod's SCTP.
struct End {
    link: Link,
    tap: PacketSocket,
    answers: Answers,
    thread: Option<JoinHandle<Result<()>>>,
}

/// That of every pod, until dropped.
pub(super) struct Sctp {
    ends: BTreeMap<String, End>,
    stop: Arc<AtomicBool>,
    next_port: AtomicU16,
}

impl Sctp {
    pub(super) fn start(lab: &Lab, pods: &[String]) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut ends = BTreeMap::new();
        for pod in pods {
            let (netns, link) = (lab.pod_netns(pod), Link::of(lab, pod)?);
            let answers = Answers::default();
            let thread = answer_all(&netns, link, answers.clone(), stop.clone()).with_context(|| format!("SCTP of {pod}"))?;
            ends.insert(pod.clone(), End { link, tap: PacketSocket::of_pod(&netns)?, answers, thread: Some(thread) });
        }
        Ok(Self { ends, stop, next_port: AtomicU16::new(FIRST_PORT) })
    }

    /// Sends one INIT; whether it is answered within `limit`.
    pub(super) fn reaches(&self, from: &str, own: IpAddr, to: SocketAddr, limit: Duration) -> Result<bool> {
        let end = self.ends.get(from).with_context(|| format!("no SCTP in {from}"))?;
        // Relaxed: only that no number comes twice
        let port = self.next_port.fetch_add(1, Ordering::Relaxed);
        end.tap.send(&sctp(end.link, (own, port), (to.ip(), to.port()), &[INIT]))?;
        let began = std::time::Instant::now();
        while began.elapsed() < limit {
            if end.answers.lock().unwrap_or_else(PoisonError::into_inner).contains(&(to, port)) {
                return Ok(true);
            }
            std::thread::sleep(LOOK_EVERY / 4);
        }
        Ok(false)
    }
}

impl Drop for Sctp {
    fn drop(&mut self) {
        // Relaxed: the threads look again soon
        self.stop.store(true, Ordering::Relaxed);
        for end in self.ends.values_mut() {
            if let Some(Ok(Err(error))) = end.thread.take().map(JoinHandle::join) {
                eprintln!("SCTP by frames: {error:#}");
            }
        }
    }
}

fn answer_all(netns: &NetNs, link: Link, answers: Answers, stop: Arc<AtomicBool>) -> Result<JoinHandle<Result<()>>> {
    let tap = PacketSocket::of_pod(netns)?;
    Ok(std::thread::spawn(move || {
        // Relaxed: see `drop`
        while !stop.load(Ordering::Relaxed) {
            for arrival in arrivals(&tap, LOOK_EVERY)? {
                match arrival.what {
                    What::Sctp(sport, dport, INIT) => tap.send(&sctp(link, (arrival.dst, dport), (arrival.src, sport), &[INIT_ACK]))?,
                    What::Sctp(sport, dport, INIT_ACK) => {
                        answers.lock().unwrap_or_else(PoisonError::into_inner).insert((SocketAddr::new(arrival.src, sport), dport));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }))
}
