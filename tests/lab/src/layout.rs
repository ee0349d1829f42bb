//! Where everything of a lab lies, and the lock of whoever changes it.
//!
//! ```text
//!   /run/sluice-lab/NAME.lock     held (flock) by whoever changes the lab
//!   /run/sluice-lab/NAME/         STATE
//!     state.json                  see `state`
//!     manifests/                  one object per file; sluice-control watches it. Not in a lab with an API server
//!     etc/                        each pod's resolv.conf and hosts; the names that the DNS server serves
//!     logs/                       of agents, servers and the API server
//!     api/                        the API server's kubeconfig
//!     run/  cni/  ipam/           of the one node of a lab on a directory; in a lab with an API server
//!     nodes/NODE/run/ ...         each node has its own
//! ```

use crate::state::{State, replace_file};
use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use sluice_flow::ObjectName;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The parent of all labs' state.
const LABS_DIR: &str = "/run/sluice-lab";
const BPFFS: &str = "/sys/fs/bpf";
/// Netns names, bpffs directories and interfaces all derive from the lab's name, so it stays short.
const NAME_BYTES_MAX: usize = 20;

/// A lab's name: lower-case letters and digits only. Without a dash in it, the prefix `sluice-NAME-` of one lab is
/// never the prefix of another's, which is what makes cleaning up by prefix safe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabName(String);

impl std::str::FromStr for LabName {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let fits = !text.is_empty() && text.len() <= NAME_BYTES_MAX;
        if !fits || !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
            bail!("a lab's name is 1 to {NAME_BYTES_MAX} lower-case letters and digits, not {text:?}");
        }
        Ok(Self(text.into()))
    }
}

impl std::fmt::Display for LabName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The only node of a lab on a directory.
pub const ONLY_NODE: &str = "node";

/// The paths of one lab, as one of its nodes sees them.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The lab.
    pub name: LabName,
    /// `STATE`.
    pub root: PathBuf,
    /// One of several nodes; `None` for [`ONLY_NODE`], and where no node is meant.
    node: Option<String>,
}

impl Layout {
    /// Of the lab with this name, existing or not. What a node has of its own is that of [`ONLY_NODE`].
    pub fn new(name: LabName) -> Self {
        let root = Path::new(LABS_DIR).join(name.to_string());
        Self { name, root, node: None }
    }

    /// The same lab as this node sees it.
    pub fn at(&self, node: &str) -> Self {
        Self { node: (node != ONLY_NODE).then(|| node.to_owned()), ..self.clone() }
    }

    fn of_node(&self, dir: &str) -> PathBuf {
        match &self.node {
            None => self.root.join(dir),
            Some(node) => self.root.join("nodes").join(node).join(dir),
        }
    }

    /// The names of all labs that have a state directory.
    pub fn existing() -> Vec<LabName> {
        let entries = fs::read_dir(LABS_DIR).into_iter().flatten().flatten();
        let mut names: Vec<LabName> =
            entries.filter(|entry| entry.path().is_dir()).filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        names.sort_by_key(ToString::to_string);
        names
    }

    /// Creates the directories that all nodes share.
    pub fn create(&self) -> Result<()> {
        create_all(&[self.etc(), self.logs()])
    }

    /// Creates those of this node.
    pub fn create_node(&self) -> Result<()> {
        create_all(&[self.run_dir(), self.cni(), self.ipam()])
    }

    /// The directory that sluice-control watches.
    pub fn manifests(&self) -> PathBuf {
        self.root.join("manifests")
    }

    /// The agents' run directory.
    pub fn run_dir(&self) -> PathBuf {
        self.of_node("run")
    }

    /// The conflist and the plugins' results.
    pub fn cni(&self) -> PathBuf {
        self.of_node("cni")
    }

    /// host-local's data directory.
    pub fn ipam(&self) -> PathBuf {
        self.of_node("ipam")
    }

    /// Files that are bound over those in `/etc` for processes in pods.
    pub fn etc(&self) -> PathBuf {
        self.root.join("etc")
    }

    /// The names that the DNS server answers, as a hosts file.
    pub fn dns_hosts(&self) -> PathBuf {
        self.etc().join("dns.hosts")
    }

    /// The packet filter's rules for services that the node was given last.
    pub fn services(&self) -> PathBuf {
        self.of_node("services.nft")
    }

    /// Logs of agents and servers.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// The log of one of the node's agents.
    pub fn agent_log(&self, agent: &str) -> PathBuf {
        let node = self.node.as_ref().map_or(String::new(), |node| format!("{node}-"));
        self.logs().join(format!("{node}{agent}.log"))
    }

    /// Where the API server is and who may ask it.
    pub fn kubeconfig(&self) -> PathBuf {
        self.root.join("api/kubeconfig")
    }

    /// Where the dataplane pins its maps and links.
    pub fn bpf_dir(&self) -> PathBuf {
        let node = self.node.as_ref().map_or(String::new(), |node| format!("-{node}"));
        Path::new(BPFFS).join(format!("sluice-{}{node}", self.name))
    }

    /// That of every node, also of a lab whose state is lost.
    pub fn bpf_dirs(&self) -> Vec<PathBuf> {
        let (own, prefix) = (format!("sluice-{}", self.name), self.netns_prefix());
        let names = fs::read_dir(BPFFS).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| *name == own || name.starts_with(&prefix)).map(|name| Path::new(BPFFS).join(name)).collect()
    }

    /// What the names of all its network namespaces begin with.
    pub fn netns_prefix(&self) -> String {
        format!("sluice-{}-", self.name)
    }

    /// The node's network namespace.
    pub fn node_netns(&self) -> String {
        format!("{}{}", self.netns_prefix(), self.node.as_deref().unwrap_or(ONLY_NODE))
    }

    /// The namespace of the API server and of the network between the nodes.
    pub fn underlay_netns(&self) -> String {
        format!("{}underlay", self.netns_prefix())
    }

    /// A pod's network namespace. A Kubernetes namespace holds no dot, so the first one separates the two parts.
    pub fn pod_netns(&self, pod: &ObjectName) -> String {
        format!("{}{}.{}", self.netns_prefix(), pod.namespace, pod.name)
    }

    /// Takes the lab's lock, waiting for whoever has it. It is released when dropped, also by a crash.
    pub fn lock(&self) -> Result<LabLock> {
        fs::create_dir_all(LABS_DIR).with_context(|| format!("cannot create {LABS_DIR}; the lab needs root"))?;
        let path = Path::new(LABS_DIR).join(format!("{}.lock", self.name));
        loop {
            let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
            flock(&file, FlockOperation::LockExclusive).with_context(|| format!("cannot lock {}", path.display()))?;
            let locked = file.metadata().with_context(|| format!("cannot read {}", path.display()))?;
            // Whoever removed the lab removed the file too; then this lock guards nothing.
            if fs::metadata(&path).is_ok_and(|named| (named.dev(), named.ino()) == (locked.dev(), locked.ino())) {
                return Ok(LabLock { _file: file });
            }
        }
    }

    /// Removes the lock's file. The caller holds the lock and is about to let it go for the last time.
    pub(crate) fn remove_lock_file(&self, _lock: &LabLock) {
        let _ = fs::remove_file(Path::new(LABS_DIR).join(format!("{}.lock", self.name)));
        // Fails, rightly, while other labs are there.
        let _ = fs::remove_dir(LABS_DIR);
    }

    /// The state, `None` when there is no such lab.
    pub fn load(&self) -> Result<Option<State>> {
        let path = self.root.join("state.json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display())).map(Some)
    }

    /// Replaces the state file.
    pub fn save(&self, state: &State) -> Result<()> {
        let text = serde_json::to_vec_pretty(state).context("the state cannot be written as JSON")?;
        replace_file(&self.root.join("state.json"), &text)
    }
}

fn create_all(dirs: &[PathBuf]) -> Result<()> {
    dirs.iter().try_for_each(|dir| fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display())))
}

/// The lock of [`Layout::lock`].
#[derive(Debug)]
pub struct LabLock {
    _file: File,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_lab_is_a_prefix_of_another() {
        for bad in ["", "a-b", "A", "a.b", "a/b", "..", "abcdefghijklmnopqrstu"] {
            assert!(bad.parse::<LabName>().is_err(), "{bad:?}");
        }
        let a = Layout::new("a".parse().unwrap());
        let ab = Layout::new("ab".parse().unwrap());
        assert!(!ab.node_netns().starts_with(&a.netns_prefix()));
    }

    #[test]
    fn nodes_of_one_lab_share_its_state_and_nothing_of_the_agents() {
        let lab = Layout::new("a".parse().unwrap());
        assert_eq!(lab.at(ONLY_NODE).run_dir(), lab.run_dir());
        let (one, two) = (lab.at("node1"), lab.at("node2"));
        assert_eq!(one.etc(), two.etc());
        for path in [Layout::run_dir, Layout::bpf_dir, Layout::cni, Layout::ipam, |layout: &Layout| layout.agent_log("control")] {
            assert_ne!(path(&one), path(&two));
        }
        assert_ne!(one.node_netns(), two.node_netns());
    }
}
