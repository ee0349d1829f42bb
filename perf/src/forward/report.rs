//! What came out: for people as a table, for programs as JSON, both from the same values.

use super::arm::Arm;
use super::bench::Counters;
use super::kind::Compared;
use super::turns::Taken;
use super::{Cpus, Kind, Sample};
use crate::environment::Environment;
use crate::report::{Must, print_environment, print_musts};
use crate::stats::Summary;
use hdrhistogram::Histogram;
use serde::Serialize;
use sluice_wire::WorkerStatus;
use std::collections::BTreeMap;
use std::time::Duration;

/// What was sent in one turn and counted in no other looks like a loss.
const LOST_AT_THE_EDGES: f64 = 0.02;

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The whole run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    bench: &'static str,
    quick: bool,
    took_s: f64,
    policies: usize,
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

/// One side of a contest.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Part {
    pub(crate) arm: Arm,
    pub(crate) value: f64,
    /// Of the cache.
    hit_rate: Option<f64>,
    hits: u64,
    punts: u64,
    admitted: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    drops: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<f64>,
    /// With the other side's.
    #[serde(skip_serializing_if = "Option::is_none")]
    retransmits: Option<u64>,
    /// Connections that got no answer, with the other side's.
    #[serde(skip_serializing_if = "is_zero")]
    stuck: u64,
    /// Packets of the neighbour that floods, with the other side's.
    #[serde(skip_serializing_if = "Option::is_none")]
    flooded: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tables_per_second: Option<f64>,
    #[serde(skip)]
    counters: Counters,
    #[serde(skip)]
    latency_ns: Option<Histogram<u64>>,
}

impl Part {
    pub(crate) fn new(arm: Arm, sample: Sample) -> Self {
        let Sample { value, taken, lost, retransmits, stuck, latency_ns, flooded } = sample;
        let Taken { counters, tables, elapsed, .. } = taken;
        let tables_per_second = (arm == Arm::Swapped).then(|| tables as f64 / elapsed.as_secs_f64());
        Self {
            arm,
            value,
            hit_rate: counters.hit_rate(),
            hits: counters.hits,
            punts: counters.punts,
            admitted: counters.admitted,
            drops: counters.drops.clone(),
            lost,
            retransmits,
            stuck,
            flooded,
            tables_per_second,
            counters,
            latency_ns,
        }
    }

    /// What a reader of the line should know besides.
    pub(crate) fn remarks(&self) -> String {
        let mut text = String::new();
        if let Some(lost) = self.lost.filter(|lost| *lost >= LOST_AT_THE_EDGES) {
            text += &format!("  {}: lost {}", self.arm.title(), percent(Some(lost)));
        }
        if self.stuck > 0 {
            text += &format!("  {}: {} stuck", self.arm.title(), self.stuck);
        }
        if let Some(tables) = self.tables_per_second {
            text += &format!("  {tables:.1} tables/s");
        }
        if let Some(flooded) = self.flooded {
            text += &format!("  {}: flooded with {:.0} k", self.arm.title(), flooded as f64 / 1e3);
        }
        let drops: Vec<String> =
            self.drops.iter().filter(|_| self.flooded.is_none()).map(|(reason, packets)| format!("{reason} {packets}")).collect();
        if !drops.is_empty() {
            text += &format!("  dropped: {}", drops.join(", "));
        }
        text
    }
}

/// One state over all rounds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct State {
    arm: Arm,
    title: &'static str,
    value: Option<Summary>,
    /// To the first state, with which it took turns, round by round.
    ratio: Option<Summary>,
    hit_rate: Option<f64>,
    admitted: u64,
    drops: BTreeMap<String, u64>,
    latency: Option<Latency>,
}

/// One kind of traffic.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Section {
    kind: Kind,
    title: &'static str,
    unit: &'static str,
    /// Base units in a unit.
    scale: f64,
    states: Vec<State>,
    /// The first state from one round to the next: what the machine does by itself.
    noise: Option<Summary>,
    /// Why there are fewer rounds than asked for.
    stopped: Option<String>,
    /// Of each contest what others are compared to, and what is judged.
    rounds: Vec<Vec<[Part; 2]>>,
}

impl Section {
    pub(crate) fn new(kind: Kind) -> Self {
        let (unit, scale) = kind.unit();
        Self { kind, title: kind.title(), unit, scale, states: Vec::new(), noise: None, stopped: None, rounds: Vec::new() }
    }

    /// Adds a round: its contests, in the order of the states.
    pub(crate) fn add(&mut self, contests: Vec<[Part; 2]>) {
        self.rounds.push(contests);
    }

    /// Ends early: a pod holds as many connections as it may, and none of those that ended was forgotten in time.
    pub(crate) fn stop(mut self, rounds: u32) -> Self {
        let reason = format!("stopped after {rounds} rounds: a pod's connections are full, those that ended still count");
        println!("  {reason}");
        self.stopped = Some(reason);
        self.finish()
    }

    /// The ratio of one state to another, round by round, where both took part; of two that both took turns with the first: of
    /// their ratios to it.
    fn ratio(&self, arm: Arm, beside: Arm) -> Option<Summary> {
        let first = self.kind.arms()[0];
        let to_first = |contests: &[[Part; 2]], arm: Arm| {
            let contest = contests.iter().find(|[_, part]| part.arm == arm);
            if arm == first { Some(1.0) } else { contest.map(|[base, part]| part.value / base.value) }
        };
        let ratios = self.rounds.iter().filter_map(|contests| Some(to_first(contests, arm)? / to_first(contests, beside)?));
        Summary::of(&ratios.collect::<Vec<_>>())
    }

    /// Summarises, after the last round.
    pub(crate) fn finish(mut self) -> Self {
        let first = self.kind.arms()[0];
        self.states = self.kind.arms().iter().map(|arm| self.state(*arm, first)).collect();
        let steps = self.rounds.windows(2).map(|pair| pair[1][0][0].value / pair[0][0][0].value);
        self.noise = Summary::of(&steps.collect::<Vec<_>>());
        self.print();
        self
    }

    fn state(&self, arm: Arm, first: Arm) -> State {
        let parts = || self.rounds.iter().flatten().flatten().filter(move |part| part.arm == arm);
        let (mut counters, mut all) = (Counters::default(), None::<Histogram<u64>>);
        for part in parts() {
            counters.add(&part.counters);
            match (all.as_mut(), &part.latency_ns) {
                (Some(all), Some(more)) => all.add(more).expect("histograms with the same bounds"),
                (None, Some(more)) => all = Some(more.clone()),
                (_, None) => {}
            }
        }
        State {
            arm,
            title: arm.title(),
            value: Summary::of(&parts().map(|part| part.value).collect::<Vec<_>>()),
            ratio: self.ratio(arm, first).filter(|_| arm != first),
            hit_rate: counters.hit_rate(),
            admitted: counters.admitted,
            drops: counters.drops,
            latency: all.as_ref().map(Latency::of),
        }
    }

    fn print(&self) {
        for State { title, value, ratio, hit_rate, latency, .. } in &self.states {
            let Some(value) = value else { continue };
            let ratio = ratio.map_or(String::new(), |ratio| {
                format!("  ratio {:.3}, 95 % interval {:.3}–{:.3}", ratio.median, ratio.low95, ratio.high95)
            });
            let hits = hit_rate.map_or(String::new(), |rate| format!("  cache hits {}", percent(Some(rate))));
            println!("  {title:<20}{:>9.2} {}{ratio}{hits}", value.median / self.scale, self.unit);
            if let Some(latency) = latency {
                println!("  {:<20}µs each: {latency}", "");
            }
        }
        if let Some(noise) = self.noise {
            println!("  noise: {} from one round to the next, quartiles {:.3}–{:.3}", self.states[0].title, noise.q1, noise.q3);
        }
    }

    /// No interval is wider than the distance to its must, and each is of so many rounds.
    pub(crate) fn is_measurable(&self, least: usize) -> bool {
        let enough = |compared: &Compared| self.ratio(compared.arm, compared.beside).is_some_and(|ratio| ratio.count >= least);
        self.kind.compared().iter().all(enough) && !self.musts().iter().any(|must| must.not_measurable)
    }

    fn musts(&self) -> Vec<Must> {
        let mut musts: Vec<Must> = (self.kind.compared().into_iter())
            .map(|Compared { name, arm, beside, promise }| match self.ratio(arm, beside) {
                Some(ratio) => Must::of(name, promise, ratio.median).within(ratio.high95 - ratio.low95),
                None => Must::of(name, promise, f64::NAN),
            })
            .collect();
        if self.kind == Kind::Swaps {
            let lost = self.rounds.iter().flatten().map(|[_, swapped]| swapped).map(|part| part.drops.values().sum::<u64>());
            let none = crate::report::Promise { bound: crate::report::Bound::AtMost, must: 0.0, aim: 0.0 };
            musts.push(Must::of("packets dropped meanwhile", none, lost.sum::<u64>() as f64));
            let tables: Vec<f64> = self.rounds.iter().flatten().filter_map(|[_, swapped]| swapped.tables_per_second).collect();
            let came = Summary::of(&tables).map_or(f64::NAN, |tables| tables.median);
            let enough = crate::report::Promise { bound: crate::report::Bound::AtLeast, must: 9.0, aim: 9.9 };
            musts.push(Must::of("tables a second meanwhile", enough, came));
        }
        musts
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
        policies: usize,
        cpus: Cpus,
        workers: Vec<WorkerInfo>,
        sections: Vec<Section>,
        took: Duration,
    ) -> Self {
        let musts = sections.iter().flat_map(Section::musts).collect();
        Self { bench: "forward", quick, took_s: took.as_secs_f64(), policies, environment, cpus, workers, musts, sections }
    }

    /// Whether the promises are kept.
    pub(crate) fn musts_hold(&self) -> bool {
        Must::all_hold(&self.musts)
    }

    /// The table and the machine.
    pub(crate) fn print(&self) {
        print_musts(&format!("ratios to the same pods without policy, {} policies", self.policies), &self.musts);
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
            let part = |arm: Arm| {
                let counters = Counters { hits: 99, punts: 1, ..Counters::default() };
                let value = if arm == Arm::On { ratio * 40e9 } else { 40e9 };
                Part::new(arm, Sample { value, taken: Taken { counters, ..Taken::default() }, ..Sample::default() })
            };
            section.add(kind.arms()[1..].iter().map(|arm| [part(kind.arms()[0]), part(*arm)]).collect());
        }
        section.finish()
    }

    #[test]
    fn the_must_is_judged_by_the_median_ratio_where_its_interval_is_narrow_enough() {
        for (ratios, must_met, aim_met, not_measurable) in [
            (&[0.99; 5][..], true, false, false),
            (&[0.9; 5], false, false, false),
            (&[1.03; 5], true, true, false),
            (&[0.5, 0.99, 1.5], false, false, true),
        ] {
            let section = section(Kind::Service, ratios);
            let must = &section.musts()[0];
            assert_eq!((must.must_met, must.aim_met, must.not_measurable), (must_met, aim_met, not_measurable), "{ratios:?}");
            assert_eq!(section.is_measurable(ratios.len()), !not_measurable, "{ratios:?}");
            assert!(!section.is_measurable(ratios.len() + 1), "{ratios:?}");
        }
        assert!(section(Kind::Tcp8, &[0.1]).musts().is_empty());
    }

    #[test]
    fn a_hit_rate_is_over_all_rounds_and_never_rounded_up() {
        assert_eq!(section(Kind::Tcp, &[1.0, 1.0]).states[1].hit_rate, Some(0.99));
        assert_eq!(percent(Some(0.999_99)), "99.99 %");
        assert_eq!(percent(Some(1.0)), "100.00 %");
        assert_eq!(percent(None), "–");
    }
}
