//! A whole node in memory: ports as the keeper registers them, the hooks of the kernel, the workers of the dataplane, and
//! the node's routing between them. No root, no clock, no threads: every packet is shown to a hook by hand, and time is an
//! argument.
//!
//! ```text
//!   leaves ─▶ hook ──pass──────────────────────────▶ Fate::Passed | Deferred | Dropped
//!   enters     └─punt─▶ far ─▶ Ring ─▶ Worker ─▶ near ─▶ the same hook, judged
//! ```
//!
//! The hooks are [`sluice_dataplane::kernel::hooks`], the twin of the BPF programs; the workers are the very ones of the
//! dataplane. `leaves`, `enters` and [`Node::carry`] wait for the worker's answer; [`Node::offer`] and [`Node::serve`] do
//! not, so that a simulation can let a worker be late, or die with packets in its ring.

mod accounts;
mod ring;
mod route;

pub use accounts::{Accounts, Disagreement};
pub use ring::Ticket;
pub use route::{Journey, Route, destination};

use ring::Ring;
use sluice_bpf::abi::MARK_DEFERRED;
use sluice_dataplane::conntrack::{Connections, Timeouts};
use sluice_dataplane::kernel::hooks::{Action, Far, Near, Skb};
use sluice_dataplane::kernel::{Attachment, Kernel, MemoryKernel, cleared};
use sluice_dataplane::worker::{Command, Established, Worker, WorkerConfig, WorkerShared};
use sluice_flow::{Addr, Direction, DropReason, LocalEndpoint, PortIndex};
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
    /// It went on, for delivery to this node only.
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
        /// It left as a packet to this node only.
        deferred: bool,
    },
}

/// What a hook said at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offered {
    /// The packet's fate.
    Done(Fate),
    /// A worker was asked; [`Node::serve`] will tell.
    Asked(Ticket),
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
            node.workers.push(Slot { worker: Some(worker), shared, backlog: VecDeque::new(), retired_drops: [0; 64], overrun: 0 });
        }
        node
    }

    fn new_worker(&self, worker: u16) -> (MemoryWorker, Arc<WorkerShared>) {
        let shared = Arc::new(WorkerShared::default());
        let config = WorkerConfig { worker, timeouts: self.config.timeouts, established: self.config.established };
        let connections = Connections::with_seed(self.config.seed);
        (Worker::new(config, Ring::new(self.config.receive_max), self.kernel.clone(), connections, shared.clone()), shared)
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
        let entries = self.kernel.cache_entries();
        let lost = self.stop_worker(worker);
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

    /// A packet leaves a pod; the worker answers at once.
    pub fn leaves(&mut self, port: PortIndex, frame: &[u8], now_ns: u64) -> Fate {
        let origin = Origin::Pod { port, deferred: false };
        self.settle(port, Direction::Egress, frame, origin, now_ns)
    }

    /// A packet enters a pod; the worker answers at once.
    pub fn enters(&mut self, port: PortIndex, frame: &[u8], origin: Origin, now_ns: u64) -> Fate {
        self.settle(port, Direction::Ingress, frame, origin, now_ns)
    }

    /// Offers a packet and serves until its fate is known.
    ///
    /// # Panics
    /// Where packets offered earlier still wait: their answers would go nowhere.
    fn settle(&mut self, port: PortIndex, direction: Direction, frame: &[u8], origin: Origin, now_ns: u64) -> Fate {
        assert_eq!(self.waiting(), 0, "earlier packets have been served");
        match self.offer(port, direction, frame, origin, now_ns) {
            Offered::Done(fate) => fate,
            Offered::Asked(ticket) => {
                let mut answers = self.serve(self.owner(port), now_ns);
                let (answered, fate) = answers.pop().expect("a batch of one has one answer");
                assert_eq!(answered, ticket);
                fate
            }
        }
    }

    /// Shows a packet to a pod's hook.
    pub fn offer(&mut self, port: PortIndex, direction: Direction, frame: &[u8], origin: Origin, now_ns: u64) -> Offered {
        self.accounts.offered += 1;
        let ingress_ifindex = match origin {
            Origin::Node => 0,
            Origin::Uplink => UPLINK_IFINDEX,
            Origin::Pod { port, .. } => self.device(port),
        };
        let mark = if matches!(origin, Origin::Pod { deferred: true, .. }) { MARK_DEFERRED } else { 0 };
        let skb = Skb { frame, mark, ingress_ifindex, from_socket: origin == Origin::Node };
        match self.kernel.hook(self.device(port), direction, &skb, now_ns) {
            Action::Pass { mark } => Offered::Done(self.passed(frame.to_vec(), mark)),
            Action::Drop(reason) => Offered::Done(self.dropped(reason)),
            Action::Punt { frame } => self.punted(self.owner(port), frame, now_ns),
        }
    }

    fn device(&self, port: PortIndex) -> u32 {
        self.devices.get(&port).copied().unwrap_or(0)
    }

    fn punted(&mut self, worker: u16, frame: Vec<u8>, now_ns: u64) -> Offered {
        match self.kernel.far(u32::from(worker), &frame) {
            Far::Drop(reason) => Offered::Done(self.dropped(reason)),
            Far::Bounced => Offered::Done(self.comes_back(worker, &frame, now_ns)),
            Far::Worker => {
                let ticket = Ticket(self.next_ticket);
                self.next_ticket += 1;
                let slot = &mut self.workers[usize::from(worker)];
                if slot.worker.as_mut().is_some_and(|worker| worker.io.push(ticket, frame)) {
                    return Offered::Asked(ticket);
                }
                slot.overrun += 1;
                slot.shared.set_overrun(slot.overrun);
                Offered::Done(self.dropped(DropReason::WorkerOverrun))
            }
        }
    }

    /// What returns over the trunk goes through the near program and the hook that it came from.
    fn comes_back(&mut self, worker: u16, frame: &[u8], now_ns: u64) -> Fate {
        let trunk = FIRST_TRUNK_IFINDEX + u32::from(worker);
        match self.kernel.near(trunk, frame) {
            Near::Drop(reason) => self.dropped(reason),
            Near::Redirect { ifindex, direction, mark, frame } => {
                let skb = Skb { frame: &frame, mark, ingress_ifindex: trunk, from_socket: false };
                match self.kernel.hook(ifindex, direction, &skb, now_ns) {
                    Action::Pass { mark } => self.passed(frame, mark),
                    Action::Drop(reason) => self.dropped(reason),
                    Action::Punt { .. } => panic!("a judged packet is asked about again: it would loop"),
                }
            }
        }
    }

    fn passed(&mut self, frame: Vec<u8>, mark: u32) -> Fate {
        let fate = if mark & MARK_DEFERRED != 0 { Fate::Deferred(frame) } else { Fate::Passed(frame) };
        self.accounts.note(&fate);
        fate
    }

    fn dropped(&mut self, reason: DropReason) -> Fate {
        let fate = Fate::Dropped(reason);
        self.accounts.note(&fate);
        fate
    }

    /// Lets a worker carry out its commands and serve one batch. Returns the fates of the packets it was asked about.
    pub fn serve(&mut self, worker: u16, now_ns: u64) -> Vec<(Ticket, Fate)> {
        let slot = &mut self.workers[usize::from(worker)];
        slot.run_commands(now_ns);
        let Some(running) = &mut slot.worker else { return Vec::new() };
        running.run_batch(now_ns);
        let answers = running.io.take_answers();
        let mut fates = Vec::with_capacity(answers.len());
        for answer in answers {
            let fate = match answer.outcome {
                Ok(frame) => self.comes_back(worker, &frame, now_ns),
                Err(reason) => self.dropped(reason),
            };
            fates.push((answer.ticket, fate));
        }
        fates
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
    }
}
