//! Idle connections: found by scanning the verdict cache, where the hooks note each packet, and forgotten by the worker
//! that owns them, which looks again first.

use super::Keeper;
use crate::kernel::flow_of;
use crate::worker::Command;
use crate::worker::thread::now_ns;
use sluice_flow::{FlowKey, Incarnation};
use tracing::warn;

/// The shortest time after which a connection may be forgotten: unanswered TCP.
const SHORTEST_NS: u64 = 60_000_000_000;
const BATCH: usize = 1024;
/// For one worker and scan.
const BATCHES_MAX: usize = 16;

impl Keeper {
    /// Scans the whole cache and hands candidates to their workers.
    pub(super) fn expire_idle(&mut self) {
        let now = now_ns();
        let mut candidates: Vec<Vec<(FlowKey, Incarnation)>> = vec![Vec::new(); self.workers.len()];
        let mut entries = 0;
        let registry = &self.registry;
        let scanned = self.loaded.cache.scan(|key, value| {
            entries += 1;
            if now.saturating_sub(value.last_seen_ns) <= value.timeout_ns.min(SHORTEST_NS) {
                return;
            }
            let Some(flow) = flow_of(key) else { return };
            let owner = registry.by_port(flow.port).map_or(0, |port| port.worker as usize);
            if let Some(list) = candidates.get_mut(owner) {
                list.push((flow, Incarnation(key.incarnation)));
            }
        });
        if let Err(reason) = scanned {
            warn!(%reason, "the scan for idle connections stopped early");
            return;
        }
        self.cache_entries = entries;
        for (worker, flows) in candidates.into_iter().enumerate() {
            // the rest waits for the next scan: tables and ports come first
            let batches = if self.backlog[worker].is_empty() { BATCHES_MAX } else { 0 };
            for batch in flows.chunks(BATCH).take(batches) {
                self.command(worker, Command::Expire(batch.to_vec()));
            }
        }
        self.loaded.sweep();
    }
}
