//! A kernel in memory, for tests and simulation: the same maps, the same limits. What its programs do with them is in
//! [`super::hooks`].

use super::{Kernel, Partial};
use bytemuck::Zeroable;
use sluice_bpf::abi::{
    Allowance, COUNTERS, CacheValue, Denial, Fragment, FragmentKey, Key, OPENING_ADMITTED, Opening, PORTS_MAX, Port, Ration,
};
use sluice_flow::{Addr, DropReason};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;

/// Protocol, source, destination, source port and destination port.
pub(crate) type Tuple = (u8, Addr, Addr, u16, u16);

/// The maps of `bpf/src/c/maps.h` as the hooks would see them, and the one thing that they ask of the rest of the kernel.
#[derive(Debug)]
pub struct MemoryKernel {
    /// By index.
    pub ports: RefCell<Vec<Port>>,
    /// Port index by device.
    pub port_of_ifindex: RefCell<HashMap<u32, u32>>,
    /// The verdict cache.
    pub cache: RefCell<HashMap<Key, CacheValue>>,
    /// The denial cache.
    pub denials: RefCell<HashMap<Key, Denial>>,
    /// SYNs seen of pods that were not isolated.
    pub origins: RefCell<HashSet<Key>>,
    /// Devices where what left its pod deferred may depart.
    pub exits: RefCell<HashSet<u32>>,
    /// What the kernel's connection tracking tells: a translated packet's protocol, addresses and ports, and its source before.
    pub translated: RefCell<HashMap<Tuple, Addr>>,
    /// First fragments that passed.
    pub fragments: RefCell<HashMap<FragmentKey, Fragment>>,
    /// Workers that serve their trunk.
    pub sockets: RefCell<HashSet<u32>>,
    /// Drops by reason, then what else the hooks count.
    pub counters: RefCell<[u64; COUNTERS]>,
    /// Packets pass while no worker serves.
    pub fail_open: Cell<bool>,
    /// Hits go to the worker, too.
    pub every_packet: Cell<bool>,
    /// As the programs' configuration.
    pub direct_tcp: Cell<bool>,
    /// The same.
    pub tracked: Cell<bool>,
    /// A port's share of workers: one new flow in so many nanoseconds on average; 0: as many as there are.
    pub new_flow_ns: Cell<u32>,
    /// What each port has had of its share, and what the hooks may admit.
    pub rations: RefCell<Vec<Ration>>,
    /// The allowances.
    pub allowances: RefCell<HashMap<Key, Allowance>>,
    /// What the hooks told workers, by worker. One without ring hears nothing, and nothing is admitted at its ports.
    pub openings: RefCell<HashMap<u16, VecDeque<Opening>>>,
    /// Addresses that are delivered to the node itself.
    pub node_addresses: RefCell<HashSet<Addr>>,
    /// Room of the verdict cache.
    pub cache_entries_max: Cell<usize>,
}

impl Default for MemoryKernel {
    fn default() -> Self {
        Self {
            ports: RefCell::new(vec![Port::zeroed(); PORTS_MAX]),
            port_of_ifindex: RefCell::default(),
            cache: RefCell::default(),
            denials: RefCell::default(),
            origins: RefCell::default(),
            exits: RefCell::default(),
            translated: RefCell::default(),
            fragments: RefCell::default(),
            sockets: RefCell::default(),
            counters: RefCell::new([0; COUNTERS]),
            fail_open: Cell::new(false),
            every_packet: Cell::new(false),
            direct_tcp: Cell::new(false),
            tracked: Cell::new(false),
            new_flow_ns: Cell::new(0),
            rations: RefCell::new(vec![Ration::zeroed(); PORTS_MAX]),
            allowances: RefCell::default(),
            openings: RefCell::default(),
            node_addresses: RefCell::default(),
            cache_entries_max: Cell::new(usize::MAX),
        }
    }
}

impl MemoryKernel {
    /// Packets that the hooks dropped under a reason.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.counters.borrow()[reason as usize]
    }

    /// Gives a worker a ring, in place of an earlier one's, as the loader does before a worker starts: its ports admit nothing
    /// until it grants room, and what was admitted before is in the cache.
    pub fn open_ring(&self, worker: u16) {
        for index in 0..PORTS_MAX {
            if self.port(index).worker == worker {
                let ration = &mut self.rations.borrow_mut()[index];
                (ration.may, ration.learned) = (ration.made, ration.made);
            }
        }
        self.openings.borrow_mut().insert(worker, VecDeque::new());
    }

    /// Lets a port begin anew, as the loader does.
    pub fn reset_ration(&self, index: usize) {
        let ration = &mut self.rations.borrow_mut()[index];
        *ration = Ration { until_ns: 0, refused: 0, full_until_ns: 0, may: ration.made, ..*ration };
    }

    /// The whole verdict cache in the order of its keys' bytes, so that whoever reads it does the same each time.
    pub fn cache_entries(&self) -> Vec<(Key, CacheValue)> {
        let mut entries: Vec<_> = self.cache.borrow().iter().map(|(key, value)| (*key, *value)).collect();
        entries.sort_unstable_by(|(a, _), (b, _)| bytemuck::bytes_of(a).cmp(bytemuck::bytes_of(b)));
        entries
    }
}

impl Kernel for MemoryKernel {
    fn port(&self, index: usize) -> Port {
        self.ports.borrow()[index]
    }

    fn set_port_state(&self, index: usize, incarnation: u32, bits: u32) {
        self.ports.borrow_mut()[index].state = Port::state_word(incarnation, bits);
    }

    fn void_denials(&self, index: usize) {
        let port = &mut self.ports.borrow_mut()[index];
        port.deny_epoch = port.deny_epoch.wrapping_add(1);
    }

    fn cache_get(&self, key: &Key) -> Option<CacheValue> {
        self.cache.borrow().get(key).copied()
    }

    fn cache_put(&self, keys: &[Key], values: &[CacheValue]) -> Result<(), Partial> {
        let mut cache = self.cache.borrow_mut();
        for (done, (key, value)) in keys.iter().zip(values).enumerate() {
            if !cache.contains_key(key) && cache.len() >= self.cache_entries_max.get() {
                return Err(Partial { done });
            }
            cache.insert(*key, *value);
        }
        Ok(())
    }

    fn cache_remove(&self, key: &Key) {
        self.cache.borrow_mut().remove(key);
    }

    fn deny(&self, key: &Key, deny_epoch: u32) {
        self.denials.borrow_mut().insert(*key, Denial { deny_epoch, pad: 0, packets: 0, last_seen_ns: 0 });
    }

    fn allow(&self, allowance: &Allowance) {
        self.allowances.borrow_mut().insert(allowance.key, *allowance);
    }

    fn grant(&self, index: usize, room: u32) {
        let ration = &mut self.rations.borrow_mut()[index];
        ration.may = ration.learned.wrapping_add(room);
    }

    fn set_full(&self, index: usize, until_ns: u64) {
        self.rations.borrow_mut()[index].full_until_ns = until_ns;
    }

    fn openings(&self, worker: u16, each: &mut dyn FnMut(Opening)) {
        let heard = self.openings.borrow_mut().get_mut(&worker).map(std::mem::take).unwrap_or_default();
        for opening in heard {
            if opening.kind == OPENING_ADMITTED {
                let learned = &mut self.rations.borrow_mut()[usize::from(opening.key.port)].learned;
                *learned = learned.wrapping_add(1);
            }
            each(opening);
        }
    }

    fn first_fragment(&self, packet: &FragmentKey) -> Option<Fragment> {
        self.fragments.borrow().get(packet).copied()
    }

    fn opened(&self, key: &Key) -> bool {
        self.origins.borrow().contains(key)
    }
}

/// Shared between the hooks and any number of workers.
impl Kernel for Rc<MemoryKernel> {
    fn port(&self, index: usize) -> Port {
        self.as_ref().port(index)
    }

    fn set_port_state(&self, index: usize, incarnation: u32, bits: u32) {
        self.as_ref().set_port_state(index, incarnation, bits);
    }

    fn void_denials(&self, index: usize) {
        self.as_ref().void_denials(index);
    }

    fn cache_get(&self, key: &Key) -> Option<CacheValue> {
        self.as_ref().cache_get(key)
    }

    fn cache_put(&self, keys: &[Key], values: &[CacheValue]) -> Result<(), Partial> {
        self.as_ref().cache_put(keys, values)
    }

    fn cache_remove(&self, key: &Key) {
        self.as_ref().cache_remove(key);
    }

    fn deny(&self, key: &Key, deny_epoch: u32) {
        self.as_ref().deny(key, deny_epoch);
    }

    fn allow(&self, allowance: &Allowance) {
        self.as_ref().allow(allowance);
    }

    fn grant(&self, index: usize, room: u32) {
        self.as_ref().grant(index, room);
    }

    fn set_full(&self, index: usize, until_ns: u64) {
        self.as_ref().set_full(index, until_ns);
    }

    fn openings(&self, worker: u16, each: &mut dyn FnMut(Opening)) {
        self.as_ref().openings(worker, each);
    }

    fn first_fragment(&self, packet: &FragmentKey) -> Option<Fragment> {
        self.as_ref().first_fragment(packet)
    }

    fn opened(&self, key: &Key) -> bool {
        self.as_ref().opened(key)
    }
}
