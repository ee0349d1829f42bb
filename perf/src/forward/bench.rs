//! The bench's cluster in one of its states, the switch between them, and the proof, at every switch, that it did.

use super::Cpus;
use super::arm::Arm;
use super::cluster::{self, BASE_POLICIES, COLD_PORTS, FLOW_PORTS, PAIRS, Rules};
use super::peers;
use anyhow::{Context, Result, bail};
use rustix::thread::{CpuSet, sched_setaffinity};
use sluice_flow::{DropReason, Family};
use sluice_lab::{Lab, LabConfig, Outcome, agents, probe};
use sluice_wire::{DataplaneStatus, FromDataplane, PortState, ToDataplane};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Sends.
pub(crate) const CLIENT: &str = "bench/client";
/// Receives.
pub(crate) const SERVER: &str = "bench/server";
/// The same without policies.
pub(crate) const FREE: [&str; 2] = ["free/client", "free/server"];
/// Floods.
pub(crate) const NOISY: &str = "bench/noisy";
/// Served, and allowed by no policy.
const DENIED_PORT: u16 = 5210;
/// Served, and allowed at both ends.
const ALLOWED_PORT: u16 = 5211;
const ALLOWED_ATTEMPTS: u32 = 3;
/// An open port answers within a millisecond; this is long enough even on a busy machine, and short enough to be
/// repeated at every turn. The first check waits longer.
pub(crate) const DENIED_WAIT: Duration = Duration::from_millis(25);
/// Hooks put back find their workers asleep.
const AFTER_SWITCH: Duration = Duration::from_millis(50);
/// States with more and more policies, each step in a file of its own.
const STEPS: [Arm; 3] = [Arm::Few, Arm::Some, Arm::On];

/// What a switch found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    /// The state is as asked.
    Yes,
    /// It is, but a pod holds as many connections as it may and gets no new ones.
    Full,
}

/// The pods, the dataplane's socket, and what stands in the way of packets.
pub(crate) struct Bench {
    lab: Lab,
    state: Mutex<State>,
    /// The editor of [`Kind::Swaps`](super::Kind::Swaps) is to work.
    editing: AtomicBool,
    policies: usize,
    /// Which CPU runs what.
    pub(crate) cpus: Cpus,
    interrupted: Arc<AtomicBool>,
    client_address: IpAddr,
    server_address: IpAddr,
}

/// What the node is like now.
struct State {
    enforcing: bool,
    /// Workers see every packet.
    every_packet: bool,
    /// Of the files with policies, so many are in force.
    files: usize,
    /// Loaded into nftables.
    peer: Option<Arm>,
}

impl Bench {
    /// Brings the lab up, and proves with patience that policy is enforced with hooks on and only then.
    pub(crate) fn up(config: &LabConfig, cpus: Cpus, policies: usize) -> Result<Self> {
        let lab = Lab::up(&LabConfig { yaml: cluster::base(), ..config.clone() })?;
        let [client_address, server_address] = [lab.pod_address(CLIENT, Family::V4)?, lab.pod_address(SERVER, Family::V4)?];
        let interrupted = Arc::clone(&config.interrupted);
        let bench = Self {
            lab,
            state: Mutex::new(State { enforcing: true, every_packet: false, files: 1, peer: None }),
            editing: AtomicBool::new(false),
            policies,
            cpus,
            interrupted,
            client_address,
            server_address,
        };
        bench.prepare_pods()?;
        (config.progress)(&format!("{policies} policies: writing and compiling"));
        bench.write_policies()?;
        for port in agents::ports(bench.lab.layout())? {
            let isolated = port.state == PortState::Isolated && port.isolated_ingress && port.isolated_egress;
            if ["bench", "flows"].contains(&&*port.endpoint.pod.namespace) && !isolated {
                bail!("pod {} is not isolated in both directions: {port:?}", port.endpoint.pod);
            }
        }
        for arm in [Arm::On, Arm::Off, Arm::Sets, Arm::On] {
            bench.change(arm)?;
            if bench.verify(arm, probe::PROBE_TIMEOUT)? == Ready::Full {
                bail!("a new pod holds as many connections as it may");
            }
        }
        Ok(bench)
    }

    /// 28k ephemeral ports are used up within a second of short connections; with 50k none is used again that soon.
    fn prepare_pods(&self) -> Result<()> {
        for client in [CLIENT, FREE[0]] {
            self.lab.pod_netns(client).set_sysctls(&[("ipv4/ip_local_port_range", "10000 60999")])?;
        }
        for pair in 0..PAIRS {
            peers::sink(&self.lab.pod_netns(&format!("flows/s{pair}")), FLOW_PORTS)?;
        }
        peers::gather(&self.lab.pod_netns(SERVER), COLD_PORTS, super::latency::FIRST_PORT)
    }

    fn manifest(&self, name: &str) -> PathBuf {
        self.lab.layout().manifests().join(name)
    }

    fn write_policies(&self) -> Result<()> {
        let mut from = BASE_POLICIES;
        for (number, arm) in STEPS.into_iter().enumerate() {
            let to = arm.policies(self.policies);
            // the first is in force; the others have names that nobody reads, until they are wanted
            let path = self.step(number, number == 0);
            let begin = from.min(to).saturating_sub(BASE_POLICIES);
            std::fs::write(path, Rules::of(to).yaml(begin)).context("cannot write policies")?;
            from = to;
        }
        self.set_policies(&mut self.state(), Arm::On)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn step(&self, number: usize, in_force: bool) -> PathBuf {
        self.manifest(&format!("bench-{number}.{}", if in_force { "yaml" } else { "off" }))
    }

    fn set_policies(&self, state: &mut State, arm: Arm) -> Result<()> {
        let same = |step: &Arm| step.policies(self.policies) == arm.policies(self.policies);
        let files = STEPS.iter().position(same).map_or(STEPS.len(), |step| step + 1);
        if state.files == files {
            return Ok(());
        }
        for number in 1..STEPS.len() {
            let [is, shall] = [number < state.files, number < files];
            if is != shall {
                std::fs::rename(self.step(number, is), self.step(number, shall)).context("cannot change the policies")?;
            }
        }
        state.files = files;
        self.lab.settle().map(drop)
    }

    /// Brings a state about, and checks with connection attempts that it is so.
    pub(crate) fn switch(&self, arm: Arm) -> Result<Ready> {
        self.change(arm)?;
        let ready = self.verify(arm, DENIED_WAIT)?;
        self.pause(AFTER_SWITCH)?;
        Ok(ready)
    }

    /// Brings a state about. A state without hooks leaves the policies as they are: nobody enforces them.
    pub(crate) fn change(&self, arm: Arm) -> Result<()> {
        let mut state = self.state();
        if arm.enforces() {
            self.set_policies(&mut state, arm)?;
        }
        // Relaxed: a lone flag; an edit more or less does no harm
        self.editing.store(arm == Arm::Swapped, Ordering::Relaxed);
        let _hurry = Hurry::new();
        if state.enforcing != arm.enforces() {
            match agents::ask_dataplane(self.lab.layout(), &ToDataplane::Enforce { on: arm.enforces() })? {
                FromDataplane::Done => state.enforcing = arm.enforces(),
                other => bail!("the dataplane answered Enforce with {other:?}"),
            }
        }
        if state.every_packet != (arm == Arm::Every) {
            state.every_packet = arm == Arm::Every;
            match agents::ask_dataplane(self.lab.layout(), &ToDataplane::Offload { on: !state.every_packet })? {
                FromDataplane::Done => {}
                other => bail!("the dataplane answered Offload with {other:?}"),
            }
        }
        let wanted = Some(arm).filter(|arm| arm.is_peer());
        if state.peer != wanted {
            let [client, server] = [self.client_address, self.server_address];
            let (rules, noisy) = (Rules::of(self.policies), self.lab.pod_address(NOISY, Family::V4)?);
            let text = match arm {
                Arm::Sets => peers::sets(client, server, &rules),
                Arm::Linear => peers::linear(client, server, &rules),
                Arm::Refused => peers::refuse(noisy),
                Arm::Silenced => peers::silence(noisy),
                Arm::Off | Arm::On | Arm::Few | Arm::Some | Arm::Every | Arm::Swapped => String::new(),
            };
            peers::load(&self.lab.node(), &text)?;
            state.peer = wanted;
        }
        Ok(())
    }

    /// Checks with connection attempts that a state is as it should be.
    pub(crate) fn verify(&self, arm: Arm, denied_wait: Duration) -> Result<Ready> {
        self.check_interrupted()?;
        if self.try_allowed(arm)? == Ready::Full {
            return Ok(Ready::Full);
        }
        let wait = if arm.refuses() { denied_wait } else { probe::PROBE_TIMEOUT };
        match (arm.refuses(), self.probe(DENIED_PORT, wait)?) {
            (true, Outcome::TimedOut) | (false, Outcome::Open { .. }) => {}
            (true, outcome) => bail!("{arm:?}: the policy is not enforced: port {DENIED_PORT} must not connect, but: {outcome}"),
            (false, outcome) => bail!("{arm:?}: port {DENIED_PORT} does not connect: {outcome}; what is in the way?"),
        }
        let enforcing = self.status()?.enforcing;
        if enforcing != arm.enforces() {
            bail!("{arm:?}, but the dataplane says enforcing: {enforcing}");
        }
        Ok(Ready::Yes)
    }

    /// The allowed port connects, at the third attempt at the latest: a SYN may get lost on a busy machine, but not unsaid.
    fn try_allowed(&self, arm: Arm) -> Result<Ready> {
        let before = self.counters()?;
        let mut lost = 0;
        loop {
            let outcome = self.probe(ALLOWED_PORT, probe::PROBE_TIMEOUT)?;
            let counted = self.counters()?.since(&before);
            if let Outcome::Open { .. } = outcome {
                if lost > 0 {
                    println!("  note: {arm:?}: {lost} attempts to connect to the allowed port were lost; {counted:?}");
                }
                return Ok(Ready::Yes);
            }
            if counted.drops.contains_key(DropReason::ConnectionsFull.name()) {
                return Ok(Ready::Full);
            }
            lost += 1;
            if lost == ALLOWED_ATTEMPTS {
                bail!("{arm:?}: the allowed port {ALLOWED_PORT} of the server pod does not connect: {outcome}; {counted:?}");
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

    /// A port of any pod.
    pub(crate) fn at(&self, pod: &str, port: u16) -> Result<SocketAddr> {
        Ok(SocketAddr::new(self.lab.pod_address(pod, Family::V4)?, port))
    }

    /// A port of the service in front of the server pod.
    pub(crate) fn service(&self, port: u16) -> Result<SocketAddr> {
        Ok(SocketAddr::new(self.lab.service("bench/server")?.address(Family::V4)?, port))
    }

    /// Tables are to be published, ten a second.
    pub(crate) fn is_editing(&self) -> bool {
        // Relaxed: see where it is set
        self.editing.load(Ordering::Relaxed)
    }

    /// Changes a policy that touches pods here, half of the time, and no verdict that is asked for. Waits for nothing.
    pub(crate) fn edit(&self, edit: usize) -> Result<()> {
        let (path, coming) = (self.manifest(&format!("bench-edit-{}.yaml", edit % 2)), self.manifest("bench-edit.coming"));
        std::fs::write(&coming, cluster::edit(edit)).context("cannot write a policy")?;
        std::fs::rename(&coming, &path).context("cannot change a policy")
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
        Ok(Counters { hits: status.cache_hits, punts: status.punts, admitted: status.admitted, drops })
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

    /// Waits, and fails once the user has asked to stop.
    pub(crate) fn pause(&self, duration: Duration) -> Result<()> {
        let until = Instant::now() + duration;
        loop {
            self.check_interrupted()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(10)));
        }
    }

    /// Removes the lab.
    pub(crate) fn down(self) -> Result<()> {
        self.lab.down().map(|_| ())
    }
}

/// While it lives, the kernel waits for its readers (RCU) as briefly as it can: taking a program off a device waits so, and there are
/// many of both. Nothing is measured meanwhile.
struct Hurry {
    before: Option<String>,
}

const EXPEDITED: &str = "/sys/kernel/rcu_expedited";

impl Hurry {
    fn new() -> Self {
        let before = std::fs::read_to_string(EXPEDITED).ok();
        // where that is forbidden, a switch takes a second
        let _ = std::fs::write(EXPEDITED, "1");
        Self { before }
    }
}

impl Drop for Hurry {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = std::fs::write(EXPEDITED, before.trim());
        }
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
    /// Connections that the hooks began by an earlier verdict.
    pub(crate) admitted: u64,
    /// Drops by reason; only those that occurred.
    pub(crate) drops: BTreeMap<String, u64>,
}

impl Counters {
    /// What happened after `before`.
    pub(crate) fn since(mut self, before: &Self) -> Self {
        self.hits -= before.hits;
        self.punts -= before.punts;
        self.admitted -= before.admitted;
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
        self.admitted += other.admitted;
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
        let before = Counters { hits: 10, punts: 1, admitted: 3, drops: drops(&[("policy_denied", 4)]) };
        let after = Counters { hits: 109, punts: 2, admitted: 5, drops: drops(&[("policy_denied", 4), ("no_worker", 3)]) };
        let growth = after.since(&before);
        assert_eq!(growth, Counters { hits: 99, punts: 1, admitted: 2, drops: drops(&[("no_worker", 3)]) });
        assert_eq!(growth.hit_rate(), Some(0.99));
        assert_eq!(Counters::default().hit_rate(), None);
    }
}
