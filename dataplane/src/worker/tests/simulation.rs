//! Random lives of one pod's worker: packets, swaps, time, lost entries, refused writes, deaths. After each step the
//! hooks must not say anything that the table does not.
//!
//! The hooks of the kernel are played in memory ([`crate::kernel::hooks`]).

use super::frames::{flow, tcp, udp};
use super::world::{Forwarded, SECOND_NS, WEB, World, egress, ingress, isolate};
use crate::kernel::hooks::{Action, Skb};
use crate::worker::Command;
use proptest::prelude::*;
use serde_json::Value;
use sluice_flow::{Direction, DropReason, FlowKey, Kind, Protocol, parse_frame};
use sluice_table::Table;
use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

const PEERS: [&str; 2] = ["10.0.1.1", "10.0.2.1"];
const PORTS: [u16; 2] = [80, 4000];

#[derive(Debug, Clone)]
struct PacketSeed {
    leaving: bool,
    peer: usize,
    ports: [usize; 2],
    /// None: UDP.
    flags: Option<&'static str>,
}

#[derive(Debug, Clone)]
enum Step {
    Packet(PacketSeed),
    /// Adopt one of [`policies`].
    Adopt(usize),
    Wait(u64),
    /// The next write of entries stops after so many.
    RefuseAfter(usize),
    /// The worker dies in the next write, after so many entries, while it adopts one of [`policies`].
    DieAdopting(usize, usize),
    /// The cache is read backwards.
    Restart(bool),
    RaiseEpoch,
    LoseEntry(usize),
    ExpireAll,
}

fn policies(index: usize) -> Vec<Value> {
    let both = isolate(&["Ingress", "Egress"]);
    match index {
        0 => vec![both],
        1 => vec![both, ingress("10.0.0.0/16", "any"), egress("10.0.0.0/16", "any")],
        2 => vec![both, ingress("10.0.1.0/24", "TCP 80"), ingress("10.0.2.0/24", "UDP 80")],
        3 => vec![both, egress("10.0.1.0/24", "any"), ingress("10.0.2.0/24", "any")],
        4 => vec![ingress("10.0.1.0/24", "TCP 80")],
        _ => vec![],
    }
}

fn step() -> impl Strategy<Value = Step> {
    let flags = prop::sample::select(vec![None, None, Some("S"), Some("S"), Some("SA"), Some("A"), Some("FA"), Some("R")]);
    let packet = (any::<bool>(), 0..PEERS.len(), [0..PORTS.len(), 0..PORTS.len()], flags)
        .prop_map(|(leaving, peer, ports, flags)| Step::Packet(PacketSeed { leaving, peer, ports, flags }));
    prop_oneof![
        30 => packet,
        6 => (0..6usize).prop_map(Step::Adopt),
        3 => prop::sample::select(vec![1, 11, 61, 121, 7441]).prop_map(Step::Wait),
        2 => (0..3usize).prop_map(Step::RefuseAfter),
        2 => (0..5usize, 0..6usize).prop_map(|(done, table)| Step::DieAdopting(done, table)),
        2 => any::<bool>().prop_map(Step::Restart),
        1 => Just(Step::RaiseEpoch),
        1 => (0..8usize).prop_map(Step::LoseEntry),
        2 => Just(Step::ExpireAll),
    ]
}

/// Each compiled once.
fn tables() -> &'static [Arc<Table>] {
    static TABLES: OnceLock<Vec<Arc<Table>>> = OnceLock::new();
    TABLES.get_or_init(|| {
        let mut world = World::new();
        (0..6).map(|index| world.compile(&policies(index))).collect()
    })
}

struct Life {
    world: World,
    table: usize,
    /// Flows whose first packet went on in its own right: the connections that may have replies.
    opened: HashSet<FlowKey>,
}

impl Life {
    fn allows(&self, flow: &FlowKey) -> bool {
        let table = self.world.worker.table().unwrap();
        table.lookup(flow.port, flow.direction, flow.remote(), flow.protocol, flow.policy_port()).is_allow()
    }

    /// What the hook does with a packet: obeys the cache, or asks the worker. True: it goes on.
    fn hook(&mut self, direction: Direction, frame: &[u8]) -> bool {
        let ifindex = self.world.port(WEB).ifindex;
        let skb = Skb { frame, mark: 0, ingress_ifindex: if direction == Direction::Egress { ifindex } else { 1 }, from_socket: false };
        match self.world.hooks.0.memory.hook(ifindex, direction, &skb, self.world.now_ns) {
            Action::Pass { .. } | Action::Direct { .. } => true,
            Action::Punt { frame } => self.world.received(frame) == Forwarded,
            Action::Drop(reason) => {
                assert_eq!(reason, DropReason::PolicyDenied, "the table knows the pod, and the packets are its own");
                false
            }
        }
    }

    fn packet(&mut self, seed: &PacketSeed) {
        let peer = format!("{}:{}", PEERS[seed.peer], PORTS[seed.ports[0]]);
        let web = format!("10.0.0.1:{}", PORTS[seed.ports[1]]);
        let (src, dst) = if seed.leaving { (&web, &peer) } else { (&peer, &web) };
        let direction = if seed.leaving { Direction::Egress } else { Direction::Ingress };
        let frame = seed.flags.map_or_else(|| udp(src, dst), |flags| tcp(src, dst, flags));
        let known = flow(WEB, direction, &frame);
        let refusing = self.world.hooks.0.fail_after.get().is_some();
        let allowed = [known, known.reversed()].map(|flow| self.allows(&flow));
        let opened = [known, known.reversed()].map(|flow| self.opened.contains(&flow));
        let first = known.protocol == Protocol::UDP || opens(&frame);
        let may_pass = match () {
            () if opens(&frame) => allowed[0],
            () if first => allowed[0] || (allowed[1] && opened[1]),
            // in mid-flow: by its opener's direction, or both ways
            () => (allowed[0] && opened[0]) || (allowed[1] && opened[1]) || allowed == [true, true],
        };
        let passed = self.hook(direction, &frame);
        assert!(may_pass || !passed, "{seed:?} went on: nothing allows it");
        if first && allowed[0] && !refusing {
            // only as the answer of a connection that was cut may an allowed datagram be refused
            let cut = opened[1] && !opens(&frame);
            assert!(passed || cut, "{seed:?} was dropped: the table allows it");
        }
        if passed && first && allowed[0] {
            self.opened.insert(known);
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Packet(seed) => self.packet(seed),
            Step::Adopt(table) => {
                self.table = *table;
                self.adopt();
            }
            Step::Wait(seconds) => self.world.now_ns += seconds * SECOND_NS,
            Step::RefuseAfter(done) => self.world.hooks.0.fail_after.set(Some(*done)),
            Step::DieAdopting(done, table) => {
                self.table = *table;
                self.world.hooks.0.dies_there.set(true);
                self.world.hooks.0.fail_after.set(Some(*done));
                self.adopt();
                self.restart(false);
            }
            Step::Restart(backwards) => self.restart(*backwards),
            Step::RaiseEpoch => self.world.change_port(WEB, |port| port.epoch += 1),
            Step::LoseEntry(index) => {
                let mut cache = self.world.hooks.0.memory.cache.borrow_mut();
                let mut keys: Vec<_> = cache.keys().copied().collect();
                keys.sort_by_key(|key| bytemuck::bytes_of(key).to_vec());
                if let Some(key) = keys.get(*index) {
                    cache.remove(key);
                }
            }
            Step::ExpireAll => {
                let flows = self
                    .world
                    .hooks
                    .0
                    .memory
                    .cache
                    .borrow()
                    .keys()
                    .filter_map(|key| Some((crate::kernel::flow_of(key)?, sluice_flow::Incarnation(key.incarnation))))
                    .collect();
                self.world.command(Command::Expire(flows));
            }
        }
    }

    fn restart(&mut self, backwards: bool) {
        self.world.restart_with(|entries| {
            if backwards {
                entries.reverse()
            }
        });
        self.adopt();
    }

    fn adopt(&mut self) {
        self.world.command(Command::Adopt(tables()[self.table].clone()));
    }
}

fn opens(frame: &[u8]) -> bool {
    matches!(parse_frame(frame).unwrap().kind, Kind::Tcp(flags) if flags.opens())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(1000), max_shrink_iters: 5000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_goes_on_that_the_table_in_force_does_not_allow(steps in prop::collection::vec(step(), 1..60)) {
        let mut life = Life { world: World::new(), table: 1, opened: HashSet::new() };
        life.adopt();
        for step in &steps {
            life.take(step);
            life.world.assert_cache_agrees();
        }
    }
}
