//! How the reporter is doing, for those who ask over HTTP.

use super::crd::Phase;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Writes end at the client's own timeouts; a reporter that is silent for longer than several of them is stuck.
const SILENCE_MAX: Duration = Duration::from_secs(600);

/// See the module.
#[derive(Debug)]
pub(crate) struct Progress {
    beat: Mutex<Instant>,
    is_complete: AtomicBool,
    policies: Family<InPhase, Gauge>,
    writes: Family<Outcome, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InPhase {
    phase: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            beat: Mutex::new(Instant::now()),
            is_complete: AtomicBool::new(false),
            policies: Family::default(),
            writes: Family::default(),
        }
    }
}

impl Progress {
    /// It looks after what there is.
    pub(super) fn beat(&self) {
        *self.beat.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Instant::now();
    }

    /// Everything was read once.
    pub(super) fn complete(&self) {
        self.is_complete.store(true, Ordering::Relaxed);
    }

    pub(super) fn wrote(&self, is_ok: bool) {
        self.writes.get_or_create(&Outcome { outcome: if is_ok { "ok" } else { "failed" } }).inc();
    }

    /// Policies in each phase.
    pub(super) fn counted(&self, phases: BTreeMap<Phase, i64>) {
        for (phase, name) in [(Phase::Realizing, "Realizing"), (Phase::Realized, "Realized"), (Phase::Refused, "Refused")] {
            self.policies.get_or_create(&InPhase { phase: name }).set(phases.get(&phase).copied().unwrap_or(0));
        }
    }

    /// Whether it is alive.
    pub(crate) fn is_live(&self) -> bool {
        self.beat.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).elapsed() < SILENCE_MAX
    }

    /// Whether everything was read once.
    pub(crate) fn is_complete(&self) -> bool {
        self.is_complete.load(Ordering::Relaxed)
    }

    /// The text of a scrape.
    ///
    /// # Errors
    /// None in practice: writing to a string.
    pub(crate) fn scrape(&self) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("sluice_reporter");
        registry.register("build", "The version that runs", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        registry.register("policies", "Policies of the cluster, by phase", self.policies.clone());
        registry.register("status_writes", "Statuses of policies written, by outcome", self.writes.clone());
        let mut text = String::new();
        encode_registry(&mut text, &registry)?;
        encode_eof(&mut text)?;
        Ok(text)
    }
}
