//! Where every packet went, and a fingerprint of the whole run.

use sluice_flow::DropReason;
use std::collections::BTreeMap;

/// Packets by their end. One packet is one frame on its way from a sender to its last hop; a duplicate is another one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Made by stacks, by hand, or by duplication.
    pub sent: u64,
    /// Reached a stack, the node, or the world beyond the uplink.
    pub delivered: u64,
    /// Ended at a hook or in a worker.
    pub dropped: BTreeMap<DropReason, u64>,
    /// Lost by the simulated links.
    pub lost: u64,
    /// Died in the ring of a worker that died.
    pub lost_with_worker: u64,
    /// Made by duplication; part of `sent`.
    pub duplicated: u64,
}

impl Ledger {
    /// Packets that had an end.
    pub fn ended(&self) -> u64 {
        let dropped: u64 = self.dropped.values().sum();
        self.delivered + dropped + self.lost + self.lost_with_worker
    }

    /// Sums two runs.
    pub fn add(&mut self, other: &Self) {
        let Self { sent, delivered, dropped, lost, lost_with_worker, duplicated } = other;
        self.sent += sent;
        self.delivered += delivered;
        for (reason, count) in dropped {
            *self.dropped.entry(*reason).or_default() += count;
        }
        self.lost += lost;
        self.lost_with_worker += lost_with_worker;
        self.duplicated += duplicated;
    }
}

/// FNV-1a over everything that happened, in order: two runs of one seed have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest(pub(super) u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

/// The last events in words. Off, a note costs nothing: a failing seed is simply run again with it.
#[derive(Debug, Clone, Default)]
pub(super) struct Trace {
    lines: std::collections::VecDeque<String>,
    keep_max: usize,
}

impl Trace {
    pub(super) fn keeping(keep_max: usize) -> Self {
        Self { lines: std::collections::VecDeque::new(), keep_max }
    }

    pub(super) fn note(&mut self, now_ns: u64, say: impl FnOnce() -> String) {
        if self.keep_max == 0 {
            return;
        }
        if self.lines.len() == self.keep_max {
            self.lines.pop_front();
        }
        self.lines.push_back(format!("{:>12.6} s  {}", now_ns as f64 / 1e9, say()));
    }

    pub(super) fn into_lines(self) -> Vec<String> {
        self.lines.into()
    }
}
