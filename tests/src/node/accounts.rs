//! Nothing is lost without a name, and the hooks never say what the worker does not know.

use super::{Fate, Node};
use sluice_bpf::abi::{CACHE_DENY, CACHE_REPLY, Key, OPENING_ADMITTED};
use sluice_dataplane::conntrack::Role;
use sluice_dataplane::kernel::hooks::reversed;
use sluice_dataplane::kernel::{Kernel, flow_of};
use sluice_flow::DropReason;
use std::collections::{BTreeMap, HashSet};

/// Every packet that was offered to a hook, by what became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    /// Shown to a hook from outside, once each.
    pub offered: u64,
    /// Went on.
    pub passed: u64,
    /// Went on, for delivery to this node only.
    pub deferred: u64,
    /// Ended, by reason.
    pub dropped: BTreeMap<DropReason, u64>,
    /// Died with the worker in whose ring they waited.
    pub lost: u64,
}

impl Accounts {
    pub(super) fn note(&mut self, fate: &Fate) {
        match fate {
            Fate::Passed(_) => self.passed += 1,
            Fate::Deferred(_) => self.deferred += 1,
            Fate::Dropped(reason) => *self.dropped.entry(*reason).or_default() += 1,
        }
    }

    /// Of one reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped.get(&reason).copied().unwrap_or(0)
    }
}

/// A promise that the node has broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Disagreement(String);

impl Node {
    /// What became of every packet so far.
    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// Packets dropped under a reason, as the counters of hooks and workers say.
    pub fn drops(&self, reason: DropReason) -> u64 {
        let workers = self.workers.iter().map(|slot| slot.retired_drops[reason as usize] + slot.shared.drops(reason));
        self.kernel.drops(reason) + workers.sum::<u64>()
    }

    /// Connections that swaps have cut, as the living workers count them.
    pub fn connections_cut(&self) -> u64 {
        self.workers.iter().map(|slot| slot.shared.counts()[3]).sum()
    }

    /// Counters and fates say the same, and every packet has exactly one fate.
    ///
    /// # Errors
    /// The first sum that is wrong.
    pub fn check_accounts(&self) -> Result<(), Disagreement> {
        let accounts = &self.accounts;
        for &reason in DropReason::ALL {
            let (counted, seen) = (self.drops(reason), accounts.dropped(reason));
            if counted != seen {
                return Err(Disagreement(format!("{seen} packets were dropped as {reason}, the counters say {counted}")));
            }
        }
        let dropped: u64 = accounts.dropped.values().sum();
        let waiting = self.waiting() as u64;
        let known = accounts.passed + accounts.deferred + dropped + accounts.lost + waiting;
        if accounts.offered != known {
            return Err(Disagreement(format!(
                "{} packets were offered, {known} have a fate: {accounts:?}, {waiting} wait",
                accounts.offered
            )));
        }
        for slot in &self.workers {
            let [received, forwarded, ..] = slot.shared.counts();
            let dropped: u64 = DropReason::ALL.iter().map(|&reason| slot.shared.drops(reason)).sum();
            // an overrun is counted by the kernel, before the worker receives
            let dropped = dropped - slot.shared.drops(DropReason::WorkerOverrun);
            if received != forwarded + dropped {
                return Err(Disagreement(format!("a worker received {received} frames, forwarded {forwarded}, dropped {dropped}")));
            }
        }
        Ok(())
    }

    /// What the hooks obey is what a living worker knows: every valid entry belongs to a connection, says what it says, and
    /// stands for its own direction.
    ///
    /// # Errors
    /// The first entry that does not.
    pub fn check_cache(&self) -> Result<(), Disagreement> {
        // the worker has not heard of these yet, and will before its next verdict
        let openings = self.kernel.openings.borrow();
        let unheard: HashSet<Key> = openings
            .values()
            .flatten()
            .filter(|opening| opening.kind == OPENING_ADMITTED)
            .flat_map(|opening| [opening.key, reversed(&opening.key)])
            .collect();
        for (key, value) in self.kernel.cache_entries() {
            if unheard.contains(&key) {
                continue;
            }
            let port = self.kernel.port(usize::from(key.port));
            let valid = port.ifindex != 0 && port.incarnation == key.incarnation && port.epoch == value.epoch;
            let owner = self.workers.get(usize::from(port.worker)).and_then(|slot| slot.worker.as_ref());
            let (true, Some(worker)) = (valid, owner) else { continue };
            let error = |what: &str| Err(Disagreement(format!("cache entry {key:?}: {what}: {value:?}")));
            let Some(flow) = flow_of(&key) else { return error("no flow has such a key") };
            let Some((_, connection, role)) = worker.connections().find(&flow) else { return error("no connection behind it") };
            if connection.incarnation.0 != key.incarnation {
                return error("its connection is of another incarnation");
            }
            if (value.flags & CACHE_REPLY != 0) != (role == Role::Reply) {
                return error("it stands for the other direction");
            }
            if (value.verdict != CACHE_DENY) != connection.allowed {
                return error("its connection says the opposite");
            }
        }
        Ok(())
    }

    /// Both checks, as an assertion.
    ///
    /// # Panics
    /// Where one fails.
    pub fn assert_sound(&self) {
        if let Err(disagreement) = self.check_accounts().and_then(|()| self.check_cache()) {
            panic!("{disagreement}");
        }
    }
}
