//! A whole node in memory: ports as the keeper registers them, the hooks of the kernel, the workers of the dataplane, and
//! the node's routing between them. No root, no clock, no threads: every packet is shown to a hook by hand, and time is an
//! argument.
//!
//! ```text
//!   leaves ─▶ hook ──pass──────────────────────────▶ Fate::Passed | Deferred | Dropped
//!   enters     └─punt─▶ far ─▶ Ring ─▶ Worker ─▶ near ─▶ the same hook, judged
//!   exits      what left deferred is asked about where it departs, for the pod that it left; then, where it enters a
//!              pod, for that one too
//! ```
//!
//! The hooks are [`sluice_dataplane::kernel::hooks`], the twin of the BPF programs; the workers are the very ones of the
//! dataplane. `leaves`, `enters` and [`Node::carry`] wait for the worker's answer; [`Node::offer`] and [`Node::serve`] do
//! not, so that a simulation can let a worker be late, or die with packets in its ring.

mod accounts;
mod packets;
mod ring;
mod route;

pub use accounts::{Accounts, Disagreement};
pub use ring::Ticket;
pub use route::{Journey, Route, destination};

use ring::Ring;
use sluice_dataplane::conntrack::{Connections, Timeouts};
use sluice_dataplane::kernel::{Attachment, Kernel, MemoryKernel, cleared};
use sluice_dataplane::worker::{Command, Established, Worker, WorkerConfig, WorkerShared};
use sluice_flow::limits::CONNECTIONS_PER_PORT_MAX;
use sluice_flow::{Addr, DropReason, LocalEndpoint, PortIndex};
use sluice_table::Table;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

/// The host's end of every pod's device.
pub const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];

const UPLINK_IFINDEX: u32 = 2;
const FIRST_TRUNK_IFINDEX: u32 = 100;
const FIRST_POD_IFINDEX: u32 = 1000;

/// What a node is made of.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Workers; ports are dealt out among them by index.
    pub workers: u16,
    /// What a swap does to connections that the new table forbids.
    pub established: Established,
    /// Idle times.
    pub timeouts: Timeouts,
    /// Room of the verdict cache.
    pub cache_entries_max: usize,
    /// Connections that one port may hold.
    pub connections_per_port_max: usize,
    /// Frames that wait for a worker before the next one is an overrun.
    pub receive_max: usize,
    /// Packets pass while no worker serves.
    pub fail_open: bool,
    /// Of the connections' hashers.
    pub seed: u64,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            workers: 1,
            established: Established::default(),
            timeouts: Timeouts::default(),
            cache_entries_max: usize::MAX,
            connections_per_port_max: CONNECTIONS_PER_PORT_MAX,
            receive_max: 2048,
            fail_open: false,
            seed: 1,
        }
    }
}

/// What became of a packet at one hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It went on.
    Passed(Vec<u8>),
    /// It went on, to be delivered to this node or judged where it departs.
    Deferred(Vec<u8>),
    /// It ended here, under this reason.
    Dropped(DropReason),
}

/// Where a packet comes from that enters a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A socket of this node.
    Node,
    /// The uplink.
    Uplink,
    /// A pod attached here.
    Pod {
        /// Its port.
        port: PortIndex,
        /// It left deferred: to a service, or to this node.
        deferred: bool,
    },
}

/// What a hook said at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offered {
    /// The packet's fate.
    Done(Fate),
    /// This worker was asked; [`Node::serve`] will tell.
    Asked(Ticket, u16),
}

/// A hook of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Of a pod's device, where packets leave the pod.
    Leaving(PortIndex),
    /// Of a pod's device, where packets enter the pod.
    Entering(PortIndex),
    /// Of the uplink.
    Exiting,
}

type MemoryWorker = Worker<Ring, Rc<MemoryKernel>>;

struct Slot {
    /// None: it died.
    worker: Option<MemoryWorker>,
    shared: Arc<WorkerShared>,
    /// Commands that its queue had no room for.
    backlog: VecDeque<Command>,
    /// Counted by those that died.
    retired_drops: [u64; 64],
    /// Adopted by the last that died.
    retired_generation: u64,
    overrun: u64,
}

struct Attached {
    endpoint: LocalEndpoint,
    mac: [u8; 6],
}

/// See the module's documentation.
pub struct Node {
    kernel: Rc<MemoryKernel>,
    config: NodeConfig,
    workers: Vec<Slot>,
    attached: BTreeMap<PortIndex, Attached>,
    /// The device behind each port; it outlives the registration.
    devices: BTreeMap<PortIndex, u32>,
    next_ifindex: u32,
    next_ticket: u64,
    table: Option<Arc<Table>>,
    node_addresses: Vec<Addr>,
    accounts: Accounts,
}

impl Node {
    /// A node without pods or table; its workers serve.
    pub fn new(config: NodeConfig) -> Self {
        let kernel = Rc::new(MemoryKernel::default());
        kernel.exits.borrow_mut().insert(UPLINK_IFINDEX);
        kernel.cache_entries_max.set(config.cache_entries_max);
        kernel.fail_open.set(config.fail_open);
        let mut node = Self {
            kernel,
            workers: Vec::new(),
            attached: BTreeMap::new(),
            devices: BTreeMap::new(),
            next_ifindex: FIRST_POD_IFINDEX,
            next_ticket: 0,
            table: None,
            node_addresses: Vec::new(),
            accounts: Accounts::default(),
            config,
        };
        for worker in 0..node.config.workers {
            let (worker, shared) = node.new_worker(worker);
            node.kernel.sockets.borrow_mut().insert(node.workers.len() as u32);
            node.workers.push(Slot {
                worker: Some(worker),
                shared,
                backlog: VecDeque::new(),
                retired_drops: [0; 64],
                retired_generation: 0,
                overrun: 0,
            });
        }
        node
    }

    fn new_worker(&self, worker: u16) -> (MemoryWorker, Arc<WorkerShared>) {
        self.kernel.openings.borrow_mut().entry(worker).or_default();
        let shared = Arc::new(WorkerShared::default());
        let config = WorkerConfig { worker, timeouts: self.config.timeouts, established: self.config.established, held_fragments_max: 0 };
        let connections = Connections::with_seed(self.config.seed).limited_to(self.config.connections_per_port_max);
        (Worker::new(config, Ring::new(self.config.receive_max), self.kernel.clone(), connections, shared.clone()), shared)
    }

    /// What the next worker is started with.
    pub fn config(&self) -> &NodeConfig {
        &self.config
    }

    /// The same, to change.
    pub fn config_mut(&mut self) -> &mut NodeConfig {
        &mut self.config
    }

    /// The generation that a worker judges by; that of a dead one stays in force in the hooks.
    pub fn generation(&self, worker: u16) -> u64 {
        self.workers[usize::from(worker)].shared.generation().max(self.workers[usize::from(worker)].retired_generation)
    }

    /// Packets that wait for a worker, or would if it served.
    pub fn waiting_for(&self, worker: u16) -> usize {
        self.workers[usize::from(worker)].worker.as_ref().map_or(0, |worker| worker.io.waiting().count())
    }

    /// The maps, to look into or to damage.
    pub fn kernel(&self) -> &MemoryKernel {
        &self.kernel
    }

    /// A living worker.
    pub fn worker(&self, worker: u16) -> Option<&Worker<impl sluice_dataplane::io::PacketIo + use<>, Rc<MemoryKernel>>> {
        self.workers.get(usize::from(worker))?.worker.as_ref()
    }

    /// Frames that one batch of a worker may send from now on.
    pub fn set_transmit_max(&mut self, worker: u16, frames: usize) {
        if let Some(worker) = &mut self.workers[usize::from(worker)].worker {
            worker.io.transmit_max = frames;
        }
    }

    /// Registers an attachment: its device is closed until a table that knows the pod is adopted.
    pub fn add_port(&mut self, endpoint: &LocalEndpoint, mac: [u8; 6]) {
        let index = usize::from(endpoint.port.0);
        let worker = self.owner(endpoint.port);
        let attachment = Attachment {
            endpoint,
            host_ifindex: self.next_ifindex,
            mac,
            gateway_mac: GATEWAY_MAC,
            worker,
            trunk_ifindex: FIRST_TRUNK_IFINDEX + u32::from(worker),
        };
        let slot = attachment.slot(&self.kernel.port(index));
        self.kernel.ports.borrow_mut()[index] = slot;
        self.kernel.reset_ration(index);
        self.kernel.port_of_ifindex.borrow_mut().insert(slot.ifindex, index as u32);
        self.devices.insert(endpoint.port, slot.ifindex);
        self.next_ifindex += 1;
        self.attached.insert(endpoint.port, Attached { endpoint: endpoint.clone(), mac });
    }

    /// Undoes everything about a port; the pod's device and its hooks stay until the pod is gone.
    pub fn remove_port(&mut self, port: PortIndex) {
        let index = usize::from(port.0);
        let slot = self.kernel.port(index);
        self.kernel.ports.borrow_mut()[index] = cleared(&slot);
        self.kernel.port_of_ifindex.borrow_mut().remove(&slot.ifindex);
        self.attached.remove(&port);
        self.command(self.owner(port), Command::ForgetPort(port));
    }

    /// Registered attachments, by port.
    pub fn endpoints(&self) -> Vec<LocalEndpoint> {
        self.attached.values().map(|attached| attached.endpoint.clone()).collect()
    }

    /// The worker that owns a port.
    pub fn owner(&self, port: PortIndex) -> u16 {
        port.0 % self.config.workers
    }

    /// Hands a table to every worker and lets each carry it out.
    pub fn adopt(&mut self, table: Arc<Table>, now_ns: u64) {
        self.hand_over(table);
        self.run_commands(now_ns);
    }

    /// Hands a table to every worker; each adopts it before the next batch that it serves.
    pub fn hand_over(&mut self, table: Arc<Table>) {
        self.table = Some(table.clone());
        for worker in 0..self.config.workers {
            self.command(worker, Command::Adopt(table.clone()));
        }
    }

    /// The addresses that are delivered to the node itself; the workers learn them at once.
    pub fn set_node_addresses(&mut self, addresses: &[Addr], now_ns: u64) {
        self.node_addresses = addresses.to_vec();
        *self.kernel.node_addresses.borrow_mut() = addresses.iter().copied().collect();
        for worker in 0..self.config.workers {
            self.command(worker, Command::NodeAddresses(addresses.to_vec()));
        }
        self.run_commands(now_ns);
    }

    /// Hands a command to a worker, in order, none lost: what its queue has no room for waits. For a dead one it is void: its
    /// successor is told everything anew.
    pub fn command(&mut self, worker: u16, command: Command) {
        let slot = &mut self.workers[usize::from(worker)];
        if slot.worker.is_some() {
            slot.backlog.push_back(command);
        }
    }

    /// Lets every living worker carry out what it was asked.
    pub fn run_commands(&mut self, now_ns: u64) {
        self.workers.iter_mut().for_each(|slot| slot.run_commands(now_ns));
    }

    /// A worker dies, and its socket with it. Returns the packets that waited in its ring: they are lost.
    pub fn stop_worker(&mut self, worker: u16) -> Vec<Ticket> {
        let slot = &mut self.workers[usize::from(worker)];
        let Some(dead) = slot.worker.take() else { return Vec::new() };
        slot.backlog.clear();
        for &reason in DropReason::ALL {
            slot.retired_drops[reason as usize] += slot.shared.drops(reason);
        }
        slot.retired_generation = slot.retired_generation.max(slot.shared.generation());
        slot.shared = Arc::default();
        slot.overrun = 0;
        self.kernel.sockets.borrow_mut().remove(&u32::from(worker));
        let lost: Vec<Ticket> = dead.io.waiting().collect();
        self.accounts.lost += lost.len() as u64;
        lost
    }

    /// A new worker takes over what the cache remembers, adopts the last table and serves. Returns what was lost with the
    /// old one, if that was still alive.
    pub fn restart_worker(&mut self, worker: u16, now_ns: u64) -> Vec<Ticket> {
        let lost = self.stop_worker(worker);
        self.kernel.open_ring(worker);
        let entries = self.kernel.cache_entries();
        let (mut new, shared) = self.new_worker(worker);
        let slot = &mut self.workers[usize::from(worker)];
        slot.shared = shared;
        slot.shared.commands.push(Command::NodeAddresses(self.node_addresses.clone())).expect("a new queue is empty");
        new.run_commands(now_ns);
        new.rebuild(&entries, now_ns);
        if let Some(table) = &self.table {
            new.adopt(table.clone());
        }
        slot.worker = Some(new);
        self.kernel.sockets.borrow_mut().insert(u32::from(worker));
        lost
    }

    /// Packets that wait for a worker.
    pub fn waiting(&self) -> usize {
        self.workers.iter().filter_map(|slot| slot.worker.as_ref()).map(|worker| worker.io.waiting().count()).sum()
    }
}

impl Slot {
    fn run_commands(&mut self, now_ns: u64) {
        let Some(worker) = &mut self.worker else { return };
        while let Some(command) = self.backlog.pop_front() {
            if let Err(command) = self.shared.commands.push(command) {
                self.backlog.push_front(command);
                worker.run_commands(now_ns);
            }
        }
        worker.run_commands(now_ns);
        // as a worker that has no packets does
        worker.approach(usize::MAX);
    }
}
