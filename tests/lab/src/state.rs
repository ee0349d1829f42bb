//! What a lab remembers between commands: `STATE/state.json`, and where everything of it lies.
//!
//! ```text
//!   /run/sluice-lab/NAME.lock     held (flock) by whoever changes the lab
//!   /run/sluice-lab/NAME/         STATE
//!     state.json                  this module
//!     manifests/                  one object per file; sluice-control watches it
//!     run/                        the agents' run directory, with their sockets
//!     cni/  ipam/                 conflist and results; host-local's reservations
//!     etc/                        each pod's resolv.conf and hosts; the names that the DNS server serves
//!     logs/
//! ```
//!
//! Nothing about a lab is kept in memory across operations: each one takes the lock, reads the file, and writes it
//! back by rename. So commands in several terminals, and a test beside them, see one truth, and a crash between two
//! steps leaves a state that `down` can still clean up.

use crate::process::ProcessId;
use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use sluice_flow::ObjectName;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The parent of all labs' state.
const LABS_DIR: &str = "/run/sluice-lab";
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

/// The paths of one lab.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The lab.
    pub name: LabName,
    /// `STATE`.
    pub root: PathBuf,
}

impl Layout {
    /// Of the lab with this name, existing or not.
    pub fn new(name: LabName) -> Self {
        let root = Path::new(LABS_DIR).join(name.to_string());
        Self { name, root }
    }

    /// The names of all labs that have a state directory.
    pub fn existing() -> Vec<LabName> {
        let entries = fs::read_dir(LABS_DIR).into_iter().flatten().flatten();
        let mut names: Vec<LabName> =
            entries.filter(|entry| entry.path().is_dir()).filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        names.sort_by_key(ToString::to_string);
        names
    }

    /// Creates all directories.
    pub fn create(&self) -> Result<()> {
        for dir in [self.manifests(), self.run_dir(), self.cni(), self.ipam(), self.etc(), self.logs()] {
            fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        Ok(())
    }

    /// The directory that sluice-control watches.
    pub fn manifests(&self) -> PathBuf {
        self.root.join("manifests")
    }

    /// The agents' run directory.
    pub fn run_dir(&self) -> PathBuf {
        self.root.join("run")
    }

    /// The conflist and the plugins' results.
    pub fn cni(&self) -> PathBuf {
        self.root.join("cni")
    }

    /// host-local's data directory.
    pub fn ipam(&self) -> PathBuf {
        self.root.join("ipam")
    }

    /// Files that are bound over those in `/etc` for processes in pods.
    pub fn etc(&self) -> PathBuf {
        self.root.join("etc")
    }

    /// The names that the DNS server answers, as a hosts file.
    pub fn dns_hosts(&self) -> PathBuf {
        self.etc().join("dns.hosts")
    }

    /// Logs of agents and servers.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Where the dataplane pins its maps and links.
    pub fn bpf_dir(&self) -> PathBuf {
        Path::new("/sys/fs/bpf").join(format!("sluice-{}", self.name))
    }

    /// What the names of all its network namespaces begin with.
    pub fn netns_prefix(&self) -> String {
        format!("sluice-{}-", self.name)
    }

    /// The node's network namespace.
    pub fn node_netns(&self) -> String {
        format!("{}node", self.netns_prefix())
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

/// The lock of [`Layout::lock`].
#[derive(Debug)]
pub struct LabLock {
    _file: File,
}

/// Writes beside the file and renames, so that a reader sees the old or the new content and never a part. The
/// temporary name begins with a dot and ends in `.tmp`: directory watchers pass it over.
pub(crate) fn replace_file(path: &Path, content: &[u8]) -> Result<()> {
    let name = path.file_name().and_then(|name| name.to_str()).context("a file without a name")?;
    let temporary = path.with_file_name(format!(".{name}.tmp"));
    fs::write(&temporary, content).and_then(|()| fs::rename(&temporary, path)).with_context(|| format!("cannot write {}", path.display()))
}

/// How far a lab has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// `up` is at work, or died in the middle of it.
    Starting,
    /// Complete.
    Up,
}

/// Everything that cannot be found out from outside.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// How far it has come.
    pub phase: Phase,
    /// The process that takes the lab down when it ends; a lab made by the command line has none once it is up.
    pub owner: Option<ProcessId>,
    /// False for a plain lab without agents.
    pub sluice: bool,
    /// Where sluice-dataplane, sluice-control, sluice-cni and sluice-lab are.
    pub bin_dir: PathBuf,
    /// Workers of the dataplane.
    pub workers: u32,
    /// Their CPUs.
    pub cpus: String,
    /// Further arguments of the dataplane.
    pub dataplane_args: Vec<String>,
    /// Further arguments of the control process.
    pub control_args: Vec<String>,
    /// The dataplane's process, if it was started and not killed.
    pub dataplane: Option<ProcessId>,
    /// The control process, likewise.
    pub control: Option<ProcessId>,
    /// By `ns/name`.
    pub pods: BTreeMap<String, PodState>,
}

/// One attached pod.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodState {
    /// The pod.
    pub pod: ObjectName,
    /// From its manifest, or made up from its name.
    pub uid: String,
    /// Its place in the address ranges: the lowest that was free.
    pub slot: u32,
    /// The sandbox id that the CNI plugins saw.
    pub container_id: String,
    /// From the CNI result; empty while it is being attached.
    pub addresses: Vec<IpAddr>,
    /// The node's end of its veth pair.
    pub host_ifname: String,
    /// What its server answers on.
    pub served: Vec<ServedPort>,
    /// Whether it is the cluster's DNS server.
    pub dns: bool,
    /// Its server.
    pub server: Option<ProcessId>,
}

/// TCP or UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A port that something listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServedPort {
    /// The number.
    pub port: u16,
    /// The protocol.
    pub protocol: Transport,
}

impl std::fmt::Display for ServedPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let protocol = match self.protocol {
            Transport::Tcp => "TCP",
            Transport::Udp => "UDP",
        };
        write!(f, "{}/{protocol}", self.port)
    }
}

impl std::str::FromStr for ServedPort {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (port, protocol) = text.split_once('/').unwrap_or((text, "TCP"));
        let protocol = match protocol.to_ascii_uppercase().as_str() {
            "TCP" => Transport::Tcp,
            "UDP" => Transport::Udp,
            _ => bail!("{text:?}: the protocol is TCP or UDP, as in 80/TCP"),
        };
        let port = port.parse().ok().filter(|port| *port != 0);
        Ok(Self { port: port.with_context(|| format!("{text:?}: the port is 1 to 65535, as in 80/TCP"))?, protocol })
    }
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
    fn ports_read_as_they_print() {
        for text in ["80/TCP", "53/UDP"] {
            assert_eq!(text.parse::<ServedPort>().unwrap().to_string(), text);
        }
        assert_eq!("8080".parse::<ServedPort>().unwrap().to_string(), "8080/TCP");
        for bad in ["", "0/TCP", "80/SCTP", "65536", "http"] {
            assert!(bad.parse::<ServedPort>().is_err(), "{bad:?}");
        }
    }
}
