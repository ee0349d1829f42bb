//! What passed each hook: openers, and how long ago anything of them did.

use sluice_flow::{FlowKey, IcmpClass, Incarnation, Kind, PortIndex, Protocol, TcpFlags};
use std::collections::HashMap;

const SECOND_NS: u64 = 1_000_000_000;

/// A connection by its first packet, at one use of one port.
#[derive(Debug, Clone, Copy)]
pub(super) struct Track {
    /// The last packet of either direction that the dataplane took notice of.
    seen_ns: u64,
    /// An answer passed.
    answered: bool,
    /// FIN or RST passed: it may be forgotten soon.
    closed: bool,
    /// Allowed by every generation since it was opened, and nothing happened that may have lost it.
    steady: bool,
    /// TCP or SCTP without its opener, let pass because it was allowed both ways.
    pub(super) picked_up: bool,
    /// A packet of it passed while the pod was isolated: the dataplane holds more of it than its opener.
    pub(super) tracked: bool,
}

impl Track {
    /// Only protocols that are forgotten quickly; what remains of TCP and SCTP may be picked up again at any time.
    pub(super) fn timed_out(&self, protocol: Protocol, now_ns: u64) -> bool {
        let timeout_ns = match protocol {
            Protocol::TCP | Protocol::SCTP => return false,
            Protocol::UDP => 120 * SECOND_NS,
            Protocol::ICMP | Protocol::ICMPV6 => 30 * SECOND_NS,
            _ => 600 * SECOND_NS,
        };
        now_ns.saturating_sub(self.seen_ns) > timeout_ns
    }

    /// Whether the next packet is sure to pass as long as policy allows it. `reclaims`: full ports forget what is idle.
    pub(super) fn promised(&self, protocol: Protocol, now_ns: u64, reclaims: bool) -> bool {
        let idle_ns = now_ns.saturating_sub(self.seen_ns);
        let limit_ns = match protocol {
            // of a full port goes first what nobody has answered
            _ if reclaims && !self.answered => 2 * SECOND_NS,
            Protocol::SCTP if !reclaims && self.answered => 600 * SECOND_NS,
            Protocol::TCP if self.answered => 3600 * SECOND_NS,
            Protocol::TCP => 60 * SECOND_NS,
            _ if reclaims => 10 * SECOND_NS,
            Protocol::UDP => 120 * SECOND_NS,
            Protocol::ICMP | Protocol::ICMPV6 => 30 * SECOND_NS,
            _ => 600 * SECOND_NS,
        };
        self.steady && !self.closed && idle_ns <= limit_ns
    }
}

/// Every track of every use of a port.
#[derive(Default)]
pub(super) struct Memory {
    tracks: HashMap<(PortIndex, Incarnation), HashMap<FlowKey, Track>>,
    /// Swaps let established connections live.
    pub(super) keep: bool,
    /// Ports may be full.
    pub(super) reclaims: bool,
}

impl Memory {
    pub(super) fn track(&self, incarnation: Incarnation, original: &FlowKey) -> Option<Track> {
        self.tracks.get(&(original.port, incarnation))?.get(original).copied()
    }

    /// Remembers a packet that passed. `tracked`: the pod is isolated, so the dataplane keeps state. `alive_reply`: it is the
    /// answer of a connection that lives.
    pub(super) fn passed(&mut self, incarnation: Incarnation, flow: FlowKey, kind: Kind, tracked: bool, alive_reply: bool, now_ns: u64) {
        let reclaims = self.reclaims;
        let tracks = self.tracks.entry((flow.port, incarnation)).or_default();
        if tracked {
            // what may have been forgotten meanwhile is not promised again by being seen
            for key in [flow, flow.reversed()] {
                if let Some(track) = tracks.get_mut(&key) {
                    track.steady &= track.closed || track.promised(key.protocol, now_ns, reclaims);
                }
            }
        }
        let fresh = Track { seen_ns: now_ns, answered: false, closed: false, steady: true, picked_up: false, tracked };
        match kind {
            Kind::Tcp(flags) | Kind::Sctp(flags) if flags.opens() => open(tracks, flow, Track { closed: closes(flags), ..fresh }, tracked),
            Kind::Tcp(flags) | Kind::Sctp(flags) => {
                let known = [flow, flow.reversed()].map(|key| tracks.contains_key(&key));
                if known == [false, false] && tracked {
                    // who picks it up knows it as its own direction; the way back may not be told apart: nothing is promised
                    tracks.insert(flow, Track { picked_up: true, steady: false, ..fresh });
                }
                touch(tracks, &flow, false, closes(flags), tracked, now_ns);
                touch(tracks, &flow.reversed(), true, closes(flags), tracked, now_ns);
            }
            // neither begins anything that could be answered
            Kind::IcmpError(_) | Kind::Icmp(IcmpClass::Other) => {}
            _ if !tracked => {}
            _ if alive_reply => touch(tracks, &flow.reversed(), true, false, tracked, now_ns),
            _ => {
                // an answer to nothing that a rule lets pass is a flow of its own, which has no answers
                let steady = kind != Kind::Icmp(IcmpClass::Reply);
                tracks.remove(&flow.reversed());
                let track = tracks.entry(flow).or_insert(Track { steady, ..fresh });
                if track.timed_out(flow.protocol, now_ns) {
                    *track = Track { steady, ..fresh };
                }
                track.seen_ns = now_ns;
                track.steady = steady;
            }
        }
    }

    /// A generation came into force at the ports of a worker: what it forbids is no longer promised.
    pub(super) fn adopted(&mut self, owned: impl Fn(PortIndex) -> bool, mut allows: impl FnMut(&FlowKey) -> bool) {
        for ((port, _), tracks) in &mut self.tracks {
            if owned(*port) {
                for (flow, track) in tracks.iter_mut().filter(|(_, track)| track.steady) {
                    track.steady = allows(flow);
                }
            }
        }
    }

    /// Something happened to a packet of this flow that may have cost the dataplane its state.
    pub(super) fn doubt(&mut self, incarnation: Incarnation, flow: &FlowKey) {
        let Some(tracks) = self.tracks.get_mut(&(flow.port, incarnation)) else { return };
        for key in [*flow, flow.reversed()] {
            if let Some(track) = tracks.get_mut(&key) {
                track.steady = false;
            }
        }
    }

    pub(super) fn forget_port(&mut self, port: PortIndex) {
        self.tracks.retain(|(known, _), _| *known != port);
    }
}

fn closes(flags: TcpFlags) -> bool {
    flags.0 & (TcpFlags::FIN | TcpFlags::RST) != 0
}

/// A connection in one direction ends what there was in the other: both share two cache entries. Where the pod was not
/// isolated only openers are remembered, so with one of each nobody can tell whose connection goes on.
fn open(tracks: &mut HashMap<FlowKey, Track>, flow: FlowKey, fresh: Track, tracked: bool) {
    let mut steady = true;
    if let Some(other) = tracks.get_mut(&flow.reversed()) {
        other.steady = false;
        steady = tracked;
    }
    tracks.insert(flow, Track { steady, ..fresh });
}

fn touch(tracks: &mut HashMap<FlowKey, Track>, key: &FlowKey, answer: bool, closes: bool, tracked: bool, now_ns: u64) {
    if let Some(track) = tracks.get_mut(key) {
        track.closed |= closes;
        if tracked {
            track.seen_ns = now_ns;
            track.answered |= answer;
            track.tracked = true;
        }
    }
}
