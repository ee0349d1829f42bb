//! Which pod stands on which port: on tmpfs, so that it survives a restart, and in the hooks' shared memory.

use super::storage::{PORTS, Storage};
use crate::kernel::Attachment;
use crate::veth::Fingerprint;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sluice_bpf::{Shared, abi};
use sluice_flow::limits::PORTS_MAX;
use sluice_flow::{Incarnation, LocalEndpoint, PortIndex};
use sluice_wire::AddPort;
use std::collections::BTreeMap;
use tracing::warn;

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
    /// The pod's end, as numbered in its namespace.
    #[serde(default)]
    pub(super) peer_index: Option<u32>,
    /// The network configuration that attached it.
    #[serde(default)]
    pub(super) network: String,
    pub(super) worker: u32,
}

/// Begins the container's name of a port whose sandbox nobody named, because the pod ran before the dataplane did.
const ADOPTED: &str = "found:";

/// The name of such a port's container.
pub(super) fn adopted_container(host_ifindex: u32) -> String {
    format!("{ADOPTED}{host_ifindex}")
}

impl Registered {
    /// Whether the pod was found, and not told of by its runtime.
    pub(super) fn is_adopted(&self) -> bool {
        self.container_id.starts_with(ADOPTED)
    }

    /// What tells its device from another one of that index.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        Fingerprint { host_mac: self.gateway_mac, peer_index: self.peer_index }
    }

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
    /// Of the machine when this was written; nothing outlives a reboot. Empty where an earlier version wrote it.
    #[serde(default)]
    boot_id: String,
    /// Devices of no port that were closed because their pods ran before anybody told of them.
    #[serde(default)]
    closed: BTreeMap<u32, Fingerprint>,
    #[serde(skip)]
    storage: Storage,
    #[serde(skip)]
    new: bool,
}

impl Registry {
    /// What an earlier process left, or nothing. A damaged file is an error: guessing would open or close the wrong pods.
    /// Of ports from before a reboot only their incarnations stay, so that none is used again.
    pub(super) fn load(storage: Storage) -> Result<Self> {
        // where it cannot be read, devices alone tell what is still there
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self::load_in_boot(storage, boot_id.trim())
    }

    fn load_in_boot(storage: Storage, boot_id: &str) -> Result<Self> {
        let path = storage.path(PORTS);
        let mut registry: Self = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is damaged; remove it and restart the pods of this node", path.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self { new: true, ..Self::default() },
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        if !registry.boot_id.is_empty() && !boot_id.is_empty() && registry.boot_id != boot_id {
            warn!(ports = registry.ports.len(), path = %path.display(), "from before a reboot: a fresh start");
            registry = Self { last_incarnation: registry.last_incarnation, new: true, ..Self::default() };
        }
        registry.boot_id = boot_id.to_owned();
        registry.storage = storage;
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
        self.storage.write(PORTS, &serde_json::to_vec_pretty(self)?)
    }

    /// Where it cannot be written, the next state of it may be, and what is in memory counts until then.
    fn save_later(&self) {
        // told by the storage
        let _ = self.save();
    }

    /// Writes down what could not be.
    pub(super) fn keep_again(&self) {
        if self.storage.is_behind(PORTS) {
            self.save_later();
        }
    }

    /// A free index with a new incarnation, written down before anything else happens to it.
    pub(super) fn add(&mut self, request: &AddPort, device: Fingerprint, workers: u32) -> Result<Registered> {
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
            gateway_mac: device.host_mac,
            peer_index: device.peer_index,
            network: request.network.clone(),
            worker: self.least_loaded(workers),
        };
        self.ports.insert(index, registered.clone());
        self.save().inspect_err(|_| {
            self.ports.remove(&index);
        })?;
        Ok(registered)
    }

    /// The worker with the fewest ports.
    fn least_loaded(&self, workers: u32) -> u32 {
        let count = |worker: &u32| self.ports.values().filter(|port| port.worker == *worker).count();
        (0..workers).min_by_key(count).unwrap_or(0)
    }

    /// Writes down that something changed; where it cannot, later.
    pub(super) fn keep(&self) {
        self.save_later();
    }

    pub(super) fn remove(&mut self, port: PortIndex) {
        self.ports.remove(&port.0);
        self.save_later();
    }

    pub(super) fn find(&self, container_id: &str, ifname: &str) -> Option<&Registered> {
        self.ports.values().find(|port| port.container_id == container_id && port.ifname == ifname)
    }

    /// The adopted port on this device.
    pub(super) fn adopted_at(&self, host_ifindex: u32) -> Option<&Registered> {
        self.ports.values().find(|port| port.is_adopted() && port.host_ifindex == host_ifindex)
    }

    /// Which devices of no port are closed by choice, so that another choice can open them.
    pub(super) fn closed(&self) -> &BTreeMap<u32, Fingerprint> {
        &self.closed
    }

    /// Writes them down.
    pub(super) fn set_closed(&mut self, closed: BTreeMap<u32, Fingerprint>) {
        if self.closed != closed {
            self.closed = closed;
            self.save_later();
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_flow::ObjectName;

    fn request(container_id: &str) -> AddPort {
        AddPort {
            container_id: container_id.into(),
            ifname: "eth0".into(),
            pod: ObjectName::new("x", "web"),
            uid: "u".into(),
            host_ifindex: 9,
            host_ifname: "veth9".into(),
            mac: [2; 6],
            addresses: vec!["10.0.0.1".parse().unwrap()],
            network: "net".into(),
            deadline_ms: 1,
        }
    }

    const DEVICE: Fingerprint = Fingerprint { host_mac: [4; 6], peer_index: Some(2) };

    #[test]
    fn ports_survive_the_process_and_not_the_machine() {
        let dir = tempfile::tempdir().unwrap();
        let mut registry = Registry::load_in_boot(Storage::new(dir.path()), "one").unwrap();
        assert!(registry.is_new());
        let registered = registry.add(&request("c"), DEVICE, 1).unwrap();
        assert_eq!((registered.fingerprint(), registered.network.as_str()), (DEVICE, "net"));
        registry.set_closed([(7, DEVICE)].into());
        for same in ["one", ""] {
            let registry = Registry::load_in_boot(Storage::new(dir.path()), same).unwrap();
            assert_eq!((registry.find("c", "eth0"), registry.closed().len(), registry.is_new()), (Some(&registered), 1, false));
        }
        let mut registry = Registry::load_in_boot(Storage::new(dir.path()), "two").unwrap();
        assert_eq!((registry.find("c", "eth0"), registry.closed().len(), registry.is_new()), (None, 0, true));
        let next = registry.add(&request("d"), DEVICE, 1).unwrap();
        assert!(next.endpoint.incarnation > registered.endpoint.incarnation, "no incarnation is used twice");
    }

    #[test]
    fn a_file_of_an_earlier_version_is_understood() {
        let dir = tempfile::tempdir().unwrap();
        let mut registry = Registry::load_in_boot(Storage::new(dir.path()), "one").unwrap();
        registry.add(&request("c"), DEVICE, 1).unwrap();
        let path = dir.path().join("ports.json");
        let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        for field in ["boot_id", "closed"] {
            json.as_object_mut().unwrap().remove(field).unwrap();
        }
        for field in ["peer_index", "network"] {
            json["ports"]["0"].as_object_mut().unwrap().remove(field).unwrap();
        }
        std::fs::write(&path, json.to_string()).unwrap();
        let registry = Registry::load_in_boot(Storage::new(dir.path()), "two").unwrap();
        let port = registry.find("c", "eth0").unwrap();
        assert_eq!((port.peer_index, port.network.as_str(), port.is_adopted()), (None, "", false));
    }

    #[test]
    fn an_adopted_port_is_found_by_its_device_only() {
        let dir = tempfile::tempdir().unwrap();
        let mut registry = Registry::load_in_boot(Storage::new(dir.path()), "one").unwrap();
        registry.add(&request("c"), DEVICE, 1).unwrap();
        assert_eq!(registry.adopted_at(9), None, "the runtime told of it");
        let adopted = AddPort { host_ifindex: 11, ..request(&adopted_container(11)) };
        let adopted = registry.add(&adopted, DEVICE, 1).unwrap();
        assert_eq!((registry.adopted_at(11), registry.adopted_at(9)), (Some(&adopted), None));
    }
}
