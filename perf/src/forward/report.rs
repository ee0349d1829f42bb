//! What came out: for people as a table, for programs as JSON, both from the same values.

use super::bench::{Counters, Hooks};
use super::{Cpus, Kind, Sample};
use crate::environment::Environment;
use crate::report::{Must, Promise, print_environment};
use crate::stats::Summary;
use hdrhistogram::Histogram;
use serde::Serialize;
use sluice_wire::WorkerStatus;
use std::collections::BTreeMap;
use std::time::Duration;

/// The whole run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    bench: &'static str,
    quick: bool,
    took_s: f64,
    environment: Environment,
    cpus: Cpus,
    workers: Vec<WorkerInfo>,
    musts: Vec<Must>,
    sections: Vec<Section>,
}

/// A worker, and how much work it had in the whole run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WorkerInfo {
    worker: u32,
    cpu: Option<u32>,
    received: u64,
    forwarded: u64,
    dropped: u64,
}

impl From<WorkerStatus> for WorkerInfo {
    fn from(status: WorkerStatus) -> Self {
        let WorkerStatus { worker, cpu, received, forwarded, dropped, .. } = status;
        Self { worker, cpu, received, forwarded, dropped }
    }
}

/// One pair of halves.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Round {
    first: &'static str,
    on: f64,
    off: f64,
    /// On divided by off.
    pub(crate) ratio: f64,
    /// Of the cache, in the half with hooks on.
    pub(crate) hit_rate: Option<f64>,
    hits: u64,
    punts: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    drops: BTreeMap<String, u64>,
    lost_on: Option<f64>,
    lost_off: Option<f64>,
    retransmits_on: Option<u64>,
    retransmits_off: Option<u64>,
    /// A connection got no answer with hooks on, and the half ended there.
    stuck_on: bool,
}

impl Round {
    /// Divides one half by the other.
    pub(crate) fn new(first: Hooks, on: &Sample, off: &Sample, counters: &Counters) -> Self {
        Self {
            first: if first == Hooks::On { "on" } else { "off" },
            on: on.rate,
            off: off.rate,
            ratio: on.rate / off.rate,
            hit_rate: counters.hit_rate(),
            hits: counters.hits,
            punts: counters.punts,
            drops: counters.drops.clone(),
            lost_on: on.lost,
            lost_off: off.lost,
            retransmits_on: on.retransmits,
            retransmits_off: off.retransmits,
            stuck_on: on.stuck,
        }
    }

    /// What a reader of the line should know besides.
    pub(crate) fn remarks(&self) -> String {
        let mut text = String::new();
        if let (Some(on), Some(off)) = (self.lost_on, self.lost_off)
            && on.max(off) >= 0.0005
        {
            text += &format!("  lost {} / {}", percent(Some(on)), percent(Some(off)));
        }
        if self.stuck_on {
            text += "  stuck";
        }
        if !self.drops.is_empty() {
            let drops: Vec<String> = self.drops.iter().map(|(reason, packets)| format!("{reason} {packets}")).collect();
            text += &format!("  dropped: {}", drops.join(", "));
        }
        text
    }
}

/// One kind of traffic. Rates are in base units: bits, packets or connections per second.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Section {
    kind: Kind,
    title: &'static str,
    ratio: Option<Summary>,
    on: Option<Summary>,
    off: Option<Summary>,
    /// Each half with hooks off divided by the one before it: what the machine does by itself.
    noise: Option<Summary>,
    hit_rate: Option<f64>,
    drops: BTreeMap<String, u64>,
    latency_on: Option<Latency>,
    latency_off: Option<Latency>,
    /// Why there are fewer rounds than asked for.
    stopped: Option<String>,
    rounds: Vec<Round>,
    #[serde(skip)]
    counters: Counters,
    #[serde(skip)]
    histograms: [Option<Histogram<u64>>; 2],
}

impl Section {
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            kind,
            title: kind.title(),
            ratio: None,
            on: None,
            off: None,
            noise: None,
            hit_rate: None,
            drops: BTreeMap::new(),
            latency_on: None,
            latency_off: None,
            stopped: None,
            rounds: Vec::new(),
            counters: Counters::default(),
            histograms: [None, None],
        }
    }

    /// Adds a round with its halves' latencies.
    pub(crate) fn add(&mut self, round: Round, on: &Sample, off: &Sample, counters: &Counters) {
        self.counters.add(counters);
        for (all, sample) in self.histograms.iter_mut().zip([on, off]) {
            match (all.as_mut(), &sample.latency_ns) {
                (Some(all), Some(more)) => all.add(more).expect("histograms with the same bounds"),
                (None, Some(first)) => *all = Some(first.clone()),
                (_, None) => {}
            }
        }
        self.rounds.push(round);
    }

    /// Ends early: a pod holds as many connections as it may, and none of those that ended was forgotten in time.
    pub(crate) fn stop(mut self, rounds: u32) -> Self {
        let reason = format!("stopped after {rounds} rounds: a pod's connections are full, those that ended still count");
        println!("  {reason}");
        self.stopped = Some(reason);
        self.finish()
    }

    /// Summarises, after the last round.
    pub(crate) fn finish(mut self) -> Self {
        let all = |of: fn(&Round) -> f64| Summary::of(&self.rounds.iter().map(of).collect::<Vec<_>>());
        (self.ratio, self.on, self.off) = (all(|round| round.ratio), all(|round| round.on), all(|round| round.off));
        let steps: Vec<f64> = self.rounds.windows(2).map(|pair| pair[1].off / pair[0].off).collect();
        self.noise = Summary::of(&steps);
        self.hit_rate = self.counters.hit_rate();
        self.drops = self.counters.drops.clone();
        [self.latency_on, self.latency_off] = std::mem::take(&mut self.histograms).map(|all| all.as_ref().map(Latency::of));
        self.print();
        self
    }

    fn print(&self) {
        let (unit, scale) = self.kind.unit();
        let (Some(ratio), Some(on), Some(off)) = (self.ratio, self.on, self.off) else { return };
        println!(
            "  median ratio {:.3}, quartiles {:.3}–{:.3}, 95 % interval {:.3}–{:.3}; on {:.2}, off {:.2} {unit}; cache hits {}",
            ratio.median,
            ratio.q1,
            ratio.q3,
            ratio.low95,
            ratio.high95,
            on.median / scale,
            off.median / scale,
            percent(self.hit_rate)
        );
        if let Some(noise) = self.noise {
            println!("  noise: from one half without hooks to the next, quartiles {:.3}–{:.3}", noise.q1, noise.q3);
        }
        for (name, latency) in [("on ", self.latency_on), ("off", self.latency_off)] {
            if let Some(latency) = latency {
                println!("  {name} µs each: {latency}");
            }
        }
    }

    fn must(&self) -> Option<Must> {
        let (promise, measured) = (self.kind.promise()?, self.ratio?.median);
        Some(Must::of(self.title, promise, measured))
    }
}

/// Percentiles in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Latency {
    count: u64,
    p50_us: f64,
    p90_us: f64,
    p99_us: f64,
    p999_us: f64,
    max_us: f64,
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            count: histogram.len(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: histogram.max() as f64 / 1e3,
        }
    }
}

impl std::fmt::Display for Latency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { p50_us, p90_us, p99_us, p999_us, max_us, .. } = self;
        write!(f, "p50 {p50_us:.1}  p90 {p90_us:.1}  p99 {p99_us:.1}  p99.9 {p999_us:.0}  max {max_us:.0}")
    }
}

impl Report {
    /// Judges the promises.
    pub(crate) fn new(
        environment: Environment,
        quick: bool,
        cpus: Cpus,
        workers: Vec<WorkerInfo>,
        sections: Vec<Section>,
        took: Duration,
    ) -> Self {
        let musts = sections.iter().filter_map(Section::must).collect();
        Self { bench: "forward", quick, took_s: took.as_secs_f64(), environment, cpus, workers, musts, sections }
    }

    /// Whether the promises are kept.
    pub(crate) fn musts_hold(&self) -> bool {
        Must::all_hold(&self.musts)
    }

    /// The table and the machine.
    pub(crate) fn print(&self) {
        println!("\n{:<26}{:>8}{:>8}{:>10}   {:<14}{:<12}result", "on / off", "must", "aim", "measured", "95 % interval", "cache hits");
        for section in &self.sections {
            let Some(ratio) = section.ratio else {
                println!("{:<26}{:>26}   {}", section.title, "not measured", section.stopped.as_deref().unwrap_or_default());
                continue;
            };
            let bound = |of: fn(Promise) -> f64| {
                section.kind.promise().map_or("–".into(), |promise| format!("{} {:.2}", promise.bound.sign(), of(promise)))
            };
            let interval = format!("{:.3}–{:.3}", ratio.low95, ratio.high95);
            println!(
                "{:<26}{:>8}{:>8}{:>10.3}   {interval:<14}{:<12}{}",
                section.title,
                bound(|promise| promise.must),
                bound(|promise| promise.aim),
                ratio.median,
                percent(section.hit_rate),
                section
                    .must()
                    .map_or(if section.stopped.is_some() { "informs only; stopped early" } else { "informs only" }, |must| must.result()),
            );
        }
        if self.musts.is_empty() {
            println!("the must (TCP, 1 stream) was not measured");
        }
        print_environment(&self.environment, self.quick, Duration::from_secs_f64(self.took_s));
        println!("client on CPU {}, server on CPU {}; {}", self.cpus.client, self.cpus.server, self.workers_line());
    }

    fn workers_line(&self) -> String {
        let of = |worker: &WorkerInfo| {
            let cpu = worker.cpu.map_or("unpinned".into(), |cpu| format!("on CPU {cpu}"));
            format!("worker {} {cpu}: {} frames, {} dropped", worker.worker, worker.received, worker.dropped)
        };
        self.workers.iter().map(of).collect::<Vec<_>>().join("; ")
    }
}

/// `99.97 %`; never rounded up to a full hundred.
pub(crate) fn percent(share: Option<f64>) -> String {
    share.map_or("–".into(), |share| {
        let percent = if share < 1.0 { (share * 1e4).floor() / 1e2 } else { 100.0 };
        format!("{percent:.2} %")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(kind: Kind, ratios: &[f64]) -> Section {
        let mut section = Section::new(kind);
        for ratio in ratios {
            let (on, off) = (Sample { rate: ratio * 40e9, ..Sample::default() }, Sample { rate: 40e9, ..Sample::default() });
            let counters = Counters { hits: 99, punts: 1, ..Counters::default() };
            section.add(Round::new(Hooks::On, &on, &off, &counters), &on, &off, &counters);
        }
        section.finish()
    }

    #[test]
    fn the_must_is_judged_by_the_median_ratio() {
        for (ratios, must_met, aim_met) in
            [(&[0.5, 0.95, 0.96][..], true, false), (&[0.5, 0.8, 1.2], false, false), (&[0.5, 1.01, 1.02], true, true)]
        {
            let must = section(Kind::Tcp, ratios).must().unwrap();
            assert_eq!((must.must_met, must.aim_met), (must_met, aim_met), "{ratios:?}");
        }
        assert!(section(Kind::Udp, &[0.1]).must().is_none());
    }

    #[test]
    fn a_hit_rate_is_over_all_rounds_and_never_rounded_up() {
        assert_eq!(section(Kind::Tcp, &[1.0, 1.0]).hit_rate, Some(0.99));
        assert_eq!(percent(Some(0.999_99)), "99.99 %");
        assert_eq!(percent(Some(1.0)), "100.00 %");
        assert_eq!(percent(None), "–");
    }
}
