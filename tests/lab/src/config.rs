//! What a lab is made from.

use crate::agents::Agent;
use crate::underlay::API_SERVER;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What [`crate::Lab::up`] builds. Made with [`LabConfig::new`] and changed field by field.
#[derive(Clone)]
pub struct LabConfig {
    /// 1 to 20 lower-case letters and digits.
    pub name: String,
    /// Files and directories of manifests.
    pub manifests: Vec<PathBuf>,
    /// Further manifests, as text.
    pub yaml: String,
    /// Several nodes that follow an API server; `None` is one node on a directory.
    pub cluster: Option<ClusterConfig>,
    /// False leaves the agents and the CNI plugin out: plain ptp, the baseline of measurements.
    pub sluice: bool,
    /// Workers of each dataplane.
    pub workers: u32,
    /// Their CPUs as the dataplane takes them; `None` means the first ones that this process may use.
    pub cpus: Option<String>,
    /// Where the programs are; `None` means beside the running one.
    pub bin_dir: Option<PathBuf>,
    /// Further arguments of the dataplane.
    pub dataplane_args: Vec<String>,
    /// Further arguments of the control process.
    pub control_args: Vec<String>,
    /// Take a lab of that name down first, even a living one.
    pub force: bool,
    /// Once true, `up` stops and undoes everything.
    pub interrupted: Arc<AtomicBool>,
    /// Told what is being done, one short line each.
    pub progress: Arc<dyn Fn(&str) + Send + Sync>,
}

/// A cluster behind an API server.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// How many.
    pub nodes: usize,
    /// How long after ADD a pod's addresses are written to its status.
    pub status_delay: Duration,
    /// How pods' packets cross from node to node.
    pub paths: Paths,
}

/// Between the nodes of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Paths {
    /// By routes, as they are.
    #[default]
    Routed,
    /// In a tunnel with Ethernet headers, as flannel does it.
    Vxlan,
}

impl Default for ClusterConfig {
    /// Two nodes, statuses at once, routed.
    fn default() -> Self {
        Self { nodes: 2, status_delay: Duration::ZERO, paths: Paths::default() }
    }
}

impl LabConfig {
    /// Two workers, the agents beside the running program, nothing in the cluster but DNS.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            manifests: Vec::new(),
            yaml: String::new(),
            cluster: None,
            sluice: true,
            workers: 2,
            cpus: None,
            bin_dir: None,
            dataplane_args: Vec::new(),
            control_args: Vec::new(),
            force: false,
            interrupted: Arc::default(),
            progress: Arc::new(|_| {}),
        }
    }

    /// Fails when the user has asked to stop.
    pub(crate) fn check_interrupted(&self) -> Result<()> {
        // Relaxed: a lone flag set by a signal handler; nothing is read on its account.
        if self.interrupted.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    }

    /// The directory with all programs that this lab needs.
    ///
    /// # Errors
    ///
    /// One is missing; the message says how to build it.
    pub(crate) fn programs(&self) -> Result<PathBuf> {
        let dir = match &self.bin_dir {
            Some(dir) => dir.canonicalize().with_context(|| format!("no directory {}", dir.display()))?,
            None => beside_this_program()?,
        };
        let agents = Agent::ALL.map(Agent::program);
        let policy = ["sluice-cni"].into_iter().chain(agents).filter(|_| self.sluice);
        let server = self.cluster.as_ref().map(|_| API_SERVER);
        for program in ["sluice-lab"].into_iter().chain(policy).chain(server) {
            if !dir.join(program).exists() {
                bail!(
                    "{program} is not in {}; build it with `cargo build --workspace`, or bring the lab up without \
                     policy enforcement (--no-sluice)",
                    dir.display()
                );
            }
        }
        Ok(dir)
    }

    /// The CPUs of the workers: as given, else the first ones allowed to this process, round again when there are
    /// fewer than workers.
    pub(crate) fn cpu_list(&self) -> Result<String> {
        if let Some(cpus) = &self.cpus {
            return Ok(cpus.clone());
        }
        let set = rustix::thread::sched_getaffinity(None).context("cannot read the CPU affinity")?;
        let allowed: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect();
        let cpus: Vec<String> = allowed.iter().cycle().take(self.workers as usize).map(ToString::to_string).collect();
        Ok(cpus.join(","))
    }
}

/// `target/debug`, also for a test binary in `target/debug/deps`.
fn beside_this_program() -> Result<PathBuf> {
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    let mut dir = program.parent().context("a program without a directory")?;
    if dir.ends_with("deps") || dir.ends_with("examples") {
        dir = dir.parent().unwrap_or(Path::new("/"));
    }
    Ok(dir.to_owned())
}
