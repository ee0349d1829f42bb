//! Packets in pieces: a later fragment has no ports, and follows the first one's verdict.
//!
//! Only those of packets whose first fragment met the worker come here; where the cache let the first one pass, the hooks know
//! its key themselves. What a first fragment said is kept for a moment, so many for each port that one pod's flood costs
//! another nothing. A later fragment that comes before its first is dropped, and counted: the sender's host sends in order, and
//! one that tracks connections puts what came from elsewhere in order.

use super::{Judged, Worker};
use crate::io::PacketIo;
use crate::kernel::Kernel;
use sluice_flow::{Direction, DropReason, FlowKey, Fragment, PortIndex};
use std::collections::{HashMap, VecDeque};

/// As long as a receiver waits for the rest of a packet. Source: net.ipv4.ipfrag_time.
const KEPT_NS: u64 = 30_000_000_000;
/// Packets of one port that are on their way in pieces.
const PER_PORT_MAX: usize = 64;

/// Which packet. Ports are left out, and of IPv6 the protocol, since only the first fragment has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Whole {
    flow: FlowKey,
    id: u32,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    whole: Whole,
    fate: Judged,
    until_ns: u64,
}

/// What first fragments met, newest last.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    of_port: HashMap<PortIndex, VecDeque<Seen>>,
}

fn whole(flow: &FlowKey, id: u32) -> Whole {
    let protocol = if flow.src.to_v4().is_some() { flow.protocol } else { sluice_flow::Protocol(0) };
    Whole { flow: FlowKey { protocol, sport: 0, dport: 0, ..*flow }, id }
}

impl Fragments {
    fn note(&mut self, flow: &FlowKey, id: u32, fate: Judged, now_ns: u64) {
        let seen = self.of_port.entry(flow.port).or_default();
        let whole = whole(flow, id);
        seen.retain(|other| other.whole != whole);
        if seen.len() >= PER_PORT_MAX {
            seen.pop_front();
        }
        seen.push_back(Seen { whole, fate, until_ns: now_ns + KEPT_NS });
    }

    fn fate(&self, flow: &FlowKey, id: u32, now_ns: u64) -> Judged {
        let whole = whole(flow, id);
        let seen = self.of_port.get(&flow.port).and_then(|seen| seen.iter().find(|seen| seen.whole == whole && seen.until_ns > now_ns));
        seen.map_or(Judged::Drop(DropReason::FragmentUnmatched), |seen| seen.fate)
    }

    pub(super) fn forget_port(&mut self, port: PortIndex) {
        self.of_port.remove(&port);
    }
}

impl<I: PacketIo, K: Kernel> Worker<I, K> {
    /// A packet or the first piece of one is judged, and remembered if more is to come; a later piece meets the same.
    pub(super) fn judge_piece(&mut self, seen: &super::judge::Seen, fragment: Option<Fragment>) -> Judged {
        match fragment {
            None => self.judge(seen),
            Some(Fragment::First(id)) => {
                let fate = self.judge(seen);
                self.fragments.note(&seen.flow, id, fate, seen.now_ns);
                fate
            }
            // no policy of this pod is asked about what goes nowhere without its first
            Some(Fragment::Later(id)) => match self.whole_passes(seen) {
                true => Judged::Pass { deferred: false },
                false => self.fragments.fate(&seen.flow, id, seen.now_ns),
            },
        }
    }

    /// Whether the pod was isolated when the hook asked, and is in no direction any more.
    fn whole_passes(&self, seen: &super::judge::Seen) -> bool {
        let known = self.table.as_ref().is_some_and(|table| table.endpoint(seen.flow.port) == Some(seen.incarnation));
        known && !Direction::BOTH.into_iter().any(|direction| self.isolated(seen.flow.port, direction))
    }
}
