//! Times backends against each other.
//!
//! ```text
//!  warm        round 1   A serial │ B serial │ A burst │ B burst │ …      each a stretch of the trace, timed as a whole
//!              round 2   … │ B burst │ A burst │ B serial │ A serial      the order alternates; median over the rounds
//!              by the time on the CPU: a lookup never waits, and what others take of the core is not its cost
//!  cold        disturb, then one burst or one lookup in a bracket of the clock, less the empty bracket
//! ```
//!
//! A bracket of the clock goes by the wall: the largest values of a histogram are others' use of the core.

use super::backend::Backend;
use super::clock::{self, Sweep};
use super::machine::Machine;
use super::query::{Kind, Trace};
use super::trace::BURST_MAX;
use crate::environment::thread_time;
use crate::latency::{Latencies, Tail};
use crate::stats::Summary;
use anyhow::Result;
use serde::Serialize;
use std::time::Duration;

/// Queries that a dynamic call is spread over where all are known at once.
const STRETCH: usize = 1024;
/// A timed stretch of a slow backend is cut to about so long.
const STRETCH_NS: f64 = 15e6;
const STRETCH_QUERIES_MIN: usize = 4096;

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Metric {
    /// Each query is found through the verdict before it.
    Serial,
    /// All at once.
    Throughput,
    Burst32,
    Burst64,
}

impl Metric {
    pub(super) const ALL: [Self; 4] = [Self::Serial, Self::Throughput, Self::Burst32, Self::Burst64];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Serial => "serial",
            Self::Throughput => "throughput",
            Self::Burst32 => "burst 32",
            Self::Burst64 => "burst 64",
        }
    }

    /// Queries of one call.
    fn queries(self) -> usize {
        match self {
            Self::Serial | Self::Throughput => STRETCH,
            Self::Burst32 => 32,
            Self::Burst64 => BURST_MAX,
        }
    }

    /// Queries in one bracket of the clock.
    fn bracketed(self) -> usize {
        if self == Self::Serial { 1 } else { self.queries() }
    }

    fn is_of(self, backend: &dyn Backend) -> bool {
        match self {
            Self::Serial => backend.ways().serial(),
            Self::Throughput => backend.ways().throughput(),
            Self::Burst32 | Self::Burst64 => backend.ways().bursts(),
        }
    }

    fn call(self, backend: &mut dyn Backend, first: usize, passes: &mut [u8]) {
        match self {
            Self::Serial => backend.serial(first, passes),
            _ => backend.batch(first, passes),
        }
    }
}

/// What the caches hold when the clock starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum State {
    /// What earlier lookups left there.
    Warm,
    /// Nothing in L1 and L2.
    L2Evicted,
    /// Nothing in any cache.
    Flushed,
    /// A table that was just loaded.
    Swapped,
}

impl State {
    pub(super) const COLD: [Self; 3] = [Self::L2Evicted, Self::Flushed, Self::Swapped];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::L2Evicted => "L2 evicted",
            Self::Flushed => "flushed",
            Self::Swapped => "just swapped",
        }
    }
}

/// What was measured of one backend.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Figure {
    pub(super) backend: String,
    pub(super) trace: Kind,
    pub(super) state: State,
    pub(super) metric: Metric,
    /// Nanoseconds of one lookup.
    pub(super) ns: Summary,
    /// Of whole brackets, warm only; the empty bracket's stands in the report.
    pub(super) tail: Option<Tail>,
}

/// The clock's own cost, as a histogram.
pub(super) fn empty_bracket(machine: &Machine) -> Tail {
    let mut latencies = Latencies::new();
    for _ in 0..100_000 {
        let start = clock::begin();
        latencies.record(clock::end() - start);
    }
    latencies.tail(0, machine.tick_ns)
}

/// One backend and one metric, with what its rounds gave.
struct Run {
    backend: usize,
    metric: Metric,
    /// Queries of a timed stretch.
    count: usize,
    ns: Vec<f64>,
}

/// What all backends took over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timed {
    pub(super) kind: Kind,
    pub(super) queries: usize,
}

impl Timed {
    pub(super) fn of(trace: &Trace) -> Self {
        Self { kind: trace.kind, queries: trace.queries.len() }
    }
}

/// Every backend that `trace` was prepared for, in all its ways, warm.
pub(super) fn warm(backends: &mut [&mut dyn Backend], trace: Timed, rounds: usize, machine: &Machine) -> Vec<Figure> {
    let mut runs = Vec::new();
    for (index, backend) in backends.iter_mut().enumerate() {
        let metrics: Vec<Metric> = Metric::ALL.into_iter().filter(|metric| metric.is_of(*backend)).collect();
        for metric in metrics {
            let probe = STRETCH_QUERIES_MIN.min(trace.queries);
            let affordable = (STRETCH_NS / stretch(*backend, metric, probe)) as usize;
            let count = affordable.clamp(probe, trace.queries);
            runs.push(Run { backend: index, metric, count, ns: Vec::with_capacity(rounds) });
        }
    }
    for round in 0..rounds {
        let mut time = |run: &mut Run| run.ns.push(stretch(backends[run.backend], run.metric, run.count));
        match round % 2 {
            0 => runs.iter_mut().for_each(&mut time),
            _ => runs.iter_mut().rev().for_each(&mut time),
        }
    }
    let figure = |run: &Run| {
        let backend = &mut *backends[run.backend];
        Some(Figure {
            backend: backend.name().to_owned(),
            trace: trace.kind,
            state: State::Warm,
            metric: run.metric,
            ns: Summary::of(&run.ns)?,
            tail: (run.metric != Metric::Throughput).then(|| tail(backend, run.metric, run.count, machine)),
        })
    };
    runs.iter().filter_map(figure).collect()
}

/// Nanoseconds of a lookup over the first `count` queries, the second time they are asked: the first time clears the caches of
/// what another backend, with a table of its own, left there, and that takes longer than the stretch of a fast one.
fn stretch(backend: &mut dyn Backend, metric: Metric, count: usize) -> f64 {
    let mut passes = [0; STRETCH];
    let size = metric.queries().min(count);
    let calls = count / size;
    let mut took = Duration::ZERO;
    for _ in 0..2 {
        let start = thread_time();
        for call in 0..calls {
            metric.call(backend, call * size, &mut passes[..size]);
        }
        took = thread_time().saturating_sub(start);
    }
    std::hint::black_box(&passes);
    took.as_nanos() as f64 / (calls * size) as f64
}

fn tail(backend: &mut dyn Backend, metric: Metric, count: usize, machine: &Machine) -> Tail {
    const BRACKETS_MAX: usize = 20_000;
    let (mut latencies, mut passes, size) = (Latencies::new(), [0; BURST_MAX], metric.bracketed());
    for bracket in 0..(count / size).min(BRACKETS_MAX) {
        let start = clock::begin();
        metric.call(backend, bracket * size, &mut passes[..size]);
        latencies.record(clock::end() - start);
    }
    latencies.tail(size, machine.tick_ns)
}

/// How often each cold state is brought about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Samples {
    pub(super) l2_evicted: usize,
    pub(super) flushed: usize,
    pub(super) swapped: usize,
}

impl Samples {
    fn of(self, state: State) -> usize {
        match state {
            State::Warm => 0,
            State::L2Evicted => self.l2_evicted,
            State::Flushed => self.flushed,
            State::Swapped => self.swapped,
        }
    }
}

/// What brings a cold state about.
#[derive(Debug)]
pub(super) struct Sweeps {
    l2: Sweep,
    all: Sweep,
}

impl Sweeps {
    pub(super) fn of(machine: &Machine) -> Self {
        let bytes = |name| machine.level(name).map_or(0, |level| level.bytes);
        Self { l2: Sweep::of(bytes("L2") * 3), all: Sweep::of(bytes("L3") * 2) }
    }
}

/// The first burst of 32 and the first single lookup after each disturbance.
///
/// # Errors
///
/// A table cannot be loaded.
pub(super) fn cold(
    backends: &mut [&mut dyn Backend],
    trace: &Trace,
    samples: Samples,
    sweeps: &Sweeps,
    machine: &Machine,
) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for state in State::COLD {
        let metrics = [Metric::Burst32, Metric::Serial];
        let mut ns = vec![[const { Vec::new() }; 2]; backends.len()];
        for sample in 0..samples.of(state) {
            // an odd step, so that the samples come from all over the trace
            let first = sample * 37 * BURST_MAX % (trace.queries.len() - BURST_MAX);
            for (backend, ns) in backends.iter_mut().zip(&mut ns) {
                for (metric, ns) in metrics.into_iter().zip(ns) {
                    if metric.is_of(*backend) && disturb(*backend, state, sweeps)? {
                        ns.push(bracket(*backend, metric, first, machine));
                    }
                }
            }
        }
        for (backend, ns) in backends.iter().zip(&ns) {
            for (metric, ns) in metrics.into_iter().zip(ns) {
                let name = backend.name().to_owned();
                figures.extend(Summary::of(ns).map(|ns| Figure { backend: name, trace: trace.kind, state, metric, ns, tail: None }));
            }
        }
    }
    Ok(figures)
}

/// Whether the state was brought about.
fn disturb(backend: &mut dyn Backend, state: State, sweeps: &Sweeps) -> Result<bool> {
    match state {
        State::Warm => {}
        State::L2Evicted => sweeps.l2.run(),
        State::Flushed => sweeps.all.run(),
        State::Swapped => return backend.swap(),
    }
    Ok(true)
}

fn bracket(backend: &mut dyn Backend, metric: Metric, first: usize, machine: &Machine) -> f64 {
    let (mut passes, size) = ([0; BURST_MAX], metric.bracketed());
    backend.touch(first, size);
    let start = clock::begin();
    metric.call(backend, first, &mut passes[..size]);
    let ns = (clock::end() - start) as f64 * machine.tick_ns;
    std::hint::black_box(&passes);
    (ns - machine.empty_bracket_ns).max(0.0) / size as f64
}

/// Two backends, each over its own trace, in turn; nanoseconds of a lookup in each round.
pub(super) fn alternate(backends: [&mut dyn Backend; 2], metric: Metric, count: usize, rounds: usize) -> [Vec<f64>; 2] {
    let mut ns = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        for index in [round % 2, 1 - round % 2] {
            ns[index].push(stretch(backends[index], metric, count));
        }
    }
    ns
}
