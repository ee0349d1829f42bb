//! What came out: for people as a table, for programs as JSON, both from the same values.

use super::Arguments;
use crate::environment::Environment;
use crate::report::{Bound, Must, Promise, print_environment, print_musts};
use crate::workload::Workload;
use anyhow::Result;
use serde::Serialize;
use sluice_apiserver::Store;
use sluice_policy::Snapshot;
use std::time::Duration;

/// What the server holds.
#[derive(Debug, Serialize)]
pub(super) struct Sizes {
    pods: usize,
    services: usize,
    policies: usize,
    namespaces: usize,
    local: usize,
}

impl Sizes {
    pub(super) fn of(snapshot: &Snapshot, store: &Store) -> Result<Self> {
        Ok(Self {
            pods: store.count("pods")?,
            services: store.count("services")?,
            policies: store.count("networkpolicies")?,
            namespaces: store.count("namespaces")?,
            local: snapshot.endpoints.len(),
        })
    }
}

/// As measured.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) start_to_enforced: Duration,
    pub(super) start_cpu: Duration,
    pub(super) idle_cpu_percent: f64,
    pub(super) steady_bytes: u64,
    pub(super) storm_cpu_percent: f64,
    pub(super) changes: u64,
    pub(super) tables: u64,
    pub(super) image_bytes: usize,
    /// From a change at the server to the table that knows it.
    pub(super) delays: Vec<Duration>,
    /// From a pod's attachment to the table that knows it.
    pub(super) starts: Vec<Duration>,
    /// Of the plugin's ADD through a real dataplane, as the runtime waits for it; empty where it was not measured.
    pub(super) adds: Vec<Duration>,
    pub(super) peak_bytes: u64,
    pub(super) after_bytes: u64,
    pub(super) reporter: Option<Reporter>,
}

/// The one process of a cluster that tells where policies are in force.
#[derive(Debug)]
pub(super) struct Reporter {
    /// Until it has told of every policy.
    pub(super) start: Duration,
    pub(super) idle_cpu_percent: f64,
    pub(super) storm_cpu_percent: f64,
    pub(super) peak_bytes: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ReporterFigures {
    start_s: f64,
    idle_cpu_percent: f64,
    storm_cpu_percent: f64,
    peak_mb: f64,
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
    workload: Workload,
    pod_bytes: u32,
    objects: Sizes,
    start_cpu_s: f64,
    changes: u64,
    tables: u64,
    image_bytes: usize,
    seen: usize,
    delay_ms: Delays,
    start_ms: Delays,
    add_ms: Option<Delays>,
    after_mb: f64,
    reporter: Option<ReporterFigures>,
    musts: Vec<Must>,
    /// Something that is promised was not measured.
    #[serde(skip)]
    is_partial: bool,
    #[serde(skip)]
    took: Duration,
}

#[derive(Debug, Serialize)]
struct Delays {
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

impl Delays {
    fn of(mut delays: Vec<Duration>) -> Self {
        delays.sort();
        let at = |share: f64| delays[((delays.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1e3;
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0) }
    }
}

impl Report {
    pub(super) fn new(
        environment: Environment,
        arguments: &Arguments,
        workload: Workload,
        objects: Sizes,
        figures: Figures,
        took: Duration,
    ) -> Self {
        let seen = figures.delays.len();
        let (delay_ms, start_ms) = (Delays::of(figures.delays), Delays::of(figures.starts));
        let add_ms = (!figures.adds.is_empty()).then(|| Delays::of(figures.adds));
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        let at_most = |must, aim| Promise { bound: Bound::AtMost, must, aim };
        // promised of the load test's cluster and of 100 changes a second
        let is_promised = workload == Workload::G1 && arguments.rate == 100 && !arguments.quick;
        let musts = [
            ("from start to enforced, s", at_most(15.0, 5.0), figures.start_to_enforced.as_secs_f64()),
            ("peak memory, MB", at_most(400.0, 250.0), megabytes(figures.peak_bytes)),
            ("steady memory, MB", at_most(250.0, 150.0), megabytes(figures.steady_bytes)),
            ("idle, % of a core", at_most(1.0, 0.1), figures.idle_cpu_percent),
            ("100 changes/s, % of a core", at_most(25.0, 10.0), figures.storm_cpu_percent),
            ("change to adopted p99, ms", at_most(100.0, 50.0), delay_ms.p99),
        ];
        let add = add_ms.as_ref().map(|delays| ("ADD of a pod, real dataplane, p99, ms", at_most(50.0, 20.0), delays.p99));
        let is_partial = is_promised && add.is_none();
        let musts = musts.into_iter().chain(add);
        let musts = musts.into_iter().filter(|_| is_promised).map(|(name, promise, measured)| Must::of(name, promise, measured));
        Self {
            bench: "control",
            quick: arguments.quick,
            seed: arguments.seed,
            took_s: took.as_secs_f64(),
            environment,
            workload,
            pod_bytes: arguments.pod_bytes,
            objects,
            start_cpu_s: figures.start_cpu.as_secs_f64(),
            changes: figures.changes,
            tables: figures.tables,
            image_bytes: figures.image_bytes,
            seen,
            delay_ms,
            start_ms,
            add_ms,
            after_mb: megabytes(figures.after_bytes),
            reporter: figures.reporter.map(|reporter| ReporterFigures {
                start_s: reporter.start.as_secs_f64(),
                idle_cpu_percent: reporter.idle_cpu_percent,
                storm_cpu_percent: reporter.storm_cpu_percent,
                peak_mb: megabytes(reporter.peak_bytes),
            }),
            musts: musts.collect(),
            is_partial,
            took,
        }
    }

    pub(super) fn musts_hold(&self) -> bool {
        !self.is_partial && Must::all_hold(&self.musts)
    }

    pub(super) fn print(&self) {
        let Sizes { pods, services, policies, namespaces, local } = &self.objects;
        println!(
            "{}: {pods} pods, {services} services, {policies} policies, {namespaces} namespaces; {local} pods attached here",
            self.workload.name()
        );
        println!("  start: {:.1} s of CPU time; table of {:.2} MB", self.start_cpu_s, self.image_bytes as f64 / 1e6);
        let Delays { p50, p90, p99, max } = self.delay_ms;
        println!(
            "  {} changes in {} tables; {} of them seen after p50 {p50:.1}, p90 {p90:.1}, p99 {p99:.1}, max {max:.1} ms",
            self.changes, self.tables, self.seen
        );
        let Delays { p50, p90, p99, max } = self.start_ms;
        println!("  pods that start here: in a table after p50 {p50:.1}, p90 {p90:.1}, p99 {p99:.1}, max {max:.1} ms");
        match &self.add_ms {
            Some(Delays { p50, p90, p99, max }) => {
                println!("  ADD of the plugin, real dataplane: p50 {p50:.1}, p90 {p90:.1}, p99 {p99:.1}, max {max:.1} ms");
            }
            None => println!("  ADD of the plugin, real dataplane: not measured"),
        }
        println!("  memory after them: {:.0} MB", self.after_mb);
        if let Some(ReporterFigures { start_s, idle_cpu_percent, storm_cpu_percent, peak_mb }) = &self.reporter {
            println!(
                "  the reporter, one in a cluster: told of every policy after {start_s:.1} s; {idle_cpu_percent:.1} % of a core idle, \
                 {storm_cpu_percent:.1} % while pods change; peak {peak_mb:.0} MB"
            );
        }
        print_musts("sluice-control", &self.musts);
        print_environment(&self.environment, self.quick, self.took);
    }
}
