//! What happens to a running lab other than a change of objects: agents that die and come back, another build of one, an
//! API server that is away, a node that reboots.

use crate::agents::Agent;
use crate::change::SiteOptions;
use crate::lab::Lab;
use crate::layout::ONLY_NODE;
use crate::process::{ProcessId, kill_inside};
use crate::state::{PodState, State};
use crate::teardown::{mounts_below, remove_dir};
use crate::underlay;
use anyhow::{Context, Result, bail};
use rustix::mount::{UnmountFlags, unmount};
use sluice_flow::ObjectName;
use std::path::Path;

impl Lab {
    /// SIGKILLs an agent. True when it ran. Here and below, of the only node of a lab on a directory.
    pub fn kill_agent(&self, agent: Agent) -> Result<bool> {
        self.kill_agent_on(ONLY_NODE, agent)
    }

    /// Starts an agent that does not run, and waits until it serves.
    pub fn start_agent(&self, agent: Agent) -> Result<()> {
        self.start_agent_on(ONLY_NODE, agent)
    }

    /// Ends an agent with SIGTERM, if it runs, and starts it again.
    pub fn restart_agent(&self, agent: Agent) -> Result<()> {
        self.restart_agent_on(ONLY_NODE, agent)
    }

    /// SIGKILLs a node's agent. True when it ran.
    pub fn kill_agent_on(&self, node: &str, agent: Agent) -> Result<bool> {
        self.end_agent(node, agent, ProcessId::kill)
    }

    /// Starts a node's agent that does not run, and waits until it serves.
    pub fn start_agent_on(&self, node: &str, agent: Agent) -> Result<()> {
        let _lock = self.layout.lock()?;
        let mut state = self.state()?;
        if !state.sluice {
            bail!("lab {} was brought up without agents (--no-sluice)", self.layout.name);
        }
        if agent.process(state.node(node)?).is_some_and(ProcessId::is_alive) {
            bail!("{} runs already", agent.program());
        }
        self.start_agent_in(&mut state, node, agent, &|| false)
    }

    /// Ends a node's agent with SIGTERM, if it runs, and starts it again.
    pub fn restart_agent_on(&self, node: &str, agent: Agent) -> Result<()> {
        self.end_agent(node, agent, Agent::stop)?;
        self.start_agent_on(node, agent)
    }

    /// Ends a node's dataplane with SIGTERM and starts another build of it with the same arguments; `None` is the lab's own
    /// again. That program serves also after later restarts.
    ///
    /// # Errors
    ///
    /// There is no such program; then the one that runs is left alone. It does not start or does not serve.
    pub fn restart_dataplane_from(&self, node: &str, program: Option<&Path>) -> Result<()> {
        let program = match program {
            Some(program) => Some(program.canonicalize().with_context(|| format!("no program {}", program.display()))?),
            None => None,
        };
        self.end_agent(node, Agent::Dataplane, Agent::stop)?;
        {
            let _lock = self.layout.lock()?;
            let mut state = self.state()?;
            state.node_mut(node)?.dataplane_program = program;
            self.layout.save(&state)?;
        }
        self.start_agent_on(node, Agent::Dataplane)
    }

    fn end_agent(&self, node: &str, agent: Agent, end: fn(ProcessId) -> bool) -> Result<bool> {
        let _lock = self.layout.lock()?;
        let mut state = self.state()?;
        let Some(process) = agent.process_mut(state.node_mut(node)?).take() else { return Ok(false) };
        let ran = process.is_alive();
        if !end(process) {
            bail!("{} (pid {}) does not end", agent.program(), process.pid);
        }
        self.layout.save(&state)?;
        Ok(ran)
    }

    /// Starts an agent and writes down its process; it does not serve yet.
    pub(crate) fn launch(&self, state: &mut State, node: &str, agent: Agent) -> Result<()> {
        let process = agent.start(&self.at(node), state, state.node(node)?)?;
        *agent.process_mut(state.node_mut(node)?) = Some(process);
        self.layout.save(state)
    }

    pub(crate) fn await_agent(&self, state: &State, node: &str, agent: Agent, interrupted: &dyn Fn() -> bool) -> Result<()> {
        let process = agent.process(state.node(node)?).with_context(|| format!("{} was not started", agent.program()))?;
        agent.wait_ready(&self.at(node), process, interrupted)
    }

    fn start_agent_in(&self, state: &mut State, node: &str, agent: Agent, interrupted: &dyn Fn() -> bool) -> Result<()> {
        self.launch(state, node, agent)?;
        self.await_agent(state, node, agent, interrupted)
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

    /// Begins or ends an outage of the API server: everybody is cut off and nobody is let in; its objects stay.
    ///
    /// # Errors
    ///
    /// The lab has no API server, or it does not obey.
    pub fn outage(&self, on: bool) -> Result<()> {
        let state = self.state()?;
        let api = state.api.with_context(|| format!("lab {} has no API server", self.layout.name))?;
        underlay::switch_outage(&self.layout, api.process, on)
    }

    /// Gives a pod another sandbox: DEL, then ADD of the same pod with another container id.
    pub fn renew_sandbox(&self, pod: &str) -> Result<()> {
        let _lock = self.layout.lock()?;
        let mut state = self.state()?;
        let pod = ObjectName::parse(pod);
        self.with_site(&state.clone(), SiteOptions::default(), |site| site.renew(&mut state, &pod))
    }

    /// A node that loses power and comes back: agents, pods' processes, every namespace and whatever lay in memory are gone;
    /// then the agents start and the pods are attached once more, as the same pods in new sandboxes.
    pub fn reboot(&self, node: &str) -> Result<()> {
        let _lock = self.layout.lock()?;
        let mut state = self.state()?;
        let layout = self.at(node);
        for agent in Agent::ALL {
            if let Some(process) = agent.process_mut(state.node_mut(node)?).take() {
                process.kill();
            }
        }
        let pods: Vec<PodState> = state.pods.values().filter(|pod| pod.node == node).cloned().collect();
        let own = pods.iter().map(|pod| self.pod_netns(&pod.pod.to_string())).chain([self.node_netns(node)]);
        for netns in own {
            kill_inside(&netns.identity().into_iter().collect());
            netns.delete()?;
        }
        for mount in mounts_below(&layout.run_dir()) {
            unmount(&mount, UnmountFlags::DETACH).with_context(|| format!("cannot unmount {}", mount.display()))?;
        }
        for dir in [layout.run_dir(), layout.bpf_dir(), layout.cni(), layout.ipam()] {
            remove_dir(&dir)?;
        }
        self.layout.save(&state)?;
        self.make_node(&state, node)?;
        if state.sluice {
            Agent::ALL.into_iter().try_for_each(|agent| self.start_agent_in(&mut state, node, agent, &|| false))?;
        }
        self.with_site(&state.clone(), SiteOptions::default(), |site| site.restart_all(&mut state, pods))
    }
}
