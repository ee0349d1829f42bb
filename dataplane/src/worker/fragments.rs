//! Packets in pieces: a later fragment has no ports, and follows the first one's verdict.
//!
//! Only those of packets whose first fragment met the worker come here; where the cache let the first one pass, the hooks know
//! its key themselves. What a first fragment said is kept for a moment, so many for each port that one pod's flood costs
//! another nothing. A later fragment that comes before its first waits for it, a second at most and so many of each port: its
//! first may come here, or a hook may let it pass by the cache.

use super::judge::Seen;
use super::{FLAGS_AT, Judged, KIND_AT, Worker};
use crate::io::PacketIo;
use crate::kernel::Kernel;
use sluice_bpf::abi::{FragmentKey, KIND_VERDICT, TRUNK_DEFERRED};
use sluice_flow::{Direction, DropReason, FlowKey, Fragment, Incarnation, PortIndex, Protocol};
use std::collections::{HashMap, VecDeque};

/// As long as a receiver waits for the rest of a packet. Source: net.ipv4.ipfrag_time.
const KEPT_NS: u64 = 30_000_000_000;
/// Packets of one port that are on their way in pieces.
const PER_PORT_MAX: usize = 64;
/// How long a piece waits for its first: what takes longer is lost.
const HELD_NS: u64 = 1_000_000_000;
/// Of one port, whatever their number.
const HELD_BYTES_MAX: usize = 256 << 10;
/// Between two looks for first pieces that a hook let pass.
const LOOK_EVERY_NS: u64 = 2_000_000;

/// Which packet. Ports are left out, and of IPv6 the protocol, since only the first fragment has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Whole {
    flow: FlowKey,
    id: u32,
}

#[derive(Debug, Clone, Copy)]
struct Met {
    whole: Whole,
    fate: Judged,
    until_ns: u64,
}

/// A later piece, whole with its trunk header.
#[derive(Debug)]
struct Held {
    flow: FlowKey,
    incarnation: Incarnation,
    id: u32,
    frame: Vec<u8>,
    until_ns: u64,
}

/// What first fragments met, newest last; and what waits for some.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    of_port: HashMap<PortIndex, VecDeque<Met>>,
    held: Vec<Held>,
    /// A first piece came since the last look.
    has_news: bool,
    next_look_ns: u64,
}

fn whole(flow: &FlowKey, id: u32) -> Whole {
    let protocol = if flow.src.to_v4().is_some() { flow.protocol } else { Protocol(0) };
    Whole { flow: FlowKey { protocol, sport: 0, dport: 0, ..*flow }, id }
}

impl Fragments {
    fn note(&mut self, flow: &FlowKey, id: u32, fate: Judged, now_ns: u64) {
        self.has_news = true;
        let seen = self.of_port.entry(flow.port).or_default();
        let whole = whole(flow, id);
        seen.retain(|other| other.whole != whole);
        if seen.len() >= PER_PORT_MAX {
            seen.pop_front();
        }
        seen.push_back(Met { whole, fate, until_ns: now_ns + KEPT_NS });
    }

    fn fate(&self, flow: &FlowKey, id: u32, now_ns: u64) -> Option<Judged> {
        let whole = whole(flow, id);
        let met = self.of_port.get(&flow.port)?.iter().find(|met| met.whole == whole && met.until_ns > now_ns)?;
        Some(met.fate)
    }

    /// Whether one more of a port may wait.
    fn has_room(&self, port: PortIndex, bytes: usize, max: usize) -> bool {
        let of_port = self.held.iter().filter(|held| held.flow.port == port);
        let (count, held_bytes) = of_port.fold((0, 0), |(count, sum), held| (count + 1, sum + held.frame.len()));
        count < max && held_bytes + bytes <= HELD_BYTES_MAX
    }

    /// Keeps a copy of a later piece.
    pub(super) fn hold(&mut self, seen: &Seen, fragment: Option<Fragment>, frame: &[u8]) {
        let Some(Fragment::Later(id)) = fragment else { return };
        let (flow, incarnation, until_ns) = (seen.flow, seen.incarnation, seen.now_ns + HELD_NS);
        self.held.push(Held { flow, incarnation, id, frame: frame.to_vec(), until_ns });
    }

    /// How many wait.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    pub(super) fn forget_port(&mut self, port: PortIndex) {
        self.of_port.remove(&port);
        self.held.retain(|held| held.flow.port != port);
    }
}

impl<I: PacketIo, K: Kernel> Worker<I, K> {
    /// A packet or the first piece of one is judged, and remembered if more is to come; a later piece meets the same.
    pub(super) fn judge_piece(&mut self, seen: &Seen, fragment: Option<Fragment>) -> Judged {
        match fragment {
            None => self.judge(seen),
            Some(Fragment::First(id)) => {
                let fate = self.judge(seen);
                self.fragments.note(&seen.flow, id, fate, seen.now_ns);
                fate
            }
            // no policy of this pod is asked about what goes nowhere without its first
            Some(Fragment::Later(_)) if self.whole_passes(seen) => Judged::Pass { deferred: false },
            Some(Fragment::Later(id)) => match self.fragments.fate(&seen.flow, id, seen.now_ns) {
                Some(fate) => fate,
                None if self.fragments.has_room(seen.flow.port, seen.bytes, self.config.held_fragments_max) => Judged::Held,
                None => Judged::Drop(DropReason::FragmentUnmatched),
            },
        }
    }

    /// Whether the pod was isolated when the hook asked, and is in no direction any more.
    fn whole_passes(&self, seen: &Seen) -> bool {
        let known = self.table.as_ref().is_some_and(|table| table.endpoint(seen.flow.port) == Some(seen.incarnation));
        known && !Direction::BOTH.into_iter().any(|direction| self.isolated(seen.flow.port, direction))
    }

    /// Sends what has waited for its first piece and may follow it by now, behind it; drops what may not, or has waited too long.
    /// Cost where nothing waits, or nothing new is known: a load or three.
    pub(super) fn release_fragments(&mut self, now_ns: u64) {
        if self.fragments.held() == 0 {
            return;
        }
        let looks = now_ns >= self.fragments.next_look_ns;
        if !std::mem::take(&mut self.fragments.has_news) && !looks {
            return;
        }
        if looks {
            self.fragments.next_look_ns = now_ns + LOOK_EVERY_NS;
        }
        for mut held in std::mem::take(&mut self.fragments.held) {
            let by_worker = self.fragments.fate(&held.flow, held.id, now_ns);
            let fate = by_worker.or_else(|| if looks { self.followed_by_cache(&held) } else { None });
            let drop = match fate {
                _ if held.until_ns <= now_ns => DropReason::FragmentUnmatched,
                None | Some(Judged::Held) => {
                    self.fragments.held.push(held);
                    continue;
                }
                Some(Judged::Drop(reason)) => reason,
                Some(Judged::Pass { deferred }) => {
                    held.frame[KIND_AT] = KIND_VERDICT;
                    held.frame[FLAGS_AT] = if deferred { TRUNK_DEFERRED } else { 0 };
                    if self.io.send(&held.frame) {
                        self.shared.count_forwarded(1);
                        continue;
                    }
                    DropReason::TransmitFull
                }
            };
            self.shared.count_drop(drop, 1);
        }
    }

    /// What the connection meets whose packet's first piece a hook let pass.
    fn followed_by_cache(&self, held: &Held) -> Option<Judged> {
        let Held { flow, incarnation, id, .. } = held;
        let protocol = whole(flow, *id).flow.protocol.0;
        let packet = FragmentKey {
            incarnation: incarnation.0,
            port: flow.port.0,
            direction: flow.way(),
            protocol,
            src: flow.src.0,
            dst: flow.dst.0,
            id: *id,
        };
        let first = self.kernel.first_fragment(&packet)?;
        let flow = FlowKey { protocol: Protocol(first.protocol), sport: first.sport, dport: first.dport, ..*flow };
        let (original, connection, _) = self.tracked(&flow, *incarnation)?;
        let deferred = connection.deferred && original == flow;
        Some(if connection.allowed { Judged::Pass { deferred } } else { Judged::Drop(DropReason::PolicyDenied) })
    }
}
