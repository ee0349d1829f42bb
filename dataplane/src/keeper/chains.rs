//! Whether ours still stand first in their chains: a program in front sees packets before policy does, and may let them pass or
//! send them elsewhere. The kernel lets whoever comes later take the first place, so it is looked at now and then, and said.

use super::Keeper;
use sluice_bpf::Hooks;
use sluice_wire::Preceded;
use std::collections::BTreeSet;
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
}
