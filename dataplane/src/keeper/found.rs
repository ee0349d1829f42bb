//! What the kernel shows without being told: ports whose devices are gone, and pods that nobody told of.
//!
//! ```text
//!   links, routes ─▶ survey ─┬▶ a port's device is gone, or another one by now ─▶ the port is freed
//!                            └▶ a pod's veth (veth.rs) that no port owns ─▶ --existing-pods
//!                                 close      hooks on, no port behind them: they drop everything (`no_port`)
//!                                 unmanaged  no hooks; shown
//!                                 adopt      closed, until control proves who it is; then a port like any other
//! ```
//!
//! A pod that is just being attached is found too, before its ADD: closing it then is what ADD does first anyway. Nobody is
//! asked who it is before it has lingered, since its address may be one that an ended pod's object still shows. What the runtime
//! spoke of last, by DEL or by an ADD that failed, stays closed under every choice and is never adopted.

use super::Keeper;
use super::registry::Registered;
use crate::config::ExistingPods;
use crate::netlink::{Link, LinkEvents, Netlink};
use crate::veth::{Fingerprint, PodEnd, PodVeth, is_candidate, is_same, pod_end, pod_veths};
use anyhow::{Context, Result};
use rustix::time::{ClockId, Timespec, clock_gettime};
use sluice_bpf::Hooks;
use sluice_wire::FoundState;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};
use tracing::warn;

/// Whatever was missed is seen after so long.
const SURVEY_EVERY: Duration = Duration::from_secs(1);
/// Between two surveys at least.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// And so many times what the last one cost this thread, however many routes a router learns.
const PAUSE_SHARE: u32 = 4;
/// A device that is found for so long is not just being attached.
const LINGERS_AFTER: Duration = Duration::from_secs(3);

/// Everything found.
#[derive(Debug)]
pub(super) struct Found {
    events: LinkEvents,
    pub(super) devices: BTreeMap<u32, Device>,
    /// Devices that the runtime spoke of last, and not by an ADD that succeeded.
    pub(super) spoken_for: BTreeMap<u32, Fingerprint>,
    /// Those that control was asked about, with their addresses.
    pub(super) asked: BTreeMap<u32, Vec<IpAddr>>,
    changed: bool,
    last: Option<Instant>,
    /// No survey has been finished yet.
    is_first: bool,
    pause: Duration,
}

/// A pod's device that no port owns.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) veth: PodVeth,
    fingerprint: Fingerprint,
    pub(super) end: Option<PodEnd>,
    pub(super) closed: bool,
    /// Why it is not as it should be, or is nobody's.
    pub(super) trouble: Option<String>,
    since: Instant,
    /// Already when this process began.
    is_old: bool,
    is_told: bool,
}

impl Found {
    pub(super) fn new() -> Result<Self> {
        let events = LinkEvents::open().context("listen to changes of links and routes")?;
        let (devices, spoken_for, asked) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Ok(Self { events, devices, spoken_for, asked, changed: true, last: None, is_first: true, pause: PAUSE_MIN })
    }

    pub(super) fn events(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// How long to wait at most when nothing else happens.
    pub(super) fn patience(&self, otherwise: Timespec) -> Timespec {
        let pause = self.pause.min(SURVEY_EVERY / 10);
        if self.changed { Timespec { tv_sec: 0, tv_nsec: pause.as_nanos() as i64 } } else { otherwise }
    }

    pub(super) fn count(&self, state: FoundState) -> u64 {
        self.devices.values().filter(|device| device.state() == state).count() as u64
    }

    /// The runtime spoke of this device.
    pub(super) fn speak_for(&mut self, ifindex: u32, fingerprint: Fingerprint) {
        self.spoken_for.insert(ifindex, fingerprint);
        self.changed = true;
    }

    /// A port was made of this device.
    pub(super) fn is_port_now(&mut self, ifindex: u32) {
        self.devices.remove(&ifindex);
        self.spoken_for.remove(&ifindex);
        self.changed = true;
    }

    /// A control process came that was asked nothing yet.
    pub(super) fn ask_anew(&mut self) {
        self.asked.clear();
        self.changed = true;
    }

    fn is_due(&mut self) -> bool {
        self.changed |= self.events.take();
        let age = self.last.map(|last| last.elapsed());
        age.is_none_or(|age| age >= SURVEY_EVERY || (self.changed && age >= self.pause))
    }

    /// Forgets devices that are gone, are others by now, or became ports.
    fn keep_only(&mut self, there: &BTreeMap<u32, &Link>, registered: &BTreeSet<u32>) {
        // not by the host's MAC address, which udev may set anew a moment after the device was made
        let stays = |ifindex: &u32, fingerprint: &Fingerprint| {
            there.get(ifindex).is_some_and(|link| fingerprint.fits(link)) && !registered.contains(ifindex)
        };
        self.devices.retain(|ifindex, device| stays(ifindex, &device.fingerprint));
        self.spoken_for.retain(|ifindex, fingerprint| stays(ifindex, fingerprint));
    }
}

impl Device {
    pub(super) fn state(&self) -> FoundState {
        if self.closed { FoundState::Closed } else { FoundState::Unmanaged }
    }

    /// Whether it is not just being attached.
    pub(super) fn lingers(&self) -> bool {
        self.is_old || self.since.elapsed() >= LINGERS_AFTER
    }
}

/// What this thread has had of a CPU: on a busy machine, waiting for one is no reason to wait again.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// `link` if it is the device that the port was made for.
pub(super) fn still_there(netlink: &mut Netlink, port: &Registered, link: Option<Link>) -> io::Result<Option<Link>> {
    let Some(link) = link else { return Ok(None) };
    let same = is_same(netlink, &port.fingerprint(), port.mac, &link)?;
    Ok(same.then_some(link))
}

impl Keeper {
    /// A survey, if something changed or the last one is too long ago. A failure is said, and tried again.
    pub(super) fn look_around(&mut self) {
        if !self.found.is_due() {
            return;
        }
        let start = thread_time();
        if let Err(error) = self.survey() {
            warn!(error = format!("{error:#}"), "the node's devices could not be surveyed");
        }
        self.found.pause = PAUSE_MIN.max(thread_time().saturating_sub(start) * PAUSE_SHARE);
    }

    /// See the module.
    pub(super) fn survey(&mut self) -> Result<()> {
        (self.found.changed, self.found.last) = (false, Some(Instant::now()));
        let links = self.netlink.links().context("list links")?;
        let there: BTreeMap<u32, &Link> = links.iter().map(|link| (link.index, link)).collect();
        self.free_ports_without_device(&there)?;
        let registered: BTreeSet<u32> = self.registry.iter().map(|port| port.host_ifindex).collect();
        self.found.keep_only(&there, &registered);
        let trunks = self.trunks.iter().map(|trunk| trunk.near_ifindex);
        let not_pods: BTreeSet<u32> = registered.iter().copied().chain(trunks).collect();
        if links.iter().any(|link| is_candidate(link) && !not_pods.contains(&link.index)) {
            let routes = self.netlink.routes().context("list routes")?;
            let own: BTreeSet<IpAddr> = self.netlink.addresses().context("list addresses")?.into_iter().collect();
            for veth in pod_veths(&links, &routes, &own, &not_pods) {
                self.meet(veth);
            }
        }
        self.keep_exits(&links, &not_pods);
        if self.found.is_first {
            self.forget_uplinks(&links);
        }
        self.keep_uplinks(&links);
        self.found.is_first = false;
        self.write_down_closed();
        self.tell_of_lingering();
        self.ask_control();
        Ok(())
    }

    /// A device can go without a DEL, with its sandbox's namespace; its index can come back on another one.
    fn free_ports_without_device(&mut self, there: &BTreeMap<u32, &Link>) -> Result<()> {
        let at_first_sight = |port: &Registered| {
            let link = there.get(&port.host_ifindex);
            link.is_some_and(|link| port.fingerprint().fits(link) && link.mac == Some(port.gateway_mac))
        };
        let doubtful: Vec<Registered> = self.registry.iter().filter(|port| !at_first_sight(port)).cloned().collect();
        for port in doubtful {
            // a list may be torn by changes; one question is not
            let link = self.netlink.link_by_index(port.host_ifindex)?;
            if still_there(&mut self.netlink, &port, link)?.is_none() {
                warn!(pod = %port.endpoint.pod, device = port.host_ifname, "its device is gone without a DEL: the port is freed");
                self.forget(&port);
            }
        }
        Ok(())
    }

    /// A pod's device that no port owns, for the first time or again.
    fn meet(&mut self, veth: PodVeth) {
        let ifindex = veth.link.index;
        let Some(fingerprint) = Fingerprint::of(&veth.link) else { return };
        let known = self.found.devices.remove(&ifindex);
        let end = known.as_ref().and_then(|device| device.end.clone()).or_else(|| {
            let asked = pod_end(&mut self.netlink, &veth);
            asked.inspect_err(|error| warn!(%error, device = veth.link.name, "the kernel does not tell of a pod's end")).ok().flatten()
        });
        let mut device = match known {
            // what was said of other addresses does not hold for these
            Some(device) if device.veth.addresses != veth.addresses => Device { veth, end, trouble: None, ..device },
            Some(device) => Device { veth, end, ..device },
            None => {
                let closed = self.was_closed(&veth.link, fingerprint);
                let is_old = self.found.is_first;
                Device { veth, fingerprint, end, closed, trouble: None, since: Instant::now(), is_old, is_told: false }
            }
        };
        let should_close = self.arguments.existing_pods != ExistingPods::Unmanaged || self.found.spoken_for.contains_key(&ifindex);
        if should_close && self.enforcing && !device.closed {
            match self.loaded.attach(Hooks::Device, ifindex) {
                Ok(()) => (device.closed, device.trouble) = (true, None),
                Err(error) => device.trouble = Some(format!("cannot be closed: {error}")),
            }
        }
        self.found.devices.insert(ifindex, device);
    }

    /// Whether hooks are on a device that this process has not seen before. Those that an earlier process put there because
    /// the pod was found are taken off where that is not the choice any more; those of a runtime's failed ADD stay.
    fn was_closed(&mut self, link: &Link, fingerprint: Fingerprint) -> bool {
        let ifindex = link.index;
        if !self.loaded.attached(Hooks::Device, ifindex) {
            return false;
        }
        let by_choice = self.registry.closed().get(&ifindex).is_some_and(|closed| closed.fits(link));
        match self.arguments.existing_pods {
            ExistingPods::Unmanaged if by_choice => {
                self.loaded.detach(Hooks::Device, ifindex);
                return false;
            }
            // the run directory is lost, and with it who it was: to be adopted, if control can prove that
            ExistingPods::Close | ExistingPods::Adopt if by_choice || self.registry.is_new() => {}
            _ => drop(self.found.spoken_for.insert(ifindex, fingerprint)),
        }
        true
    }

    fn write_down_closed(&mut self) {
        let by_choice = self.found.devices.iter().filter(|(ifindex, device)| device.closed && !self.found.spoken_for.contains_key(ifindex));
        let closed = by_choice.map(|(ifindex, device)| (*ifindex, device.fingerprint)).collect();
        self.registry.set_closed(closed);
    }

    fn tell_of_lingering(&mut self) {
        for device in self.found.devices.values_mut().filter(|device| !device.is_told && device.lingers()) {
            device.is_told = true;
            let (name, addresses) = (&device.veth.link.name, &device.veth.addresses);
            match device.closed {
                true => warn!(device = name, ?addresses, "a pod that nobody told of is closed: see --existing-pods"),
                false => warn!(device = name, ?addresses, "a pod that nobody told of is UNMANAGED: no policy holds for it"),
            }
        }
    }

    /// With enforcement off, nothing is closed either.
    pub(super) fn enforce_on_found(&mut self, on: bool) -> Result<()> {
        if !on {
            for (ifindex, device) in self.found.devices.iter_mut().filter(|(_, device)| device.closed) {
                self.loaded.detach(Hooks::Device, *ifindex);
                device.closed = false;
            }
        }
        self.survey()
    }
}
