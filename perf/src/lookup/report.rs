//! Tables on the terminal, and the same as JSON.

use super::connections::Measured;
use super::growth::Growth;
use super::machine::Machine;
use super::measure::{Figure, Metric, State};
use super::query::{Kind, Trace};
use crate::environment::Environment;
use crate::latency::Tail;
use crate::report::{Must, Promise, print_environment};
use crate::workload::{Census, Workload};
use serde::Serialize;
use sluice_table::Table;
use std::time::Duration;

/// A backend as it was built.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Built {
    pub(super) backend: String,
    pub(super) build_ms: f64,
    /// Memory of what it looks up in, where known.
    pub(super) bytes: Option<u64>,
    /// What else is to be said.
    pub(super) note: String,
}

/// A backend that was not measured.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Skipped {
    pub(super) backend: String,
    pub(super) reason: String,
}

/// A trace in numbers.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TraceCensus {
    kind: Kind,
    packets: usize,
    distinct: usize,
    allowed_percent: f64,
}

impl TraceCensus {
    pub(super) fn of(trace: &Trace) -> Self {
        let (kind, packets, distinct) = (trace.kind, trace.queries.len(), trace.distinct);
        Self { kind, packets, distinct, allowed_percent: trace.allowed_percent() }
    }
}

/// The table in numbers.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TableCensus {
    pub(super) image_bytes: u64,
    classes: usize,
    port_classes: usize,
    /// Without the names, which no lookup reads.
    hot_bytes: u64,
    rules: usize,
}

impl TableCensus {
    pub(super) fn of(table: &Table) -> Self {
        Self {
            image_bytes: table.image_bytes(),
            classes: table.classes(),
            port_classes: table.port_classes(),
            hot_bytes: table.hot_bytes(),
            rules: table.names().rules.len(),
        }
    }
}

/// One workload.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Section {
    pub(super) workload: Workload,
    pub(super) census: Census,
    pub(super) table: TableCensus,
    pub(super) generate_ms: f64,
    pub(super) compile_ms: f64,
    pub(super) traces: Vec<TraceCensus>,
    pub(super) built: Vec<Built>,
    pub(super) skipped: Vec<Skipped>,
    pub(super) figures: Vec<Figure>,
}

impl Section {
    /// The median of that figure.
    pub(super) fn median(&self, is_meant: impl Fn(&str) -> bool, trace: Kind, state: State, metric: Metric) -> Option<f64> {
        let meant = self.figures.iter().filter(|f| is_meant(&f.backend) && f.trace == trace && f.state == state && f.metric == metric);
        meant.map(|figure| figure.ns.median).reduce(f64::min)
    }

    /// What it is made of, before it is measured.
    pub(super) fn print_census(&self) {
        let (name, census, table) = (self.workload.name(), &self.census, &self.table);
        println!(
            "\n{name}: {} pods with {} label sets in {} namespaces, {} policies; {} pods attached here; made in {:.0} ms",
            census.pods, census.label_sets, census.namespaces, census.policies, census.endpoints, self.generate_ms
        );
        println!(
            "  table: {:.2} MB, {:.2} MB of it without names; {} address classes, {} port classes, {} rules; compiled in {:.0} ms",
            table.image_bytes as f64 / 1e6,
            table.hot_bytes as f64 / 1e6,
            table.classes,
            table.port_classes,
            table.rules,
            self.compile_ms
        );
    }

    /// What was measured.
    pub(super) fn print(&self) {
        for built in &self.built {
            let bytes = built.bytes.map_or(String::new(), |bytes| format!(", {:.1} MB", bytes as f64 / 1e6));
            println!("  {}: built in {:.0} ms{bytes}{}", built.backend, built.build_ms, built.note);
        }
        for trace in &self.traces {
            println!(
                "\n  {}, {}: {} packets, {} different, {:.0} % pass; ns of a lookup: median (quartiles; least)",
                self.workload.name(),
                trace.kind.name(),
                trace.packets,
                trace.distinct,
                trace.allowed_percent
            );
            self.print_warm(trace.kind);
            self.print_tails(trace.kind);
            self.print_cold(trace.kind);
        }
        for Skipped { backend, reason } in &self.skipped {
            println!("  {backend}: skipped: {reason}");
        }
    }

    fn of_trace(&self, trace: Kind, state: State) -> impl Iterator<Item = &Figure> {
        self.figures.iter().filter(move |figure| figure.trace == trace && figure.state == state)
    }

    fn backends(&self, trace: Kind, state: State) -> Vec<&str> {
        let mut names: Vec<&str> = self.of_trace(trace, state).map(|figure| figure.backend.as_str()).collect();
        names.dedup();
        names
    }

    fn print_warm(&self, trace: Kind) {
        print!("    {:<24}", "warm");
        Metric::ALL.iter().for_each(|metric| print!("{:>28}", metric.name()));
        println!();
        for backend in self.backends(trace, State::Warm) {
            print!("    {backend:<24}");
            for metric in Metric::ALL {
                let figure = self.of_trace(trace, State::Warm).find(|figure| figure.backend == backend && figure.metric == metric);
                print!("{:>28}", figure.map_or("–".to_owned(), spread));
            }
            println!();
        }
    }

    fn print_tails(&self, trace: Kind) {
        for metric in [Metric::Serial, Metric::Burst32] {
            for figure in self.of_trace(trace, State::Warm).filter(|figure| figure.metric == metric) {
                if let Some(tail) = &figure.tail {
                    println!("    {:<24}{:<12}in a bracket of the clock: {}", figure.backend, metric.name(), tail.text());
                }
            }
        }
    }

    fn print_cold(&self, trace: Kind) {
        for state in State::COLD {
            for backend in self.backends(trace, state) {
                print!("    {backend:<24}{:<13}", state.name());
                for figure in self.of_trace(trace, state).filter(|figure| figure.backend == backend) {
                    let ns = &figure.ns;
                    print!("{}: {:.1} ({:.1}–{:.1}; p99 {:.1})   ", figure.metric.name(), ns.median, ns.q1, ns.q3, ns.p99);
                }
                println!();
            }
        }
    }
}

fn spread(figure: &Figure) -> String {
    let ns = &figure.ns;
    format!("{:.1} ({:.1}–{:.1}; {:.1})", ns.median, ns.q1, ns.q3, ns.min)
}

/// The connection tables, where any was measured.
pub(super) fn print_connections(connections: &[Measured]) {
    if !connections.is_empty() {
        println!("\nconnection table, all flows alike frequent; ns of a lookup: median (quartiles; least)");
        connections.iter().for_each(Measured::print);
    }
}

/// Everything.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub(super) bench: &'static str,
    pub(super) quick: bool,
    pub(super) seed: u64,
    pub(super) rounds: usize,
    pub(super) took_s: f64,
    pub(super) environment: Environment,
    pub(super) cpu: usize,
    pub(super) machine: Machine,
    pub(super) empty_bracket: Tail,
    pub(super) musts: Vec<Must>,
    pub(super) growth: Option<Growth>,
    pub(super) connections: Vec<Measured>,
    pub(super) sections: Vec<Section>,
}

impl Report {
    /// Whether the promises are kept.
    pub(super) fn musts_hold(&self) -> bool {
        Must::all_hold(&self.musts)
    }

    fn print_must(&self, must: &Must) {
        let Promise { bound, must: limit, aim } = must.promise;
        let bounded = |limit: f64| format!("{} {limit}", bound.sign());
        let measured = if must.measured.is_nan() { "–".to_owned() } else { format!("{:.2}", must.measured) };
        let beside = match self.machine.level("L2").filter(|_| must.name.ends_with(", ns") && !must.measured.is_nan()) {
            Some(l2) => format!("; {:.1} dependent loads from L2", must.measured / l2.latency_ns),
            None if must.measured.is_nan() => "; not measured".to_owned(),
            None => String::new(),
        };
        println!("{:<52}{:>10}{:>10}{measured:>10}   {}{beside}", must.name, bounded(limit), bounded(aim), must.result());
    }

    /// The promises and the machine.
    pub(super) fn print(&self) {
        println!("\n{:<52}{:>10}{:>10}{:>10}   result", "lookup", "must", "aim", "measured");
        self.musts.iter().for_each(|must| self.print_must(must));
        if self.musts.is_empty() {
            println!("no promise is about what was measured");
        }
        let cores = self.machine.levels.iter().map(|level| format!("{} {:.1}", level.name, level.latency_ns));
        println!("\nlatency of a dependent load, ns: {}", cores.collect::<Vec<_>>().join(", "));
        println!("empty bracket of the clock: {}", self.empty_bracket.text());
        print_environment(&self.environment, self.quick, Duration::from_secs_f64(self.took_s));
        println!("one thread on CPU {}; {} rounds; seed {}", self.cpu, self.rounds, self.seed);
    }
}
