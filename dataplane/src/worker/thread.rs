//! The thread around a worker: pinned, inside the trunks' namespace, without rights it does not need, spinning or sleeping
//! while there is nothing to do.

use super::{Worker, WorkerConfig, WorkerShared};
use crate::config::Wait;
use crate::conntrack::Connections;
use crate::io::XdpIo;
use crate::kernel::BpfKernel;
use crate::privileges;
use anyhow::{Context, Result};
use rustix::event::{EventfdFlags, PollFd, PollFlags, poll};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use rustix::time::{ClockId, Timespec, clock_gettime};
use sluice_bpf::abi::{CacheValue, Key};
use sluice_table::Table;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

/// A worker spins for so long after its last packet before it sleeps: the next packet of a handshake then meets it awake.
const SPIN_NS: u64 = 20_000;
/// Of a coming table, where no packet waits: some 3 µs.
const IDLE_LINES: usize = 1024;
const STATISTICS_EVERY_NS: u64 = 100_000_000;
const SLEEP: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
/// While pieces of packets wait for their first.
const NAP: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };

/// Everything a worker needs to start.
pub struct Start {
    /// Its own part of the configuration.
    pub config: WorkerConfig,
    /// How to wait for packets.
    pub wait: Wait,
    /// Where to run.
    pub cpu: Option<usize>,
    /// The far end of its trunk.
    pub interface: String,
    /// The namespace that is in.
    pub far_namespace: OwnedFd,
    /// The hooks' side.
    pub kernel: BpfKernel,
    /// The verdict cache as it was found.
    pub entries: Arc<Vec<(Key, CacheValue)>>,
    /// The table as it was found.
    pub table: Option<Arc<Table>>,
    /// Addresses of the node.
    pub node_addresses: Vec<sluice_flow::Addr>,
    /// Rung by the worker after an adoption.
    pub keeper_bell: OwnedFd,
    /// Told once when the worker serves, or why it cannot.
    pub ready: Sender<Result<()>>,
}

/// A running worker, as the keeper sees it.
#[derive(Debug)]
pub struct Handle {
    /// Progress, counters, commands.
    pub shared: Arc<WorkerShared>,
    /// Rung by the keeper after a command.
    pub bell: OwnedFd,
    /// The thread.
    pub thread: Option<JoinHandle<()>>,
}

impl Handle {
    /// Wakes the worker.
    pub fn ring(&self) {
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }
}

/// CLOCK_MONOTONIC, the clock of the hooks' last-seen times.
pub fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// A doorbell.
pub fn bell() -> std::io::Result<OwnedFd> {
    Ok(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// Takes what was rung so far.
pub fn silence(bell: &OwnedFd) {
    let mut count = [0u8; 8];
    let _ = rustix::io::read(bell, &mut count);
}

/// Starts a worker's thread.
pub fn spawn(start: Start) -> Result<Handle> {
    let shared = Arc::new(WorkerShared::default());
    shared.beat(now_ns());
    let own_bell = bell()?;
    let keeper_side = own_bell.try_clone()?;
    let wait = start.wait;
    let for_thread = shared.clone();
    let thread = std::thread::Builder::new().name(format!("worker-{}", start.config.worker)).spawn(move || {
        let ready = start.ready.clone();
        match set_up(start, for_thread) {
            Ok((worker, keeper_bell)) => {
                let _ = ready.send(Ok(()));
                drop(ready);
                serve(worker, wait, &own_bell, &keeper_bell);
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        }
    })?;
    Ok(Handle { shared, bell: keeper_side, thread: Some(thread) })
}

type KernelWorker = Worker<XdpIo, BpfKernel>;

fn set_up(start: Start, shared: Arc<WorkerShared>) -> Result<(KernelWorker, OwnedFd)> {
    let Start { config, wait: _, cpu, interface, far_namespace, kernel, entries, table, node_addresses, keeper_bell, ready: _ } = start;
    if let Some(cpu) = cpu {
        pin(cpu)?;
    }
    move_into_link_name_space(far_namespace.as_fd(), Some(LinkNameSpaceType::Network)).context("enter the trunks' namespace")?;
    let io = XdpIo::bind(&interface)?;
    let number = u32::from(config.worker);
    let mut worker = Worker::new(config, io, kernel.clone(), Connections::default(), shared);
    worker.node_addresses = node_addresses.into_iter().collect();
    worker.rebuild(&entries, now_ns());
    if let Some(table) = table {
        worker.adopt(table);
    }
    // only now may frames arrive
    kernel.0.set_socket(number, worker.io.fd()).context("put the socket into the XSKMAP")?;
    privileges::keep_only(&privileges::WORKER)?;
    Ok((worker, keeper_bell))
}

/// core_affinity sees only the CPUs the process may use; an isolated one is asked for by number.
fn pin(cpu: usize) -> Result<()> {
    let known = core_affinity::get_core_ids().unwrap_or_default().into_iter().find(|core| core.id == cpu);
    if known.is_some_and(core_affinity::set_for_current) {
        return Ok(());
    }
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).with_context(|| format!("pin a worker to CPU {cpu}"))
}

fn serve(mut worker: KernelWorker, wait: Wait, bell: &OwnedFd, keeper_bell: &OwnedFd) {
    let shared = worker.shared.clone();
    let loaded = worker.kernel.0.clone();
    let ring = loaded.ring(worker.config.worker.into()).expect("the keeper made it before");
    let spin_ns = match wait {
        Wait::Spin => u64::MAX,
        Wait::Adaptive => SPIN_NS,
        Wait::Sleep => 0,
    };
    let mut last_packet_ns = 0;
    let mut next_statistics_ns = 0;
    // Relaxed: the bell wakes us after the store, and one more batch does no harm
    while !shared.stop.load(Ordering::Relaxed) {
        let now = now_ns();
        shared.beat(now);
        if now >= next_statistics_ns {
            shared.set_overrun(worker.io.overrun());
            shared.set_cpu(thread_ns());
            next_statistics_ns = now + STATISTICS_EVERY_NS;
        }
        let (generation, given) = (shared.generation(), shared.given.len());
        worker.run_commands(now);
        let received = worker.run_batch(now);
        let is_coming = received == 0 && worker.approach(IDLE_LINES);
        if shared.generation() != generation || shared.given.len() > given {
            let _ = rustix::io::write(keeper_bell, &1u64.to_ne_bytes());
        }
        if received > 0 {
            last_packet_ns = now;
            continue;
        }
        if is_coming || now.saturating_sub(last_packet_ns) < spin_ns {
            std::hint::spin_loop();
            continue;
        }
        let ready = {
            let socket = worker.io.fd();
            let waits = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
            let mut fds = [waits(socket), PollFd::new(bell, PollFlags::IN), waits(ring.as_fd())];
            poll(&mut fds, Some(if worker.fragments.held() > 0 { &NAP } else { &SLEEP })).map(|_| fds[1].revents().contains(PollFlags::IN))
        };
        if ready == Ok(true) {
            silence(bell);
        }
    }
}

/// What the calling thread has had of a CPU.
fn thread_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
