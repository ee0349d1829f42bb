//! What a lab remembers between commands: `STATE/state.json`.
//!
//! Nothing about a lab is kept in memory across operations: each one takes the lock, reads the file, and writes it
//! back by rename. So commands in several terminals, and a test beside them, see one truth, and a crash between two
//! steps leaves a state that `down` can still clean up.

use crate::config::Paths;
use crate::process::ProcessId;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sluice_flow::ObjectName;
use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

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
    /// By name; one, [`crate::layout::ONLY_NODE`], in a lab on a directory.
    pub nodes: BTreeMap<String, NodeState>,
    /// The API server that the agents follow; `None` in a lab on a directory.
    pub api: Option<ApiState>,
    /// By `ns/name`.
    pub pods: BTreeMap<String, PodState>,
}

impl State {
    /// A node.
    ///
    /// # Errors
    ///
    /// There is none of that name; the message has those there are.
    pub fn node(&self, name: &str) -> Result<&NodeState> {
        self.nodes.get(name).with_context(|| no_node(name, &self.nodes))
    }

    /// As [`State::node`], to be changed.
    pub fn node_mut(&mut self, name: &str) -> Result<&mut NodeState> {
        let unknown = no_node(name, &self.nodes);
        self.nodes.get_mut(name).context(unknown)
    }
}

fn no_node(name: &str, nodes: &BTreeMap<String, NodeState>) -> String {
    format!("no node {name}; there is {}", nodes.keys().cloned().collect::<Vec<_>>().join(", "))
}

/// One node.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeState {
    /// Its place in the address ranges, from 1; 0 for the only node of a lab on a directory.
    pub number: u8,
    /// The dataplane's process, if it was started and not killed.
    pub dataplane: Option<ProcessId>,
    /// The control process, likewise.
    pub control: Option<ProcessId>,
    /// The dataplane's program, where it is not the one in [`State::bin_dir`].
    pub dataplane_program: Option<PathBuf>,
}

/// The API server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiState {
    /// Its process.
    pub process: ProcessId,
    /// How long after ADD a pod's addresses are written to its status.
    pub status_delay_ms: u64,
    /// How pods' packets cross from node to node.
    #[serde(default)]
    pub paths: Paths,
}

/// One attached pod.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodState {
    /// The pod.
    pub pod: ObjectName,
    /// The node it runs on.
    pub node: String,
    /// From its object, or made up from its name.
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
