//! What the keeper and a worker share: commands one way, progress and counters the other.

use super::{Counts, Cut};
use crate::conntrack::Connection;
use crossbeam::queue::{ArrayQueue, SegQueue};
use crossbeam::utils::CachePadded;
use sluice_flow::{Addr, DropReason, FlowKey, Incarnation, PortIndex};
use sluice_table::Table;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// From the keeper, carried out between batches.
#[derive(Debug)]
pub enum Command {
    /// Judge by this table from now on.
    Adopt(Arc<Table>),
    /// The port is gone: forget its connections.
    ForgetPort(PortIndex),
    /// The scan found these idle for too long: look again, and forget them.
    Expire(Vec<(FlowKey, Incarnation)>),
    /// The addresses of this node.
    NodeAddresses(Vec<Addr>),
    /// This use of a port will come: answered by an empty [`WorkerShared::given`].
    Expect(PortIndex, Incarnation),
    /// Another worker is to serve this use of a port: its connections go to the keeper, see [`WorkerShared::given`].
    GiveAway(PortIndex, Incarnation),
    /// Serve this port from now on.
    TakeOver(Given),
}

/// A port on its way from one worker to another, with its connections.
#[derive(Debug)]
pub struct Given {
    /// Its index.
    pub port: PortIndex,
    /// Which use of it.
    pub incarnation: Incarnation,
    /// Those that the worker tracked.
    pub connections: Vec<(FlowKey, Connection)>,
}

const COMMANDS_MAX: usize = 64;
const CUTS_MAX: usize = 1024;

/// One worker's progress. Each counter is written by the worker alone, once per batch or rarer.
#[derive(Debug)]
pub struct WorkerShared {
    /// Waiting commands.
    pub commands: ArrayQueue<Command>,
    /// Set once the worker is to end.
    pub stop: AtomicBool,
    generation: CachePadded<AtomicU64>,
    heartbeat_ns: AtomicU64,
    cpu_ns: AtomicU64,
    received: AtomicU64,
    forwarded: AtomicU64,
    connections: AtomicU64,
    cut: AtomicU64,
    drops: [AtomicU64; 64],
    /// Ports that the worker has given away, or expects, until the keeper hears of it.
    pub given: SegQueue<Given>,
    /// Connections that tables cut, the oldest give way.
    cuts: ArrayQueue<Cut>,
    /// By rule, of connections that are over.
    rules: Mutex<BTreeMap<String, Counts>>,
}

impl Default for WorkerShared {
    fn default() -> Self {
        Self {
            commands: ArrayQueue::new(COMMANDS_MAX),
            stop: AtomicBool::new(false),
            generation: CachePadded::default(),
            heartbeat_ns: AtomicU64::new(0),
            cpu_ns: AtomicU64::new(0),
            received: AtomicU64::new(0),
            forwarded: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            drops: [const { AtomicU64::new(0) }; 64],
            given: SegQueue::new(),
            cuts: ArrayQueue::new(CUTS_MAX),
            rules: Mutex::default(),
        }
    }
}

/// One writer: a plain load and store, no locked instruction.
fn add(counter: &AtomicU64, value: u64) {
    // Relaxed: statistics; readers need no order among them
    counter.store(counter.load(Ordering::Relaxed) + value, Ordering::Relaxed);
}

impl WorkerShared {
    pub(super) fn count_drop(&self, reason: DropReason, packets: u64) {
        if packets > 0 {
            add(&self.drops[reason as usize], packets);
        }
    }

    /// Frames that the kernel had no room for in the worker's receive ring, ever; it counts them itself.
    pub fn set_overrun(&self, packets: u64) {
        // Relaxed: statistics
        self.drops[DropReason::WorkerOverrun as usize].store(packets, Ordering::Relaxed);
    }

    pub(super) fn count_batch(&self, received: usize, forwarded: usize, connections: usize) {
        add(&self.received, received as u64);
        add(&self.forwarded, forwarded as u64);
        self.set_connections(connections);
    }

    /// Lists a connection that a table cut.
    pub(super) fn list_cut(&self, cut: Cut) {
        self.cuts.force_push(cut);
    }

    /// Connections that were cut since this was last asked, the newest [`CUTS_MAX`] of them.
    pub fn take_cuts(&self) -> impl Iterator<Item = Cut> + '_ {
        std::iter::from_fn(|| self.cuts.pop())
    }

    /// Replaces what the keeper sees of the rules; not while it looks: false.
    pub(super) fn show_rules(&self, rules: &BTreeMap<String, Counts>) -> bool {
        self.rules.try_lock().is_ok_and(|mut shown| {
            shown.clone_from(rules);
            true
        })
    }

    /// What each rule let through, of connections that are over. At most a second old.
    pub fn rules(&self) -> BTreeMap<String, Counts> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn count_forwarded(&self, frames: usize) {
        add(&self.forwarded, frames as u64);
    }

    pub(super) fn set_connections(&self, connections: usize) {
        // Relaxed: statistics
        self.connections.store(connections as u64, Ordering::Relaxed);
    }

    pub(super) fn acknowledge(&self, generation: u64, cut: u64) {
        add(&self.cut, cut);
        // Release pairs with `generation()`: whoever sees it sees every cache entry and port word written before
        self.generation.store(generation, Ordering::Release);
    }

    /// Says that the worker still runs.
    pub fn beat(&self, now_ns: u64) {
        // Relaxed: a late reading only makes the keeper wait longer
        self.heartbeat_ns.store(now_ns, Ordering::Relaxed);
    }

    /// Says what the worker has had of a CPU.
    pub fn set_cpu(&self, cpu_ns: u64) {
        // Relaxed: statistics
        self.cpu_ns.store(cpu_ns, Ordering::Relaxed);
    }

    /// What it has had of a CPU, in nanoseconds.
    pub fn cpu_ns(&self) -> u64 {
        // Relaxed: statistics
        self.cpu_ns.load(Ordering::Relaxed)
    }

    /// When it last did.
    pub fn heartbeat_ns(&self) -> u64 {
        // Relaxed: see `beat`
        self.heartbeat_ns.load(Ordering::Relaxed)
    }

    /// The generation it judges by, 0 for none.
    pub fn generation(&self) -> u64 {
        // Acquire pairs with `acknowledge`
        self.generation.load(Ordering::Acquire)
    }

    /// Frames received, forwarded; connections held; connections cut by swaps.
    pub fn counts(&self) -> [u64; 4] {
        // Relaxed: statistics
        [&self.received, &self.forwarded, &self.connections, &self.cut].map(|counter| counter.load(Ordering::Relaxed))
    }

    /// Packets dropped under a reason.
    pub fn drops(&self, reason: DropReason) -> u64 {
        // Relaxed: statistics
        self.drops[reason as usize].load(Ordering::Relaxed)
    }
}
