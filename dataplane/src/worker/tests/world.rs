//! One worker on memory with three pods, and hooks that remember what was asked of them.
//!
//! | pod | port | addresses | worker |
//! |---|---|---|---|
//! | x/web, `app: web` | [`WEB`] | 10.0.0.1, fd00::1 | 0 |
//! | x/second, `app: second` | [`SECOND`] | 10.0.0.2 | 0 |
//! | x/foreign | [`FOREIGN`] | 10.0.0.3 | 1 |

use super::frames::{FRAME_MAC, flow, punt, punt_as, unpunt};
use crate::conntrack::{Connections, Role};
use crate::io::{Fate, MemoryIo, PacketIo};
use crate::kernel::{Attachment, Kernel, MemoryKernel, Partial, flow_of, key_of};
use crate::worker::{Command, Established, Worker, WorkerConfig, WorkerShared};
use serde_json::{Value, json};
use sluice_bpf::abi::{
    Allowance, CACHE_DENY, CACHE_REPLY, CacheValue, DEPARTURE, Fragment, FragmentKey, KIND_VERDICT, Key, Opening, Port, TRUNK_DEFERRED,
};
use sluice_flow::{Addr, Direction, DropReason, FlowKey, Incarnation, LocalEndpoint, ObjectName, PortIndex};
use sluice_policy::{Snapshot, compile};
use sluice_table::Table;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

pub(super) const WEB: PortIndex = PortIndex(3);
pub(super) const SECOND: PortIndex = PortIndex(4);
pub(super) const FOREIGN: PortIndex = PortIndex(5);
pub(super) const SECOND_NS: u64 = 1_000_000_000;
pub(super) const INCARNATION: Incarnation = Incarnation(7);

/// The hooks' side with a memory of its own calls, and faults on request.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) memory: MemoryKernel,
    /// Every key written, in order.
    pub(super) written: RefCell<Vec<Key>>,
    /// The next write stops after so many entries.
    pub(super) fail_after: Cell<Option<usize>>,
    /// The process died in that write: nothing reaches the kernel any more.
    pub(super) dies_there: Cell<bool>,
    dead: Cell<bool>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Hooks(pub(super) Rc<State>);

impl Kernel for Hooks {
    fn port(&self, index: usize) -> Port {
        self.0.memory.port(index)
    }

    fn set_port_state(&self, index: usize, incarnation: u32, bits: u32) {
        if !self.0.dead.get() {
            self.0.memory.set_port_state(index, incarnation, bits);
        }
    }

    fn void_denials(&self, index: usize) {
        if !self.0.dead.get() {
            self.0.memory.void_denials(index);
        }
    }

    fn cache_get(&self, key: &Key) -> Option<CacheValue> {
        self.0.memory.cache_get(key)
    }

    fn cache_put(&self, keys: &[Key], values: &[CacheValue]) -> Result<(), Partial> {
        assert_eq!(keys.len(), values.len());
        if self.0.dead.get() {
            return Ok(());
        }
        let stop = self.0.fail_after.take().unwrap_or(usize::MAX).min(keys.len());
        self.0.written.borrow_mut().extend(&keys[..stop]);
        self.0.memory.cache_put(&keys[..stop], &values[..stop])?;
        self.0.dead.set(stop < keys.len() && self.0.dies_there.get());
        if stop < keys.len() { Err(Partial { done: stop }) } else { Ok(()) }
    }

    fn cache_remove(&self, key: &Key) {
        if !self.0.dead.get() {
            self.0.memory.cache_remove(key);
        }
    }

    fn deny(&self, key: &Key, deny_epoch: u32) {
        if !self.0.dead.get() {
            self.0.memory.deny(key, deny_epoch);
        }
    }

    fn allow(&self, allowance: &Allowance) {
        if !self.0.dead.get() {
            self.0.memory.allow(allowance);
        }
    }

    fn grant(&self, index: usize, room: u32) {
        if !self.0.dead.get() {
            self.0.memory.grant(index, room);
        }
    }

    fn set_full(&self, index: usize, until_ns: u64) {
        if !self.0.dead.get() {
            self.0.memory.set_full(index, until_ns);
        }
    }

    fn openings(&self, worker: u16, each: &mut dyn FnMut(Opening)) {
        self.0.memory.openings(worker, each);
    }

    fn first_fragment(&self, packet: &FragmentKey) -> Option<Fragment> {
        self.0.memory.first_fragment(packet)
    }

    fn opened(&self, key: &Key) -> bool {
        self.0.memory.opened(key)
    }
}

/// Frames, and what the cache held at the moment they were sent.
#[derive(Debug, Default)]
pub(super) struct WatchedIo {
    pub(super) memory: MemoryIo,
    hooks: Hooks,
    pub(super) cache_at_commit: HashMap<Key, CacheValue>,
}

impl PacketIo for WatchedIo {
    fn receive(&mut self) -> usize {
        self.memory.receive()
    }

    fn frame_mut(&mut self, index: usize) -> &mut [u8] {
        self.memory.frame_mut(index)
    }

    fn write_header(&mut self, index: usize, header: impl FnOnce(&mut [u8])) {
        self.memory.write_header(index, header);
    }

    fn send(&mut self, frame: &[u8]) -> bool {
        self.memory.send(frame)
    }

    fn commit(&mut self, fates: &[Fate]) -> usize {
        self.cache_at_commit = self.hooks.0.memory.cache.borrow().clone();
        self.memory.commit(fates)
    }
}

/// What became of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Forwarded,
    /// Forwarded to this node, or to be judged where it departs.
    Deferred,
    Dropped(DropReason),
    /// It waits for the first piece of its packet.
    Held,
}

pub(super) use Outcome::{Deferred, Dropped, Forwarded, Held};

/// What became of one batch.
#[derive(Debug, PartialEq, Eq, Default)]
pub(super) struct Batch {
    pub(super) forwarded: Vec<Vec<u8>>,
    pub(super) dropped: BTreeMap<DropReason, u64>,
}

pub(super) struct World {
    pub(super) worker: Worker<WatchedIo, Hooks>,
    pub(super) hooks: Hooks,
    pub(super) shared: Arc<WorkerShared>,
    pub(super) snapshot: Snapshot,
    pub(super) now_ns: u64,
    pub(super) config: WorkerConfig,
    node_addresses: Vec<Addr>,
    generation: u64,
}

impl World {
    /// No table yet.
    pub(super) fn new() -> Self {
        Self::with(Established::Enforce)
    }

    pub(super) fn with(established: Established) -> Self {
        let hooks = Hooks::default();
        let snapshot = snapshot();
        for endpoint in &snapshot.endpoints {
            let (index, host_ifindex) = (usize::from(endpoint.port.0), 10 + u32::from(endpoint.port.0));
            let worker = u16::from(endpoint.port == FOREIGN);
            let attachment = Attachment { endpoint, host_ifindex, mac: FRAME_MAC, gateway_mac: [4; 6], worker, trunk_ifindex: 100 };
            let slot = attachment.slot(&Port { epoch: 4, ..bytemuck::Zeroable::zeroed() });
            hooks.0.memory.ports.borrow_mut()[index] = slot;
            hooks.0.memory.port_of_ifindex.borrow_mut().insert(host_ifindex, index as u32);
        }
        let config = WorkerConfig { established, ..WorkerConfig::default() };
        let (worker, shared) = start(&config, &hooks);
        Self { worker, hooks, shared, snapshot, now_ns: 1000 * SECOND_NS, config, node_addresses: Vec::new(), generation: 0 }
    }

    /// One with a table of these policies.
    pub(super) fn under(policies: &[Value]) -> Self {
        let mut world = Self::new();
        world.adopt(policies);
        world
    }

    pub(super) fn compile(&mut self, policies: &[Value]) -> Arc<Table> {
        self.generation += 1;
        self.snapshot.policies.clear();
        for (index, spec) in policies.iter().enumerate() {
            let name = ObjectName::new("x", format!("p{index}"));
            let object = json!({"metadata": {"namespace": "x", "name": name.name}, "spec": spec});
            self.snapshot.policies.insert(name, Arc::new(serde_json::from_value(object).unwrap()));
        }
        Arc::new(Table::from_bytes(&compile(&self.snapshot, self.generation).unwrap()).unwrap())
    }

    /// Compiles, hands over, adopts; the acknowledgement is checked.
    pub(super) fn adopt(&mut self, policies: &[Value]) {
        let table = self.compile(policies);
        self.command(Command::Adopt(table));
        assert_eq!(self.shared.generation(), self.generation, "acknowledged");
    }

    pub(super) fn command(&mut self, command: Command) {
        if let Command::NodeAddresses(addresses) = &command {
            self.node_addresses = addresses.clone();
        }
        self.shared.commands.push(command).unwrap();
        self.worker.run_commands(self.now_ns);
        self.worker.approach(usize::MAX);
        assert_eq!(self.shared.counts()[2], self.worker.connections().len() as u64);
    }

    /// The worker dies; another one takes over what the cache remembers, in the order given by `arrange`.
    pub(super) fn restart_with(&mut self, arrange: impl FnOnce(&mut Vec<(Key, CacheValue)>)) {
        self.hooks.0.dead.set(false);
        self.hooks.0.dies_there.set(false);
        self.hooks.0.fail_after.set(None);
        (self.worker, self.shared) = start(&self.config, &self.hooks);
        self.worker.node_addresses = self.node_addresses.iter().copied().collect();
        let mut entries: Vec<_> = self.hooks.0.memory.cache.borrow().iter().map(|(key, value)| (*key, *value)).collect();
        entries.sort_by_key(|(key, _)| bytemuck::bytes_of(key).to_vec());
        arrange(&mut entries);
        self.worker.rebuild(&entries, self.now_ns);
        self.forget_writes();
    }

    pub(super) fn restart(&mut self) {
        self.restart_with(|_| ());
    }

    pub(super) fn advance(&mut self, seconds: u64) {
        self.now_ns += seconds * SECOND_NS;
    }

    /// A packet that enters x/web and meets no cache entry.
    pub(super) fn enters(&mut self, frame: &[u8]) -> Outcome {
        self.punted(WEB, Direction::Ingress, frame)
    }

    /// A packet that leaves x/web and meets no cache entry.
    pub(super) fn leaves(&mut self, frame: &[u8]) -> Outcome {
        self.punted(WEB, Direction::Egress, frame)
    }

    /// A packet that left x/web deferred and departs as this, and meets no cache entry.
    pub(super) fn departs(&mut self, frame: &[u8]) -> Outcome {
        let sent = punt_as(&self.port(WEB), WEB, DEPARTURE, None, frame);
        self.received(sent)
    }

    /// A packet that enters x/web, whose source was this before the node translated it.
    pub(super) fn enters_from(&mut self, origin: &str, frame: &[u8]) -> Outcome {
        let origin = Addr::from(origin.parse::<std::net::IpAddr>().unwrap());
        let sent = punt_as(&self.port(WEB), WEB, Direction::Ingress as u8, Some(origin), frame);
        self.received(sent)
    }

    pub(super) fn punted(&mut self, index: PortIndex, direction: Direction, frame: &[u8]) -> Outcome {
        let sent = self.punt(index, direction, frame);
        self.received(sent)
    }

    pub(super) fn punt(&self, index: PortIndex, direction: Direction, frame: &[u8]) -> Vec<u8> {
        punt(&self.port(index), index, direction, frame)
    }

    /// A batch of one.
    pub(super) fn received(&mut self, sent: Vec<u8>) -> Outcome {
        let batch = self.batch(vec![sent.clone()]);
        let Some(frame) = batch.forwarded.first() else {
            return batch.dropped.keys().next().map_or(Held, |reason| Dropped(*reason));
        };
        let (header, inner) = unpunt(frame);
        let (asked, asked_inner) = unpunt(&sent);
        assert_eq!(header.kind, KIND_VERDICT);
        let restored = sluice_bpf::abi::TrunkHeader { kind: asked.kind, flags: asked.flags, ..header };
        assert_eq!((restored, inner), (asked, asked_inner), "nothing but kind and flags is changed");
        match header.flags {
            0 => Forwarded,
            TRUNK_DEFERRED => Deferred,
            other => panic!("flags {other}"),
        }
    }

    /// Runs one batch; the counters must add up.
    pub(super) fn batch(&mut self, frames: Vec<Vec<u8>>) -> Batch {
        let before = (self.shared.counts(), self.drops());
        let held = self.worker.fragments.held();
        let count = frames.len();
        self.worker.io.memory.incoming.extend(frames);
        assert_eq!(self.worker.run_batch(self.now_ns), count);
        let (counts, drops) = (self.shared.counts(), self.drops());
        let forwarded: Vec<_> = self.worker.io.memory.outgoing.drain(..).collect();
        let mut dropped = BTreeMap::new();
        for (&reason, &now) in &drops {
            let new = now - before.1[&reason];
            if new > 0 {
                dropped.insert(reason, new);
            }
        }
        assert_eq!(counts[0] - before.0[0], count as u64, "each frame is received once");
        assert_eq!(counts[1] - before.0[1], forwarded.len() as u64, "forwarded is what was sent");
        assert_eq!(
            (held + count) as u64,
            (self.worker.fragments.held() + forwarded.len()) as u64 + dropped.values().sum::<u64>(),
            "every frame is forwarded or has a reason: {dropped:?}"
        );
        assert_eq!(counts[2], self.worker.connections().len() as u64);
        Batch { forwarded, dropped }
    }

    pub(super) fn room(&mut self, frames: usize) {
        self.worker.io.memory.room = Some(frames);
    }

    fn drops(&self) -> BTreeMap<DropReason, u64> {
        DropReason::ALL.iter().map(|&reason| (reason, self.shared.drops(reason))).collect()
    }

    pub(super) fn port(&self, index: PortIndex) -> Port {
        self.hooks.port(usize::from(index.0))
    }

    pub(super) fn change_port(&self, index: PortIndex, change: impl FnOnce(&mut Port)) {
        change(&mut self.hooks.0.memory.ports.borrow_mut()[usize::from(index.0)]);
    }

    /// Entries of the cache.
    pub(super) fn entries(&self) -> usize {
        self.hooks.0.memory.cache.borrow().len()
    }

    /// The entry that a packet at x/web's hook meets.
    pub(super) fn entry(&self, direction: Direction, frame: &[u8]) -> Option<CacheValue> {
        self.hooks.cache_get(&self.key(direction, frame))
    }

    pub(super) fn key(&self, direction: Direction, frame: &[u8]) -> Key {
        self.key_of(&flow(WEB, direction, frame))
    }

    pub(super) fn key_of(&self, flow: &FlowKey) -> Key {
        key_of(flow, Incarnation(self.port(flow.port).incarnation))
    }

    pub(super) fn change_entry(&self, direction: Direction, frame: &[u8], change: impl FnOnce(&mut CacheValue)) {
        change(self.hooks.0.memory.cache.borrow_mut().get_mut(&self.key(direction, frame)).expect("the entry is there"));
    }

    pub(super) fn lose_entry(&self, direction: Direction, frame: &[u8]) {
        assert!(self.hooks.0.memory.cache.borrow_mut().remove(&self.key(direction, frame)).is_some());
    }

    pub(super) fn writes(&self) -> usize {
        self.hooks.0.written.borrow().len()
    }

    pub(super) fn forget_writes(&self) {
        self.hooks.0.written.borrow_mut().clear();
    }

    /// Keys of the denials in force, with their flows.
    pub(super) fn denials(&self) -> Vec<Key> {
        let denials = self.hooks.0.memory.denials.borrow();
        let in_force = |key: &Key, epoch: u32| self.port(PortIndex(key.port)).deny_epoch == epoch;
        denials.iter().filter(|(key, denial)| in_force(key, denial.deny_epoch)).map(|(key, _)| *key).collect()
    }

    /// A SYN was seen while the pod was not isolated.
    pub(super) fn remember_origin(&self, direction: Direction, frame: &[u8]) {
        self.hooks.0.memory.origins.borrow_mut().insert(self.key(direction, frame));
    }

    /// What the hooks obey is what the worker knows: every valid entry belongs to a connection, says what it says, and
    /// stands for its own direction.
    pub(super) fn assert_cache_agrees(&self) {
        for (key, value) in self.hooks.0.memory.cache.borrow().iter() {
            let port = self.port(PortIndex(key.port));
            let valid = port.ifindex != 0 && port.incarnation == key.incarnation && port.epoch == value.epoch;
            if !valid || port.worker != self.config.worker {
                continue;
            }
            let flow = flow_of(key).unwrap();
            let Some((_, connection, role)) = self.worker.connections().find(&flow) else {
                panic!("an entry without a connection: {flow:?}: {value:?}");
            };
            assert_eq!(value.flags & CACHE_REPLY != 0, role == Role::Reply, "{flow:?}: {value:?}");
            assert_eq!(value.verdict != CACHE_DENY, connection.allowed, "{flow:?}: {value:?}: {connection:?}");
            assert_eq!(connection.incarnation.0, key.incarnation);
        }
    }
}

fn start(config: &WorkerConfig, hooks: &Hooks) -> (Worker<WatchedIo, Hooks>, Arc<WorkerShared>) {
    let shared = Arc::new(WorkerShared::default());
    let io = WatchedIo { hooks: hooks.clone(), ..WatchedIo::default() };
    (Worker::new(config.clone(), io, hooks.clone(), Connections::with_seed(1), shared.clone()), shared)
}

fn snapshot() -> Snapshot {
    let mut snapshot = Snapshot::default();
    let namespace = json!({"metadata": {"name": "x", "labels": {"kubernetes.io/metadata.name": "x"}}});
    snapshot.namespaces.insert("x".to_owned(), Arc::new(serde_json::from_value(namespace).unwrap()));
    let service = json!({"metadata": {"namespace": "x", "name": "api"}, "spec": {"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"], "ports": [{"port": 80}]}});
    snapshot.services.insert(ObjectName::new("x", "api"), serde_json::from_value(service).unwrap());
    let local = [("web", WEB, vec!["10.0.0.1", "fd00::1"]), ("second", SECOND, vec!["10.0.0.2"]), ("foreign", FOREIGN, vec!["10.0.0.3"])];
    for (name, port, addresses) in local {
        let pod = ObjectName::new("x", name);
        let ips: Vec<_> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        let object = json!({
            "metadata": {"namespace": "x", "name": name, "uid": name, "labels": {"app": name}},
            "spec": {"containers": [{"name": "c"}]},
            "status": {"phase": "Running", "podIP": addresses[0], "podIPs": ips},
        });
        snapshot.pods.insert(pod.clone(), Arc::new(serde_json::from_value(object).unwrap()));
        snapshot.endpoints.push(LocalEndpoint {
            port,
            incarnation: INCARNATION,
            pod,
            uid: name.to_owned(),
            addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        });
    }
    snapshot
}

/// Isolates x/web in these directions; allows nothing.
pub(super) fn isolate(directions: &[&str]) -> Value {
    json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": directions})
}

/// Isolates x/web for ingress; allows a block to reach `TCP 80` and the like, or everything with `any`.
pub(super) fn ingress(block: &str, ports: &str) -> Value {
    let rule = json!({"from": [{"ipBlock": {"cidr": block}}], "ports": port_list(ports)});
    json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"], "ingress": [rule]})
}

/// Isolates x/web for egress; allows it to reach a block.
pub(super) fn egress(block: &str, ports: &str) -> Value {
    let rule = json!({"to": [{"ipBlock": {"cidr": block}}], "ports": port_list(ports)});
    json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"], "egress": [rule]})
}

fn port_list(ports: &str) -> Value {
    match ports.split_once(' ') {
        None => json!([]),
        Some((protocol, ports)) => match ports.split_once('-') {
            None => json!([{"protocol": protocol, "port": ports.parse::<u16>().unwrap()}]),
            Some((first, last)) => {
                let [first, last] = [first, last].map(|port| port.parse::<u16>().unwrap());
                json!([{"protocol": protocol, "port": first, "endPort": last}])
            }
        },
    }
}
