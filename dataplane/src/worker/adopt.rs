//! Between batches: a new table, a port that is gone, connections that are idle, a restart.

use super::judge::Policy;
use super::rules::{CUTS_MAX, Cut, name_of};
use super::{Command, Established, Worker};
use crate::conntrack::{Connection, Role};
use crate::io::PacketIo;
use crate::kernel::{Kernel, flow_of, key_of};
use sluice_bpf::abi::{
    CACHE_ALLOW, CACHE_ALLOW_DEFERRED, CACHE_BOTH_WAYS, CACHE_DENY, CACHE_REPLY, CacheValue, Key, PORT_ISOLATED_EGRESS,
    PORT_ISOLATED_INGRESS, PORT_OPEN, Port,
};
use sluice_flow::limits::PORTS_MAX;
use sluice_flow::{Addr, Direction, FlowKey, Incarnation, PortIndex, RuleId, TcpFlags};
use sluice_table::Table;
use std::sync::Arc;

/// TCP without an answer is forgotten after so long, so that a scan of ports cannot hold its room for hours.
const UNANSWERED_TIMEOUT_NS: u64 = 60_000_000_000;
/// Of a coming table, before each batch: some 0.4 µs, and 330 batches for a table of 2.7 MB.
const SLICE_LINES: usize = 128;

impl<I: PacketIo, K: Kernel> Worker<I, K> {
    /// Carries out everything the keeper asked for; a table is adopted some calls later, see [`Self::approach`]. Cost without
    /// commands: one load.
    pub fn run_commands(&mut self, now_ns: u64) {
        self.hear();
        self.forget_ended(now_ns);
        while let Some(command) = self.shared.commands.pop() {
            match command {
                // where one is coming already, this one goes on from there: tables in quick succession must not keep each other out
                Command::Adopt(table) => self.coming = Some(table),
                Command::ForgetPort(port) => self.forget_port(port),
                Command::GiveAway(port, incarnation) => self.give_away(port, incarnation),
                Command::Expect(port, incarnation) => self.expect(port, incarnation),
                Command::TakeOver(given) => self.take_port(given),
                Command::Expire(flows) => flows.iter().for_each(|(flow, incarnation)| self.expire(flow, *incarnation, now_ns)),
                Command::NodeAddresses(addresses) => {
                    self.node_addresses = addresses.into_iter().collect();
                    if let Some(table) = self.table.clone() {
                        // also the denials: what was denied may be this node now
                        self.set_port_states(&table);
                        self.hear();
                        self.revalidate(&table, Some(&table));
                    }
                }
            }
            self.shared.set_connections(self.connections.len());
        }
        self.release_fragments(now_ns);
        self.show_rules(now_ns);
        self.approach(SLICE_LINES);
        self.grant_room();
    }

    /// Brings so many lines of a coming table near, and adopts it when all are: lookups that met a new table cold took
    /// 1.0 to 1.8 times as long at the 99.9th percentile (`make bench-swap`, S3). Returns whether one is still coming.
    pub fn approach(&mut self, lines: usize) -> bool {
        let Some(table) = &self.coming else { return false };
        self.near = table.warm(self.near, lines);
        if self.near < table.lines() {
            return true;
        }
        self.coming.take().into_iter().for_each(|table| self.adopt(table));
        false
    }

    /// Judges by `table` from here on. Every connection is judged again in its original direction; only those whose
    /// verdict changed are written, so a swap disturbs nobody else. Acknowledges when all is in the kernel.
    pub fn adopt(&mut self, table: Arc<Table>) {
        // whatever was on its way is older
        (self.coming, self.near) = (None, 0);
        self.rules.settle(self.table.as_deref());
        let before = self.table.replace(table.clone());
        // isolation first: from here on the hooks ask for what they did not ask for before
        self.set_port_states(&table);
        // what the hooks admitted by the table before is judged with all others
        self.hear();
        // of what ended there the rules are still numbered as they were
        self.rules.settle(before.as_deref());
        let cut = self.revalidate(&table, before.as_deref());
        self.shared.acknowledge(table.generation(), cut);
    }

    pub(super) fn set_port_states(&mut self, table: &Table) {
        self.local.clear();
        for index in 0..PORTS_MAX {
            let port = self.kernel.port(index);
            let at = PortIndex(index as u16);
            if port.ifindex == 0 || port.worker != self.config.worker || self.is_away(at, port.incarnation) {
                continue;
            }
            let mut state = 0;
            if table.endpoint(at) == Some(Incarnation(port.incarnation)) {
                state = PORT_OPEN;
                self.local.extend(addresses(&port).map(|address| (address, at)));
                state |= if table.isolated(at, Direction::Ingress) { PORT_ISOLATED_INGRESS } else { 0 };
                state |= if table.isolated(at, Direction::Egress) { PORT_ISOLATED_EGRESS } else { 0 };
            }
            self.kernel.set_port_state(index, port.incarnation, state);
            self.kernel.void_denials(index);
            self.connections.change(at);
        }
    }

    /// Returns how many connections were cut. `before` names the rules that had allowed them.
    pub(super) fn revalidate(&mut self, table: &Table, before: Option<&Table>) -> u64 {
        let (mut listed, generation) = (0, table.generation());
        let mut flips: Vec<(FlowKey, Connection)> = Vec::new();
        let mut connections = std::mem::take(&mut self.connections);
        for (flow, connection) in connections.iter_mut() {
            let known = table.endpoint(flow.port) == Some(connection.incarnation);
            let (allowed, rule, deferred) = match self.policy(flow, connection.both_ways, connection.origin) {
                Policy::Allow { rule, deferred } if known => (true, rule, deferred),
                _ => (false, None, connection.deferred),
            };
            // a pod that is gone keeps nothing
            let allowed = allowed || (known && connection.allowed && self.config.established == Established::Keep);
            let allowed_by = std::mem::replace(&mut connection.rule, rule);
            if connection.allowed && !allowed && listed < CUTS_MAX {
                listed += 1;
                let rule = allowed_by.map(|rule| name_of(before, Some(rule)));
                self.shared.list_cut(Cut { flow: *flow, incarnation: connection.incarnation, rule, generation });
            }
            if (allowed, deferred) != (connection.allowed, connection.deferred) {
                (connection.allowed, connection.deferred) = (allowed, deferred);
                flips.push((*flow, *connection));
            }
        }
        self.connections = connections;
        let cut = flips.iter().filter(|(_, connection)| !connection.allowed).count() as u64;
        for batch in flips.chunks(256) {
            self.write_flips(batch);
        }
        cut
    }

    pub(super) fn write_flips(&mut self, flips: &[(FlowKey, Connection)]) {
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for (flow, connection) in flips {
            for (flow, role) in [(*flow, Role::Original), (flow.reversed(), Role::Reply)] {
                let key = key_of(&flow, connection.incarnation);
                // an entry that the kernel lost will be asked for again, and is answered by the connection
                if let Some(present) = self.kernel.cache_get(&key) {
                    let fresh = self.entry_of(connection, role);
                    keys.push(key);
                    values.push(CacheValue { verdict: fresh.verdict, rule: fresh.rule, generation: fresh.generation, ..present });
                }
            }
        }
        if let Err(partial) = self.kernel.cache_put(&keys, &values) {
            // an entry that cannot be rewritten must not stay: without it the hooks ask
            keys[partial.done..].iter().for_each(|key| self.kernel.cache_remove(key));
        }
    }

    fn forget_port(&mut self, port: PortIndex) {
        self.fragments.forget_port(port);
        self.ended.forget_port(port);
        self.away.remove(&port);
        for (flow, connection) in self.connections.remove_port(port) {
            self.take_entries(&flow, &connection);
        }
    }

    pub(super) fn remove_entries(&mut self, flow: &FlowKey, incarnation: Incarnation) {
        self.kernel.cache_remove(&key_of(flow, incarnation));
        self.kernel.cache_remove(&key_of(&flow.reversed(), incarnation));
    }

    /// Forgets a connection if both its entries are idle for longer than they may be.
    fn expire(&mut self, flow: &FlowKey, incarnation: Incarnation, now_ns: u64) {
        let port = self.kernel.port(usize::from(flow.port.0));
        if port.worker != self.config.worker || self.is_away(flow.port, port.incarnation) {
            // it was this worker's when the scan found it
            return;
        }
        let found = self.connections.find(flow).filter(|(_, connection, _)| connection.incarnation == incarnation);
        let Some((original, connection, _)) = found else {
            // entries of a connection that the worker does not know: the hooks must not go on by them
            return self.remove_entries(flow, incarnation);
        };
        let entries = [original, original.reversed()].map(|flow| self.kernel.cache_get(&key_of(&flow, connection.incarnation)));
        if is_idle(&original, entries, connection.seen_ns, now_ns) {
            self.end(&original, &connection);
        }
    }

    /// Takes over the connections that the pinned cache remembers from before a restart, and removes every entry of this
    /// worker's ports that belongs to none of them: half a pair, another incarnation or epoch of the port, a verdict that
    /// contradicts its partner's because death came between the two. Call before the first batch, then adopt the last
    /// table: it cuts what changed meanwhile.
    pub fn rebuild(&mut self, entries: &[(Key, CacheValue)], now_ns: u64) {
        for (key, value) in entries {
            if let Some((flow, connection)) = self.remembered(key, value, now_ns)
                && self.connections.has_room(flow.port)
            {
                self.connections.insert(flow, connection);
            }
        }
        for (key, value) in entries {
            let port = usize::from(key.port);
            let another = port < PORTS_MAX && self.kernel.port(port).worker != self.config.worker;
            if !another && !self.belongs(key, value) {
                self.kernel.cache_remove(key);
            }
        }
        self.shared.set_connections(self.connections.len());
    }

    /// Whether an entry was written for the port as it is now, by this worker.
    fn is_current(&self, key: &Key, value: &CacheValue) -> bool {
        let index = usize::from(key.port);
        index < PORTS_MAX && {
            let port = self.kernel.port(index);
            port.worker == self.config.worker && port.ifindex != 0 && port.incarnation == key.incarnation && port.epoch == value.epoch
        }
    }

    /// The connection behind the entry of an original direction whose partner is there too.
    fn remembered(&self, key: &Key, value: &CacheValue, now_ns: u64) -> Option<(FlowKey, Connection)> {
        let flow = flow_of(key)?;
        let incarnation = Incarnation(key.incarnation);
        let partner = self.kernel.cache_get(&key_of(&flow.reversed(), incarnation));
        let pair = value.flags & CACHE_REPLY == 0 && partner.is_some_and(|partner| partner.flags & CACHE_REPLY != 0);
        let connection = Connection {
            incarnation,
            allowed: matches!(value.verdict, CACHE_ALLOW | CACHE_ALLOW_DEFERRED),
            deferred: value.verdict == CACHE_ALLOW_DEFERRED,
            both_ways: value.flags & CACHE_BOTH_WAYS != 0,
            origin: (value.origin != [0; 16]).then_some(Addr(value.origin)),
            rule: (value.rule != u32::MAX).then_some(RuleId(value.rule)),
            seen_ns: value.last_seen_ns.min(now_ns),
        };
        (pair && self.is_current(key, value)).then_some((flow, connection))
    }

    /// Whether an entry says what its connection says.
    fn belongs(&self, key: &Key, value: &CacheValue) -> bool {
        let Some((_, connection, role)) = flow_of(key).and_then(|flow| self.connections.find(&flow)) else { return false };
        let reply = value.flags & CACHE_REPLY != 0;
        self.is_current(key, value) && reply == (role == Role::Reply) && connection.allowed == (value.verdict != CACHE_DENY)
    }
}

/// Those of a port.
fn addresses(port: &Port) -> impl Iterator<Item = Addr> + use<> {
    let v4 = (port.ip4 != [0; 4]).then(|| Addr::v4(port.ip4));
    let v6 = (port.has_ip6 != 0).then_some(Addr(port.ip6));
    v4.into_iter().chain(v6)
}

/// When the kernel or the worker last saw a packet of a connection with these entries.
pub(super) fn last_seen_ns(entries: &[Option<CacheValue>; 2], seen_ns: u64) -> u64 {
    entries.iter().flatten().map(|value| value.last_seen_ns).max().unwrap_or(0).max(seen_ns)
}

/// Whether nobody has answered a connection with these entries, original and reply, as far as can be told.
pub(super) fn is_silent(flow: &FlowKey, [original, reply]: &[Option<CacheValue>; 2]) -> bool {
    match flow.departs {
        // the answers of what departs cross another hook; a client that acknowledges has had one
        true => flow.protocol.is_opened_explicitly() && original.is_some_and(|value| value.tcp_flags & TcpFlags::ACK == 0),
        false => reply.is_some_and(|value| value.packets == 0),
    }
}

/// Whether a connection with these entries, original and reply, may be forgotten.
pub(crate) fn is_idle(flow: &FlowKey, entries: [Option<CacheValue>; 2], seen_ns: u64, now_ns: u64) -> bool {
    let last_seen = last_seen_ns(&entries, seen_ns);
    let timeout_ns = entries.iter().flatten().map(|value| value.timeout_ns).min().unwrap_or(0);
    let unanswered = is_silent(flow, &entries) && entries[0].is_some_and(|value| value.timeout_ns > UNANSWERED_TIMEOUT_NS);
    let limit_ns = if unanswered { UNANSWERED_TIMEOUT_NS.min(timeout_ns) } else { timeout_ns };
    now_ns.saturating_sub(last_seen) > limit_ns
}
