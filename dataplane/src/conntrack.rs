//! The connections of one worker's ports. A port belongs to one worker, and at a pod's own hooks the two directions of a
//! connection are exact reverses, so no lock is needed and one entry serves both.

use indexmap::IndexMap;
use sluice_flow::limits::{CONNECTIONS_PER_PORT_MAX, PORTS_MAX};
use sluice_flow::{Addr, FlowKey, Incarnation, PortIndex, Protocol, RuleId};

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

/// All connections of one worker, by port. The hasher is keyed at random, so that a pod cannot aim at collisions.
#[derive(Debug)]
pub struct Connections {
    of_port: Box<[OfPort]>,
    count: usize,
    /// Ports whose room has changed, each once.
    changed: Vec<PortIndex>,
    is_changed: Box<[bool; PORTS_MAX]>,
    per_port_max: usize,
}

/// Those of one port, oldest first as long as none was forgotten: the newest takes the place of one that is.
#[derive(Debug, Clone)]
struct OfPort {
    by_flow: IndexMap<FlowKey, Connection, ahash::RandomState>,
    /// Where the search for what has ended goes on.
    hand: usize,
}

/// Room that is kept for a port's connections, however few there are.
const KEPT_ROOM: usize = 64;

impl Default for Connections {
    fn default() -> Self {
        Self::with_hasher(&ahash::RandomState::new())
    }
}

impl Connections {
    fn with_hasher(hasher: &ahash::RandomState) -> Self {
        Self {
            of_port: vec![OfPort { by_flow: IndexMap::with_hasher(hasher.clone()), hand: 0 }; PORTS_MAX].into(),
            count: 0,
            changed: Vec::new(),
            is_changed: Box::new([false; PORTS_MAX]),
            per_port_max: CONNECTIONS_PER_PORT_MAX,
        }
    }

    /// With a hasher keyed by a seed, for simulation.
    pub fn with_seed(seed: u64) -> Self {
        Self::with_hasher(&ahash::RandomState::with_seeds(seed, seed ^ 1, seed ^ 2, seed ^ 3))
    }

    /// With a smaller quota than [`CONNECTIONS_PER_PORT_MAX`], for simulation.
    pub fn limited_to(self, per_port_max: usize) -> Self {
        Self { per_port_max: per_port_max.min(CONNECTIONS_PER_PORT_MAX), ..self }
    }

    /// The connection a packet belongs to, its key, and the packet's role in it.
    pub fn find(&self, flow: &FlowKey) -> Option<(FlowKey, Connection, Role)> {
        // keys that were found in the kernel may be nonsense
        let by_flow = &self.of_port.get(usize::from(flow.port.0))?.by_flow;
        if let Some(connection) = by_flow.get(flow) {
            return Some((*flow, *connection, Role::Original));
        }
        let reversed = flow.reversed();
        by_flow.get(&reversed).map(|connection| (reversed, *connection, Role::Reply))
    }

    /// Whether the port may hold one more.
    pub fn has_room(&self, port: PortIndex) -> bool {
        self.room(port) > 0
    }

    /// How many more the port may hold.
    pub fn room(&self, port: PortIndex) -> usize {
        self.per_port_max.saturating_sub(self.count(port))
    }

    /// Whether more than half of what the port may hold is there, also without so many that are about to go.
    pub fn is_crowded(&self, port: PortIndex, going: usize) -> bool {
        self.count(port) > self.per_port_max / 2 + going
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
        self.of_port[usize::from(port.0)].by_flow.len()
    }

    /// Adds or replaces.
    pub fn insert(&mut self, flow: FlowKey, connection: Connection) {
        if self.of_port[usize::from(flow.port.0)].by_flow.insert(flow, connection).is_none() {
            self.count += 1;
            self.change(flow.port);
        }
    }

    /// Forgets one.
    pub fn remove(&mut self, flow: &FlowKey) -> Option<Connection> {
        let by_flow = &mut self.of_port[usize::from(flow.port.0)].by_flow;
        let removed = by_flow.swap_remove(flow)?;
        // what a flood took comes back
        if by_flow.len() < by_flow.capacity() / 8 && by_flow.capacity() > KEPT_ROOM {
            by_flow.shrink_to((2 * by_flow.len()).max(KEPT_ROOM));
        }
        self.count -= 1;
        self.change(flow.port);
        Some(removed)
    }

    /// The next of a port, round and round: each comes once in as many calls as there are, but for the newest.
    pub fn next_of(&mut self, port: PortIndex) -> Option<(FlowKey, Connection)> {
        let OfPort { by_flow, hand } = &mut self.of_port[usize::from(port.0)];
        *hand = if *hand < by_flow.len() { *hand } else { 0 };
        let (flow, connection) = by_flow.get_index(*hand)?;
        *hand += 1;
        Some((*flow, *connection))
    }

    /// Changes one in place.
    pub fn update(&mut self, flow: &FlowKey, change: impl FnOnce(&mut Connection)) {
        if let Some(connection) = self.of_port[usize::from(flow.port.0)].by_flow.get_mut(flow) {
            change(connection);
        }
    }

    /// Each, for revalidation; the order means nothing.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&FlowKey, &mut Connection)> {
        self.of_port.iter_mut().flat_map(|of_port| of_port.by_flow.iter_mut())
    }

    /// Forgets all of one port and gives them back.
    pub fn remove_port(&mut self, port: PortIndex) -> Vec<(FlowKey, Connection)> {
        let by_flow = &mut self.of_port[usize::from(port.0)].by_flow;
        let removed: Vec<_> = by_flow.drain(..).collect();
        by_flow.shrink_to(0);
        self.count -= removed.len();
        self.change(port);
        removed
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.count
    }

    /// None at all.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_flow::Direction;

    const CONNECTION: Connection =
        Connection { incarnation: Incarnation(1), allowed: true, deferred: false, both_ways: false, origin: None, rule: None, seen_ns: 0 };

    fn flow(port: u16, sport: u16) -> FlowKey {
        FlowKey {
            port: PortIndex(port),
            direction: Direction::Ingress,
            departs: false,
            protocol: Protocol::UDP,
            src: Addr::v4([10, 0, 0, 1]),
            dst: Addr::v4([10, 0, 0, 2]),
            sport,
            dport: 53,
        }
    }

    #[test]
    fn both_directions_find_one_entry_and_ports_are_counted() {
        let (flow, connection) = (flow(2, 1000), CONNECTION);
        let mut connections = Connections::with_seed(1);
        connections.insert(flow, connection);
        connections.insert(flow, connection);
        assert_eq!(connections.count(PortIndex(2)), 1);
        assert_eq!(connections.find(&flow).unwrap().2, Role::Original);
        assert_eq!(connections.find(&flow.reversed()).unwrap().2, Role::Reply);
        assert_eq!(connections.remove_port(PortIndex(2)).len(), 1);
        assert!(connections.is_empty() && connections.has_room(PortIndex(2)));
    }

    #[test]
    fn a_search_of_one_port_comes_by_all_of_it_also_where_some_are_forgotten_meanwhile() {
        let mut connections = Connections::with_seed(1);
        assert_eq!(connections.next_of(PortIndex(2)).map(|(flow, _)| flow), None);
        (0..1000).for_each(|sport| connections.insert(flow(2, sport), CONNECTION));
        (0..10).for_each(|sport| connections.insert(flow(3, sport), CONNECTION));
        let mut met = std::collections::BTreeSet::new();
        for turn in 0..2000 {
            let (flow, _) = connections.next_of(PortIndex(2)).unwrap();
            assert_eq!(flow.port, PortIndex(2));
            met.insert(flow.sport);
            if turn % 3 == 0 && turn < 1500 {
                connections.remove(&flow).unwrap();
            }
        }
        assert_eq!((met.len(), connections.count(PortIndex(2)), connections.len()), (1000, 500, 510));
    }

    #[test]
    fn room_that_many_took_comes_back_when_they_are_gone() {
        let mut connections = Connections::with_seed(1);
        (0..8000).for_each(|sport| connections.insert(flow(2, sport), CONNECTION));
        (0..7990).for_each(|sport| assert!(connections.remove(&flow(2, sport)).is_some()));
        assert!(connections.of_port[2].by_flow.capacity() <= 128, "{}", connections.of_port[2].by_flow.capacity());
        assert!((7990..8000).all(|sport| connections.find(&flow(2, sport)).is_some()));
    }
}
