//! Answers for people: status, ports, connections, drops.

use super::Keeper;
use crate::config::EstablishedArgument;
use crate::kernel::flow_of;
use crate::worker::thread::now_ns;
use anyhow::Result;
use sluice_bpf::abi::{self, CACHE_ALLOW_DEFERRED, CACHE_DENY, CACHE_REPLY, CacheValue, Key};
use sluice_flow::{DropReason, FlowKey, ObjectName, Verdict};
use sluice_wire::{ConnectionInfo, DataplaneStatus, DropCount, FoundState, FromDataplane, PortInfo, PortState, TakenOver, WorkerStatus};
use std::collections::HashMap;

impl Keeper {
    pub(super) fn status(&self) -> DataplaneStatus {
        let counters = self.loaded.counters();
        DataplaneStatus {
            version: env!("CARGO_PKG_VERSION").into(),
            abi_version: sluice_bpf::ABI_VERSION,
            taken_over: self.loaded.handover().map(|handover| TakenOver {
                abi_versions: handover.from.clone(),
                entries: handover.entries,
                skipped: handover.skipped,
                unreadable: handover.unreadable.clone(),
                took_us: handover.took.as_micros() as u64,
            }),
            pid: std::process::id(),
            uptime_s: self.started.elapsed().as_secs(),
            generation: self.generation(),
            generation_age_s: self.image.as_ref().map_or(0, |image| image.since.elapsed().as_secs()),
            image_bytes: self.image.as_ref().map_or(0, |image| image.table.image_bytes()),
            control_connected: self.control.is_some(),
            last_refused: self.last_refused.clone(),
            storage_trouble: self.storage.trouble(),
            established: match self.arguments.established {
                EstablishedArgument::Enforce => "enforce".into(),
                EstablishedArgument::Keep => "keep".into(),
            },
            enforcing: self.enforcing,
            fail_open: self.arguments.fail_open,
            every_packet: self.loaded.sends_every_packet(),
            cache_hits: counters[abi::COUNT_HIT],
            punts: counters[abi::COUNT_PUNT],
            admitted: counters[abi::COUNT_ADMITTED],
            direct: counters[abi::COUNT_DIRECT],
            straight: self.straight,
            uplinks: self.uplinks.clone(),
            uplink_drops: counters[abi::COUNT_UPLINK],
            not_isolated: counters[abi::COUNT_NOT_ISOLATED],
            cache_entries: self.cache_entries,
            ports: self.registry.iter().count() as u64,
            existing_pods: self.arguments.existing_pods.to_string(),
            found_closed: self.found.count(FoundState::Closed),
            found_unmanaged: self.found.count(FoundState::Unmanaged),
            preceded: self.preceded.clone(),
            workers: self.worker_statuses(),
            drops: self.drops(&counters),
        }
    }

    fn worker_statuses(&self) -> Vec<WorkerStatus> {
        let cpus = &self.arguments.cpus;
        let of = |(trunk, handle): (&crate::trunk::Trunk, &crate::worker::thread::Handle)| {
            let [received, forwarded, connections, connections_cut] = handle.shared.counts();
            WorkerStatus {
                worker: trunk.worker,
                cpu: (!cpus.is_empty()).then(|| cpus[trunk.worker as usize % cpus.len()] as u32),
                trunk: trunk.near.clone(),
                generation: handle.shared.generation(),
                ports: self.registry.iter().filter(|port| port.worker == trunk.worker).count() as u64,
                connections,
                received,
                forwarded,
                dropped: DropReason::ALL.iter().map(|reason| handle.shared.drops(*reason)).sum(),
                connections_cut,
                alive: self.is_alive(handle),
                wait: self.arguments.wait.to_string(),
                cpu_us: handle.shared.cpu_ns() / 1000,
            }
        };
        self.trunks.iter().zip(&self.workers).map(of).collect()
    }

    /// Drops in the kernel since the maps were made, and of the workers since they started.
    fn drops(&self, counters: &[u64]) -> Vec<DropCount> {
        DropReason::ALL
            .iter()
            .map(|&reason| {
                let by_workers: u64 = self.workers.iter().map(|worker| worker.shared.drops(reason)).sum();
                DropCount { reason: reason.name().into(), packets: counters[reason as usize] + by_workers }
            })
            .filter(|count| count.packets > 0)
            .collect()
    }

    pub(super) fn port_infos(&self) -> Vec<PortInfo> {
        let mut connections: HashMap<u16, u64> = HashMap::new();
        let _ = self.loaded.cache.scan(|key, value| {
            if value.flags & CACHE_REPLY == 0 {
                *connections.entry(key.port).or_default() += 1;
            }
        });
        self.registry
            .iter()
            .map(|port| {
                let index = port.endpoint.port.0;
                let state = self.loaded.ports.read(usize::from(index)).state_bits();
                let isolated_ingress = state & abi::PORT_ISOLATED_INGRESS != 0;
                let isolated_egress = state & abi::PORT_ISOLATED_EGRESS != 0;
                PortInfo {
                    endpoint: port.endpoint.clone(),
                    container_id: port.container_id.clone(),
                    ifname: port.ifname.clone(),
                    network: port.network.clone(),
                    host_ifname: port.host_ifname.clone(),
                    host_ifindex: port.host_ifindex,
                    mac: port.mac.map(|byte| format!("{byte:02x}")).join(":"),
                    worker: port.worker,
                    state: match (state & abi::PORT_OPEN != 0, isolated_ingress || isolated_egress) {
                        (false, _) => PortState::Closed,
                        (true, false) => PortState::Open,
                        (true, true) => PortState::Isolated,
                    },
                    isolated_ingress,
                    isolated_egress,
                    connections: connections.get(&index).copied().unwrap_or(0),
                    rationed: self.loaded.rations.read(usize::from(index)).refused,
                }
            })
            .collect()
    }

    pub(super) fn connection_infos(&self, pod: Option<&ObjectName>, max: usize) -> Result<FromDataplane> {
        let mut found: HashMap<Key, [Option<CacheValue>; 2]> = HashMap::new();
        self.loaded.cache.scan(|key, value| {
            let reply = value.flags & CACHE_REPLY != 0;
            let Some(flow) = flow_of(key) else { return };
            let original = if reply { flow.reversed() } else { flow };
            let original = crate::kernel::key_of(&original, sluice_flow::Incarnation(key.incarnation));
            found.entry(original).or_default()[usize::from(reply)] = Some(*value);
        })?;
        let mut rows: Vec<(FlowKey, [Option<CacheValue>; 2])> = found
            .into_iter()
            .filter_map(|(key, values)| Some((flow_of(&key)?, values)))
            .filter(|(flow, _)| pod.is_none_or(|pod| self.registry.by_port(flow.port).is_some_and(|port| port.endpoint.pod == *pod)))
            .collect();
        rows.sort_by_key(|(flow, _)| (flow.port, flow.direction, flow.departs, flow.protocol, flow.src, flow.dst, flow.sport, flow.dport));
        let total = rows.len() as u64;
        let now = now_ns();
        let connections = rows.iter().take(max).map(|(flow, values)| self.connection_info(flow, values, now)).collect();
        Ok(FromDataplane::Connections { connections, total })
    }

    fn connection_info(&self, flow: &FlowKey, values: &[Option<CacheValue>; 2], now: u64) -> ConnectionInfo {
        let table = self.image.as_ref().map(|image| &image.table);
        let first = values.iter().flatten().next();
        let origin = first.filter(|value| value.origin != [0; 16]).map(|value| sluice_flow::Addr(value.origin));
        let remote = origin.unwrap_or(flow.remote());
        let verdict = table.map(|table| table.lookup(flow.port, flow.direction, remote, flow.protocol, flow.policy_port()));
        let deferred = values.iter().flatten().any(|value| value.verdict == CACHE_ALLOW_DEFERRED);
        let rule = match verdict {
            Some(Verdict::Allow(rule)) if !deferred => table.and_then(|table| table.rule(rule)).map(ToString::to_string),
            _ => None,
        };
        let denied = values.iter().flatten().any(|value| value.verdict == CACHE_DENY);
        let last_seen = values.iter().flatten().map(|value| value.last_seen_ns).max().unwrap_or(0);
        ConnectionInfo {
            pod: self.registry.by_port(flow.port).map_or_else(|| ObjectName::new("?", "?"), |port| port.endpoint.pod.clone()),
            direction: flow.direction,
            departs: flow.departs,
            deferred,
            origin: origin.map(std::net::IpAddr::from),
            protocol: flow.protocol.to_string(),
            src: end(flow.src, flow.sport),
            dst: if flow.protocol.is_icmp() { flow.dst.to_string() } else { end(flow.dst, flow.dport) },
            verdict: if denied { "deny".into() } else { "allow".into() },
            rule,
            packets: values.iter().flatten().map(|value| value.packets).sum(),
            bytes: values.iter().flatten().map(|value| value.bytes).sum(),
            idle_ms: now.saturating_sub(last_seen) / 1_000_000,
        }
    }
}

/// An end of a connection.
pub(super) fn end(address: sluice_flow::Addr, port: u16) -> String {
    match address.to_v4() {
        Some(_) => format!("{address}:{port}"),
        None => format!("[{address}]:{port}"),
    }
}
