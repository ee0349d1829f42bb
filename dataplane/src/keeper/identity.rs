//! Who found devices are: what people and control are told of them, and what control answers.

use super::Keeper;
use super::found::Device;
use super::registry::adopted_container;
use crate::config::ExistingPods;
use anyhow::{Context, Result};
use sluice_flow::ObjectName;
use sluice_wire::{AddPort, FoundDevice, FromDataplane, Identified, Identity};
use std::collections::BTreeMap;
use std::net::IpAddr;
use tracing::info;

impl Keeper {
    /// Asks about all devices that wait, whenever these have changed.
    pub(super) fn ask_control(&mut self) {
        let mut devices = self.found_devices();
        devices.retain(|device| device.awaits_identity);
        let waiting: BTreeMap<u32, Vec<IpAddr>> = devices.iter().map(|device| (device.host_ifindex, device.addresses.clone())).collect();
        if self.control.is_some() && waiting != self.found.asked {
            self.found.asked = waiting;
            self.tell_control(&FromDataplane::Unidentified { devices });
        }
    }

    pub(super) fn found_devices(&self) -> Vec<FoundDevice> {
        self.found.devices.iter().map(|(ifindex, device)| self.describe(*ifindex, device)).collect()
    }

    fn describe(&self, ifindex: u32, device: &Device) -> FoundDevice {
        let spoken_for = self.found.spoken_for.contains_key(&ifindex);
        let adopts = self.arguments.existing_pods == ExistingPods::Adopt;
        let reason = match (&device.trouble, device.closed) {
            (Some(trouble), _) => trouble.clone(),
            (None, true) if spoken_for => "its runtime called DEL, or its ADD failed".into(),
            (None, true) if adopts && device.end.is_none() => "the kernel does not tell the pod's MAC address".into(),
            (None, true) if adopts && self.control.is_none() => "sluice-control is not connected, which could prove who it is".into(),
            (None, true) if adopts => "waits for sluice-control to prove who it is".into(),
            (None, true) => "ran before it could be attached; restart the pod, or choose another --existing-pods".into(),
            (None, false) if !self.enforcing => "enforcement is off".into(),
            (None, false) => "no policy holds for it until the pod is restarted (--existing-pods=unmanaged)".into(),
        };
        FoundDevice {
            host_ifindex: ifindex,
            host_ifname: device.veth.link.name.clone(),
            addresses: device.veth.addresses.clone(),
            mac: device.end.as_ref().map(|end| end.mac.map(|byte| format!("{byte:02x}")).join(":")),
            state: device.state(),
            reason,
            awaits_identity: adopts && device.closed && device.end.is_some() && !spoken_for && device.lingers(),
        }
    }

    /// What control knows of found devices. An answer to a question that is out of date is no answer.
    pub(super) fn identify(&mut self, identities: Vec<Identity>) -> Result<()> {
        let mut adopted = 0;
        for Identity { host_ifindex, addresses, answer } in identities {
            let asked = self.found.devices.get(&host_ifindex).filter(|device| device.veth.addresses == addresses);
            let Some(device) = asked.filter(|device| self.describe(host_ifindex, device).awaits_identity) else { continue };
            let trouble = match answer {
                Identified::Nobody { reason } => Some(reason),
                Identified::Pod { pod, uid } => {
                    let add = adoption(device, pod, uid);
                    let outcome = add.and_then(|add| self.adopt(&add)).err();
                    adopted += usize::from(outcome.is_none());
                    outcome.map(|error| format!("{error:#}"))
                }
            };
            if let Some(device) = self.found.devices.get_mut(&host_ifindex) {
                device.trouble = trouble;
            }
        }
        if adopted > 0 {
            self.refresh_node_addresses();
            let message = self.endpoints_message();
            self.tell_control(&message);
        }
        Ok(())
    }

    fn adopt(&mut self, add: &AddPort) -> Result<()> {
        let link = self.check_attachment(add)?;
        let registered = self.register(add, &link)?;
        let (pod, port) = (&add.pod, registered.endpoint.port.0);
        info!(%pod, uid = add.uid, port, device = add.host_ifname, "a running pod is adopted, closed until a table knows it");
        Ok(())
    }
}

/// A found device as its runtime would have told of it.
fn adoption(device: &Device, pod: ObjectName, uid: String) -> Result<AddPort> {
    let end = device.end.clone().context("the kernel does not tell the pod's MAC address")?;
    Ok(AddPort {
        container_id: adopted_container(device.veth.link.index),
        ifname: end.ifname.unwrap_or_default(),
        pod,
        uid,
        host_ifindex: device.veth.link.index,
        host_ifname: device.veth.link.name.clone(),
        mac: end.mac,
        addresses: device.veth.addresses.clone(),
        network: String::new(),
        deadline_ms: 0,
    })
}
