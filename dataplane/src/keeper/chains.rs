//! Whether ours still stand first in their chains: a program in front sees packets before policy does, and may let them pass or
//! send them elsewhere. The kernel lets whoever comes later take the first place, so it is looked at now and then, and said.

use super::Keeper;
use crate::config::Direct;
use sluice_bpf::Hooks;
use sluice_wire::{Preceded, Straight};
use std::collections::{BTreeMap, BTreeSet};
use tracing::{info, warn};

/// Sysctls of connection tracking by which it takes TCP of which it has not seen everything: segments, resets, and what goes on after
/// a pause (that one is usually 1).
const LENIENT: [&str; 3] = ["nf_conntrack_tcp_be_liberal", "nf_conntrack_tcp_ignore_invalid_rst", "nf_conntrack_tcp_loose"];

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

    /// What the kernel's connection tracking is like: whether it knows who opened connections, and whether TCP may be brought, too. One
    /// that has not seen the middle of a connection takes the rest for invalid, and firewalls drop that; unless it is told not to.
    fn look_at_tracking(&mut self) {
        let may = |name: &str| match std::fs::read_to_string(self.arguments.proc_sys_net.join("netfilter").join(name)) {
            Ok(value) => value.trim() == "1",
            // nothing is tracked
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        };
        let straight = match self.arguments.direct {
            Direct::Off => Straight::Nothing,
            Direct::Udp => Straight::Udp,
            Direct::All if LENIENT.into_iter().all(may) => Straight::UdpAndTcp,
            Direct::All => Straight::UdpSinceTcpIsTracked,
        };
        // of nothing tracked it is not known whether anything would be
        let tracked = std::fs::read_to_string(self.arguments.proc_sys_net.join("netfilter/nf_conntrack_count"));
        self.loaded.set_tracked(tracked.is_ok_and(|count| count.trim().parse().is_ok_and(|count: u64| count > 0)));
        if straight != self.straight {
            match straight {
                Straight::UdpAndTcp => info!("established TCP goes straight from one pod's device to another's, too"),
                Straight::UdpSinceTcpIsTracked => {
                    info!("established TCP goes by the kernel: of net.netfilter {} not all are 1", LENIENT.join(", "));
                }
                Straight::Nothing | Straight::Udp => {}
            }
            self.straight = straight;
            self.loaded.set_direct_tcp(straight == Straight::UdpAndTcp);
        }
    }

    /// Which ports packets may be brought to and from directly: those at whose device nobody else looks at what leaves the pod. A
    /// limit or an observer there would see nothing of what was brought past it.
    pub(super) fn look_at_shortcuts(&mut self) {
        self.look_at_tracking();
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
