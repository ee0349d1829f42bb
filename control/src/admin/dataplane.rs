//! The dataplane's state for Prometheus. The dataplane serves no HTTP: whoever scrapes asks here, and this asks its socket, so
//! that nothing but packets and its own socket can reach the process that holds capabilities.

use super::metrics::family;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use sluice_wire::{Connection, DataplaneStatus, FromDataplane, ToDataplane, WireError};
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// It answers from memory; what takes longer is a hung process.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Asks it. Blocks; `None` where it does not answer in time.
pub(super) fn ask(socket: &Path) -> Option<DataplaneStatus> {
    let asked = || -> Result<FromDataplane, WireError> {
        let mut connection = Connection::connect(socket)?;
        connection.set_receive_timeout(Some(ANSWER_MAX))?;
        connection.set_send_timeout(Some(ANSWER_MAX))?;
        Ok(connection.call(&ToDataplane::Status)?.0)
    };
    match asked() {
        Ok(FromDataplane::Status(status)) => Some(status),
        _ => None,
    }
}

/// What it answered at the moment of a scrape.
#[derive(Debug)]
pub(super) struct Answer(pub(super) Option<DataplaneStatus>);

impl Collector for Answer {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let up = ConstGauge::new(u64::from(self.0.is_some()));
        up.encode(encoder.encode_descriptor("up", "1 while the dataplane answers", None, up.metric_type())?)?;
        let Some(status) = &self.0 else { return Ok(()) };
        for (name, help, value) in [
            ("generation", "The table in force, 0 for none", status.generation),
            ("table_age_seconds", "Since that table is in force", status.generation_age_s),
            ("enforcing", "1 while hooks are on every pod", u64::from(status.enforcing)),
            ("storage_broken", "1 while the run directory cannot be written", u64::from(status.storage_trouble.is_some())),
            ("ports", "Pods attached", status.ports),
            ("cache_entries", "Entries of the verdict cache", status.cache_entries),
            ("found_closed", "Pods' devices that nobody told of, closed", status.found_closed),
            ("found_unmanaged", "Pods' devices that nobody told of, without policy", status.found_unmanaged),
            ("preceded", "Hooks with another program in front of them", status.preceded.len() as u64),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        for (name, help, value) in [
            ("cache_hits", "Packets judged in the kernel", status.cache_hits),
            ("punts", "Packets sent to a worker", status.punts),
            ("direct", "Packets brought straight from one pod's device to another's", status.direct),
            ("uplink_drops", "Packets dropped on NICs by an earlier denial", status.uplink_drops),
            ("admitted", "Connections begun in the kernel by an earlier verdict on one like them", status.admitted),
            ("not_isolated", "Packets of pods that no policy isolates", status.not_isolated),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        let counter = ConstCounter::new(0u64);
        let mut drops = encoder.encode_descriptor("drops", "Dropped packets by reason", None, counter.metric_type())?;
        for drop in &status.drops {
            ConstCounter::new(drop.packets).encode(drops.encode_family(&[("reason", drop.reason.as_str())])?)?;
        }
        let workers: Vec<(String, &sluice_wire::WorkerStatus)> = status.workers.iter().map(|w| (w.worker.to_string(), w)).collect();
        let each = |of: fn(&sluice_wire::WorkerStatus) -> u64| workers.iter().map(move |(name, worker)| (name.as_str(), of(worker)));
        family(&mut encoder, ("worker_alive", "1 while it has not missed its heartbeat"), "worker", each(|w| u64::from(w.alive)))?;
        family(&mut encoder, ("worker_generation", "The table it judges by"), "worker", each(|w| w.generation))?;
        family(&mut encoder, ("worker_connections", "Connections it tracks"), "worker", each(|w| w.connections))
    }
}
