//! What the hooks did by themselves: connections that they admitted by an allowance, and what ended.
//!
//! A worker's verdict on a new connection holds for every source port until the next table, and for the ports in a row of which the
//! same rule decides, so the hooks admit what differs in those alone, also on the ports of one that is over, and write down here that they did. A worker reads it before each batch, and
//! before it says that a table is in force: from then on every connection was judged by that table, whoever admitted it. The room
//! that a port has left is granted to the hooks, which never admit more.

use super::judge::Policy;
use super::reclaim::SEARCHED_MAX;
use super::{Established, Worker};
use crate::conntrack::{Connection, Role};
use crate::io::PacketIo;
use crate::kernel::{Kernel, flow_of, key_of};
use sluice_bpf::abi::{Allowance, CACHE_ALLOW, CACHE_ALLOW_DEFERRED, ENDINGS_MAX, Key, OPENING_ADMITTED, OPENING_CLOSED, Opening};
use sluice_flow::limits::PORTS_MAX;
use sluice_flow::{FlowKey, Incarnation, PortIndex, Protocol};
use std::collections::{BTreeSet, VecDeque};

/// An ended connection lingers for late segments, as long as TCP waits for them at least (RFC 9293, 3.6.1: MSL, here the 30 s that
/// systems use), and briefly where its port is more than half full.
const LINGERS_NS: u64 = 30_000_000_000;
const LINGERS_CROWDED_NS: u64 = 100_000_000;
/// Between two looks at all ports.
const LOOK_EVERY_NS: u64 = 100_000_000;
/// Forgotten at once.
const REAPED_MAX: usize = 256;

/// Connections that ended, for each port, oldest first.
#[derive(Debug)]
pub(super) struct Ended {
    of_port: Box<[VecDeque<(FlowKey, Incarnation, u64)>]>,
    next_look_ns: u64,
    /// Kept for its room.
    heard: Vec<Opening>,
}

impl Default for Ended {
    fn default() -> Self {
        Self { of_port: (0..PORTS_MAX).map(|_| VecDeque::new()).collect(), next_look_ns: 0, heard: Vec::new() }
    }
}

impl Ended {
    pub(super) fn forget_port(&mut self, port: PortIndex) {
        self.of_port[usize::from(port.0)] = VecDeque::new();
    }
}

impl<I: PacketIo, K: Kernel> Worker<I, K> {
    /// Takes over what the hooks admitted. Cost where nothing happened: two loads.
    pub(super) fn hear(&mut self) {
        let mut heard = std::mem::take(&mut self.ended.heard);
        self.kernel.openings(self.config.worker, &mut |opening| heard.push(opening));
        if heard.is_empty() {
            self.ended.heard = heard;
            return;
        }
        let mut flips = Vec::new();
        let (mut closing, mut closed_at_ns) = (BTreeSet::new(), 0);
        for opening in heard.drain(..) {
            let Some(flow) = flow_of(&opening.key).filter(|flow| usize::from(flow.port.0) < PORTS_MAX) else { continue };
            let incarnation = Incarnation(opening.key.incarnation);
            match opening.kind {
                OPENING_ADMITTED => flips.extend(self.take_over(flow, incarnation, &opening)),
                OPENING_CLOSED => {
                    // the clock may not tell the end of one that was renewed from its beginning; the ring's order does
                    let began_ns = self.connections.find(&flow).map_or(0, |(_, connection, _)| connection.seen_ns);
                    let at_ns = if began_ns == opening.at_ns + 1 { began_ns } else { opening.at_ns };
                    self.ended.of_port[usize::from(flow.port.0)].push_back((flow, incarnation, at_ns));
                    closing.insert(flow.port);
                    closed_at_ns = opening.at_ns;
                }
                _ => {}
            }
        }
        self.ended.heard = heard;
        self.write_flips(&flips);
        for port in closing {
            if self.connections.is_crowded(port, 0) {
                self.reap(port, closed_at_ns);
            }
        }
    }

    /// Forgets at every port what ended long enough ago; most calls look at nothing.
    pub(super) fn forget_ended(&mut self, now_ns: u64) {
        if now_ns >= self.ended.next_look_ns {
            self.ended.next_look_ns = now_ns + LOOK_EVERY_NS;
            (0..PORTS_MAX).for_each(|port| self.reap(PortIndex(port as u16), now_ns));
        }
    }

    /// Tracks what the hooks admitted. Returns it where the table in force says something else of it.
    fn take_over(&mut self, flow: FlowKey, incarnation: Incarnation, opening: &Opening) -> Option<(FlowKey, Connection)> {
        let port = self.kernel.port(usize::from(flow.port.0));
        if port.worker != self.config.worker || port.ifindex == 0 || port.incarnation != incarnation.0 {
            self.remove_entries(&flow, incarnation);
            return None;
        }
        let deferred_before = opening.verdict == CACHE_ALLOW_DEFERRED;
        let known = self.table.as_ref().is_some_and(|table| table.endpoint(flow.port) == Some(incarnation));
        let keeps = known && self.config.established == Established::Keep;
        let (allowed, rule, deferred) = match self.policy(&flow, false, None) {
            Policy::Allow { rule, deferred } if known => (true, rule, deferred),
            _ => (keeps, None, deferred_before),
        };
        let same_ports = self.connections.find(&flow);
        let before = same_ports.map(|(_, connection, _)| connection).filter(|before| before.incarnation == incarnation);
        if opening.packets > 0 {
            self.rules.note_over(before.and_then(|before| before.rule), opening.packets, opening.bytes);
        }
        // younger than the end of the one before on these ports, which the clock may not tell apart
        let seen_ns = opening.at_ns + u64::from(before.is_some());
        let connection = Connection { incarnation, allowed, deferred, both_ways: false, origin: None, rule, seen_ns };
        // an opener against the direction of a known connection takes its place: the same two cache entries
        if same_ports.is_some_and(|(_, _, role)| role == Role::Reply) {
            self.connections.remove(&flow.reversed());
        }
        self.connections.insert(flow, connection);
        // also where it took the place of another one: the grant is used up
        self.connections.change(flow.port);
        (!allowed || deferred != deferred_before).then_some((flow, connection))
    }

    /// Forgets what ended at a port long enough ago. Cost: a system call for each [`ENDINGS_MAX`].
    pub(super) fn reap(&mut self, port: PortIndex, now_ns: u64) {
        for _ in 0..REAPED_MAX.div_ceil(ENDINGS_MAX) {
            let closed = self.closed(port, now_ns);
            if closed.is_empty() {
                return;
            }
            self.end_closed(&closed);
        }
    }

    /// Takes so many off the list of those that ended whose time has come.
    fn closed(&mut self, port: PortIndex, now_ns: u64) -> Vec<(FlowKey, Connection)> {
        let mut closed = Vec::new();
        while let Some(&(flow, incarnation, at_ns)) = self.ended.of_port[usize::from(port.0)].front() {
            let lingers_ns = if self.connections.is_crowded(port, closed.len()) { LINGERS_CROWDED_NS } else { LINGERS_NS };
            if now_ns.saturating_sub(at_ns) < lingers_ns || closed.len() == ENDINGS_MAX {
                break;
            }
            self.ended.of_port[usize::from(port.0)].pop_front();
            if let Some((original, connection, _)) = self.connections.find(&flow)
                // its ports may have been used again since
                && connection.incarnation == incarnation
                && connection.seen_ns <= at_ns
            {
                closed.push((original, connection));
            }
        }
        closed
    }

    /// Lets the hooks admit what differs from this new connection in the source port alone, and in ports around its own of which policy
    /// says the same, once the batch is on its way: its packets need not wait for that.
    pub(super) fn let_alike(&mut self, original: &FlowKey, connection: &Connection) {
        if connection.origin.is_some() || !(original.protocol == Protocol::UDP || original.protocol.is_opened_explicitly()) {
            return;
        }
        let port = self.kernel.port(usize::from(original.port.0));
        let verdict = if connection.deferred { CACHE_ALLOW_DEFERRED } else { CACHE_ALLOW };
        let allowance = Allowance {
            key: key_of(&FlowKey { sport: 0, ..*original }, connection.incarnation),
            deny_epoch: port.deny_epoch,
            rule: connection.rule.map_or(u32::MAX, |rule| rule.0),
            generation: self.table.as_ref().map_or(0, |table| table.generation() as u32),
            timeout_ns: self.config.timeouts.of(original.protocol),
            verdict,
            ..bytemuck::Zeroable::zeroed()
        };
        self.alike.push((*original, allowance));
    }

    /// Writes what [`Self::let_alike`] noted: of this batch, so under the table that it was judged by.
    pub(super) fn allow_alike(&mut self) {
        for (original, allowance) in self.alike.drain(..) {
            self.kernel.allow(&allowance);
            // what is deferred is judged elsewhere, and what departs has been
            let Some(table) = self.table.as_ref().filter(|_| allowance.verdict == CACHE_ALLOW && !original.departs) else { continue };
            let ports = table.ports_alike(original.port, original.direction, original.remote(), original.protocol, original.dport);
            if ports.start() < ports.end() {
                let key = Key { sport: allowance.deny_epoch as u16, dport: 0, ..allowance.key };
                self.kernel.allow(&Allowance { key, first_port: *ports.start(), last_port: *ports.end(), ..allowance });
            }
        }
    }

    /// Tells the hooks how much room each port has whose room has changed.
    pub(super) fn grant_room(&mut self) {
        while let Some(port) = self.connections.next_change() {
            let index = usize::from(port.0);
            let slot = self.kernel.port(index);
            if slot.worker == self.config.worker && !self.is_away(port, slot.incarnation) {
                let room = self.connections.room(port) as u32;
                self.kernel.grant(index, room);
                if room > SEARCHED_MAX as u32 {
                    self.kernel.set_full(index, 0);
                }
            }
        }
    }
}
