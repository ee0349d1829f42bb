//! One worker: the pipeline from a punted frame to its fate.
//!
//! ```text
//!   receive ▶ trunk header ▶ parse ▶ connection? ─yes▶ role, expiry ─┐
//!                                      └─no▶ table ▶ new connection ─┤
//!                                                                     ▼
//!             cache entries of the whole batch written ▶ forward, drop, count
//! ```
//!
//! Entries are written before a frame goes back, so the next packet of an allowed flow never meets the worker again, and
//! the first reply is known before it can exist. One packet sees one table: adoption happens between batches only, and
//! when the new table's lines are in this core's caches.

mod adopt;
mod fragments;
mod judge;
mod moves;
mod openings;
mod pending;
mod reclaim;
mod rules;
mod shared;
#[cfg(feature = "kernel")]
pub mod thread;

#[cfg(feature = "kernel")]
pub(crate) use rules::name_of;
pub use rules::{Counts, Cut};
pub use shared::{Command, Given, WorkerShared};

use crate::conntrack::{Connections, Role, Timeouts};
use crate::io::{Fate, PacketIo};
use crate::kernel::Kernel;
use pending::Pending;
use sluice_bpf::abi::{
    Allowance, KIND_PUNT, KIND_VERDICT, TRUNK_BACK, TRUNK_BYTES, TRUNK_DEFERRED, TRUNK_DIRECT, TRUNK_ENTERED, TRUNK_HIT, TRUNK_MAGIC,
    TRUNK_ONWARD, TrunkHeader,
};
use sluice_flow::limits::{BATCH_MAX, PORTS_MAX};
use sluice_flow::{Addr, Direction, DropReason, FlowKey, Incarnation, PortIndex, parse_frame};
use sluice_table::Table;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// What a swap does to connections that the new table forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Established {
    /// They stop.
    #[default]
    Enforce,
    /// They live until they end.
    Keep,
}

/// What a worker is told once.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Its index.
    pub worker: u16,
    /// Idle times.
    pub timeouts: Timeouts,
    /// Swaps and established connections.
    pub established: Established,
    /// Later fragments of one port that wait for their first; 0: they are dropped.
    pub held_fragments_max: usize,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self { worker: 0, timeouts: Timeouts::default(), established: Established::default(), held_fragments_max: 64 }
    }
}

/// A worker's state. `I` brings frames, `K` is the hooks' side.
#[derive(Debug)]
pub struct Worker<I, K> {
    config: WorkerConfig,
    /// Frames.
    pub io: I,
    kernel: K,
    table: Option<Arc<Table>>,
    /// To be adopted when all its lines are near, and how many are.
    coming: Option<Arc<Table>>,
    near: usize,
    connections: Connections,
    node_addresses: BTreeSet<Addr>,
    /// Addresses of the table's endpoints at ports of this worker.
    local: HashMap<Addr, PortIndex>,
    /// Uses of ports that are on their way from here or to here.
    away: BTreeMap<PortIndex, Incarnation>,
    pending: Pending,
    /// What the hooks may admit, not written yet.
    alike: Vec<(FlowKey, Allowance)>,
    pauses: reclaim::Pauses,
    fragments: fragments::Fragments,
    ended: openings::Ended,
    rules: rules::Rules,
    shared: Arc<WorkerShared>,
}

/// What judging one packet came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judged {
    Pass {
        deferred: bool,
    },
    Drop(DropReason),
    /// A copy waits for the first piece of its packet.
    Held,
}

impl<I: PacketIo, K: Kernel> Worker<I, K> {
    /// A worker without table or connections: everything it receives is dropped until it adopts a table.
    pub fn new(config: WorkerConfig, io: I, kernel: K, connections: Connections, shared: Arc<WorkerShared>) -> Self {
        Self {
            config,
            io,
            kernel,
            table: None,
            coming: None,
            near: 0,
            connections,
            node_addresses: BTreeSet::new(),
            local: HashMap::new(),
            away: BTreeMap::new(),
            pending: Pending::default(),
            alike: Vec::new(),
            pauses: reclaim::Pauses::default(),
            fragments: fragments::Fragments::default(),
            ended: openings::Ended::default(),
            rules: rules::Rules::default(),
            shared,
        }
    }

    /// The table in force.
    pub fn table(&self) -> Option<&Arc<Table>> {
        self.table.as_ref()
    }

    /// Its connections.
    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    /// Receives, judges and commits one batch; returns how many frames there were. `now_ns` is CLOCK_MONOTONIC.
    pub fn run_batch(&mut self, now_ns: u64) -> usize {
        let count = self.io.receive();
        if count == 0 {
            return 0;
        }
        // no packet of a connection is judged before its beginning is known
        self.hear();
        // every one is overwritten; a frame that no line below speaks of would be dropped as our mistake
        let mut fates = [Fate::Drop(DropReason::Internal); BATCH_MAX];
        self.pending.clear();
        for (index, fate) in fates[..count].iter_mut().enumerate() {
            self.pending.begin_frame(index);
            *fate = match self.judge_frame(index, now_ns) {
                Ok(None) => Fate::Held,
                Ok(Some(flags)) => {
                    self.io.write_header(index, |frame| (frame[KIND_AT], frame[FLAGS_AT]) = (KIND_VERDICT, flags));
                    Fate::Forward
                }
                Err(reason) => Fate::Drop(reason),
            };
        }
        for frame in self.write_entries() {
            fates[frame] = Fate::Drop(DropReason::CacheWriteFailed);
        }
        let unsent = self.io.commit(&fates[..count]);
        self.allow_alike();
        let mut forwarded = 0;
        for fate in &fates[..count] {
            match fate {
                Fate::Forward => forwarded += 1,
                Fate::Drop(reason) => self.shared.count_drop(*reason, 1),
                Fate::Held => {}
            }
        }
        self.shared.count_drop(DropReason::TransmitFull, unsent as u64);
        self.shared.count_batch(count, forwarded - unsent, self.connections.len());
        self.release_fragments(now_ns);
        self.grant_room();
        count
    }

    /// The flags of its verdict, where it may go on; `None` where it waits.
    fn judge_frame(&mut self, index: usize, now_ns: u64) -> Result<Option<u8>, DropReason> {
        let frame = self.io.frame_mut(index);
        let Some((header, inner)) = frame.split_first_chunk::<TRUNK_BYTES>() else {
            return Err(DropReason::TrunkHeader);
        };
        let header: TrunkHeader = bytemuck::pod_read_unaligned(header);
        let way = FlowKey::of_way(header.direction).filter(|(direction, departs)| !departs || *direction == Direction::Egress);
        let known = header.magic == TRUNK_MAGIC && header.version == sluice_bpf::ABI_VERSION as u8 && header.kind == KIND_PUNT;
        let (true, Some((direction, departs)), true) = (known, way, usize::from(header.port) < PORTS_MAX) else {
            return Err(DropReason::TrunkHeader);
        };
        let port = self.kernel.port(usize::from(header.port));
        if port.worker != self.config.worker || self.away.get(&PortIndex(header.port)) == Some(&Incarnation(port.incarnation)) {
            return Err(DropReason::WrongWorker);
        }
        if port.ifindex == 0 || port.incarnation != header.incarnation {
            return Err(DropReason::StalePort);
        }
        let bytes = inner.len();
        let packet = parse_frame(inner).map_err(|error| error.0)?;
        let flow = FlowKey {
            port: PortIndex(header.port),
            direction,
            departs,
            protocol: packet.protocol,
            src: packet.src,
            dst: packet.dst,
            sport: packet.sport,
            dport: packet.dport,
        };
        let origin = (header.origin != [0; 16]).then_some(Addr(header.origin));
        let incarnation = Incarnation(header.incarnation);
        let seen = judge::Seen {
            flow,
            kind: packet.kind,
            origin,
            incarnation,
            epoch: header.epoch,
            hit: header.flags & TRUNK_HIT != 0,
            tracked: match header.flags & (TRUNK_ONWARD | TRUNK_BACK) {
                TRUNK_ONWARD => Some(Role::Original),
                TRUNK_BACK => Some(Role::Reply),
                _ => None,
            },
            bytes,
            now_ns,
        };
        match self.judge_piece(&seen, packet.fragment) {
            Judged::Drop(reason) => Err(reason),
            Judged::Held => {
                let frame = self.io.frame_mut(index);
                self.fragments.hold(&seen, packet.fragment, frame);
                Ok(None)
            }
            Judged::Pass { deferred: true } => Ok(Some(TRUNK_DEFERRED)),
            Judged::Pass { .. } if header.flags & TRUNK_DIRECT == 0 => Ok(Some(0)),
            Judged::Pass { .. } if self.may_enter(&seen.flow) => Ok(Some(TRUNK_DIRECT | TRUNK_ENTERED)),
            Judged::Pass { .. } => Ok(Some(TRUNK_DIRECT)),
        }
    }
}

const KIND_AT: usize = std::mem::offset_of!(TrunkHeader, kind);
const FLAGS_AT: usize = std::mem::offset_of!(TrunkHeader, flags);

#[cfg(test)]
mod tests;
