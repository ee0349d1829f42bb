//! What Prometheus reads. Counters and histograms are kept by the engine as things happen; states are written down from the
//! view at each scrape.

use super::dataplane::Answer;
use crate::view::View;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// From 0.5 ms to 16 s.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 16))
}

/// What the engine counts.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    compile: Histogram,
    proof: Histogram,
    programming: Histogram,
    publications: Counter,
    failures: Family<Failure, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failure {
    stage: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { compile: seconds(), proof: seconds(), programming: seconds(), publications: Counter::default(), failures: Family::default() }
    }
}

impl Metrics {
    pub(crate) fn compiled(&self, took: Duration) {
        self.compile.observe(took.as_secs_f64());
    }

    pub(crate) fn proved(&self, took: Duration) {
        self.proof.observe(took.as_secs_f64());
    }

    pub(crate) fn published(&self) {
        self.publications.inc();
    }

    /// From when the oldest change in it was noticed.
    pub(crate) fn adopted(&self, after: Duration) {
        self.programming.observe(after.as_secs_f64());
    }

    /// `stage`: `compile_or_proof`, `dataplane` or `rollback`.
    pub(crate) fn failed(&self, stage: &'static str) {
        self.failures.get_or_create(&Failure { stage }).inc();
    }

    fn register(&self, registry: &mut Registry) {
        let histograms = [
            ("compile_duration", "Compiling a table", &self.compile),
            ("proof_duration", "Proving a table against the oracle", &self.proof),
            ("policy_programming_latency", "From a change noticed to its adoption by all workers", &self.programming),
        ];
        for (name, help, histogram) in histograms {
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        }
        registry.register("tables_published", "Tables sent to the dataplane", self.publications.clone());
        registry.register("table_failures", "Tables that were not published or not kept, by stage", self.failures.clone());
    }
}

/// The text of a scrape.
pub(crate) fn scrape(metrics: &Metrics, view: Arc<View>, dataplane: Answer) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("sluice_control");
    metrics.register(&mut registry);
    registry.register("build", "The version that runs", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
    registry.register_collector(Box::new(States(view)));
    let mut of_dataplane = Registry::with_prefix("sluice_dataplane");
    of_dataplane.register_collector(Box::new(dataplane));
    let mut text = String::new();
    encode_registry(&mut text, &registry)?;
    encode_registry(&mut text, &of_dataplane)?;
    encode_eof(&mut text)?;
    Ok(text)
}

/// States at the moment of a scrape.
#[derive(Debug)]
struct States(Arc<View>);

impl Collector for States {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let status = &self.0.status;
        let flag = |is: bool| u64::from(is);
        let plain: [(&str, &str, u64); 9] = [
            ("published_generation", "The last table sent", status.published_generation),
            ("adopted_generation", "The last table in force at all workers", status.adopted_generation),
            ("settled", "1 while everything read is in force", flag(status.settled)),
            ("dataplane_connected", "1 while the dataplane is connected", flag(status.dataplane_connected)),
            ("proof_pending", "1 while the table in force has no finished proof", flag(status.proof_pending)),
            ("endpoints", "Pods attached to this node", status.endpoints),
            ("problems", "Objects that cannot be used as they are", status.problems.len() as u64),
            ("image_bytes", "The last table's size", status.image_bytes),
            ("resident_memory_bytes", "This process's memory", resident_bytes().unwrap_or_default()),
        ];
        for (name, help, value) in plain {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let objects = [("namespaces", status.namespaces), ("pods", status.pods), ("policies", status.policies)];
        family(&mut encoder, ("objects", "Objects in force"), "kind", objects)?;
        let watches = || self.0.watches.iter();
        let broken = watches().map(|watch| (watch.resource, flag(watch.trouble.is_some())));
        family(&mut encoder, ("watch_broken", "1 while a watch is broken"), "resource", broken)?;
        let listed = watches().map(|watch| (watch.resource, flag(watch.is_listed)));
        family(&mut encoder, ("watch_listed", "1 once everything was listed"), "resource", listed)?;
        let silent = watches().map(|watch| (watch.resource, watch.heard.elapsed().as_secs()));
        family(&mut encoder, ("watch_silence_seconds", "Since the API server said anything"), "resource", silent)?;
        let counter = ConstCounter::new(0u64);
        let mut lists = encoder.encode_descriptor("watch_lists", "Lists of all objects", None, counter.metric_type())?;
        for watch in watches() {
            ConstCounter::new(watch.lists).encode(lists.encode_family(&[("resource", watch.resource)])?)?;
        }
        Ok(())
    }
}

pub(super) fn family<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    label: &str,
    values: impl IntoIterator<Item = (&'a str, u64)>,
) -> Result<(), fmt::Error> {
    let gauge = ConstGauge::new(0u64);
    let mut family = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
    for (value, number) in values {
        ConstGauge::new(number).encode(family.encode_family(&[(label, value)])?)?;
    }
    Ok(())
}

/// From `/proc/self/status`; source: proc_pid_status(5).
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}
