//! The lab itself: up, change, use, down.

use crate::agents::Agent;
use crate::api::ApiClient;
use crate::cluster;
use crate::config::LabConfig;
use crate::kubelet;
use crate::layout::{LabLock, Layout};
use crate::netns::NetNs;
use crate::nodes;
use crate::objects::{Lists, Mark, Objects};
use crate::process::ProcessId;
use crate::state::{ApiState, Phase, PodState, State};
use crate::store::{Document, Store, parse_documents, read_documents};
use crate::teardown::{self, Removed};
use crate::underlay;
use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, mount};
use sluice_flow::{Family, ObjectName};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::OnceLock;

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

/// Connection tracking takes TCP of which it has not seen everything: some packets go straight from pod to pod. Only there while
/// the kernel tracks connections.
const LENIENT_TRACKING: [(&str, &str); 2] =
    [("netfilter/nf_conntrack_tcp_be_liberal", "1"), ("netfilter/nf_conntrack_tcp_ignore_invalid_rst", "1")];

/// A running lab. One that was made by [`Lab::up`] is taken down when dropped, unless [`Lab::detach`] was called.
pub struct Lab {
    pub(crate) layout: Layout,
    owned: bool,
    api: OnceLock<ApiClient>,
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
        let mut lab = Self { layout, owned: false, api: OnceLock::new() };
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
        let lab = Self { layout, owned: false, api: OnceLock::new() };
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
            nodes: match &config.cluster {
                Some(cluster) => nodes::several(cluster.nodes)?,
                None => nodes::only(),
            },
            api: None,
            pods: Default::default(),
        };
        self.layout.create()?;
        self.layout.save(&state)?;
        if let Some(cluster) = &config.cluster {
            (config.progress)("API server: starting");
            underlay::create(&self.layout)?;
            let process = underlay::start_api_server(&self.layout, &state.bin_dir)?;
            state.api = Some(ApiState { process, status_delay_ms: cluster.status_delay.as_millis() as u64, paths: cluster.paths });
            self.layout.save(&state)?;
            kubelet::register(self.api()?, &state.nodes)?;
        } else {
            std::fs::create_dir_all(self.layout.manifests()).context("cannot create the directory of manifests")?;
        }
        (config.progress)("nodes: making their network namespaces");
        state.nodes.keys().try_for_each(|node| self.make_node(&state, node))?;
        let objects = self.objects(&state)?;
        objects.put(documents)?;
        objects.put(&cluster::missing_dns(&objects.snapshot()?)?)?;
        if config.sluice {
            mount_bpffs()?;
            for agent in Agent::ALL {
                config.check_interrupted()?;
                (config.progress)(&format!("{}: starting", agent.program()));
                self.start_agents(&mut state, agent, &|| config.check_interrupted().is_err())?;
            }
        }
        self.reconcile(&mut state, &|| config.check_interrupted(), &*config.progress)?;
        if config.sluice {
            (config.progress)("policies: waiting until they are in force");
            self.settle_all(&state)?;
        }
        config.check_interrupted()?;
        state.phase = Phase::Up;
        self.layout.save(&state)
    }

    /// A node's namespace and directories, and in a cluster its place in the network.
    pub(crate) fn make_node(&self, state: &State, node: &str) -> Result<()> {
        let layout = self.layout.at(node);
        layout.create_node()?;
        let netns = NetNs::named(layout.node_netns());
        netns.create()?;
        // a new namespace has none of the rules that the last one was given
        let _ = std::fs::remove_file(layout.services());
        netns.set_sysctls(&NODE_SYSCTLS)?;
        if std::path::Path::new("/proc/sys/net").join(LENIENT_TRACKING[0].0).exists() {
            netns.set_sysctls(&LENIENT_TRACKING)?;
        }
        match &state.api {
            Some(api) => underlay::connect(&self.layout, node, &state.nodes, api.paths),
            None => Ok(()),
        }
    }

    /// Starts an agent on every node, all at once, and waits until each serves.
    fn start_agents(&self, state: &mut State, agent: Agent, interrupted: &dyn Fn() -> bool) -> Result<()> {
        let nodes: Vec<String> = state.nodes.keys().cloned().collect();
        for node in &nodes {
            self.launch(state, node, agent)?;
        }
        nodes.iter().try_for_each(|node| self.await_agent(state, node, agent, interrupted))
    }

    /// The API server of a lab that has one.
    ///
    /// # Errors
    ///
    /// It has none.
    pub fn api(&self) -> Result<&ApiClient> {
        if let Some(api) = self.api.get() {
            return Ok(api);
        }
        if self.state()?.api.is_none() {
            bail!("lab {} has no API server; make one with `sluice-lab up --api-server`", self.layout.name);
        }
        let api = ApiClient::new(NetNs::named(self.layout.underlay_netns()), &self.layout.kubeconfig())?;
        Ok(self.api.get_or_init(|| api))
    }

    pub(crate) fn objects(&self, state: &State) -> Result<Objects<'_>> {
        Ok(if state.api.is_some() { Objects::Server(self.api()?) } else { Objects::Directory(self.store()) })
    }

    /// What every control process has to have heard of now. Nothing in a directory: that is read when it is asked for.
    pub(crate) fn mark(&self, state: &State) -> Result<Mark> {
        if state.api.is_some() { Ok(Lists::read(self.api()?)?.mark()) } else { Ok(Mark::default()) }
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

    /// The lab's paths; of what a node has of its own, those of the only node of a lab on a directory.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The lab's paths as a node sees them.
    pub fn at(&self, node: &str) -> Layout {
        self.layout.at(node)
    }

    /// The network namespace of the only node of a lab on a directory.
    pub fn node(&self) -> NetNs {
        NetNs::named(self.layout.node_netns())
    }

    /// A node's network namespace.
    pub fn node_netns(&self, node: &str) -> NetNs {
        NetNs::named(self.at(node).node_netns())
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
