//! What came out: for people as a table, for programs as JSON, both from the same values.

use super::Arguments;
use super::check::Counts;
use super::publisher::{Published, PublishedSummary, Rate, Source};
use super::reader::{Stretch, Timings};
use crate::environment::Environment;
use crate::latency::Tail;
use crate::report::{Bound, Must, Promise, print_environment, print_musts};
use crate::stats::Summary;
use crate::workload::{Census, Workload};
use serde::Serialize;
use std::time::Duration;

/// What goes on beside the worker. The number is the place of its rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing.
    Quiet,
    /// Images are made ready and not handed over.
    Work(usize),
    /// They are handed over.
    Swaps(usize),
}

impl State {
    pub(super) fn title(self, rates: &[Rate]) -> String {
        match self {
            Self::Quiet => "nothing beside it".to_owned(),
            Self::Work(rate) => format!("{} images/s, not handed over", rates[rate].per_second),
            Self::Swaps(rate) => format!("{} swaps/s", rates[rate].per_second),
        }
    }
}

/// One state in all rounds.
#[derive(Debug)]
pub(super) struct Phase {
    pub(super) state: State,
    tick_ns: f64,
    timings: Timings,
    counts: Counts,
    adopted: u64,
    time: Duration,
    published: Published,
    /// Of each round, less the empty bracket: p99.9 of a lookup, of a burst.
    p999: Vec<[f64; 2]>,
}

impl Phase {
    pub(super) fn new(state: State, tick_ns: f64) -> Self {
        let (counts, published) = (Counts::default(), Published::default());
        Self { state, tick_ns, timings: Timings::new(), counts, adopted: 0, time: Duration::ZERO, published, p999: Vec::new() }
    }

    pub(super) fn add(&mut self, stretch: &Stretch, published: Published) {
        let Stretch { timings, counts, adopted, time } = stretch;
        let empty = timings.empty.at(0.5);
        let net = |ticks: u64| ticks.saturating_sub(empty) as f64 * self.tick_ns;
        self.p999.push([net(timings.single.at(0.999)), net(timings.burst.at(0.999))]);
        self.timings.add(timings);
        self.counts.add(*counts);
        self.adopted += adopted;
        self.time += *time;
        self.published.add(published);
    }

    fn written(&self, rates: &[Rate]) -> Written {
        let Timings { single, burst, adoption, empty } = &self.timings;
        Written {
            title: self.state.title(rates),
            swaps: matches!(self.state, State::Swaps(_)),
            per_second: match self.state {
                State::Quiet => 0,
                State::Work(rate) | State::Swaps(rate) => rates[rate].per_second,
            },
            lookup: single.tail(1, self.tick_ns),
            burst: burst.tail(super::BURST, self.tick_ns),
            adoption: adoption.tail(0, self.tick_ns),
            empty_bracket: empty.tail(0, self.tick_ns),
            adopted: self.adopted,
            images_per_second: self.published.images as f64 / self.time.as_secs_f64(),
            adopted_per_second: self.adopted as f64 / self.time.as_secs_f64(),
            counts: self.counts,
            published: self.published.summary(),
        }
    }
}

/// Median over the rounds of p99.9 with swaps to p99.9 with the same work and no swaps; of lookups or of bursts.
fn ratio(phases: &[Phase], rate: usize, of: usize) -> Option<Summary> {
    let of_state = |state| phases.iter().find(|phase| phase.state == state).map(|phase| &phase.p999);
    let (with, without) = (of_state(State::Swaps(rate))?, of_state(State::Work(rate))?);
    let ratios: Vec<f64> = with.iter().zip(without).map(|(with, without)| with[of] / without[of].max(f64::MIN_POSITIVE)).collect();
    Summary::of(&ratios)
}

/// A phase in the report. Latencies are in nanoseconds, the clock's own cost not taken off.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    title: String,
    swaps: bool,
    per_second: u32,
    /// A lookup by itself.
    lookup: Tail,
    /// The chance to adopt a table, and 32 lookups at once.
    burst: Tail,
    /// That chance where it was taken.
    adoption: Tail,
    empty_bracket: Tail,
    adopted: u64,
    images_per_second: f64,
    adopted_per_second: f64,
    counts: Counts,
    published: PublishedSummary,
}

/// What one rate came to.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RateWritten {
    per_second: u32,
    edits_per_image: usize,
    /// Whether the images were made while they were published.
    live: bool,
    /// Images made before, where they were.
    ring: usize,
    /// Editing, compiling, loading and asking for what must be answered; milliseconds.
    make_ms: f64,
    ratio_lookup: Option<Summary>,
    ratio_burst: Option<Summary>,
}

/// The whole run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    bench: &'static str,
    quick: bool,
    seed: u64,
    took_s: f64,
    environment: Environment,
    cpu: usize,
    publisher_cpu: usize,
    workload: Workload,
    census: Census,
    musts: Vec<Must>,
    rates: Vec<RateWritten>,
    counts: Counts,
    adopted: u64,
    phases: Vec<Written>,
}

impl Report {
    #[expect(clippy::too_many_arguments, reason = "a report is what everything comes together in")]
    pub(super) fn new(
        environment: Environment,
        arguments: &Arguments,
        [cpu, publisher_cpu]: [usize; 2],
        workload: Workload,
        census: Census,
        rates: &[Rate],
        phases: Vec<Phase>,
        took: Duration,
    ) -> Self {
        let mut counts = Counts::default();
        phases.iter().for_each(|phase| counts.add(phase.counts));
        let adopted = phases.iter().map(|phase| phase.adopted).sum();
        let rate = |(index, rate): (usize, &Rate)| {
            let ring = if let Source::Ring { images, .. } = &rate.source { images.len() } else { 0 };
            let [ratio_lookup, ratio_burst] = [0, 1].map(|of| ratio(&phases, index, of));
            let Rate { per_second, edits, make_ms, .. } = *rate;
            RateWritten { per_second, edits_per_image: edits, live: ring == 0, ring, make_ms, ratio_lookup, ratio_burst }
        };
        let written: Vec<Written> = phases.iter().map(|phase| phase.written(rates)).collect();
        let rates: Vec<RateWritten> = rates.iter().enumerate().map(rate).collect();
        Self {
            bench: "swap",
            quick: arguments.quick,
            seed: arguments.seed,
            took_s: took.as_secs_f64(),
            environment,
            cpu,
            publisher_cpu,
            workload,
            census,
            musts: musts(&rates, &written, counts, adopted),
            rates,
            counts,
            adopted,
            phases: written,
        }
    }

    /// Whether the promises are kept.
    pub(super) fn musts_hold(&self) -> bool {
        Must::all_hold(&self.musts)
    }

    /// Everything.
    pub(super) fn print(&self) {
        let Census { pods, policies, endpoints, .. } = self.census;
        println!(
            "\n{}: {pods} pods, {policies} policies, {endpoints} pods attached here; ns, the clock's own cost included",
            self.workload.name()
        );
        println!(
            "  {:<34}{:<26}{:>11}{:>9}{:>9}{:>9}{:>12}",
            "beside the worker", "in a bracket of the clock", "count", "p50", "p99", "p99.9", "max"
        );
        for phase in &self.phases {
            phase.print();
        }
        self.rates.iter().for_each(RateWritten::print);
        for phase in self.phases.iter().filter(|phase| phase.swaps) {
            let median = |summary: &Option<Summary>| summary.as_ref().map_or("–".to_owned(), |summary| format!("{:.1}", summary.median));
            let PublishedSummary { load_ms, adopt_us, .. } = &phase.published;
            println!(
                "  {}: {:.1} images a second came, {:.1} were judged by; written, sealed, read and validated in {} ms, then adopted after {} µs (medians)",
                phase.title,
                phase.images_per_second,
                phase.adopted_per_second,
                median(load_ms),
                median(adopt_us)
            );
        }
        let Counts { lookups, bursts, mixed } = self.counts;
        println!("  {lookups} lookups checked, {bursts} bursts; {} swaps adopted; {mixed} mixed two tables", self.adopted);
        print_musts("swap", &self.musts);
        println!("\nratios: p99.9 with swaps to p99.9 beside the same work without them, less the empty bracket; median over the rounds");
        print_environment(&self.environment, self.quick, Duration::from_secs_f64(self.took_s));
        println!("worker on CPU {}, publisher on CPU {}; seed {}", self.cpu, self.publisher_cpu, self.seed);
    }
}

impl Written {
    fn print(&self) {
        let rows = [("empty", &self.empty_bracket), ("a lookup", &self.lookup), ("boundary, burst of 32", &self.burst)];
        let adoption = ("boundary with a new table", &self.adoption);
        let rows = rows.into_iter().chain((self.adopted > 0).then_some(adoption));
        for (row, (name, Tail { count, p50, p99, p999, max, .. })) in rows.enumerate() {
            let title = if row == 0 { self.title.as_str() } else { "" };
            println!("  {title:<34}{name:<26}{count:>11}{p50:>9.0}{p99:>9.0}{p999:>9.0}{max:>12.0}");
        }
    }
}

impl RateWritten {
    fn print(&self) {
        let Self { per_second, edits_per_image, make_ms, ring, .. } = self;
        let how = match self.live {
            true => format!("compiled while they were due, {make_ms:.1} ms each"),
            false => format!("too slow to compile at that rate ({make_ms:.0} ms each): {ring} made and proved before, published in turn"),
        };
        println!("  {per_second} images/s of {edits_per_image} edits each: {how}");
        if let Some(Summary { median, q1, q3, .. }) = self.ratio_burst {
            println!("    p99.9 of a burst, with swaps / without: {median:.2} (quartiles {q1:.2}–{q3:.2})");
        }
    }
}

fn musts(rates: &[RateWritten], phases: &[Written], counts: Counts, adopted: u64) -> Vec<Must> {
    let mut musts = Vec::new();
    for RateWritten { per_second, ratio_lookup, .. } in rates {
        let promise = Promise { bound: Bound::AtMost, must: 1.5, aim: 1.1 };
        let measured = ratio_lookup.map_or(f64::NAN, |ratio| ratio.median);
        musts.push(Must::of(&format!("p99.9 of a lookup, {per_second} swaps/s / none"), promise, measured));
        let (limit, aim) = (f64::from(*per_second) * 0.9, f64::from(*per_second) * 0.99);
        let came = phases.iter().find(|phase| phase.swaps && phase.per_second == *per_second);
        let came = came.map_or(f64::NAN, |phase| phase.adopted_per_second);
        musts.push(Must::of(&format!("swaps a second, of {per_second}"), Promise { bound: Bound::AtLeast, must: limit, aim }, came));
    }
    // nothing checked is nothing shown
    let mixed = if adopted == 0 || counts.lookups == 0 { f64::NAN } else { counts.mixed as f64 };
    musts.push(Must::of("lookups that mixed two tables", Promise { bound: Bound::AtMost, must: 0.0, aim: 0.0 }, mixed));
    musts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(state: State, p999: &[f64]) -> Phase {
        Phase { p999: p999.iter().map(|&value| [value, value * 10.0]).collect(), ..Phase::new(state, 1.0) }
    }

    #[test]
    fn a_ratio_is_taken_in_each_round_and_not_of_sums() {
        // the machine gets slower from round to round
        let phases = [phase(State::Work(0), &[100.0, 200.0, 400.0]), phase(State::Swaps(0), &[110.0, 220.0, 800.0])];
        let ratio = ratio(&phases, 0, 0).unwrap();
        assert!((ratio.median - 1.1).abs() < 1e-9, "{ratio:?}");
        assert!(super::ratio(&phases, 1, 0).is_none());
    }

    #[test]
    fn a_mixed_lookup_misses_the_must_and_so_does_nothing_checked() {
        let counts = |mixed| Counts { lookups: 100, bursts: 2, mixed };
        let last = |counts, adopted| musts(&[], &[], counts, adopted).pop().unwrap();
        assert!(last(counts(0), 5).must_met);
        assert!(!last(counts(1), 5).must_met);
        assert!(!last(counts(0), 0).must_met, "no swap, no proof");
    }

    #[test]
    fn the_empty_bracket_is_taken_off_before_the_ratio() {
        let mut timings = Timings::new();
        (0..2000).for_each(|_| timings.empty.record(20));
        (0..2000).for_each(|_| timings.single.record(120));
        let mut phase = Phase::new(State::Quiet, 0.5);
        let (counts, time) = (Counts::default(), Duration::from_secs(1));
        phase.add(&Stretch { timings, counts, adopted: 0, time }, Published::default());
        assert_eq!(phase.p999, [[50.0, 0.0]]);
    }
}
