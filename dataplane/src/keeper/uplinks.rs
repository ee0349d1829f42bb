//! NICs on which what was denied before is dropped before the kernel makes an skb of it: those that `--uplink` names, if their
//! drivers run XDP themselves. In the kernel's generic mode the skb is there already, and nothing would be spared.

use super::Keeper;
use crate::netlink::Link;
use sluice_bpf::{Hooks, xdp_features};
use sluice_wire::UplinkStatus;
use tracing::{info, warn};

impl Keeper {
    /// Puts the program on every device that is named and there, and keeps what people see of it up to date.
    pub(super) fn keep_uplinks(&mut self, links: &[Link]) {
        let names = self.arguments.uplink.clone();
        let before = std::mem::take(&mut self.uplinks);
        for name in names {
            let status = match links.iter().find(|link| link.name == name) {
                Some(link) => self.keep_uplink(link),
                None => UplinkStatus { device: name.clone(), trouble: Some("no such device".into()), ..UplinkStatus::default() },
            };
            if !before.contains(&status) {
                match &status.trouble {
                    None => info!(device = name, zero_copy = status.zero_copy, "what was denied before is dropped in this NIC's driver"),
                    Some(reason) => warn!(device = name, reason, "nothing is dropped on this NIC"),
                }
            }
            self.uplinks.push(status);
        }
    }

    fn keep_uplink(&self, link: &Link) -> UplinkStatus {
        let queues = |kind: &str| {
            let names = std::fs::read_dir(format!("/sys/class/net/{}/queues", link.name)).into_iter().flatten().flatten();
            names.filter(|entry| entry.file_name().to_string_lossy().starts_with(kind)).count() as u32
        };
        let mut status =
            UplinkStatus { device: link.name.clone(), rx_queues: queues("rx-"), tx_queues: queues("tx-"), ..UplinkStatus::default() };
        if !self.enforcing {
            self.loaded.detach(Hooks::Uplink, link.index);
            status.trouble = Some("enforcement is off".into());
            return status;
        }
        let features = match xdp_features(link.index) {
            Ok(features) => features,
            Err(error) => {
                status.trouble = Some(format!("the kernel does not tell what its driver can do: {error}"));
                return status;
            }
        };
        (status.native, status.zero_copy) = (features.native, features.zero_copy);
        status.trouble = match features.native {
            false => Some("its driver has no native XDP, and the generic mode would spare nothing".into()),
            true => self.loaded.attach(Hooks::Uplink, link.index).err().map(|error| error.to_string()),
        };
        status.runs = status.trouble.is_none() && xdp_features(link.index).is_ok_and(|features| features.runs_native);
        status
    }

    /// Takes the program off NICs that an earlier process had named, and this one does not.
    pub(super) fn forget_uplinks(&mut self, links: &[Link]) {
        for link in links.iter().filter(|link| !self.arguments.uplink.contains(&link.name)) {
            if self.loaded.attached(Hooks::Uplink, link.index) {
                info!(device = link.name, "no longer an uplink");
                self.loaded.detach(Hooks::Uplink, link.index);
            }
        }
    }
}
