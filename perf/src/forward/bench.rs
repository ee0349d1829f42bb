//! The bench's cluster: two isolated pods, the switch that takes the hooks off and puts them back, and the proof, at
//! every switch, that it did.

use super::Cpus;
use anyhow::{Context, Result, bail};
use rustix::thread::{CpuSet, sched_setaffinity};
use sluice_flow::{DropReason, Family};
use sluice_lab::{Lab, LabConfig, Outcome, agents, probe};
use sluice_wire::{DataplaneStatus, FromDataplane, PortState, ToDataplane};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const PODS: &str = include_str!("pods.yaml");
/// Sends.
pub(crate) const CLIENT: &str = "bench/client";
/// Receives.
pub(crate) const SERVER: &str = "bench/server";
/// Served, and allowed by no policy.
const DENIED_PORT: u16 = 5210;
/// Served, and allowed at both ends.
const ALLOWED_PORT: u16 = 5211;
const ALLOWED_ATTEMPTS: u32 = 3;
/// An open port answers within a millisecond; this is long enough even on a busy machine, and short enough to be
/// repeated at every switch. The first check waits longer.
const DENIED_WAIT: Duration = Duration::from_millis(100);
/// Hooks put back find their workers asleep.
const AFTER_SWITCH: Duration = Duration::from_millis(50);

/// Whether Sluice's hooks are on the pods' devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hooks {
    /// Policy is enforced.
    On,
    /// Plain kernel routing.
    Off,
}

/// What a switch found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    /// The hooks are as asked.
    Yes,
    /// They are, but a pod holds as many connections as it may and gets no new ones.
    Full,
}

/// The two pods and the dataplane's socket.
pub(crate) struct Bench {
    lab: Lab,
    hooks: Hooks,
    /// Which CPU runs what.
    pub(crate) cpus: Cpus,
    interrupted: Arc<AtomicBool>,
    server_address: IpAddr,
}

impl Bench {
    /// Brings the lab up, and proves with patience that policy is enforced with hooks on and only then.
    pub(crate) fn up(config: &LabConfig, cpus: Cpus) -> Result<Self> {
        let lab = Lab::up(&LabConfig { yaml: PODS.into(), ..config.clone() })?;
        let server_address = lab.pod_address(SERVER, Family::V4)?;
        let mut bench = Self { lab, hooks: Hooks::On, cpus, interrupted: Arc::clone(&config.interrupted), server_address };
        bench.widen_ephemeral_ports()?;
        for port in agents::ports(bench.lab.layout())? {
            let isolated = port.state == PortState::Isolated && port.isolated_ingress && port.isolated_egress;
            if port.endpoint.pod.namespace == "bench" && !isolated {
                bail!("pod {} is not isolated in both directions: {port:?}", port.endpoint.pod);
            }
        }
        for hooks in [Hooks::On, Hooks::Off, Hooks::On] {
            bench.request(hooks)?;
            if bench.verify(probe::PROBE_TIMEOUT)? == Ready::Full {
                bail!("a new pod holds as many connections as it may");
            }
        }
        Ok(bench)
    }

    /// 28k ephemeral ports are used up within a second of short connections; with 50k none is used again that soon.
    fn widen_ephemeral_ports(&self) -> Result<()> {
        self.lab.pod_netns(CLIENT).set_sysctls(&[("ipv4/ip_local_port_range", "10000 60999")])
    }

    /// Takes the hooks off or puts them back, and checks with a connection attempt that it is so.
    pub(crate) fn switch(&mut self, hooks: Hooks) -> Result<Ready> {
        self.request(hooks)?;
        let ready = self.verify(DENIED_WAIT)?;
        self.pause(AFTER_SWITCH)?;
        Ok(ready)
    }

    fn request(&mut self, hooks: Hooks) -> Result<()> {
        if self.hooks == hooks {
            return Ok(());
        }
        match agents::ask_dataplane(self.lab.layout(), &ToDataplane::Enforce { on: hooks == Hooks::On })? {
            FromDataplane::Done => self.hooks = hooks,
            other => bail!("the dataplane answered Enforce with {other:?}"),
        }
        Ok(())
    }

    fn verify(&self, denied_wait: Duration) -> Result<Ready> {
        self.check_interrupted()?;
        if self.try_allowed()? == Ready::Full {
            return Ok(Ready::Full);
        }
        let wait = if self.hooks == Hooks::On { denied_wait } else { probe::PROBE_TIMEOUT };
        match (self.hooks, self.probe(DENIED_PORT, wait)?) {
            (Hooks::On, Outcome::TimedOut) | (Hooks::Off, Outcome::Open { .. }) => {}
            (Hooks::On, outcome) => bail!("hooks on, and the policy is not enforced: port {DENIED_PORT} must not connect, but: {outcome}"),
            (Hooks::Off, outcome) => bail!("hooks off, and port {DENIED_PORT} does not connect: {outcome}; what is in the way?"),
        }
        let enforcing = self.status()?.enforcing;
        if enforcing != (self.hooks == Hooks::On) {
            bail!("hooks {:?}, but the dataplane says enforcing: {enforcing}", self.hooks);
        }
        Ok(Ready::Yes)
    }

    /// The allowed port connects, at the third attempt at the latest: a SYN may get lost on a busy machine, but not unsaid.
    fn try_allowed(&self) -> Result<Ready> {
        let before = self.counters()?;
        let mut lost = 0;
        loop {
            let outcome = self.probe(ALLOWED_PORT, probe::PROBE_TIMEOUT)?;
            let counted = self.counters()?.since(&before);
            if let Outcome::Open { .. } = outcome {
                if lost > 0 {
                    println!("  note: hooks {:?}: {lost} attempts to connect to the allowed port were lost; {counted:?}", self.hooks);
                }
                return Ok(Ready::Yes);
            }
            if counted.drops.contains_key(DropReason::ConnectionsFull.name()) {
                return Ok(Ready::Full);
            }
            lost += 1;
            if lost == ALLOWED_ATTEMPTS {
                bail!("hooks {:?}: the allowed port {ALLOWED_PORT} of the server pod does not connect: {outcome}; {counted:?}", self.hooks);
            }
        }
    }

    fn probe(&self, port: u16, timeout: Duration) -> Result<Outcome> {
        let address = self.server(port);
        self.in_pod(CLIENT, || Ok(probe::tcp(address, timeout).outcome))
    }

    /// A port of the server pod.
    pub(crate) fn server(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.server_address, port)
    }

    /// The lab, to start programs in its pods.
    pub(crate) fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Runs code on a thread inside a pod's network namespace.
    pub(crate) fn in_pod<T: Send>(&self, pod: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.lab.pod_netns(pod).run(work)
    }

    /// The dataplane's state.
    pub(crate) fn status(&self) -> Result<DataplaneStatus> {
        agents::dataplane_status(self.lab.layout())
    }

    /// Its counters now.
    pub(crate) fn counters(&self) -> Result<Counters> {
        let status = self.status()?;
        let drops = status.drops.into_iter().map(|drop| (drop.reason, drop.packets)).collect();
        Ok(Counters { hits: status.cache_hits, punts: status.punts, drops })
    }

    /// True once the user has asked to stop.
    pub(crate) fn is_interrupted(&self) -> bool {
        // Relaxed: a lone flag set by a signal handler; nothing is read on its account.
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Fails once the user has asked to stop.
    pub(crate) fn check_interrupted(&self) -> Result<()> {
        if self.is_interrupted() {
            bail!("interrupted");
        }
        Ok(())
    }

    fn pause(&self, duration: Duration) -> Result<()> {
        let until = Instant::now() + duration;
        while Instant::now() < until {
            self.check_interrupted()?;
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Removes the lab.
    pub(crate) fn down(self) -> Result<()> {
        self.lab.down().map(|_| ())
    }
}

/// Pins the calling thread.
pub(crate) fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(|| format!("cannot pin a thread to CPU {cpu}"))
}

/// Counters of the dataplane, or their growth.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Packets judged by the cache.
    pub(crate) hits: u64,
    /// Packets sent to a worker.
    pub(crate) punts: u64,
    /// Drops by reason; only those that occurred.
    pub(crate) drops: BTreeMap<String, u64>,
}

impl Counters {
    /// What happened after `before`.
    pub(crate) fn since(mut self, before: &Self) -> Self {
        self.hits -= before.hits;
        self.punts -= before.punts;
        for (reason, packets) in &mut self.drops {
            *packets -= before.drops.get(reason).copied().unwrap_or(0);
        }
        self.drops.retain(|_, packets| *packets > 0);
        self
    }

    /// Adds another growth.
    pub(crate) fn add(&mut self, other: &Self) {
        self.hits += other.hits;
        self.punts += other.punts;
        for (reason, packets) in &other.drops {
            *self.drops.entry(reason.clone()).or_default() += packets;
        }
    }

    /// Of the packets that were looked up, the share that the cache decided.
    pub(crate) fn hit_rate(&self) -> Option<f64> {
        let judged = self.hits + self.punts;
        (judged > 0).then(|| self.hits as f64 / judged as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_names_only_the_drops_that_occurred_meanwhile() {
        let drops = |list: &[(&str, u64)]| list.iter().map(|(reason, packets)| ((*reason).to_owned(), *packets)).collect();
        let before = Counters { hits: 10, punts: 1, drops: drops(&[("policy_denied", 4)]) };
        let after = Counters { hits: 109, punts: 2, drops: drops(&[("policy_denied", 4), ("no_worker", 3)]) };
        let growth = after.since(&before);
        assert_eq!(growth, Counters { hits: 99, punts: 1, drops: drops(&[("no_worker", 3)]) });
        assert_eq!(growth.hit_rate(), Some(0.99));
        assert_eq!(Counters::default().hit_rate(), None);
    }
}
