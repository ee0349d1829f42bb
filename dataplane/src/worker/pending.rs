//! The cache entries that a batch wants written, and which frames depend on them.

use super::Worker;
use crate::io::PacketIo;
use crate::kernel::{Kernel, key_of};
use sluice_bpf::abi::{CacheValue, Key};
use sluice_flow::{FlowKey, Incarnation};

/// Entries of one batch. A connection's two entries stand side by side, so a write that stops in the middle is known to
/// have lost whole connections from some point on.
#[derive(Debug, Default)]
pub(super) struct Pending {
    keys: Vec<Key>,
    values: Vec<CacheValue>,
    /// (frame, first entry it needs, connection to forget should the write fail)
    waiting: Vec<(usize, usize, FlowKey)>,
    frame: usize,
}

impl Pending {
    pub(super) fn clear(&mut self) {
        self.keys.clear();
        self.values.clear();
        self.waiting.clear();
    }

    pub(super) fn begin_frame(&mut self, frame: usize) {
        self.frame = frame;
    }

    /// Both entries of a connection; the present frame waits for them.
    pub(super) fn push(&mut self, flow: FlowKey, incarnation: Incarnation, original: CacheValue, reply: CacheValue) {
        self.waiting.push((self.frame, self.keys.len(), flow));
        self.keys.extend([key_of(&flow, incarnation), key_of(&flow.reversed(), incarnation)]);
        self.values.extend([original, reply]);
    }

    /// Whether this batch is about to write an entry for a key.
    pub(super) fn has(&self, key: &Key) -> bool {
        self.keys.contains(key)
    }

    /// The entry that this batch is about to write for a key, if any; the present frame then waits for it too.
    pub(super) fn find(&mut self, flow: &FlowKey, incarnation: Incarnation, connection: FlowKey) -> Option<&mut CacheValue> {
        let key = key_of(flow, incarnation);
        let at = self.keys.iter().rposition(|pending| *pending == key)?;
        self.waiting.push((self.frame, at & !1, connection));
        Some(&mut self.values[at])
    }
}

impl<I: PacketIo, K: Kernel> Worker<I, K> {
    /// Writes what the batch wants written. Returns the frames whose entries the kernel refused: they are dropped, and
    /// their connections forgotten, so that nothing is tracked which the hooks do not know.
    pub(super) fn write_entries(&mut self) -> Vec<usize> {
        if self.pending.keys.is_empty() {
            return Vec::new();
        }
        let Err(partial) = self.kernel.cache_put(&self.pending.keys, &self.pending.values) else { return Vec::new() };
        let written = partial.done & !1;
        // neither half a pair nor what stood there before may stay without its connection
        for key in &self.pending.keys[written..] {
            self.kernel.cache_remove(key);
        }
        let waiting = std::mem::take(&mut self.pending.waiting);
        let lost: Vec<_> = waiting.into_iter().filter(|(_, entry, _)| *entry >= written).collect();
        for (_, _, connection) in &lost {
            self.connections.remove(connection);
        }
        lost.into_iter().map(|(frame, ..)| frame).collect()
    }
}
