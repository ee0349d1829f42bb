//! Which pod stands on which port: on tmpfs, so that it survives a restart, and in the hooks' shared memory.

use crate::kernel::Attachment;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sluice_bpf::{Shared, abi};
use sluice_flow::limits::PORTS_MAX;
use sluice_flow::{Incarnation, LocalEndpoint, PortIndex};
use sluice_wire::AddPort;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One registered attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Registered {
    pub(super) endpoint: LocalEndpoint,
    pub(super) container_id: String,
    pub(super) ifname: String,
    pub(super) host_ifindex: u32,
    pub(super) host_ifname: String,
    pub(super) mac: [u8; 6],
    pub(super) gateway_mac: [u8; 6],
    pub(super) worker: u32,
}

impl Registered {
    /// Its slot as the hooks see it; closed.
    pub(super) fn slot(&self, trunk_ifindex: u32, previous: &abi::Port) -> abi::Port {
        let Self { endpoint, host_ifindex, mac, gateway_mac, worker, .. } = self;
        let attachment = Attachment {
            endpoint,
            host_ifindex: *host_ifindex,
            mac: *mac,
            gateway_mac: *gateway_mac,
            worker: *worker as u16,
            trunk_ifindex,
        };
        attachment.slot(previous)
    }
}

/// All registered attachments.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Registry {
    last_incarnation: u32,
    ports: BTreeMap<u16, Registered>,
    #[serde(skip)]
    path: PathBuf,
    #[serde(skip)]
    new: bool,
}

impl Registry {
    /// What an earlier process left, or nothing. A damaged file is an error: guessing would open or close the wrong pods.
    pub(super) fn load(run_dir: &Path) -> Result<Self> {
        let path = run_dir.join("ports.json");
        let mut registry: Self = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is damaged; remove it and restart the pods of this node", path.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self { new: true, ..Self::default() },
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        registry.path = path;
        Ok(registry)
    }

    /// Counts on above every incarnation that the hooks still know.
    pub(super) fn above(mut self, ports: &Shared<abi::Port>) -> Self {
        let known = (0..PORTS_MAX).map(|index| ports.read(index).incarnation).max().unwrap_or(0);
        self.last_incarnation = self.last_incarnation.max(known);
        self
    }

    /// Nothing was there to load.
    pub(super) fn is_new(&self) -> bool {
        self.new
    }

    fn save(&self) -> Result<()> {
        write_whole(&self.path, &serde_json::to_vec_pretty(self)?)
    }

    /// A free index with a new incarnation, written down before anything else happens to it.
    pub(super) fn add(&mut self, request: &AddPort, gateway_mac: [u8; 6], workers: u32) -> Result<Registered> {
        let free = (0..PORTS_MAX as u16).find(|index| !self.ports.contains_key(index));
        let index = free.with_context(|| format!("all {PORTS_MAX} ports of this node are in use"))?;
        self.last_incarnation = self.last_incarnation.wrapping_add(1).max(1);
        let endpoint = LocalEndpoint {
            port: PortIndex(index),
            incarnation: Incarnation(self.last_incarnation),
            pod: request.pod.clone(),
            uid: request.uid.clone(),
            addresses: request.addresses.clone(),
        };
        let registered = Registered {
            endpoint,
            container_id: request.container_id.clone(),
            ifname: request.ifname.clone(),
            host_ifindex: request.host_ifindex,
            host_ifname: request.host_ifname.clone(),
            mac: request.mac,
            gateway_mac,
            worker: u32::from(index) % workers,
        };
        self.ports.insert(index, registered.clone());
        self.save().inspect_err(|_| {
            self.ports.remove(&index);
        })?;
        Ok(registered)
    }

    pub(super) fn remove(&mut self, port: PortIndex) -> Result<()> {
        self.ports.remove(&port.0);
        self.save()
    }

    pub(super) fn find(&self, container_id: &str, ifname: &str) -> Option<&Registered> {
        self.ports.values().find(|port| port.container_id == container_id && port.ifname == ifname)
    }

    pub(super) fn by_port(&self, port: PortIndex) -> Option<&Registered> {
        self.ports.get(&port.0)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Registered> {
        self.ports.values()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Registered> {
        self.ports.values_mut()
    }

    pub(super) fn endpoints(&self) -> Vec<LocalEndpoint> {
        self.ports.values().map(|port| port.endpoint.clone()).collect()
    }
}

/// Replaces a file so that a reader sees the old bytes or the new ones, whenever this process dies.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, bytes).with_context(|| format!("write {}", temporary.display()))?;
    std::fs::rename(&temporary, path).with_context(|| format!("replace {}", path.display()))
}
