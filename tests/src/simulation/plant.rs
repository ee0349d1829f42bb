//! Faults planted on purpose, so that it is known that the simulation finds such faults. Each stands for a mistake that
//! somebody could make in a hook, a worker, the keeper or the compiler. Only tests plant them.

use crate::node::Node;
use serde_json::Value;
use sluice_bpf::abi::{CACHE_ALLOW, CACHE_REPLY, CacheValue, Key, PORT_OPEN, Port};
use sluice_dataplane::kernel::{Kernel, key_of};
use sluice_flow::{Direction, FlowKey, Incarnation, Kind, PortIndex, parse_frame};
use sluice_policy::Snapshot;
use std::sync::Arc;

/// A planted fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// A hook lets TCP segments pass that open nothing, connection or not.
    AnswersWithoutConnection,
    /// A cached answer's entry admits openers too.
    AnswersOpen,
    /// A port's next use keeps incarnation and epoch of the one before, and what was cached for it.
    EpochNotRaised,
    /// A swap keeps connections that the new table forbids.
    SwapKeepsForbidden,
    /// A swap does not isolate pods that were not isolated before.
    SwapOpensLate,
    /// Denials outlive the table that made them.
    DenialsOutliveSwap,
    /// A restarted worker does not read what the cache remembers.
    RestartForgets,
    /// A worker's death takes what the cache remembered with it.
    RestartCutsAll,
    /// The hooks forget who opened what while pods were not isolated.
    OriginsForgotten,
    /// The compiler forgets the `except`s of blocks.
    ExceptForgotten,
    /// The compiler takes every port range for its first port.
    RangeCutShort,
    /// A drop is not counted.
    DropNotCounted,
}

impl Plant {
    /// Every one.
    pub const ALL: [Self; 12] = [
        Self::AnswersWithoutConnection,
        Self::AnswersOpen,
        Self::EpochNotRaised,
        Self::SwapKeepsForbidden,
        Self::SwapOpensLate,
        Self::DenialsOutliveSwap,
        Self::RestartForgets,
        Self::RestartCutsAll,
        Self::OriginsForgotten,
        Self::ExceptForgotten,
        Self::RangeCutShort,
        Self::DropNotCounted,
    ];

    /// Returns a cache entry to remove after the hook has seen the packet.
    pub(super) fn before_offer(self, node: &Node, port: PortIndex, direction: Direction, frame: &[u8]) -> Option<Key> {
        if self != Self::AnswersWithoutConnection {
            return None;
        }
        let packet = parse_frame(frame).ok()?;
        let Kind::Tcp(flags) = packet.kind else { return None };
        let slot = node.kernel().port(usize::from(port.0));
        let sluice_flow::Packet { protocol, src, dst, sport, dport, .. } = packet;
        let key = key_of(&FlowKey { port, direction, departs: false, protocol, src, dst, sport, dport }, Incarnation(slot.incarnation));
        let known = node.kernel().cache_get(&key).is_some();
        if flags.opens() || known {
            return None;
        }
        let entry = CacheValue {
            verdict: CACHE_ALLOW,
            flags: CACHE_REPLY,
            epoch: slot.epoch,
            timeout_ns: u64::MAX,
            ..bytemuck::Zeroable::zeroed()
        };
        node.kernel().cache.borrow_mut().insert(key, entry);
        Some(key)
    }

    /// The ports as they are before a worker carries out its commands.
    pub(super) fn before_commands(self, node: &Node) -> Vec<Port> {
        node.kernel().ports.borrow().clone()
    }

    pub(super) fn after_adoption(self, node: &Node, before: &[Port]) {
        if self == Self::OriginsForgotten {
            node.kernel().origins.borrow_mut().clear();
        }
        let mut ports = node.kernel().ports.borrow_mut();
        for (port, before) in ports.iter_mut().zip(before) {
            let same = port.ifindex != 0 && port.incarnation == before.incarnation;
            match self {
                Self::DenialsOutliveSwap if same => port.deny_epoch = before.deny_epoch,
                Self::SwapOpensLate if same && before.state_bits() == PORT_OPEN => port.state = before.state,
                _ => {}
            }
        }
    }

    pub(super) fn after_serve(self, node: &Node) {
        match self {
            Self::AnswersOpen => node.kernel().cache.borrow_mut().values_mut().for_each(|entry| entry.flags &= !CACHE_REPLY),
            Self::DropNotCounted => {
                let mut counters = node.kernel().counters.borrow_mut();
                counters[1] = counters[1].saturating_sub(1);
            }
            _ => {}
        }
    }

    /// What is cached for a port that is about to be removed.
    pub(super) fn before_removal(self, node: &Node, port: PortIndex) -> Vec<(Key, CacheValue)> {
        let mut entries = node.kernel().cache_entries();
        entries.retain(|(key, _)| self == Self::EpochNotRaised && key.port == port.0);
        entries
    }

    /// What was cached for the port's last use counts again.
    pub(super) fn after_attach(self, node: &Node, port: PortIndex, stash: Vec<(Key, CacheValue)>) {
        let index = usize::from(port.0);
        let mut slot = node.kernel().port(index);
        slot.epoch = stash.first().map_or(slot.epoch, |(_, value)| value.epoch);
        node.kernel().ports.borrow_mut()[index] = slot;
        for (key, value) in stash {
            node.kernel().cache.borrow_mut().insert(Key { incarnation: slot.incarnation, ..key }, value);
        }
    }

    /// The snapshot as a faulty compiler reads it.
    pub(super) fn miscompiled(self, snapshot: &Snapshot) -> Snapshot {
        let damage: fn(&mut Value) = match self {
            Self::ExceptForgotten => |object| {
                if object.get("cidr").is_some() {
                    object["except"] = Value::Null;
                }
            },
            Self::RangeCutShort => |object| {
                if object.get("endPort").is_some() {
                    object["endPort"] = Value::Null;
                }
            },
            _ => return snapshot.clone(),
        };
        let mut snapshot = snapshot.clone();
        let damaged = snapshot.policies.iter().map(|(name, policy)| {
            let mut value = serde_json::to_value(&**policy).expect("a policy is JSON");
            everywhere(&mut value, damage);
            (name.clone(), Arc::new(serde_json::from_value(value).expect("it still is a policy")))
        });
        snapshot.policies = damaged.collect();
        snapshot
    }
}

fn everywhere(value: &mut Value, damage: fn(&mut Value)) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(|field| everywhere(field, damage)),
        Value::Array(items) => items.iter_mut().for_each(|item| everywhere(item, damage)),
        _ => {}
    }
    if value.is_object() {
        damage(value);
    }
}
