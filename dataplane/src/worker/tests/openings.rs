//! What the hooks admit by a worker's earlier verdict, played on the hooks' twin.

use super::frames::{FRAME_MAC, flow, tcp, udp};
use super::world::{Deferred, Dropped, Forwarded, WEB, World, egress, ingress, isolate};
use crate::conntrack::Connections;
use crate::kernel::Kernel;
use crate::kernel::hooks::{Action, Skb};
use crate::worker::{Counts, Established};
use sluice_bpf::abi::{COUNT_ADMITTED, MARK_DEFERRED};
use sluice_flow::Direction::{Egress, Ingress};
use sluice_flow::limits::CONNECTIONS_PER_PORT_MAX;
use sluice_flow::{Addr, Direction, DropReason};

const SERVER: &str = "10.0.0.1:80";
const POLICY_DENIED: Action = Action::Drop(DropReason::PolicyDenied);
const FULL: Action = Action::Drop(DropReason::ConnectionsFull);

fn client(port: u16) -> String {
    format!("10.0.1.1:{port}")
}

fn syn(port: u16) -> Vec<u8> {
    tcp(&client(port), SERVER, "S")
}

impl World {
    /// With a ring, as workers have.
    fn hearing(policies: &[serde_json::Value]) -> Self {
        let mut world = Self::new();
        world.hooks.0.memory.open_ring(0);
        world.change_port(WEB, |port| port.mac = FRAME_MAC);
        world.adopt(policies);
        world
    }

    /// Shows a packet to a hook of x/web.
    pub(super) fn shown(&self, direction: Direction, frame: &[u8]) -> Action {
        let ifindex = self.port(WEB).ifindex;
        let ingress_ifindex = if direction == Ingress { ifindex + 1 } else { 0 };
        let skb = Skb { frame, mark: 0, ingress_ifindex, from_socket: false };
        self.hooks.0.memory.hook(ifindex, direction, &skb, self.now_ns)
    }

    fn passes(&self, direction: Direction, frame: &[u8]) -> bool {
        self.shown(direction, frame) == Action::Pass { mark: 0 }
    }

    fn is_asked(&self, direction: Direction, frame: &[u8]) -> bool {
        matches!(self.shown(direction, frame), Action::Punt { .. })
    }

    fn admitted(&self) -> u64 {
        self.hooks.0.memory.counters.borrow()[COUNT_ADMITTED]
    }

    /// The worker's next turn.
    fn turn(&mut self) {
        self.worker.run_commands(self.now_ns);
        self.assert_cache_agrees();
    }

    fn tracks(&self, direction: Direction, frame: &[u8]) -> bool {
        self.worker.connections().find(&flow(WEB, direction, frame)).is_some()
    }
}

/// One verdict holds for the ports in a row of which the same rule decides, for this peer alone, and until the next table.
#[test]
fn what_policy_says_of_more_ports_holds_for_them_all() {
    let to = |dport: u16| udp("10.0.0.1:700", &format!("10.0.1.1:{dport}"));
    let policies = [egress("10.0.1.0/24", "UDP 5000-5999"), egress("10.0.1.0/24", "TCP 80")];
    let mut world = World::hearing(&policies);
    assert_eq!(world.leaves(&to(5500)), Forwarded);
    world.turn();
    for dport in [5000, 5001, 5499, 5998, 5999] {
        assert!(world.passes(Egress, &to(dport)), "{dport} begins without being asked");
    }
    assert_eq!(world.admitted(), 5);
    for (frame, what) in [
        (to(4999), "before them"),
        (to(6000), "behind them"),
        (tcp("10.0.0.1:700", "10.0.1.1:5500", "S"), "another protocol"),
        (udp("10.0.0.1:700", "10.0.1.2:5500"), "another peer"),
    ] {
        assert!(world.is_asked(Egress, &frame), "{what}");
    }
    world.turn();
    // a table that says the same of them voids it all the same
    world.adopt(&[egress("10.0.1.0/24", "UDP 5000-5999")]);
    assert!(world.is_asked(Egress, &to(5002)));
    // of a port alone no more is said
    let mut world = World::hearing(&[egress("10.0.1.0/24", "TCP 80")]);
    let syn = |dport: u16| tcp("10.0.0.1:700", &format!("10.0.1.1:{dport}"), "S");
    assert_eq!(world.leaves(&syn(80)), Forwarded);
    assert!(world.is_asked(Egress, &syn(81)) && world.is_asked(Egress, &syn(79)));
}

#[test]
fn what_differs_in_the_source_port_alone_is_admitted_and_tracked_from_the_first_packet_on() {
    let mut world = World::hearing(&[ingress("10.0.1.0/24", "TCP 80"), ingress("10.0.1.0/24", "UDP 53"), isolate(&["Egress"])]);
    assert!(world.is_asked(Ingress, &syn(4000)), "nobody has said anything yet");
    assert_eq!(world.enters(&syn(4000)), Forwarded);
    assert!(world.passes(Ingress, &syn(4001)));
    assert!(world.passes(Egress, &tcp(SERVER, &client(4001), "SA")), "its answer too");
    assert_eq!((world.admitted(), world.tracks(Ingress, &syn(4001))), (1, false));
    world.turn();
    assert!(world.tracks(Ingress, &syn(4001)));
    for (frame, what) in [
        (tcp(&client(4002), "10.0.0.1:81", "S"), "another port"),
        (tcp("10.0.1.2:4002", SERVER, "S"), "another address, though the same rule allows it"),
        (tcp(&client(4002), SERVER, "A"), "no opener"),
        (tcp(&client(4002), SERVER, "SA"), "no opener either"),
        (udp(&client(4002), SERVER), "another protocol"),
    ] {
        assert!(world.is_asked(Ingress, &frame), "{what}");
    }
    assert!(world.is_asked(Egress, &tcp(SERVER, &client(4002), "S")), "the other way round");
    let query = |port| udp(&client(port), "10.0.0.1:53");
    assert_eq!(world.enters(&query(4000)), Forwarded);
    assert!(world.passes(Ingress, &query(4001)), "a datagram of UDP may begin a flow");
    assert_eq!(world.admitted(), 2);
}

#[test]
fn every_table_ends_what_was_said_under_the_one_before() {
    let allows = [ingress("10.0.1.0/24", "TCP 80"), isolate(&["Egress"])];
    for (established, goes_on) in [(Established::Enforce, false), (Established::Keep, true)] {
        let mut world = World::with(established);
        world.hooks.0.memory.open_ring(0);
        world.adopt(&allows);
        assert_eq!(world.enters(&syn(4000)), Forwarded);
        assert!(world.passes(Ingress, &syn(4001)));
        // the worker has not heard of it when the next table comes
        world.adopt(&[isolate(&["Ingress", "Egress"])]);
        world.assert_cache_agrees();
        assert_eq!(world.passes(Ingress, &tcp(&client(4001), SERVER, "A")), goes_on, "{established:?}");
        assert!(world.is_asked(Ingress, &syn(4002)), "{established:?}: what comes new is judged by the new table");
        assert_eq!(world.enters(&syn(4002)), Dropped(DropReason::PolicyDenied));
        assert_eq!(world.shown(Ingress, &syn(4003)), POLICY_DENIED);
        // and back: no verdict comes to life again
        world.adopt(&allows);
        assert!(world.is_asked(Ingress, &syn(4004)), "{established:?}");
    }
}

#[test]
fn a_record_that_comes_late_is_judged_by_the_table_in_force() {
    let mut world = World::hearing(&[ingress("10.0.1.0/24", "TCP 80"), isolate(&["Egress"])]);
    assert_eq!(world.enters(&syn(4000)), Forwarded);
    assert!(world.passes(Ingress, &syn(4001)));
    let late = world.hooks.0.memory.openings.borrow_mut().get_mut(&0).unwrap().pop_front().unwrap();
    world.adopt(&[isolate(&["Ingress", "Egress"])]);
    world.hooks.0.memory.openings.borrow_mut().get_mut(&0).unwrap().push_back(late);
    world.turn();
    assert_eq!(world.shown(Ingress, &tcp(&client(4001), SERVER, "A")), POLICY_DENIED);
}

#[test]
fn the_hooks_admit_no_more_than_the_port_has_room_for() {
    let mut world = World::hearing(&[ingress("10.0.1.0/24", "UDP 53"), isolate(&["Egress"])]);
    let query = |port: usize| udp(&client(port as u16), "10.0.0.1:53");
    assert_eq!(world.enters(&query(1000)), Forwarded);
    let admitted = (1001..).take_while(|&port| world.passes(Ingress, &query(port))).count();
    assert_eq!(admitted, CONNECTIONS_PER_PORT_MAX - 1);
    world.turn();
    assert_eq!(world.worker.connections().count(WEB), CONNECTIONS_PER_PORT_MAX);
    assert!(world.is_asked(Ingress, &query(60_000)));
    assert_eq!(world.enters(&query(60_000)), Dropped(DropReason::ConnectionsFull));
    // for a moment nobody need be asked about what would begin something
    assert_eq!(world.shown(Ingress, &query(60_001)), Action::Drop(DropReason::ConnectionsFull));
    assert!(world.passes(Ingress, &query(1001)), "what is known goes on");
    world.now_ns += 100_000_000;
    assert!(world.is_asked(Ingress, &query(60_001)));
    // room comes back with time, and with it the hooks' right to admit
    world.advance(11);
    assert_eq!(world.enters(&query(60_000)), Forwarded);
    world.turn();
    assert!(world.passes(Ingress, &query(60_001)));
}

/// What one packet has the worker find is for those behind it, and nobody else need ask.
#[test]
fn a_full_port_asks_with_one_packet_at_a_time_and_gives_away_by_itself_what_room_that_makes() {
    let mut world = World::hearing(&[ingress("10.0.1.0/24", "UDP 53"), isolate(&["Egress"])]);
    let query = |port: usize| udp(&client(port as u16), "10.0.0.1:53");
    assert_eq!(world.enters(&query(1000)), Forwarded);
    assert_eq!((1001..).take_while(|&port| world.passes(Ingress, &query(port))).count(), CONNECTIONS_PER_PORT_MAX - 1);
    world.turn();
    assert_eq!(world.enters(&query(60_000)), Dropped(DropReason::ConnectionsFull));
    // all of them may go now
    world.advance(11);
    for first in [60_000, 60_100, 60_200] {
        assert_eq!(world.enters(&query(first)), Forwarded);
        world.turn();
        assert!((first + 1..first + 64).all(|port| world.passes(Ingress, &query(port))), "what was found with it");
        assert!(world.is_asked(Ingress, &query(first + 64)), "{first}");
        assert_eq!(world.shown(Ingress, &query(first + 65)), FULL, "until an answer or the next time");
        world.turn();
        world.now_ns += 25_000_000;
    }
    // what policy denies has the worker look for room, too: it may have been the one to ask
    assert_eq!(world.enters(&udp("10.9.9.9:1", "10.0.0.1:53")), Dropped(DropReason::PolicyDenied));
    world.turn();
    assert!(world.passes(Ingress, &query(60_300)));
    // without a worker that answers, fail-open wants all of them to ask
    world.hooks.0.memory.fail_open.set(true);
    assert_eq!((60_301..60_400).filter(|&port| world.is_asked(Ingress, &query(port))).count(), 99 - 63);
}

#[test]
fn what_was_deferred_is_deferred_again() {
    let mut world = World::hearing(&[egress("10.0.1.0/24", "any")]);
    let to_service = |port: u16| tcp(&format!("10.0.0.1:{port}"), "10.96.0.10:80", "S");
    assert_eq!(world.leaves(&to_service(4000)), Deferred);
    assert_eq!(world.shown(Egress, &to_service(4001)), Action::Pass { mark: MARK_DEFERRED });
    world.turn();
}

#[test]
fn what_the_node_translated_is_always_asked_for() {
    let world = &mut World::hearing(&[ingress("10.0.1.0/24", "TCP 80"), isolate(&["Egress"])]);
    assert_eq!(world.enters(&syn(4000)), Forwarded);
    let key = world.key(Ingress, &syn(4001));
    let tuple = (key.protocol, Addr(key.src), Addr(key.dst), key.sport, key.dport);
    world.hooks.0.memory.translated.borrow_mut().insert(tuple, Addr::v4([10, 9, 9, 9]));
    assert!(world.is_asked(Ingress, &syn(4001)), "its source is another's");
    assert!(world.passes(Ingress, &syn(4002)));
    // nor does a verdict on one that was hold for others
    assert_eq!(world.enters_from("10.0.1.7", &tcp("10.0.0.254:4000", SERVER, "S")), Forwarded);
    assert!(world.is_asked(Ingress, &tcp("10.0.0.254:4001", SERVER, "S")));
}

#[test]
fn a_connection_that_ended_lingers_and_makes_room_where_there_is_little() {
    let close = |world: &World, port: u16| {
        assert!(world.passes(Ingress, &tcp(&client(port), SERVER, "FA")));
        assert!(world.passes(Egress, &tcp(SERVER, &client(port), "FA")));
        assert!(world.passes(Ingress, &tcp(&client(port), SERVER, "A")), "late segments still pass");
    };
    let mut world = World::hearing(&[ingress("10.0.1.0/24", "TCP 80"), isolate(&["Egress"])]);
    assert_eq!(world.enters(&syn(4000)), Forwarded);
    assert!(world.passes(Ingress, &syn(4001)));
    close(&world, 4000);
    assert!(world.passes(Ingress, &tcp(&client(4001), SERVER, "FA")), "half closed");
    for (seconds, known) in [(0, true), (29, true), (2, false)] {
        world.advance(seconds);
        world.turn();
        assert_eq!((world.tracks(Ingress, &syn(4000)), world.tracks(Ingress, &syn(4001))), (known, true));
    }
    // more than half full: what ended goes after a moment
    world.worker.connections = Connections::with_seed(1).limited_to(8);
    world.hooks.0.memory.cache.borrow_mut().clear();
    world.adopt(&[ingress("10.0.1.0/24", "TCP 80"), isolate(&["Egress"])]);
    for port in 5000..5006 {
        assert_eq!(world.enters(&syn(port)), Forwarded);
    }
    (5000..5004).for_each(|port| close(&world, port));
    world.turn();
    assert_eq!(world.worker.connections().count(WEB), 6, "not at once");
    world.advance(1);
    world.turn();
    let left: Vec<u16> = (5000..5006).filter(|&port| world.tracks(Ingress, &syn(port))).collect();
    assert_eq!(left.len(), 4, "as many as make it less than half full are forgotten: {left:?}");
    assert!(left.contains(&5004) && left.contains(&5005));
    world.assert_cache_agrees();
}

/// The ports of a connection that ended may be used again before it is forgotten: the hooks begin another one on them.
#[test]
fn a_connection_on_the_same_ports_outlives_the_one_before() {
    let close = |world: &World| {
        assert!(world.passes(Ingress, &tcp(&client(4000), SERVER, "FA")));
        assert!(world.passes(Egress, &tcp(SERVER, &client(4000), "FA")));
    };
    for is_asked in [false, true] {
        let mut world = World::hearing(&[ingress("10.0.1.0/24", "TCP 80"), isolate(&["Egress"])]);
        assert_eq!(world.enters(&syn(4000)), Forwarded);
        close(&world);
        world.turn();
        world.advance(1);
        if is_asked {
            world.hooks.0.memory.allowances.borrow_mut().clear();
            assert!(world.is_asked(Ingress, &syn(4000)));
            assert_eq!(world.enters(&syn(4000)), Forwarded);
        } else {
            assert!(world.passes(Ingress, &syn(4000)));
            assert_eq!(world.admitted(), 1);
            // what ended is forgotten now; what began has not been heard of
            world.now_ns += 40_000_000_000;
            world.worker.reap(WEB, world.now_ns);
        }
        assert!(world.passes(Egress, &tcp(SERVER, &client(4000), "SA")));
        world.advance(40);
        world.turn();
        assert!(world.passes(Ingress, &tcp(&client(4000), SERVER, "A")));
        assert!(world.tracks(Ingress, &syn(4000)));
        let counted = counts_of(&mut world);
        assert_eq!((counted.connections, counted.packets), (1, 3), "asked: {is_asked}");
        close(&world);
        world.turn();
        world.advance(31);
        world.turn();
        assert!(!world.tracks(Ingress, &syn(4000)));
        assert_eq!(world.entries(), 0);
        let counted = counts_of(&mut world);
        assert_eq!((counted.connections, counted.packets), (2, 8), "asked: {is_asked}");
    }
}

#[test]
fn room_lasts_however_often_the_same_ports_are_used_again() {
    let mut world = World::hearing(&[ingress("10.0.1.0/24", "TCP 80"), isolate(&["Egress"])]);
    world.worker.connections = Connections::with_seed(1).limited_to(8);
    world.adopt(&[ingress("10.0.1.0/24", "TCP 80"), isolate(&["Egress"])]);
    assert_eq!(world.enters(&syn(4000)), Forwarded);
    for turn in 0..20 {
        assert!(world.passes(Ingress, &syn(4001)), "{turn}");
        assert!(world.passes(Ingress, &tcp(&client(4001), SERVER, "R")));
        world.turn();
        let left = world.hooks.0.memory.rations.borrow()[usize::from(WEB.0)].left();
        assert_eq!((left, world.worker.connections().count(WEB)), (6, 2), "{turn}");
    }
}

/// The hooks' clock ticks a few hundred times a second: two connections on the same ports may fit in between.
#[test]
fn what_ends_in_the_tick_in_which_it_began_again_is_forgotten_in_time() {
    let mut world = World::hearing(&[ingress("10.0.1.0/24", "TCP 80"), isolate(&["Egress"])]);
    assert_eq!(world.enters(&syn(4000)), Forwarded);
    for _ in 0..3 {
        assert!(world.passes(Ingress, &syn(4001)));
        assert!(world.passes(Ingress, &tcp(&client(4001), SERVER, "FA")));
        assert!(world.passes(Egress, &tcp(SERVER, &client(4001), "FA")));
    }
    world.turn();
    assert!(world.tracks(Ingress, &syn(4001)));
    world.advance(31);
    world.turn();
    assert!(!world.tracks(Ingress, &syn(4001)) && world.tracks(Ingress, &syn(4000)));
    let counted = counts_of(&mut world);
    assert_eq!((counted.connections, counted.packets), (3, 9));
}

/// Of everything that is over.
fn counts_of(world: &mut World) -> Counts {
    world.worker.rules.settle(None);
    let mut sum = Counts::default();
    world.worker.rules.named.values().for_each(|counts| sum.add(counts));
    sum
}

#[test]
fn a_search_of_a_full_port_is_short_and_finds_what_has_ended_in_the_end() {
    let mut world = World::hearing(&[ingress("10.0.1.0/24", "UDP 53"), isolate(&["Egress"])]);
    let query = |port: usize| udp(&client(port as u16), "10.0.0.1:53");
    assert_eq!(world.enters(&query(1000)), Forwarded);
    let count = (1001..).take_while(|&port| world.passes(Ingress, &query(port))).count() + 1;
    world.turn();
    world.advance(11);
    // all but some of the last are in use again
    let last = 1000 + count - 20..1000 + count;
    (1000..last.start).for_each(|port| assert!(world.passes(Ingress, &query(port))));
    let mut searches = 0;
    while world.enters(&query(60_000)) == Dropped(DropReason::ConnectionsFull) {
        assert!(!world.worker.connections().has_room(WEB));
        searches += 1;
        assert_eq!(world.shown(Ingress, &query(60_001)), Action::Drop(DropReason::ConnectionsFull), "nobody is asked meanwhile");
        world.now_ns += 20_000_000;
        assert!(searches < 100);
    }
    assert!(searches > 50, "{searches}");
    assert!(last.clone().filter(|&port| world.tracks(Ingress, &query(port))).count() < 20);
}

#[test]
fn a_restarted_worker_knows_what_was_admitted_meanwhile_and_grants_anew() {
    let policies = [ingress("10.0.1.0/24", "TCP 80"), isolate(&["Egress"])];
    let mut world = World::hearing(&policies);
    assert_eq!(world.enters(&syn(4000)), Forwarded);
    assert!(world.passes(Ingress, &syn(4001)), "heard");
    world.turn();
    assert!(world.passes(Ingress, &syn(4002)), "not heard any more");
    world.hooks.0.memory.open_ring(0);
    assert!(world.is_asked(Ingress, &syn(4003)), "between two workers nothing is admitted");
    world.restart();
    world.adopt(&policies);
    for port in 4000..4003 {
        assert!(world.tracks(Ingress, &syn(port)), "{port}");
    }
    assert_eq!(world.enters(&syn(4003)), Forwarded);
    assert!(world.passes(Ingress, &syn(4004)));
    world.turn();
    let left = world.hooks.0.memory.rations.borrow()[usize::from(WEB.0)].left();
    assert_eq!(left as usize, CONNECTIONS_PER_PORT_MAX - world.worker.connections().count(WEB));
    assert_eq!(world.hooks.port(usize::from(WEB.0)).worker, 0);
}
