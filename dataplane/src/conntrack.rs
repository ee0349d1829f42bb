//! The connections of one worker's ports. A port belongs to one worker, and at a pod's own hooks the two directions of a
//! connection are exact reverses, so no lock is needed and one entry serves both.

use sluice_flow::limits::{CONNECTIONS_PER_PORT_MAX, PORTS_MAX};
use sluice_flow::{Addr, FlowKey, Incarnation, PortIndex, Protocol, RuleId};
use std::collections::HashMap;

/// How a packet relates to a known connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// In the direction of the connection's first packet.
    Original,
    /// An answer.
    Reply,
}

/// One connection, keyed by its first packet.
#[derive(Debug, Clone, Copy)]
pub struct Connection {
    /// Which use of the port it belongs to.
    pub incarnation: Incarnation,
    /// False once a swap has cut it; its entries then deny.
    pub allowed: bool,
    /// Its destination is a service or this node: judged again where it departs.
    pub deferred: bool,
    /// Picked up in mid-flow without a known opener: judged in both directions.
    pub both_ways: bool,
    /// Its source before this node translated it: that one is judged.
    pub origin: Option<Addr>,
    /// The rule that allows it under the table in force, `None` where the pod is not isolated or it is cut.
    pub rule: Option<RuleId>,
    /// The last time the worker itself saw a packet of it; the kernel sees the others.
    pub seen_ns: u64,
}

/// Idle times after which a connection is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP; FIN and RST shorten it in the kernel. Above two hours, the keep-alive interval of RFC 9293, 3.8.4.
    pub tcp_ns: u64,
    /// UDP.
    pub udp_ns: u64,
    /// ICMP queries.
    pub icmp_ns: u64,
    /// Everything else.
    pub other_ns: u64,
    /// What is judged by its source before translation, TCP and SCTP apart, whose openers are always asked for: the kernel gives
    /// a translated source port to somebody else once it has forgotten the flow (nf_conntrack_udp_timeout).
    pub translated_ns: u64,
}

/// Below the kernel's own 30 seconds.
const TRANSLATED_NS: u64 = 25_000_000_000;

impl Default for Timeouts {
    fn default() -> Self {
        const SECOND_NS: u64 = 1_000_000_000;
        Self {
            tcp_ns: 7440 * SECOND_NS,
            udp_ns: 120 * SECOND_NS,
            icmp_ns: 30 * SECOND_NS,
            other_ns: 600 * SECOND_NS,
            translated_ns: TRANSLATED_NS,
        }
    }
}

impl Timeouts {
    /// The one of a protocol.
    pub fn of(&self, protocol: Protocol) -> u64 {
        match protocol {
            Protocol::TCP => self.tcp_ns,
            Protocol::UDP => self.udp_ns,
            Protocol::ICMP | Protocol::ICMPV6 => self.icmp_ns,
            _ => self.other_ns,
        }
    }
}

/// All connections of one worker. The hasher is keyed at random, so that a pod cannot aim at collisions.
#[derive(Debug)]
pub struct Connections {
    by_flow: HashMap<FlowKey, Connection, ahash::RandomState>,
    of_port: Box<[u32; PORTS_MAX]>,
    /// Ports whose room has changed, each once.
    changed: Vec<PortIndex>,
    is_changed: Box<[bool; PORTS_MAX]>,
    per_port_max: usize,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            by_flow: HashMap::default(),
            of_port: Box::new([0; PORTS_MAX]),
            changed: Vec::new(),
            is_changed: Box::new([false; PORTS_MAX]),
            per_port_max: CONNECTIONS_PER_PORT_MAX,
        }
    }
}

impl Connections {
    /// With a hasher keyed by a seed, for simulation.
    pub fn with_seed(seed: u64) -> Self {
        let hasher = ahash::RandomState::with_seeds(seed, seed ^ 1, seed ^ 2, seed ^ 3);
        Self { by_flow: HashMap::with_hasher(hasher), ..Self::default() }
    }

    /// With a smaller quota than [`CONNECTIONS_PER_PORT_MAX`], for simulation.
    pub fn limited_to(self, per_port_max: usize) -> Self {
        Self { per_port_max: per_port_max.min(CONNECTIONS_PER_PORT_MAX), ..self }
    }

    /// The connection a packet belongs to, its key, and the packet's role in it.
    pub fn find(&self, flow: &FlowKey) -> Option<(FlowKey, Connection, Role)> {
        if let Some(connection) = self.by_flow.get(flow) {
            return Some((*flow, *connection, Role::Original));
        }
        let reversed = flow.reversed();
        self.by_flow.get(&reversed).map(|connection| (reversed, *connection, Role::Reply))
    }

    /// Whether the port may hold one more.
    pub fn has_room(&self, port: PortIndex) -> bool {
        self.room(port) > 0
    }

    /// How many more the port may hold.
    pub fn room(&self, port: PortIndex) -> usize {
        self.per_port_max.saturating_sub(self.count(port))
    }

    /// Whether more than half of what the port may hold is there.
    pub fn is_crowded(&self, port: PortIndex) -> bool {
        self.count(port) > self.per_port_max / 2
    }

    /// Notes that the hooks should hear of a port's room.
    pub fn change(&mut self, port: PortIndex) {
        if !std::mem::replace(&mut self.is_changed[usize::from(port.0)], true) {
            self.changed.push(port);
        }
    }

    /// A port whose room has changed since this last named it.
    pub fn next_change(&mut self) -> Option<PortIndex> {
        let port = self.changed.pop()?;
        self.is_changed[usize::from(port.0)] = false;
        Some(port)
    }

    /// How many the port holds.
    pub fn count(&self, port: PortIndex) -> usize {
        self.of_port[usize::from(port.0)] as usize
    }

    /// Adds or replaces.
    pub fn insert(&mut self, flow: FlowKey, connection: Connection) {
        if self.by_flow.insert(flow, connection).is_none() {
            self.of_port[usize::from(flow.port.0)] += 1;
            self.change(flow.port);
        }
    }

    /// Forgets one.
    pub fn remove(&mut self, flow: &FlowKey) -> Option<Connection> {
        let removed = self.by_flow.remove(flow);
        if removed.is_some() {
            self.of_port[usize::from(flow.port.0)] -= 1;
            self.change(flow.port);
        }
        removed
    }

    /// Changes one in place.
    pub fn update(&mut self, flow: &FlowKey, change: impl FnOnce(&mut Connection)) {
        if let Some(connection) = self.by_flow.get_mut(flow) {
            change(connection);
        }
    }

    /// Each, for revalidation; the order means nothing.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&FlowKey, &mut Connection)> {
        self.by_flow.iter_mut()
    }

    /// Forgets all of one port and gives them back.
    pub fn remove_port(&mut self, port: PortIndex) -> Vec<(FlowKey, Connection)> {
        let removed: Vec<_> = self.by_flow.extract_if(|flow, _| flow.port == port).collect();
        self.of_port[usize::from(port.0)] = 0;
        self.change(port);
        removed
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.by_flow.len()
    }

    /// None at all.
    pub fn is_empty(&self) -> bool {
        self.by_flow.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_flow::Direction;

    #[test]
    fn both_directions_find_one_entry_and_ports_are_counted() {
        let flow = FlowKey {
            port: PortIndex(2),
            direction: Direction::Ingress,
            departs: false,
            protocol: Protocol::UDP,
            src: Addr::v4([10, 0, 0, 1]),
            dst: Addr::v4([10, 0, 0, 2]),
            sport: 1000,
            dport: 53,
        };
        let connection = Connection {
            incarnation: Incarnation(1),
            allowed: true,
            deferred: false,
            both_ways: false,
            origin: None,
            rule: None,
            seen_ns: 0,
        };
        let mut connections = Connections::with_seed(1);
        connections.insert(flow, connection);
        connections.insert(flow, connection);
        assert_eq!(connections.of_port[2], 1);
        assert_eq!(connections.find(&flow).unwrap().2, Role::Original);
        assert_eq!(connections.find(&flow.reversed()).unwrap().2, Role::Reply);
        assert_eq!(connections.remove_port(PortIndex(2)).len(), 1);
        assert!(connections.is_empty() && connections.has_room(PortIndex(2)));
    }
}
