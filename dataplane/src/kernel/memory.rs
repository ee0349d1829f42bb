//! A kernel in memory, for tests and simulation: the same maps, the same limits.

use super::{Kernel, Partial};
use bytemuck::Zeroable;
use sluice_bpf::abi::{CacheValue, Denial, Key, PORTS_MAX, Port};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

/// Ports, cache, denials and origins as the hooks would see them.
#[derive(Debug)]
pub struct MemoryKernel {
    /// By index.
    pub ports: RefCell<Vec<Port>>,
    /// The verdict cache.
    pub cache: RefCell<HashMap<Key, CacheValue>>,
    /// The denial cache.
    pub denials: RefCell<HashMap<Key, Denial>>,
    /// SYNs seen of pods that were not isolated.
    pub origins: RefCell<HashSet<Key>>,
    /// Room of the verdict cache.
    pub cache_entries_max: usize,
}

impl Default for MemoryKernel {
    fn default() -> Self {
        Self {
            ports: RefCell::new(vec![Port::zeroed(); PORTS_MAX]),
            cache: RefCell::default(),
            denials: RefCell::default(),
            origins: RefCell::default(),
            cache_entries_max: usize::MAX,
        }
    }
}

impl Kernel for &MemoryKernel {
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
            if !cache.contains_key(key) && cache.len() >= self.cache_entries_max {
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

    fn opened(&self, key: &Key) -> bool {
        self.origins.borrow().contains(key)
    }
}
