//! One packet's verdict: the connection it belongs to, else the table.

use super::adopt::last_seen_ns;
use super::{Judged, Worker};
use crate::conntrack::{Connection, Role};
use crate::io::PacketIo;
use crate::kernel::{Kernel, key_of};
use sluice_bpf::abi::{
    CACHE_ALLOW, CACHE_ALLOW_DEFERRED, CACHE_BOTH_WAYS, CACHE_DENY, CACHE_REPLY, CACHE_TRANSLATED, CacheValue, EVERY_PORT, Generation,
};
use sluice_flow::{
    Addr, Direction, DropReason, FlowKey, IcmpClass, IcmpError, Incarnation, Kind, PortIndex, Protocol, RuleId, TcpFlags, Verdict,
};

/// A parsed packet with where and when it was seen.
pub(super) struct Seen {
    pub(super) flow: FlowKey,
    pub(super) kind: Kind,
    /// Its source before this node translated it; of the tracked answer that leaves a pod: the opener's.
    pub(super) origin: Option<Addr>,
    pub(super) incarnation: Incarnation,
    /// The port's when the hook punted, which is before any of this.
    pub(super) epoch: u32,
    /// The cache has it, and counts it.
    pub(super) hit: bool,
    /// Of TCP without its SYN: its part in the connection, if the kernel tracks that.
    pub(super) tracked: Option<Role>,
    pub(super) bytes: usize,
    pub(super) now_ns: u64,
}

impl Seen {
    fn opens(&self) -> bool {
        self.kind.flags().is_some_and(TcpFlags::opens)
    }

    fn has_syn(&self) -> bool {
        self.kind.flags().is_some_and(|flags| flags.0 & TcpFlags::SYN != 0)
    }
}

/// The table's answer to a connection in its original direction.
pub(super) enum Policy {
    Allow { rule: Option<RuleId>, deferred: bool },
    Deny(DropReason),
}

impl<I: PacketIo, K: Kernel> Worker<I, K> {
    pub(super) fn judge(&mut self, seen: &Seen) -> Judged {
        let Some(table) = &self.table else { return Judged::Drop(DropReason::NoTable) };
        if table.endpoint(seen.flow.port) != Some(seen.incarnation) {
            return Judged::Drop(DropReason::EndpointUnknown);
        }
        match seen.kind {
            Kind::IcmpError(quoted) => return self.judge_icmp_error(seen, &quoted),
            // neither query nor answer of anything tracked: each is judged for itself, so that none passes as a reply
            Kind::Icmp(IcmpClass::Other) => {
                return match self.policy(&seen.flow, false, seen.origin) {
                    Policy::Allow { deferred, .. } => Judged::Pass { deferred },
                    Policy::Deny(reason) => Judged::Drop(reason),
                };
            }
            _ => {}
        }
        match self.tracked(&seen.flow, seen.incarnation) {
            Some((original, connection, role)) => self.judge_known(seen, original, connection, role),
            None => self.judge_unknown(seen),
        }
    }

    /// The connection of a flow, if it is one of this incarnation of its port.
    pub(super) fn tracked(&self, flow: &FlowKey, incarnation: Incarnation) -> Option<(FlowKey, Connection, Role)> {
        self.connections.find(flow).filter(|(_, connection, _)| connection.incarnation == incarnation)
    }

    /// Whether a connection with these entries, original and reply, is over, though nobody has forgotten it yet.
    fn timed_out(&self, original: &FlowKey, connection: &Connection, entries: &[Option<CacheValue>; 2], now_ns: u64) -> bool {
        let timeout_ns = entries.iter().flatten().map(|value| value.timeout_ns).max();
        // entries that the kernel lost say nothing about the connection
        let timeout_ns = timeout_ns.unwrap_or(self.config.timeouts.of(original.protocol));
        now_ns.saturating_sub(last_seen_ns(entries, connection.seen_ns)) > timeout_ns
    }

    /// A packet of a connection that the worker knows, which the hook did not let pass by itself.
    fn judge_known(&mut self, seen: &Seen, original: FlowKey, connection: Connection, role: Role) -> Judged {
        // replies are only replies: an opener is judged as a new connection, in either direction; so is what comes from another
        // origin by now, on ports that the node gave it
        let answers = seen.tracked == Some(Role::Reply);
        let another = role == Role::Original && !answers && seen.origin.is_some() && seen.origin != connection.origin;
        if seen.opens() || another {
            return self.judge_new(seen, seen.flow, false);
        }
        // what a cut connection would have answered may be a flow of its own; without an opener, of TCP and SCTP it is not
        if !connection.allowed && role == Role::Reply && !seen.flow.protocol.is_opened_explicitly() {
            return self.judge_new(seen, seen.flow, false);
        }
        let deferred = connection.deferred && role == Role::Original;
        if seen.hit {
            return pass_if(connection.allowed, deferred);
        }
        // entries of this very batch are not in the kernel yet
        if let Some(value) = self.pending.find(&seen.flow, seen.incarnation, original) {
            value.packets += 1;
            value.bytes += seen.bytes as u64;
            return pass_if(connection.allowed, deferred);
        }
        let keys = [key_of(&original, seen.incarnation), key_of(&original.reversed(), seen.incarnation)];
        let entries = keys.map(|key| self.kernel.cache_get(&key));
        if self.timed_out(&original, &connection, &entries, seen.now_ns) {
            self.end(&original, &connection);
            return self.judge_unknown(seen);
        }
        self.connections.update(&original, |connection| connection.seen_ns = seen.now_ns);
        let mine = usize::from(role == Role::Reply);
        let mut values = [Role::Original, Role::Reply].map(|role| self.entry(seen, &connection, role));
        for (value, entry) in values.iter_mut().zip(&entries) {
            // what the kernel counted is carried over, and the way it showed
            (value.packets, value.bytes) = entry.map_or((0, 0), |entry| (entry.packets, entry.bytes));
            (value.direct_until_ns, value.out_port) = entry.map_or((0, 0), |entry| (entry.direct_until_ns, entry.out_port));
            // a SYN among them begins a new connection on the ports of one that ended
            if !seen.has_syn() {
                value.tcp_flags = entry.map_or(0, |entry| entry.tcp_flags);
                value.timeout_ns = entry.map_or(value.timeout_ns, |entry| entry.timeout_ns.min(value.timeout_ns));
            }
        }
        values[mine].packets += 1;
        values[mine].bytes += seen.bytes as u64;
        self.pending.push(original, seen.incarnation, values[0], values[1]);
        pass_if(connection.allowed, deferred)
    }

    /// A packet of no known connection.
    fn judge_unknown(&mut self, seen: &Seen) -> Judged {
        match seen.kind {
            // where it left its pod it was known to go in its connection's direction
            Kind::Tcp(_) | Kind::Sctp(_) if seen.flow.departs => self.judge_new(seen, seen.flow, false),
            Kind::Tcp(flags) | Kind::Sctp(flags) if !flags.opens() => self.judge_mid_flow(seen),
            Kind::Icmp(IcmpClass::Reply) => match self.isolated(seen.flow.port, seen.flow.direction) {
                // the node's own requests are not tracked
                true if self.to_node(&seen.flow) => Judged::Pass { deferred: true },
                true => Judged::Drop(DropReason::ReplyToNothing),
                false => Judged::Pass { deferred: false },
            },
            _ => self.judge_new(seen, seen.flow, false),
        }
    }

    /// TCP without its SYN, SCTP without its INIT: the pod was not isolated when the connection began, or its state was lost. If
    /// the hook remembers the opener, or the kernel does, its direction counts; otherwise the connection must be allowed whoever
    /// opened it.
    fn judge_mid_flow(&mut self, seen: &Seen) -> Judged {
        let reversed = seen.flow.reversed();
        let opened = |flow: &FlowKey| self.kernel.opened(&key_of(flow, seen.incarnation));
        let role = match (opened(&seen.flow), opened(&reversed)) {
            (true, _) => Some(Role::Original),
            (false, true) => Some(Role::Reply),
            // what the node itself opened is always answered
            (false, false) => seen.tracked.filter(|role| *role == Role::Original || seen.origin.is_some() || !self.to_node(&seen.flow)),
        };
        match role {
            Some(Role::Original) => return self.judge_new(seen, seen.flow, false),
            Some(Role::Reply) => return self.judge_new(seen, reversed, false),
            None => {}
        }
        match self.policy(&seen.flow, true, seen.origin) {
            Policy::Allow { .. } => self.judge_new(seen, seen.flow, true),
            Policy::Deny(_) => Judged::Drop(DropReason::MidFlowUnknown),
        }
    }

    /// Judges a connection by the table and, if allowed, begins to track it.
    fn judge_new(&mut self, seen: &Seen, original: FlowKey, both_ways: bool) -> Judged {
        // of what answers, only the kernel's tracking tells who asked before translation
        let origin = seen.origin.filter(|_| (original == seen.flow) != (seen.tracked == Some(Role::Reply)));
        let (rule, deferred) = match self.policy(&original, both_ways, origin) {
            Policy::Allow { rule, deferred } => (rule, deferred),
            Policy::Deny(reason) => {
                self.remember_denial(seen, &original, reason);
                // of a full port one packet asks for all
                if !self.connections.has_room(original.port) {
                    self.reclaim(original.port, seen.now_ns);
                }
                return Judged::Drop(reason);
            }
        };
        let replaced = self.connections.find(&original).filter(|(_, connection, _)| connection.incarnation == seen.incarnation);
        let replaces = replaced.is_some();
        if !replaces && !self.connections.has_room(original.port) && !self.reclaim(original.port, seen.now_ns) {
            return Judged::Drop(DropReason::ConnectionsFull);
        }
        if let Some((replaced, connection, _)) = replaced {
            self.count_replaced(&replaced, &connection);
        }
        // an opener against the direction of a known connection takes its place: the same two cache entries
        self.connections.remove(&original.reversed());
        let (incarnation, seen_ns) = (seen.incarnation, seen.now_ns);
        let connection = Connection { incarnation, allowed: true, deferred, both_ways, origin, rule, seen_ns };
        self.connections.insert(original, connection);
        if !both_ways && original == seen.flow && (seen.opens() || original.protocol == Protocol::UDP) {
            self.let_alike(&original, &connection);
        }
        let mut values = [Role::Original, Role::Reply].map(|role| self.entry(seen, &connection, role));
        let mine = usize::from(original != seen.flow);
        values[mine].packets = 1;
        values[mine].bytes = seen.bytes as u64;
        self.pending.push(original, seen.incarnation, values[0], values[1]);
        if original == seen.flow && !deferred && !both_ways && !original.departs {
            self.judge_entrance(seen);
        }
        Judged::Pass { deferred: deferred && original == seen.flow }
    }

    /// Where a packet that leaves one pod of this worker goes to another one of it, that one's policy is asked at once, so that the
    /// hook there need not ask. Only what is allowed is noted: a packet that the node translates on its way, or that policy denies
    /// there, meets that hook as if nothing had been said.
    fn judge_entrance(&mut self, seen: &Seen) {
        let Some(&at) = self.local.get(&seen.flow.dst).filter(|_| seen.flow.direction == Direction::Egress) else { return };
        let port = self.kernel.port(usize::from(at.0));
        let incarnation = Incarnation(port.incarnation);
        let known = port.worker == self.config.worker && port.ifindex != 0;
        let known = known && self.table.as_ref().is_some_and(|table| table.endpoint(at) == Some(incarnation));
        let isolated = Direction::BOTH.into_iter().any(|direction| self.isolated(at, direction));
        let flow = FlowKey { port: at, direction: Direction::Ingress, ..seen.flow };
        if !known || !isolated || self.connections.find(&flow).is_some() || !self.connections.has_room(at) {
            return;
        }
        let Policy::Allow { rule, deferred: false } = self.policy(&flow, false, None) else { return };
        let connection =
            Connection { incarnation, allowed: true, deferred: false, both_ways: false, origin: None, rule, seen_ns: seen.now_ns };
        self.connections.insert(flow, connection);
        let entering = Seen { flow, incarnation, epoch: port.epoch, hit: false, origin: None, ..*seen };
        if entering.opens() || flow.protocol == Protocol::UDP {
            self.let_alike(&flow, &connection);
        }
        let [original, reply] = [Role::Original, Role::Reply].map(|role| self.entry(&entering, &connection, role));
        self.pending.push(flow, incarnation, original, reply);
    }

    /// Whether what leaves one pod belongs to a connection that may enter the other one, if that is this worker's, too. Otherwise
    /// its hook asks.
    pub(super) fn may_enter(&self, leaving: &FlowKey) -> bool {
        let Some(&at) = self.local.get(&leaving.dst) else { return false };
        let incarnation = Incarnation(self.kernel.port(usize::from(at.0)).incarnation);
        let flow = FlowKey { port: at, direction: Direction::Ingress, ..*leaving };
        self.tracked(&flow, incarnation).is_some_and(|(_, connection, _)| connection.allowed)
    }

    /// Denials spare the worker the rest of a denied flood. Only openers are remembered, only in the judged direction, and
    /// without the source port, on which no rule depends; without protocol and port, where none is allowed.
    fn remember_denial(&mut self, seen: &Seen, original: &FlowKey, reason: DropReason) {
        // of a translated one the next may come from elsewhere
        let first_of_its_flow = *original == seen.flow && seen.origin.is_none() && seen.kind.flags().is_none_or(TcpFlags::opens);
        if reason == DropReason::PolicyDenied && first_of_its_flow {
            let port = self.kernel.port(usize::from(original.port.0));
            let everything =
                self.table.as_ref().is_some_and(|table| table.denies_all(original.port, original.direction, original.remote()));
            let covered = match everything {
                true => FlowKey { protocol: Protocol(0), sport: 0, dport: EVERY_PORT, ..*original },
                false => FlowKey { sport: 0, ..*original },
            };
            self.kernel.deny(&key_of(&covered, seen.incarnation), port.deny_epoch);
        }
    }

    /// What the table says of a connection whose first packet is `original`, from `origin` if the node translated its source;
    /// in mid-flow, what it says both ways.
    pub(super) fn policy(&self, original: &FlowKey, both_ways: bool, origin: Option<Addr>) -> Policy {
        let Some(table) = &self.table else { return Policy::Deny(DropReason::NoTable) };
        let remote = origin.unwrap_or(original.remote());
        let verdict = table.lookup(original.port, original.direction, remote, original.protocol, original.policy_port());
        // through a service that picked the pod itself; as such an address cannot come from elsewhere, and does not go there
        if (original.departs || origin.is_some()) && self.is_own(original.port, remote) {
            return Policy::Allow { rule: None, deferred: false };
        }
        // not what it will be: judged where it departs, or delivered to this node, which is always allowed
        if verdict != Verdict::NotIsolated && (self.to_node(original) || self.to_service(original)) {
            return Policy::Allow { rule: None, deferred: true };
        }
        let rule = match verdict {
            Verdict::Deny => return Policy::Deny(DropReason::PolicyDenied),
            Verdict::NotIsolated => None,
            Verdict::Allow(rule) => Some(rule),
        };
        // the other way from this node is always allowed, and never judged
        if both_ways
            && !self.to_node(original)
            && let Policy::Deny(reason) = self.policy(&original.reversed(), false, None)
        {
            return Policy::Deny(reason);
        }
        Policy::Allow { rule, deferred: false }
    }

    /// An error is allowed if it quotes a connection that is: the quoted packet crossed this port the other way.
    fn judge_icmp_error(&mut self, seen: &Seen, quoted: &IcmpError) -> Judged {
        if !self.isolated(seen.flow.port, seen.flow.direction) {
            return Judged::Pass { deferred: false };
        }
        // what it quotes is not as its pod knows it
        if seen.flow.departs {
            return Judged::Drop(DropReason::IcmpErrorUntracked);
        }
        let inner = FlowKey {
            port: seen.flow.port,
            direction: seen.flow.direction.reversed(),
            departs: false,
            protocol: quoted.protocol,
            src: quoted.src,
            dst: quoted.dst,
            sport: quoted.sport,
            dport: quoted.dport,
        };
        let addressed = match seen.flow.direction {
            // the quoted packet's sender is told
            Direction::Ingress => quoted.src == seen.flow.dst,
            // the pod complains to whoever sent it
            Direction::Egress => quoted.src == seen.flow.dst && quoted.dst == seen.flow.src,
        };
        let live = self.tracked(&inner, seen.incarnation).is_some_and(|(original, connection, _)| {
            let entries = [original, original.reversed()].map(|flow| self.kernel.cache_get(&key_of(&flow, seen.incarnation)));
            connection.allowed && !self.timed_out(&original, &connection, &entries, seen.now_ns)
        });
        match addressed && live {
            true => Judged::Pass { deferred: false },
            // of what the node itself asked nothing is tracked
            false if self.to_node(&seen.flow) => Judged::Pass { deferred: true },
            false => Judged::Drop(DropReason::IcmpErrorUntracked),
        }
    }

    /// Whether a packet leaves the pod for an address of this node.
    fn to_node(&self, flow: &FlowKey) -> bool {
        flow.direction == Direction::Egress && !flow.departs && self.node_addresses.contains(&flow.dst)
    }

    /// Whether an address is the port's pod's own.
    fn is_own(&self, port: PortIndex, address: Addr) -> bool {
        let port = self.kernel.port(usize::from(port.0));
        match address.to_v4() {
            Some(v4) => v4 != 0 && v4.to_be_bytes() == port.ip4,
            None => port.has_ip6 != 0 && address.0 == port.ip6,
        }
    }

    /// Whether a packet leaves the pod for a service, which it will not reach as such.
    fn to_service(&self, flow: &FlowKey) -> bool {
        let leaves = flow.direction == Direction::Egress && !flow.departs;
        leaves && self.table.as_ref().is_some_and(|table| table.is_service(flow.dst))
    }

    pub(super) fn isolated(&self, port: PortIndex, direction: Direction) -> bool {
        self.table.as_ref().is_none_or(|table| table.isolated(port, direction))
    }

    /// A fresh entry of a connection, nothing counted yet.
    fn entry(&self, seen: &Seen, connection: &Connection, role: Role) -> CacheValue {
        let mut value = self.entry_of(connection, role);
        value.epoch = seen.epoch;
        value.timeout_ns = self.config.timeouts.of(seen.flow.protocol);
        if connection.origin.is_some() && !seen.flow.protocol.is_opened_explicitly() {
            value.timeout_ns = value.timeout_ns.min(self.config.timeouts.translated_ns);
        }
        value.last_seen_ns = seen.now_ns;
        value
    }

    /// The parts of an entry that follow from the connection alone.
    pub(super) fn entry_of(&self, connection: &Connection, role: Role) -> CacheValue {
        let verdict = match (connection.allowed, connection.deferred && role == Role::Original) {
            (false, _) => CACHE_DENY,
            (true, true) => CACHE_ALLOW_DEFERRED,
            (true, false) => CACHE_ALLOW,
        };
        let reply = if role == Role::Reply { CACHE_REPLY } else { 0 };
        let both_ways = if connection.both_ways { CACHE_BOTH_WAYS } else { 0 };
        let translated = if connection.origin.is_some() { CACHE_TRANSLATED } else { 0 };
        CacheValue {
            epoch: 0,
            verdict,
            flags: reply | both_ways | translated,
            tcp_flags: 0,
            timeout_ns: 0,
            packets: 0,
            bytes: 0,
            last_seen_ns: 0,
            rule: connection.rule.map_or(u32::MAX, |rule| rule.0),
            generation: self.table.as_ref().map_or(0, |table| table.generation() as Generation),
            origin: connection.origin.map_or([0; 16], |origin| origin.0),
            ..bytemuck::Zeroable::zeroed()
        }
    }
}

fn pass_if(allowed: bool, deferred: bool) -> Judged {
    if allowed { Judged::Pass { deferred } } else { Judged::Drop(DropReason::PolicyDenied) }
}
