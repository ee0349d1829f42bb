//! The lab itself: up, change, use, down.

use crate::agents::{self, Agent};
use crate::cluster;
use crate::config::LabConfig;
use crate::netns::NetNs;
use crate::process::ProcessId;
use crate::state::{LabLock, Layout, Phase, PodState, State};
use crate::store::{Document, Store, parse_documents, read_documents};
use crate::teardown::{self, Removed};
use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, mount};
use sluice_flow::{Family, ObjectName};
use sluice_wire::ControlStatus;
use std::net::IpAddr;
use std::path::PathBuf;

/// The node forwards between its pods and leads nowhere else: it has no uplink and no default route.
const NODE_SYSCTLS: [(&str, &str); 7] = [
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/default/forwarding", "1"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
];

/// A running lab. One that was made by [`Lab::up`] is taken down when dropped, unless [`Lab::detach`] was called.
pub struct Lab {
    pub(crate) layout: Layout,
    owned: bool,
}

impl Lab {
    /// Builds a lab and waits until its policies are in force.
    ///
    /// # Errors
    ///
    /// A lab of that name lives (unless `force`), a manifest is invalid, a step failed, or the user interrupted. In
    /// every case nothing of the new lab is left behind.
    pub fn up(config: &LabConfig) -> Result<Self> {
        let layout = Layout::new(config.name.parse()?);
        let bin_dir = config.programs()?;
        let mut documents = read_documents(&config.manifests)?;
        if !config.yaml.is_empty() {
            documents.extend(parse_documents(&config.yaml)?);
        }
        let lock = layout.lock()?;
        make_way(&layout, config)?;
        let mut lab = Self { layout, owned: false };
        if let Err(error) = lab.build(config, bin_dir, &documents) {
            (config.progress)("undoing");
            remove_with_lock(&lab.layout, &lock).context(format!("{error:#}; and then"))?;
            return Err(error);
        }
        lab.owned = true;
        Ok(lab)
    }

    /// The lab of that name, made by another process. Dropping it changes nothing.
    pub fn open(name: &str) -> Result<Self> {
        let layout = Layout::new(name.parse()?);
        let lab = Self { layout, owned: false };
        let state = lab.state()?;
        if state.phase == Phase::Starting && !state.owner.is_some_and(ProcessId::is_alive) {
            bail!("lab {name} is the rest of an `up` that crashed; remove it with `sluice-lab --lab {name} down`");
        }
        Ok(lab)
    }

    /// Removes whatever there is of a lab, also when its state is lost.
    pub fn remove(name: &str) -> Result<Removed> {
        let layout = Layout::new(name.parse()?);
        let lock = layout.lock()?;
        remove_with_lock(&layout, &lock)
    }

    /// Lets the lab outlive this process.
    pub fn detach(mut self) -> Result<()> {
        self.owned = false;
        let _lock = self.layout.lock()?;
        let mut state = self.state()?;
        state.owner = None;
        self.layout.save(&state)
    }

    /// Takes the lab down and says what was removed.
    pub fn down(mut self) -> Result<Removed> {
        self.owned = false;
        let lock = self.layout.lock()?;
        remove_with_lock(&self.layout, &lock)
    }

    fn build(&self, config: &LabConfig, bin_dir: PathBuf, documents: &[Document]) -> Result<()> {
        let mut state = State {
            phase: Phase::Starting,
            owner: Some(ProcessId::current()),
            sluice: config.sluice,
            bin_dir,
            workers: config.workers,
            cpus: config.cpu_list()?,
            dataplane_args: config.dataplane_args.clone(),
            control_args: config.control_args.clone(),
            dataplane: None,
            control: None,
            pods: Default::default(),
        };
        self.layout.create()?;
        self.layout.save(&state)?;
        (config.progress)("node: making its network namespace");
        let node = self.node();
        node.create()?;
        node.set_sysctls(&NODE_SYSCTLS)?;
        let store = self.store();
        documents.iter().try_for_each(|document| store.put(document).map(|_| ()))?;
        cluster::missing_dns(&store.snapshot())?.iter().try_for_each(|document| store.put(document).map(|_| ()))?;
        if config.sluice {
            mount_bpffs()?;
            for agent in Agent::ALL {
                config.check_interrupted()?;
                (config.progress)(&format!("{}: starting", agent.program()));
                self.start_agent_in(&mut state, agent, &|| config.check_interrupted().is_err())?;
            }
        }
        self.reconcile(&mut state, &|| config.check_interrupted(), &*config.progress)?;
        if config.sluice {
            (config.progress)("policies: waiting until they are in force");
            agents::settle(&self.layout)?;
        }
        config.check_interrupted()?;
        state.phase = Phase::Up;
        self.layout.save(&state)
    }

    /// SIGKILLs an agent. True when it ran.
    pub fn kill_agent(&self, agent: Agent) -> Result<bool> {
        self.end_agent(agent, ProcessId::kill)
    }

    /// Starts an agent that does not run, and waits until it serves.
    pub fn start_agent(&self, agent: Agent) -> Result<()> {
        let _lock = self.layout.lock()?;
        let mut state = self.state()?;
        if !state.sluice {
            bail!("lab {} was brought up without agents (--no-sluice)", self.layout.name);
        }
        if agent.process(&state).is_some_and(ProcessId::is_alive) {
            bail!("{} runs already", agent.program());
        }
        self.start_agent_in(&mut state, agent, &|| false)
    }

    /// Ends an agent with SIGTERM, if it runs, and starts it again.
    pub fn restart_agent(&self, agent: Agent) -> Result<()> {
        self.end_agent(agent, Agent::stop)?;
        self.start_agent(agent)
    }

    fn end_agent(&self, agent: Agent, end: fn(ProcessId) -> bool) -> Result<bool> {
        let _lock = self.layout.lock()?;
        let mut state = self.state()?;
        let Some(process) = agent.process_mut(&mut state).take() else { return Ok(false) };
        let ran = process.is_alive();
        if !end(process) {
            bail!("{} (pid {}) does not end", agent.program(), process.pid);
        }
        self.layout.save(&state)?;
        Ok(ran)
    }

    fn start_agent_in(&self, state: &mut State, agent: Agent, interrupted: &dyn Fn() -> bool) -> Result<()> {
        let process = agent.start(&self.layout, state)?;
        *agent.process_mut(state) = Some(process);
        self.layout.save(state)?;
        agent.wait_ready(&self.layout, process, interrupted)
    }

    /// Kills the dataplane, as a crash would.
    pub fn kill_dataplane(&self) -> Result<bool> {
        self.kill_agent(Agent::Dataplane)
    }

    /// Starts the dataplane after [`Lab::kill_dataplane`].
    pub fn start_dataplane(&self) -> Result<()> {
        self.start_agent(Agent::Dataplane)
    }

    /// Kills the control process, as a crash would.
    pub fn kill_control(&self) -> Result<bool> {
        self.kill_agent(Agent::Control)
    }

    /// Starts the control process after [`Lab::kill_control`].
    pub fn start_control(&self) -> Result<()> {
        self.start_agent(Agent::Control)
    }

    /// Waits until every manifest in the directory is in force.
    pub fn settle(&self) -> Result<ControlStatus> {
        agents::settle(&self.layout)
    }

    /// What the lab has written down.
    pub fn state(&self) -> Result<State> {
        let name = &self.layout.name;
        self.layout.load()?.with_context(|| {
            let others: Vec<String> = Layout::existing().iter().map(ToString::to_string).collect();
            let others = if others.is_empty() { "there is none".into() } else { format!("there is {}", others.join(", ")) };
            format!("no lab {name} ({others}); make one with `sluice-lab --lab {name} up -f DIR`")
        })
    }

    /// One pod, by `ns/name` or a name in `default`.
    pub fn pod(&self, name: &str) -> Result<PodState> {
        let name = ObjectName::parse(name);
        let mut state = self.state()?;
        let known = || state.pods.keys().cloned().collect::<Vec<_>>().join(", ");
        let found = state.pods.contains_key(&name.to_string());
        if !found {
            bail!("no pod {name} in lab {}; it has {}", self.layout.name, known());
        }
        state.pods.remove(&name.to_string()).context("found above")
    }

    /// A pod's address.
    pub fn pod_address(&self, pod: &str, family: Family) -> Result<IpAddr> {
        let addresses = self.pod(pod)?.addresses;
        let is_wanted = |address: &IpAddr| address.is_ipv4() == (family == Family::V4);
        addresses.into_iter().find(is_wanted).with_context(|| format!("pod {pod} has no {family:?} address"))
    }

    /// The lab's paths.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The node's network namespace.
    pub fn node(&self) -> NetNs {
        NetNs::named(self.layout.node_netns())
    }

    /// A pod's network namespace.
    pub fn pod_netns(&self, pod: &str) -> NetNs {
        NetNs::named(self.layout.pod_netns(&ObjectName::parse(pod)))
    }

    /// The manifests that sluice-control watches.
    pub fn store(&self) -> Store {
        Store::new(self.layout.manifests())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.owned {
            return;
        }
        let removed = self.layout.lock().and_then(|lock| remove_with_lock(&self.layout, &lock));
        if let Err(error) = removed {
            eprintln!("{error:#}");
        }
    }
}

fn remove_with_lock(layout: &Layout, lock: &LabLock) -> Result<Removed> {
    let removed = teardown::remove(layout)?;
    layout.remove_lock_file(lock);
    Ok(removed)
}

/// Removes the rest of a crashed lab of the same name; a living one only by force.
fn make_way(layout: &Layout, config: &LabConfig) -> Result<()> {
    // A damaged state file belongs to no living lab that could be used.
    if let Some(state) = layout.load().unwrap_or_default() {
        let owner_lives = state.owner.is_some_and(ProcessId::is_alive);
        let crashed = !owner_lives && (state.owner.is_some() || !teardown::is_alive(&state));
        if !crashed && !config.force {
            bail!(
                "lab {0} is up; use another name (--lab), take it down (`sluice-lab --lab {0} down`), or replace it \
                 (--force)",
                layout.name
            );
        }
    }
    let removed = teardown::remove(layout)?;
    if !removed.is_nothing() {
        (config.progress)(&format!("removed the earlier lab {}", layout.name));
    }
    Ok(())
}

fn mount_bpffs() -> Result<()> {
    let point = "/sys/fs/bpf";
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("cannot read the mounts")?;
    if mounts.lines().any(|line| line.split(' ').nth(4) == Some(point)) {
        return Ok(());
    }
    mount("bpf", point, "bpf", MountFlags::empty(), None).with_context(|| format!("cannot mount a bpffs at {point}"))
}
