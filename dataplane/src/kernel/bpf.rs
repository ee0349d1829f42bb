//! The real kernel: pinned BPF maps.

use super::{Kernel, Partial};
use sluice_bpf::abi::{Allowance, CacheValue, Denial, Ending, Fragment, FragmentKey, Key, Opening, Port};
use sluice_bpf::{Loaded, MapError};
use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The maps of a loaded dataplane, shared by keeper and workers.
#[derive(Debug, Clone)]
pub struct BpfKernel(pub Arc<Loaded>);

impl Kernel for BpfKernel {
    fn port(&self, index: usize) -> Port {
        self.0.ports.read(index)
    }

    fn set_port_state(&self, index: usize, incarnation: u32, bits: u32) {
        self.0.ports.publish(index, offset_of!(Port, state), Port::state_word(incarnation, bits));
    }

    fn void_denials(&self, index: usize) {
        // SeqCst: before the owner reads how far its ring goes; a program that it does not find there sees the new value
        self.0.ports.word(index, offset_of!(Port, deny_epoch)).fetch_add(1, Ordering::SeqCst);
    }

    fn cache_get(&self, key: &Key) -> Option<CacheValue> {
        self.0.cache.get(key)
    }

    fn cache_put(&self, keys: &[Key], values: &[CacheValue]) -> Result<(), Partial> {
        match self.0.cache.put_batch(keys, values) {
            Ok(()) => Ok(()),
            Err(MapError::Partial { done, .. }) => Err(Partial { done }),
            Err(MapError::System { .. }) => Err(Partial { done: 0 }),
        }
    }

    fn cache_remove(&self, key: &Key) {
        self.0.cache.remove(key);
    }

    fn deny(&self, key: &Key, deny_epoch: u32) {
        // a denial that could not be cached costs another punt, nothing else
        let _ = self.0.denials.put(key, &Denial { deny_epoch, pad: 0, packets: 0, last_seen_ns: 0 });
    }

    fn cache_take(&self, key: &Key) -> Option<CacheValue> {
        self.0.cache.take(key)
    }

    fn end_closed(&self, worker: u16, closed: &mut [Ending]) {
        // without the program, by three or four system calls for each
        if self.0.end(worker.into(), closed).is_err() {
            closed.iter_mut().for_each(|ending| *ending = self.end_one(&ending.key));
        }
    }

    fn allow(&self, allowance: &Allowance) {
        // one that could not be kept costs another punt, nothing else
        let _ = self.0.allowances.put(&allowance.key, allowance);
    }

    fn grant(&self, index: usize, room: u32) {
        self.0.grant(index, room);
    }

    fn set_full(&self, index: usize, until_ns: u64) {
        self.0.set_full(index, until_ns);
    }

    fn openings(&self, worker: u16, each: &mut dyn FnMut(Opening)) {
        self.0.openings(worker.into(), each);
    }

    fn first_fragment(&self, packet: &FragmentKey) -> Option<Fragment> {
        self.0.fragments.get(packet)
    }

    fn opened(&self, key: &Key) -> bool {
        self.0.origins.get(key).is_some()
    }
}
