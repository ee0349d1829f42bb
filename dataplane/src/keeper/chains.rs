//! Whether ours still stand first in their chains: a program in front sees packets before policy does, and may let them pass or
//! send them elsewhere. The kernel lets whoever comes later take the first place, so it is looked at now and then, and said.

use super::Keeper;
use crate::config::Direct;
use sluice_bpf::Hooks;
use sluice_wire::Preceded;
use std::collections::{BTreeMap, BTreeSet};
use tracing::{info, warn};

impl Keeper {
    /// Looks at every hook on devices of pods and at every exit.
    pub(super) fn look_at_chains(&mut self) {
        if !self.enforcing {
            self.preceded.clear();
            return;
        }
        let pods = self.registry.iter().map(|port| (Hooks::Device, port.host_ifindex, port.host_ifname.clone()));
        let exits = self.exits.open().map(|(ifindex, name)| (Hooks::Exit, ifindex, name.to_owned()));
        let mut preceded = Vec::new();
        for (hooks, ifindex, device) in pods.chain(exits).collect::<Vec<_>>() {
            match self.loaded.in_front(hooks, ifindex) {
                Ok(programs) => preceded.extend(programs.into_iter().map(|program| Preceded { device: device.clone(), program })),
                // it may be gone by now, which the next survey finds
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => warn!(%error, device, "its chain of programs cannot be read"),
            }
        }
        let known: BTreeSet<&Preceded> = self.preceded.iter().collect();
        for found in preceded.iter().filter(|found| !known.contains(found)) {
            let (device, program) = (&found.device, found.program);
            warn!(
                device,
                program, "a program stands in front of ours: it sees packets before policy does (bpftool prog show id {program})"
            );
        }
        if preceded.is_empty() && !self.preceded.is_empty() {
            info!("our programs are first in their chains again");
        }
        self.preceded = preceded;
    }

    /// Which ports packets may be brought to and from directly: those at whose device nobody else looks at what leaves the pod. A
    /// limit or an observer there would see nothing of what was brought past it.
    pub(super) fn look_at_shortcuts(&mut self) {
        if self.arguments.direct == Direct::Off {
            return;
        }
        let (links, filtered) = match (self.netlink.links(), self.netlink.filtered()) {
            (Ok(links), Ok(filtered)) => (links, filtered),
            (Err(error), _) | (_, Err(error)) => {
                warn!(%error, "devices and their filters cannot be listed: everything goes by the kernel");
                (Vec::new(), BTreeSet::new())
            }
        };
        let mtus: BTreeMap<u32, u32> = links.iter().map(|link| (link.index, link.mtu)).collect();
        for port in self.registry.iter() {
            let (index, ifindex) = (usize::from(port.endpoint.port.0), port.host_ifindex);
            let is_last = !filtered.contains(&ifindex) && self.loaded.is_last_to_see_leaving(ifindex).unwrap_or(false);
            let mtu = mtus.get(&ifindex).filter(|_| is_last && self.enforcing).map_or(0, |mtu| u16::try_from(*mtu).unwrap_or(u16::MAX));
            let slot = self.loaded.ports.read(index);
            if slot.ifindex == ifindex && slot.direct_mtu != mtu {
                self.loaded.set_direct_mtu(index, mtu);
            }
        }
    }
}
