//! What a worker shares with the hooks in the kernel: the ports' words and the verdict cache.

#[cfg(feature = "kernel")]
mod bpf;
pub mod hooks;
mod memory;
mod slot;

#[cfg(feature = "kernel")]
pub use bpf::BpfKernel;
pub use memory::MemoryKernel;
pub use slot::{Attachment, cleared};

use hooks::reversed;
use sluice_bpf::abi::{Allowance, CacheValue, Ending, Fragment, FragmentKey, Key, Opening, Port};
use sluice_flow::{Addr, FlowKey, Incarnation, PortIndex, Protocol, TcpFlags};

/// Entries of a batch that the kernel took before it stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partial {
    /// The first so many were written.
    pub done: usize,
}

/// The hooks' side, real or simulated.
pub trait Kernel {
    /// A copy of a port's slot.
    fn port(&self, index: usize) -> Port;
    /// Sets its open and isolation bits, for this incarnation only: should the slot have a new one meanwhile, nothing opens.
    fn set_port_state(&self, index: usize, incarnation: u32, bits: u32);
    /// Voids its cached denials and allowances, before anything that the caller does later.
    fn void_denials(&self, index: usize);
    /// A cache entry.
    fn cache_get(&self, key: &Key) -> Option<CacheValue>;
    /// Inserts or replaces entries, all or a prefix.
    fn cache_put(&self, keys: &[Key], values: &[CacheValue]) -> Result<(), Partial>;
    /// Removes an entry.
    fn cache_remove(&self, key: &Key);
    /// Removes an entry, and returns it as it was at that moment.
    fn cache_take(&self, key: &Key) -> Option<CacheValue> {
        let value = self.cache_get(key);
        self.cache_remove(key);
        value
    }
    /// Takes connections of a worker that closed out of the cache, [`sluice_bpf::abi::ENDINGS_MAX`] at most, and says what they counted; one on whose
    /// ports the hooks have begun another one since stays.
    fn end_closed(&self, _worker: u16, closed: &mut [Ending]) {
        closed.iter_mut().for_each(|ending| *ending = self.end_one(&ending.key));
    }
    /// The same for one of them, where nobody comes between.
    fn end_one(&self, key: &Key) -> Ending {
        let mut ending = Ending { key: *key, again: 0, packets: 0, bytes: 0 };
        let over = TcpFlags::FIN | TcpFlags::RST;
        if self.cache_get(key).is_some_and(|value| value.tcp_flags & over == 0) {
            ending.again = 1;
            return ending;
        }
        for value in [*key, reversed(key)].iter().filter_map(|key| self.cache_take(key)) {
            ending.packets += value.packets;
            ending.bytes += value.bytes;
        }
        ending
    }
    /// Caches a denial of new flows; best effort.
    fn deny(&self, key: &Key, deny_epoch: u32);
    /// Lets the hooks admit new flows that differ in the source port alone, or in ports of a range; best effort.
    fn allow(&self, allowance: &Allowance);
    /// Lets the hooks admit so many flows of a port before its worker hears of any.
    fn grant(&self, index: usize, room: u32);
    /// Once the room that a port was granted is used up, has the hooks drop what would begin a connection of it, but for one packet
    /// from then on, and one in 20 ms after it; 0: they ask about all.
    fn set_full(&self, index: usize, until_ns: u64);
    /// What the hooks told a worker since it was last asked, in order: everything that they began to tell before this call.
    fn openings(&self, worker: u16, each: &mut dyn FnMut(Opening));
    /// What the first fragment of a packet said, where a hook let it pass by the cache.
    fn first_fragment(&self, packet: &FragmentKey) -> Option<Fragment>;
    /// Whether a SYN with exactly this key was seen while its pod was not isolated.
    fn opened(&self, key: &Key) -> bool;
}

/// The cache's key of a flow at this incarnation of its port.
pub fn key_of(flow: &FlowKey, incarnation: Incarnation) -> Key {
    Key {
        incarnation: incarnation.0,
        port: flow.port.0,
        direction: flow.way(),
        protocol: flow.protocol.0,
        src: flow.src.0,
        dst: flow.dst.0,
        sport: flow.sport,
        dport: flow.dport,
    }
}

/// The flow of a cache key, `None` where its direction is nonsense.
pub fn flow_of(key: &Key) -> Option<FlowKey> {
    let (direction, departs) = FlowKey::of_way(key.direction)?;
    Some(FlowKey {
        port: PortIndex(key.port),
        direction,
        departs,
        protocol: Protocol(key.protocol),
        src: Addr(key.src),
        dst: Addr(key.dst),
        sport: key.sport,
        dport: key.dport,
    })
}
