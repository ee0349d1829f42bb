//! What each rule let through, and whom tables cut: put together from what the workers tell and what the cache holds.

use super::Keeper;
use super::registry::Registry;
use super::status::end;
use crate::kernel::flow_of;
use crate::worker::{Counts, Cut, name_of};
use anyhow::Result;
use sluice_bpf::abi::CACHE_REPLY;
use sluice_flow::{Addr, ObjectName, Verdict};
use sluice_wire::{CutInfo, FromDataplane, RuleCounts};
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

const KEPT: usize = 1000;

/// The connections that were cut last.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    newest_first: VecDeque<(CutInfo, Instant)>,
}

impl Cuts {
    fn note(&mut self, cut: Cut, registry: &Registry) {
        let Cut { flow, incarnation, rule, generation } = cut;
        let port = registry.by_port(flow.port).filter(|port| port.endpoint.incarnation == incarnation);
        let info = CutInfo {
            pod: port.map_or_else(|| ObjectName::new("?", "?"), |port| port.endpoint.pod.clone()),
            direction: flow.direction,
            protocol: flow.protocol.to_string(),
            src: end(flow.src, flow.sport),
            dst: if flow.protocol.is_icmp() { flow.dst.to_string() } else { end(flow.dst, flow.dport) },
            rule,
            generation,
            age_ms: 0,
        };
        self.newest_first.truncate(KEPT - 1);
        self.newest_first.push_front((info, Instant::now()));
    }

    pub(super) fn list(&self) -> Vec<CutInfo> {
        let aged = |(info, at): &(CutInfo, Instant)| CutInfo { age_ms: at.elapsed().as_millis() as u64, ..info.clone() };
        self.newest_first.iter().map(aged).collect()
    }
}

impl Keeper {
    /// Takes over what workers listed; often enough that their lists do not run over.
    pub(super) fn note_cuts(&mut self) {
        for worker in &self.workers {
            worker.shared.take_cuts().for_each(|cut| self.cuts.note(cut, &self.registry));
        }
    }

    /// Of connections that are over what workers tell, of those that live what the cache holds. One that ends in between counts
    /// the next time.
    pub(super) fn rule_counts(&self) -> Result<FromDataplane> {
        let mut over: BTreeMap<String, Counts> = BTreeMap::new();
        for worker in &self.workers {
            for (rule, counts) in worker.shared.rules() {
                over.entry(rule).or_default().add(&counts);
            }
        }
        let table = self.image.as_ref().map(|image| &*image.table);
        let mut live: BTreeMap<Option<u32>, Counts> = BTreeMap::new();
        self.loaded.cache.scan(|key, value| {
            let Some(flow) = flow_of(key) else { return };
            let reply = value.flags & CACHE_REPLY != 0;
            let original = if reply { flow.reversed() } else { flow };
            let remote = if value.origin == [0; 16] { original.remote() } else { Addr(value.origin) };
            let verdict =
                table.map(|table| table.lookup(original.port, original.direction, remote, original.protocol, original.policy_port()));
            let rule = match verdict {
                Some(Verdict::Allow(rule)) if !self.is_deferred(&original) => Some(rule.0),
                _ => None,
            };
            let connections = u64::from(!reply);
            live.entry(rule).or_default().add(&Counts { connections, packets: value.packets, bytes: value.bytes });
        })?;
        let mut rules: BTreeMap<String, RuleCounts> = BTreeMap::new();
        let named = live.into_iter().map(|(rule, counts)| (name_of(table, rule.map(sluice_flow::RuleId)), counts, true));
        for (rule, counts, lives) in named.chain(over.into_iter().map(|(rule, counts)| (rule, counts, false))) {
            let sum = rules.entry(rule.clone()).or_insert_with(|| RuleCounts { rule, live: 0, over: 0, packets: 0, bytes: 0 });
            *(if lives { &mut sum.live } else { &mut sum.over }) += counts.connections;
            sum.packets += counts.packets;
            sum.bytes += counts.bytes;
        }
        Ok(FromDataplane::Rules { rules: rules.into_values().collect() })
    }

    /// Whether a flow leaves its pod to be judged where it departs.
    fn is_deferred(&self, flow: &sluice_flow::FlowKey) -> bool {
        let leaves = flow.direction == sluice_flow::Direction::Egress && !flow.departs;
        let service = self.image.as_ref().is_some_and(|image| image.table.is_service(flow.dst));
        leaves && (service || self.node_addresses.contains(&flow.dst))
    }
}
