//! The devices by which packets leave this node, or reach pods that nobody attached.
//!
//! A pod's packet to a service, or to an address of its node, leaves the pod before anybody knows where it will go. It is
//! judged where it departs, translated: at another pod's hook, or at one that stands on every other Ethernet device. By a
//! device without such a hook (a tunnel without Ethernet header, one that came this very moment) nothing deferred leaves: a
//! netfilter program drops it, under `exit_unjudged`.

use super::Keeper;
use crate::netlink::Link;
use sluice_bpf::Hooks;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use tracing::{info, warn};

/// What is known of a device that carries, or should carry, an exit hook.
#[derive(Debug, Default)]
pub(super) struct Exits {
    /// By index.
    devices: BTreeMap<u32, Exit>,
}

/// One of them.
#[derive(Debug)]
struct Exit {
    name: String,
    /// Why it has none.
    trouble: Option<String>,
}

impl Exits {
    /// Those that have their hook.
    pub(super) fn open(&self) -> impl Iterator<Item = (u32, &str)> {
        self.devices.iter().filter(|(_, exit)| exit.trouble.is_none()).map(|(ifindex, exit)| (*ifindex, &*exit.name))
    }
}

/// Whether packets could depart by a device, and be parsed there.
fn is_exit(link: &Link) -> bool {
    link.is_ethernet && !link.is_loopback
}

impl Keeper {
    /// Puts the hook on every device that needs one, takes it off those that became ports, and forgets those that are gone.
    pub(super) fn keep_exits(&mut self, links: &[Link], not_exits: &BTreeSet<u32>) {
        let closed: BTreeSet<u32> = self.found.devices.iter().filter(|(_, device)| device.closed).map(|(ifindex, _)| *ifindex).collect();
        let wanted: BTreeMap<u32, &Link> = links
            .iter()
            .filter(|link| self.deferring && is_exit(link) && !not_exits.contains(&link.index) && !closed.contains(&link.index))
            .map(|link| (link.index, link))
            .collect();
        let gone: Vec<u32> = self.exits.devices.keys().filter(|ifindex| !wanted.contains_key(ifindex)).copied().collect();
        for ifindex in gone {
            self.close_exit(ifindex);
        }
        for (ifindex, link) in wanted {
            let known = self.exits.devices.get_mut(&ifindex);
            if let Some(exit) = known.filter(|exit| exit.trouble.is_none()) {
                exit.name.clone_from(&link.name);
                // another device may have its number by now, or somebody took the hook off
                if self.loaded.attached(Hooks::Exit, ifindex) {
                    continue;
                }
                self.loaded.exits.remove(&ifindex);
            }
            let attached = self.loaded.attach(Hooks::Exit, ifindex).map_err(|error| error.to_string());
            // only now: what departs before is dropped, not passed
            let outcome = attached.and_then(|()| self.loaded.exits.put(&ifindex, &1).map_err(|error| error.to_string()));
            let known = self.exits.devices.get(&ifindex).and_then(|exit| exit.trouble.as_ref());
            match &outcome {
                Ok(()) => info!(device = link.name, "packets to services may depart here, judged"),
                Err(reason) if known != Some(reason) => {
                    warn!(device = link.name, reason, "no exit hook: packets to services that would depart here are dropped");
                }
                Err(_) => {}
            }
            self.exits.devices.insert(ifindex, Exit { name: link.name.clone(), trouble: outcome.err() });
        }
    }

    /// First its name among those that are judged, then the hook.
    fn close_exit(&mut self, ifindex: u32) {
        self.loaded.exits.remove(&ifindex);
        self.loaded.detach(Hooks::Exit, ifindex);
        self.exits.devices.remove(&ifindex);
    }

    /// Version 1 kept everything deferred on this node, by a rule of nftables.
    pub(super) fn lift_rule_of_version_1(&self) {
        if self.loaded.handover().is_some_and(|handover| handover.from.contains(&1)) {
            let outcome = Command::new("nft").args(["delete", "table", "inet", "sluice"]).output();
            if !outcome.as_ref().is_ok_and(|output| output.status.success()) {
                warn!(?outcome, "remove the nftables table inet sluice of an earlier version by hand: it drops packets to services");
            }
        }
    }

    /// An earlier process's exits whose devices are no longer such.
    pub(super) fn take_over_exits(&mut self) {
        let mut known = Vec::new();
        if let Err(reason) = self.loaded.exits.scan(|ifindex, _| known.push(*ifindex)) {
            warn!(%reason, "the exits of an earlier process cannot be read");
        }
        // the next survey looks at each, and takes those off that are none any more
        for ifindex in known {
            if self.loaded.attached(Hooks::Exit, ifindex) {
                self.exits.devices.insert(ifindex, Exit { name: String::new(), trouble: None });
            } else {
                self.loaded.exits.remove(&ifindex);
            }
        }
    }
}
