//! The keeper: one thread for everything that is not a packet.
//!
//! ```text
//!   RUN/dataplane.sock ── requests.rs ──▶ ports (registry.rs), tables (adoption.rs)
//!   the workers' bell  ── adoption.rs ──▶ acknowledgements, waiting ADDs
//!   every few seconds  ── expiry.rs   ──▶ idle connections
//!   links and routes   ── found.rs    ──▶ devices that are gone, pods that nobody told of
//!                         exits.rs    ──▶ devices by which packets leave the node
//!   every few seconds  ── chains.rs   ──▶ programs that came in front of ours
//! ```
//!
//! A table is validated here, once, and handed to every worker; it is in force when all live workers have acknowledged
//! it. The last good image is kept on tmpfs, so a restarted dataplane enforces before control is there.

mod adoption;
mod balance;
mod chains;
mod control_dir;
mod exits;
mod expiry;
mod found;
mod identity;
mod registry;
mod requests;
mod rules;
mod status;
mod storage;
mod uplinks;

use crate::config::{Arguments, Offload};
use crate::kernel::BpfKernel;
use crate::netlink::Netlink;
use crate::privileges;
use crate::trunk::{self, FarNamespace, Trunk};
use crate::worker::thread::{Handle, Start, bell, now_ns, silence, spawn};
use crate::worker::{Command, WorkerConfig};
use adoption::{Image, PendingAdoption};
use anyhow::{Context, Result, bail};
use balance::Move;
use exits::Exits;
use found::Found;
use registry::{Registered, Registry};
use requests::{Client, WaitingAdd};
use rules::Cuts;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use sluice_bpf::{Hooks, LoadOptions, Loaded};
use sluice_flow::limits;
use sluice_flow::{Addr, PortIndex};
use sluice_wire::{DATAPLANE_SOCKET, Listener, Preceded, Straight, UplinkStatus};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use storage::Storage;
use tracing::{info, warn};

const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
const NODE_ADDRESSES_EVERY: Duration = Duration::from_secs(1);
/// A worker that has not said a word for so long is outside the quorum.
const HEARTBEAT_MAX_NS: u64 = 2_000_000_000;

/// The keeper's state.
pub struct Keeper {
    arguments: Arguments,
    loaded: Arc<Loaded>,
    trunks: Vec<Trunk>,
    workers: Vec<Handle>,
    /// Commands that a worker's queue had no room for, in order.
    backlog: Vec<VecDeque<Command>>,
    /// The newest generation handed to each worker.
    told: Vec<u64>,
    storage: Storage,
    registry: Registry,
    listener: Listener,
    clients: BTreeMap<u64, Client>,
    next_client: u64,
    control: Option<u64>,
    image: Option<Image>,
    adopting: Option<PendingAdoption>,
    /// The last image's bytes, of which the next one takes the room.
    buffer: Vec<u8>,
    last_refused: Option<String>,
    adds: Vec<WaitingAdd>,
    node_addresses: Vec<Addr>,
    netlink: Netlink,
    bell: OwnedFd,
    started: Instant,
    cache_entries: u64,
    /// False while somebody took the hooks off.
    enforcing: bool,
    /// Hooks are on pods, all of them or some: what they defer must be judged somewhere.
    deferring: bool,
    next_scan: Instant,
    next_addresses: Instant,
    found: Found,
    exits: Exits,
    cuts: Cuts,
    /// A port between two workers.
    moving: Option<Move>,
    /// What became of the NICs that were named.
    uplinks: Vec<UplinkStatus>,
    /// What may go straight from pod to pod.
    straight: Straight,
    /// Hooks of ours that are not first in their chain.
    preceded: Vec<Preceded>,
    /// Held as long as the process lives.
    _lock: File,
}

/// One dataplane for each run directory.
fn lock(arguments: &Arguments) -> Result<File> {
    let path = arguments.run_dir.join("dataplane.lock");
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(_) => bail!("another sluice-dataplane serves {}; stop it first, or choose another --run-dir", arguments.run_dir.display()),
    }
}

impl Keeper {
    /// Sets everything up: programs, trunks, ports of an earlier process, workers. Policy is in force when it returns.
    ///
    /// # Errors
    /// With the reason for people; what was in the kernel before stays there.
    pub fn start(arguments: Arguments) -> Result<Self> {
        privileges::check()?;
        std::fs::create_dir_all(&arguments.run_dir).with_context(|| format!("create {}", arguments.run_dir.display()))?;
        let lock = lock(&arguments)?;
        let storage = Storage::new(&arguments.run_dir);
        let registry = Registry::load(storage.clone())?;
        let loaded = Arc::new(Loaded::new(&LoadOptions {
            bpf_dir: arguments.bpf_dir.clone(),
            cache_entries: limits::CACHE_ENTRIES_MAX as u32,
            denial_entries: limits::DENIALS_MAX as u32,
            origin_entries: limits::ORIGINS_MAX as u32,
            fail_open: arguments.fail_open,
            every_packet: arguments.offload == Offload::Off,
            new_flows_per_second: std::num::NonZeroU32::new(arguments.new_flows_per_second),
        })?);
        let far = FarNamespace::open(&arguments.run_dir)?;
        let trunks = set_up_trunks(&arguments, &loaded, &far)?;
        let mut netlink = Netlink::open()?;
        let node_addresses = netlink.addresses()?.into_iter().map(Addr::from).collect();
        let listener = Listener::bind(&arguments.run_dir.join(DATAPLANE_SOCKET))?;
        listener.set_nonblocking(true)?;
        control_dir::hand_over(&arguments.run_dir, arguments.control_user)?;
        let registry = registry.above(&loaded.ports);
        let image = adoption::last_image(&storage, registry.is_new());
        let now = Instant::now();
        let mut keeper = Self {
            arguments,
            loaded,
            trunks,
            workers: Vec::new(),
            backlog: Vec::new(),
            told: Vec::new(),
            storage,
            registry,
            listener,
            clients: BTreeMap::new(),
            next_client: 0,
            control: None,
            image,
            adopting: None,
            buffer: Vec::new(),
            last_refused: None,
            adds: Vec::new(),
            node_addresses,
            netlink,
            bell: bell()?,
            started: now,
            cache_entries: 0,
            enforcing: true,
            deferring: true,
            next_scan: now,
            next_addresses: now,
            found: Found::new()?,
            exits: Exits::default(),
            cuts: Cuts::default(),
            moving: None,
            uplinks: Vec::new(),
            straight: Straight::Nothing,
            preceded: Vec::new(),
            _lock: lock,
        };
        keeper.take_over_ports()?;
        keeper.take_over_exits();
        keeper.lift_rule_of_version_1();
        keeper.start_workers(&far)?;
        keeper.survey()?;
        privileges::keep_only(&privileges::KEEPER)?;
        info!(
            workers = keeper.workers.len(),
            ports = keeper.registry.iter().count(),
            generation = keeper.generation(),
            abi_version = sluice_bpf::ABI_VERSION,
            taken_over = keeper.loaded.handover().map(tracing::field::display),
            start_us = keeper.started.elapsed().as_micros() as u64,
            "dataplane serves"
        );
        Ok(keeper)
    }

    /// The generation in force, 0 for none.
    fn generation(&self) -> u64 {
        self.image.as_ref().map_or(0, |image| image.table.generation())
    }

    /// Ports of an earlier process: those whose device is gone, or is another one by now, are forgotten; the others get hooks
    /// and trunk.
    fn take_over_ports(&mut self) -> Result<()> {
        let workers = self.trunks.len() as u32;
        let mut gone = Vec::new();
        for port in self.registry.iter_mut() {
            let link = self.netlink.link_by_index(port.host_ifindex)?;
            let Some(link) = found::still_there(&mut self.netlink, port, link)? else {
                gone.push(port.endpoint.port);
                continue;
            };
            // the device is the same under another name
            port.host_ifname = link.name;
            let index = usize::from(port.endpoint.port.0);
            if port.worker >= workers {
                port.worker = u32::from(port.endpoint.port.0) % workers;
            }
            let trunk_ifindex = self.trunks[port.worker as usize].near_ifindex;
            let slot = self.loaded.ports.read(index);
            if slot.ifindex == port.host_ifindex && slot.incarnation == port.endpoint.incarnation.0 {
                // verdicts in the cache stay in force; what another version's layout had no room for is filled in
                let sluice_bpf::abi::Port { epoch, deny_epoch, state, .. } = slot;
                let taken_over = sluice_bpf::abi::Port { epoch, deny_epoch, state, ..port.slot(trunk_ifindex, &slot) };
                if taken_over != slot {
                    self.loaded.ports.write(index, taken_over);
                }
            } else {
                self.loaded.ports.write(index, port.slot(trunk_ifindex, &slot));
            }
            self.loaded.port_of_ifindex.put(&port.host_ifindex, &u32::from(port.endpoint.port.0))?;
            self.loaded.attach(Hooks::Device, port.host_ifindex)?;
        }
        for port in self.registry.iter() {
            self.note_addresses(port)?;
        }
        for port in gone {
            warn!(port = port.0, "the device of a registered port is gone: forgotten");
            self.clear_slot(port);
            self.registry.remove(port);
        }
        for index in 0..limits::PORTS_MAX as u16 {
            if self.registry.by_port(PortIndex(index)).is_none() && self.loaded.ports.read(usize::from(index)).ifindex != 0 {
                self.clear_slot(PortIndex(index));
            }
        }
        // an earlier process may have died between two steps
        let registered: BTreeSet<u32> = self.registry.iter().map(|port| port.host_ifindex).collect();
        let mut stale = Vec::new();
        self.loaded.port_of_ifindex.scan(|ifindex, _| stale.extend((!registered.contains(ifindex)).then_some(*ifindex)))?;
        for ifindex in &stale {
            self.loaded.port_of_ifindex.remove(ifindex);
        }
        Ok(())
    }

    /// Frees a slot: nothing in the cache matches it any more. The hooks stay on the device as long as it lives, and drop:
    /// a pod that is not registered must not speak.
    fn clear_slot(&mut self, port: PortIndex) {
        let index = usize::from(port.0);
        let slot = self.loaded.ports.read(index);
        self.loaded.ports.write(index, crate::kernel::cleared(&slot));
        self.loaded.port_of_ifindex.remove(&slot.ifindex);
        let mut addresses = Vec::new();
        // where it cannot be read, what stays names a slot that is free
        let _ = self.loaded.port_of_address.scan(|address, owner| addresses.extend((*owner == u32::from(port.0)).then_some(*address)));
        for address in addresses {
            self.loaded.port_of_address.remove(&address);
        }
    }

    /// Tells the programs on NICs whose a port's addresses are.
    fn note_addresses(&self, port: &Registered) -> Result<()> {
        for address in &port.endpoint.addresses {
            self.loaded.port_of_address.put(&Addr::from(*address).0, &u32::from(port.endpoint.port.0))?;
        }
        Ok(())
    }

    fn start_workers(&mut self, far: &FarNamespace) -> Result<()> {
        self.loaded.open_rings(self.trunks.len() as u32).context("make the workers' rings")?;
        let mut entries = Vec::new();
        self.loaded.cache.scan(|key, value| entries.push((*key, *value)))?;
        let entries = Arc::new(entries);
        let (ready, answers) = std::sync::mpsc::channel();
        for trunk in &self.trunks {
            let config = WorkerConfig {
                worker: trunk.worker as u16,
                timeouts: self.arguments.timeouts(),
                established: self.arguments.established(),
                ..WorkerConfig::default()
            };
            let wait = self.arguments.wait;
            let cpus = &self.arguments.cpus;
            let handle = spawn(Start {
                config,
                wait,
                cpu: (!cpus.is_empty()).then(|| cpus[trunk.worker as usize % cpus.len()]),
                interface: trunk.far.clone(),
                far_namespace: far.fd().try_clone_to_owned()?,
                kernel: BpfKernel(self.loaded.clone()),
                entries: entries.clone(),
                table: self.image.as_ref().map(|image| image.table.clone()),
                node_addresses: self.node_addresses.clone(),
                keeper_bell: self.bell.try_clone()?,
                ready: ready.clone(),
            })?;
            self.workers.push(handle);
            self.told.push(self.generation());
            self.backlog.push(VecDeque::new());
        }
        drop(ready);
        for answer in answers {
            answer.context("start a worker")?;
        }
        Ok(())
    }

    /// Serves until `stop` is set. Programs, maps and trunks stay.
    pub fn run(mut self, stop: &AtomicBool) -> Result<()> {
        // Relaxed: the signal handler only sets it, and the tick bounds the delay
        while !stop.load(Ordering::Relaxed) {
            let ready = self.wait()?;
            silence(&self.bell);
            self.accept()?;
            for client in ready {
                self.serve_client(client);
            }
            self.progress();
            self.rebalance();
            self.note_cuts();
            self.look_around();
            let now = Instant::now();
            if now >= self.next_addresses {
                self.refresh_node_addresses();
                self.next_addresses = now + NODE_ADDRESSES_EVERY;
            }
            if now >= self.next_scan {
                self.expire_idle();
                self.look_at_chains();
                self.look_at_shortcuts();
                self.keep_again();
                self.next_scan = now + Duration::from_secs(self.arguments.scan_interval);
            }
        }
        for worker in &mut self.workers {
            // Relaxed: the bell follows
            worker.shared.stop.store(true, Ordering::Relaxed);
            worker.ring();
            if let Some(thread) = worker.thread.take() {
                let _ = thread.join();
            }
        }
        info!("dataplane stopped; established flows go on in the kernel, new ones wait");
        Ok(())
    }

    /// Waits for something to do; returns the clients that have something to say.
    fn wait(&self) -> Result<Vec<u64>> {
        let mut fds = vec![
            PollFd::new(&self.listener, PollFlags::IN),
            PollFd::new(&self.bell, PollFlags::IN),
            PollFd::from_borrowed_fd(self.found.events(), PollFlags::IN),
        ];
        let others = fds.len();
        let keys: Vec<u64> = self.clients.keys().copied().collect();
        fds.extend(keys.iter().map(|key| PollFd::from_borrowed_fd(self.clients[key].connection.as_fd(), PollFlags::IN)));
        match poll(&mut fds, Some(&self.found.patience(TICK))) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("wait for requests"),
        }
        let speaking = fds[others..].iter().zip(&keys).filter(|(fd, _)| !fd.revents().is_empty());
        Ok(speaking.map(|(_, key)| *key).collect())
    }

    /// Tells the workers which addresses are this node's. Each attachment may bring its gateway address.
    fn refresh_node_addresses(&mut self) {
        let Ok(addresses) = self.netlink.addresses() else { return };
        let addresses: Vec<Addr> = addresses.into_iter().map(Addr::from).collect();
        if addresses != self.node_addresses {
            self.node_addresses = addresses;
            for worker in 0..self.workers.len() {
                self.command(worker, Command::NodeAddresses(self.node_addresses.clone()));
            }
        }
    }

    /// Hands a command to a worker, in order, none lost: what its queue has no room for waits here.
    fn command(&mut self, worker: usize, command: Command) {
        self.backlog[worker].push_back(command);
        self.flush_commands();
    }

    fn flush_commands(&mut self) {
        for (handle, backlog) in self.workers.iter().zip(&mut self.backlog) {
            while let Some(command) = backlog.pop_front() {
                let refused = handle.shared.commands.push(command).err();
                handle.ring();
                if let Some(command) = refused {
                    backlog.push_front(command);
                    break;
                }
            }
        }
    }

    fn is_alive(&self, worker: &Handle) -> bool {
        now_ns().saturating_sub(worker.shared.heartbeat_ns()) < HEARTBEAT_MAX_NS
    }
}

fn set_up_trunks(arguments: &Arguments, loaded: &Loaded, far: &FarNamespace) -> Result<Vec<Trunk>> {
    let trunks = (0..arguments.workers).map(|worker| trunk::ensure(worker, far, &arguments.proc_sys_net)).collect::<Result<Vec<_>>>()?;
    let mut stale = Vec::new();
    let current = |ifindex: &u32| trunks.iter().any(|trunk| trunk.far_ifindex == *ifindex);
    loaded.worker_of_trunk.scan(|ifindex, _| stale.extend((!current(ifindex)).then_some(*ifindex)))?;
    for ifindex in &stale {
        loaded.worker_of_trunk.remove(ifindex);
    }
    for trunk in &trunks {
        let worker = trunk.worker;
        loaded.worker_of_trunk.put(&trunk.far_ifindex, &worker)?;
        if !loaded.attached(Hooks::Near(worker), trunk.near_ifindex) {
            loaded.attach(Hooks::Near(worker), trunk.near_ifindex)?;
        }
        if !loaded.attached(Hooks::Far(worker), trunk.far_ifindex) {
            crate::netlink::inside(far.fd(), || loaded.attach(Hooks::Far(worker), trunk.far_ifindex).map_err(std::io::Error::other))
                .with_context(|| format!("attach to {}", trunk.far))?;
        }
    }
    trunk::remove_from(arguments.workers)?;
    Ok(trunks)
}

/// Takes everything off this node: links, maps, trunks, state.
pub fn remove(arguments: &Arguments) -> Result<()> {
    let _lock = if arguments.run_dir.exists() { Some(lock(arguments)?) } else { None };
    for version in std::fs::read_dir(&arguments.bpf_dir).into_iter().flatten().flatten() {
        for part in ["links", "maps"] {
            for pin in std::fs::read_dir(version.path().join(part)).into_iter().flatten().flatten() {
                std::fs::remove_file(pin.path()).with_context(|| format!("unpin {}", pin.path().display()))?;
            }
            let _ = std::fs::remove_dir(version.path().join(part));
        }
        let _ = std::fs::remove_dir(version.path());
    }
    let _ = std::fs::remove_dir(&arguments.bpf_dir);
    trunk::remove_from(0)?;
    FarNamespace::remove(&arguments.run_dir);
    for file in storage::FILES.into_iter().chain(["dataplane.lock", DATAPLANE_SOCKET]) {
        let _ = std::fs::remove_file(arguments.run_dir.join(file));
    }
    control_dir::remove(&arguments.run_dir);
    let _ = std::fs::remove_dir(&arguments.run_dir);
    info!("removed; traffic passes unjudged");
    Ok(())
}
