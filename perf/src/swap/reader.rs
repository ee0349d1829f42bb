//! The worker: the product's own, on memory in place of sockets and maps. It adopts tables as ever, between bursts; between
//! two chances to adopt, its table is asked and each answer is timed, and checked when the clock stands.
//!
//! ```text
//!   run_commands ▷ lookup_batch of 32      one bracket of the clock; the first half, a slice of a coming table, also by itself
//!                                          where it adopted
//!   check 32 answers
//!   lookup │ lookup │ …                    8 brackets, each checked afterwards
//!   an empty bracket
//! ```

use super::check::{Answers, BURST, Counts, Known, Questions};
use crate::latency::Latencies;
use crate::lookup::clock;
use anyhow::{Context, Result};
use sluice_dataplane::conntrack::Connections;
use sluice_dataplane::io::MemoryIo;
use sluice_dataplane::kernel::{Attachment, Kernel, MemoryKernel};
use sluice_dataplane::worker::{Worker, WorkerConfig, WorkerShared};
use sluice_flow::{LocalEndpoint, Verdict};
use sluice_table::Query;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Lookups one by one after each burst.
const SINGLES: usize = 8;
/// Bursts between two looks at the wall's clock.
const UNTIL_CLOCK: usize = 64;
/// What a stretch begins with is not counted: the one before left its traces in the caches.
const WARM_UP: Duration = Duration::from_millis(30);

/// Histograms of one stretch of time, in ticks.
#[derive(Debug, Clone)]
pub(super) struct Timings {
    /// One lookup.
    pub(super) single: Latencies,
    /// The chance to adopt a table, and a burst.
    pub(super) burst: Latencies,
    /// The chance to adopt a table, where there was one.
    pub(super) adoption: Latencies,
    /// Nothing at all.
    pub(super) empty: Latencies,
}

impl Timings {
    pub(super) fn new() -> Self {
        Self { single: Latencies::new(), burst: Latencies::new(), adoption: Latencies::new(), empty: Latencies::new() }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.single.add(&other.single);
        self.burst.add(&other.burst);
        self.adoption.add(&other.adoption);
        self.empty.add(&other.empty);
    }
}

/// What a stretch of time gave.
#[derive(Debug, Clone)]
pub(super) struct Stretch {
    pub(super) timings: Timings,
    pub(super) counts: Counts,
    /// Tables that something was looked up in.
    pub(super) adopted: u64,
    pub(super) time: Duration,
}

/// See the module.
pub(super) struct Reader<'q> {
    worker: Worker<MemoryIo, MemoryKernel>,
    shared: Arc<WorkerShared>,
    known: Known,
    questions: &'q Questions,
    answers: Arc<Answers>,
    burst: usize,
    single: usize,
}

impl<'q> Reader<'q> {
    /// A worker that has no table yet, with these pods' ports.
    pub(super) fn new(endpoints: &[LocalEndpoint], questions: &'q Questions, known: Known) -> Self {
        let (kernel, shared) = (MemoryKernel::default(), Arc::new(WorkerShared::default()));
        for endpoint in endpoints {
            let index = usize::from(endpoint.port.0);
            let attachment =
                Attachment { endpoint, host_ifindex: index as u32 + 1, mac: [2; 6], gateway_mac: [4; 6], worker: 0, trunk_ifindex: 1 };
            let slot = attachment.slot(&kernel.port(index));
            kernel.ports.borrow_mut()[index] = slot;
        }
        let worker = Worker::new(WorkerConfig::default(), MemoryIo::default(), kernel, Connections::default(), Arc::clone(&shared));
        Self { worker, shared, known, questions, answers: Arc::default(), burst: 0, single: 0 }
    }

    /// What the keeper has of it.
    pub(super) fn shared(&self) -> Arc<WorkerShared> {
        Arc::clone(&self.shared)
    }

    /// Asks for so long.
    ///
    /// # Errors
    ///
    /// There is no table, or one that nobody announced.
    pub(super) fn run(&mut self, time: Duration) -> Result<Stretch> {
        let start = Instant::now();
        let mut stretch = Stretch { timings: Timings::new(), counts: Counts::default(), adopted: 0, time: Duration::ZERO };
        let mut warm = false;
        while start.elapsed() < time + WARM_UP {
            if !warm && start.elapsed() >= WARM_UP {
                (stretch.timings, warm) = (Timings::new(), true);
            }
            for _ in 0..UNTIL_CLOCK {
                self.burst(&mut stretch)?;
                self.singles(&mut stretch)?;
                let start = clock::begin();
                stretch.timings.empty.record(clock::end() - start);
            }
        }
        stretch.time = start.elapsed();
        Ok(stretch)
    }

    /// Takes what waits, and asks nothing.
    ///
    /// # Errors
    ///
    /// A table that nobody announced.
    pub(super) fn adopt(&mut self) -> Result<()> {
        let before = self.shared.generation();
        self.worker.run_commands(0);
        self.worker.approach(usize::MAX);
        let generation = self.shared.generation();
        if generation != before {
            self.answers = self.known.of(generation)?;
        }
        Ok(())
    }

    fn burst(&mut self, stretch: &mut Stretch) -> Result<()> {
        let mut verdicts = [Verdict::Deny; BURST];
        let number = self.burst;
        self.burst = (number + 1) % (self.questions.bursts.len() / BURST);
        let queries = &self.questions.bursts[number * BURST..][..BURST];
        let before = self.shared.generation();
        let start = clock::begin();
        self.worker.run_commands(0);
        let adopted = clock::begin();
        let table = self.worker.table().context("no table")?;
        table.lookup_batch(queries, &mut verdicts);
        let end = clock::end();
        stretch.timings.burst.record(end - start);
        let generation = table.generation();
        if generation != before {
            self.answers = self.known.of(generation)?;
            stretch.timings.adoption.record(adopted - start);
            stretch.adopted += 1;
        }
        stretch.counts.burst(&self.answers, number, &verdicts);
        Ok(())
    }

    fn singles(&mut self, stretch: &mut Stretch) -> Result<()> {
        let table = self.worker.table().context("no table")?;
        for _ in 0..SINGLES {
            let number = self.single;
            self.single = (number + 1) % self.questions.singles.len();
            let Query { remote, port, dport, protocol, direction } = self.questions.singles[number];
            let start = clock::begin();
            let verdict = table.lookup(port, direction, remote, protocol, dport);
            let end = clock::end();
            stretch.timings.single.record(end - start);
            stretch.counts.single(&self.answers, number, verdict);
        }
        Ok(())
    }
}
