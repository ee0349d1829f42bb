//! Two states take turns under traffic that goes on through both of them, so that the machine's moods are the same for both.
//!
//! ```text
//!   traffic   ──────────────────────────────────────────────────────────▶
//!   turns      judged │ base │ base │ judged │ judged │ base │ base │ ...     an eighth of a second each
//! ```
//!
//! Between two turns the state is brought about and may settle; nothing counts meanwhile.

use super::arm::Arm;
use super::bench::{Bench, Counters, DENIED_WAIT, Ready};
use super::{Sample, Sides};
use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// In the place of a side: those of a contest are 0, what others are compared to, and 1, what is judged.
const NOBODY: usize = 2;
const LATENCY_MAX_NS: u64 = 60_000_000_000;
/// Traffic has begun, and is past its slow start.
const WARM_UP: Duration = Duration::from_millis(200);

/// Whose turn it is, and what each side has done so far. Traffic asks it; [`Turns`] turns it.
#[derive(Debug)]
pub(super) struct Meter {
    turn: AtomicUsize,
    over: AtomicBool,
    done: [AtomicU64; 3],
}

// Relaxed throughout: counts and flags, read after the threads are joined or where a little more or less is no matter.
impl Meter {
    pub(super) fn new() -> Self {
        Self { turn: AtomicUsize::new(NOBODY), over: AtomicBool::new(false), done: Default::default() }
    }

    /// Counts for the side whose turn it is.
    pub(super) fn count(&self, units: u64) {
        self.done[self.turn()].fetch_add(units, Ordering::Relaxed);
    }

    /// The side whose turn it is, or none.
    pub(super) fn turn(&self) -> usize {
        self.turn.load(Ordering::Relaxed)
    }

    /// What a side has done.
    pub(super) fn done(&self, side: usize) -> u64 {
        self.done[side].load(Ordering::Relaxed)
    }

    fn give(&self, side: usize) {
        self.turn.store(side, Ordering::Relaxed);
    }

    /// Traffic ends.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Whether traffic is to end.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// How long something took, by side.
#[derive(Debug)]
pub(super) struct Latencies([Histogram<u64>; 2]);

impl Latencies {
    pub(super) fn new() -> Result<Self> {
        let histogram = || Histogram::new_with_max(LATENCY_MAX_NS, 3).context("bounds of the histogram");
        Ok(Self([histogram()?, histogram()?]))
    }

    /// What began and ended in one side's turn is that side's.
    pub(super) fn record(&mut self, began: usize, ended: usize, ns: u64) {
        if began == ended && ended != NOBODY {
            self.0[ended].saturating_record(ns);
        }
    }

    /// With the rates of what was taken.
    pub(super) fn into_samples(self, taken: [Taken; 2]) -> Sides {
        let mut histograms = self.0.into_iter();
        taken.map(|taken| Sample { value: taken.rate(), latency_ns: histograms.next(), taken, ..Sample::default() })
    }
}

/// What a side had of its turns.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// By the counter that the traffic gave, else by its meter.
    pub(super) units: u64,
    pub(super) elapsed: Duration,
    /// Of the dataplane.
    pub(super) counters: Counters,
    /// Published.
    pub(super) tables: u64,
}

impl Taken {
    /// Units a second.
    pub(super) fn rate(&self) -> f64 {
        self.units as f64 / self.elapsed.as_secs_f64()
    }
}

/// A count that only grows.
pub(super) type Count<'a> = &'a (dyn Fn() -> Result<u64> + 'a);

/// How two states take turns.
pub(super) struct Turns<'a> {
    pub(super) bench: &'a Bench,
    /// Base and judged.
    pub(super) arms: [Arm; 2],
    pub(super) length: Duration,
    pub(super) settle: Duration,
    /// Of both together.
    pub(super) count: u32,
    /// Who begins: the order changes from round to round.
    pub(super) first: usize,
}

impl Turns<'_> {
    /// Takes them all, under traffic that has begun. `None` when a pod holds as many connections as it may.
    pub(super) fn take(&self, meter: &Meter, counter: Option<Count<'_>>) -> Result<Option<[Taken; 2]>> {
        let mut taken = [Taken::default(), Taken::default()];
        self.bench.pause(WARM_UP)?;
        for turn in 0..self.count {
            let side = [self.first, 1 - self.first][(turn.div_ceil(2) % 2) as usize];
            self.bench.change(self.arms[side])?;
            let changed = Instant::now();
            let ready = self.bench.verify(self.arms[side], DENIED_WAIT)?;
            self.bench.pause(self.settle.saturating_sub(changed.elapsed()))?;
            let (counters, tables) = (self.bench.counters()?, self.bench.status()?.generation);
            let units = counter.map(|count| count()).transpose()?;
            let begin = Instant::now();
            meter.give(side);
            self.bench.pause(self.length)?;
            meter.give(NOBODY);
            let so_far = &mut taken[side];
            so_far.elapsed += begin.elapsed();
            if let (Some(before), Some(count)) = (units, counter) {
                so_far.units += count()? - before;
            }
            so_far.counters.add(&self.bench.counters()?.since(&counters));
            so_far.tables += self.bench.status()?.generation - tables;
            if ready == Ready::Full {
                return Ok(None);
            }
        }
        if counter.is_none() {
            for (side, so_far) in taken.iter_mut().enumerate() {
                so_far.units = meter.done(side);
            }
        }
        Ok(Some(taken))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_between_turns_is_nobodys() {
        let (meter, mut latencies) = (Meter::new(), Latencies::new().unwrap());
        meter.count(1);
        meter.give(1);
        meter.count(2);
        meter.count(3);
        assert_eq!((meter.done(0), meter.done(1)), (0, 5));
        for (began, ended) in [(0, 0), (0, NOBODY), (NOBODY, 1), (NOBODY, NOBODY), (0, 1)] {
            latencies.record(began, ended, 1000);
        }
        assert_eq!(latencies.0.map(|histogram| histogram.len()), [1, 0]);
        meter.end();
        assert!(meter.is_over());
    }
}
