//! The policy lookup beside its peers: latency, throughput, bursts; warm and cold; and what was promised about it.
//!
//! ```text
//!  workload ──▶ Snapshot ──▶ compile ──▶ image ──▶ every backend that can be built
//!                  └──▶ oracle ──▶ trace with answers ──▶ check each backend ──▶ time them in interleaved rounds
//! ```
//!
//! No backend is timed on a trace before each of its answers was the oracle's, by every way it can be asked.

mod backend;
#[cfg(feature = "bpf")]
#[allow(unsafe_code)]
mod bpf;
#[allow(unsafe_code)]
pub(crate) mod clock;
mod connections;
#[cfg(feature = "dpdk")]
#[allow(unsafe_code)]
mod dpdk;
mod flat;
mod growth;
#[cfg(any(feature = "bpf", feature = "dpdk"))]
mod labelled;
pub(crate) mod machine;
mod measure;
mod musts;
mod nft;
mod ours;
pub(crate) mod query;
mod report;
pub(crate) mod resolved;
mod scan;
pub(crate) mod trace;

pub(crate) use query::Kind;

use crate::cli::Lookup as Arguments;
use crate::environment::{CpuTime, Environment, pin};
use crate::progress::{end_progress, progress};
use crate::report::{Destination, Outcome, print_doubts};
use crate::workload::{Census, Workload};
use anyhow::{Context, Result};
use backend::Backend;
use growth::{Case, Growth};
use machine::Machine;
use measure::{Samples, Sweeps, Timed};
use report::{Built, Report, Section, Skipped, TableCensus, TraceCensus};
use resolved::Resolved;
use sluice_policy::{Oracle, Snapshot, compile};
use sluice_table::Table;
use std::time::Instant;
use trace::Length;

/// What every section shares.
struct Bench<'a> {
    arguments: &'a Arguments,
    rounds: usize,
    samples: Samples,
    length: Length,
    machine: Machine,
    sweeps: Sweeps,
    #[cfg_attr(not(feature = "dpdk"), expect(dead_code, reason = "only DPDK must be told"))]
    cpu: usize,
    /// S3 with all its policies and with few.
    many: Option<Case>,
    few: Option<Case>,
}

/// Runs the bench.
///
/// # Errors
///
/// A backend answers wrongly, a workload does not fit this machine, or something cannot be read or written.
pub(crate) fn run(arguments: &Arguments) -> Result<Outcome> {
    let destination = Destination::new(arguments.out.as_ref(), arguments.check)?;
    let (mut environment, ticks, start) = (Environment::read(), CpuTime::now(), Instant::now());
    print_doubts(&environment);
    let cpu = pin(arguments.cpu)?;
    progress("measuring the caches");
    let machine = Machine::measure();
    let empty_bracket = measure::empty_bracket(&machine);
    let quick = arguments.quick;
    let samples = |full: usize| if quick { 2 } else { full };
    let mut bench = Bench {
        arguments,
        rounds: if quick { 3 } else { arguments.rounds as usize },
        samples: Samples { l2_evicted: samples(200), flushed: samples(25), swapped: samples(15) },
        length: Length::of(if quick { 1 << 13 } else { 1 << 17 }),
        sweeps: Sweeps::of(&machine),
        machine,
        cpu,
        many: None,
        few: None,
    };
    let mut sections = Vec::new();
    for workload in workloads(arguments) {
        sections.push(bench.section(workload).with_context(|| workload.name().to_owned())?);
    }
    let growth = match (&bench.many, &bench.few) {
        (Some(many), Some(few)) => Growth::measure(many, few, bench.rounds * 3)?,
        _ => None,
    };
    if let Some(growth) = &growth {
        growth.print();
    }
    let connections = match (arguments.workloads.is_empty(), quick) {
        (true, quick) => {
            let sizes = [10_000, 100_000, 1_000_000];
            connections::measure(if quick { &sizes[..1] } else { &sizes }, bench.rounds, arguments.seed, &bench.machine)?
        }
        (false, _) => Vec::new(),
    };
    end_progress();
    report::print_connections(&connections);
    environment.finish(ticks);
    let musts = musts::judge(&sections, growth.as_ref());
    let report = Report {
        bench: "lookup",
        quick,
        seed: arguments.seed,
        rounds: bench.rounds,
        took_s: start.elapsed().as_secs_f64(),
        environment,
        cpu,
        machine: bench.machine,
        empty_bracket,
        musts,
        growth,
        connections,
        sections,
    };
    report.print();
    destination.finish(&report, report.musts_hold())
}

fn workloads(arguments: &Arguments) -> Vec<Workload> {
    use Workload::{S1, S2, S3, S3Few, S4};
    match (&arguments.workloads[..], arguments.quick) {
        ([], true) => vec![S1],
        ([], false) => vec![S1, S2, S3, S3Few, S4],
        (chosen, _) => chosen.to_vec(),
    }
}

impl Bench<'_> {
    /// Traces of a workload: those asked for, else all of S3 and the most telling ones of the others.
    fn traces(&self, workload: Workload) -> Vec<Kind> {
        use Kind::{Attack, Bursts, Deny, Dual, Isolated, Uniform, V6, Zipf};
        match (&self.arguments.traces[..], workload) {
            ([], Workload::S3) => vec![Zipf, Uniform, Bursts, Deny, Attack, V6, Dual, Isolated],
            ([], Workload::S3Few) => vec![Isolated],
            ([], Workload::S1 | Workload::S2 | Workload::S4) => vec![Zipf, Uniform, Bursts],
            ([], _) => vec![Zipf, Bursts],
            (chosen, _) => chosen.to_vec(),
        }
    }

    fn section(&mut self, workload: Workload) -> Result<Section> {
        let (name, needed_mb) = (workload.name(), workload.bytes_needed() >> 20);
        if needed_mb > 2048 {
            println!("\n{name} needs up to {needed_mb} MB of memory");
        }
        progress(&format!("{name}: making it"));
        let start = Instant::now();
        let snapshot = workload.generate(self.arguments.seed)?;
        let generate_ms = start.elapsed().as_secs_f64() * 1e3;
        progress(&format!("{name}: compiling it"));
        let start = Instant::now();
        let image = compile(&snapshot, 1).context("compiling")?;
        let compile_ms = start.elapsed().as_secs_f64() * 1e3;
        let table = TableCensus::of(&Table::from_bytes(&image).context("loading the image")?);
        let (traces, built, skipped, figures) = Default::default();
        let census = Census::of(&snapshot);
        let mut section = Section { workload, census, table, generate_ms, compile_ms, traces, built, skipped, figures };
        end_progress();
        section.print_census();

        progress(&format!("{name}: reading its rules"));
        let oracle = Oracle::new(&snapshot);
        let resolved = Resolved::of(&snapshot, &oracle);
        let mut backends = self.backends(&mut section, &image, &resolved)?;
        let nft = self.nft(&mut section, &resolved, &snapshot);
        for kind in self.traces(workload) {
            progress(&format!("{name}, {}: asking the oracle", kind.name()));
            let trace = trace::trace(kind, &snapshot, &oracle, &resolved, self.length, self.arguments.seed);
            self.measure(&mut section, &mut backends, &trace)?;
            if let Some(rules) = nft.as_ref().filter(|_| kind.is_v4()) {
                progress(&format!("{name}, {}: {}", kind.name(), nft::NAME));
                rules.check(&trace)?;
                section.figures.push(rules.time(&trace, self.rounds)?);
            }
            match workload {
                Workload::S3 if kind == Kind::Isolated => self.many = Some(Case { image: image.to_vec(), trace }),
                Workload::S3Few if kind == Kind::Isolated => self.few = Some(Case { image: image.to_vec(), trace }),
                _ => {}
            }
        }
        end_progress();
        section.print();
        Ok(section)
    }

    fn backends<'r>(&self, section: &mut Section, image: &'r [u8], resolved: &'r Resolved) -> Result<Vec<Box<dyn Backend + 'r>>> {
        let mut backends: Vec<Box<dyn Backend + 'r>> = Vec::new();
        for ours in ours::all(image)? {
            backends.push(Box::new(ours));
        }
        let start = Instant::now();
        let scan = scan::Scan::of(resolved);
        let build_ms = start.elapsed().as_secs_f64() * 1e3;
        section.built.push(Built { backend: scan.name().to_owned(), build_ms, bytes: None, note: String::new() });
        backends.push(Box::new(scan));
        if section.workload.has_peers() && !self.arguments.alone {
            let (peers, built, skipped) = self.dpdk(resolved);
            section.built.extend(built);
            section.skipped.extend(skipped);
            peers.into_iter().for_each(|peer| backends.push(peer));
            match self.bpf_maps(resolved) {
                Ok((maps, built)) => {
                    section.built.push(built);
                    backends.push(maps);
                }
                Err(error) => section.skipped.push(Skipped { backend: "labels in BPF maps".to_owned(), reason: format!("{error:#}") }),
            }
        }
        Ok(backends)
    }

    /// Not asked as the others are: packets go through it.
    fn nft(&self, section: &mut Section, resolved: &Resolved, snapshot: &Snapshot) -> Option<nft::Rules> {
        if !section.workload.has_peers() || self.arguments.alone {
            return None;
        }
        match nft::Rules::of(resolved, &snapshot.endpoints) {
            Ok((rules, built)) => {
                section.built.push(built);
                Some(rules)
            }
            Err(error) => {
                section.skipped.push(Skipped { backend: nft::NAME.to_owned(), reason: format!("{error:#}") });
                None
            }
        }
    }

    #[cfg(feature = "dpdk")]
    fn dpdk(&self, resolved: &Resolved) -> (Vec<Box<dyn Backend>>, Vec<Built>, Vec<Skipped>) {
        dpdk::all(resolved, self.cpu)
    }

    #[cfg(not(feature = "dpdk"))]
    fn dpdk(&self, _: &Resolved) -> (Vec<Box<dyn Backend>>, Vec<Built>, Vec<Skipped>) {
        let reason = "this build is without the feature dpdk (Debian: libdpdk-dev)";
        let skipped = [musts::ACL, "rte_fib + rte_hash"].map(|backend| Skipped { backend: backend.to_owned(), reason: reason.to_owned() });
        (Vec::new(), Vec::new(), skipped.to_vec())
    }

    #[cfg(feature = "bpf")]
    fn bpf_maps(&self, resolved: &Resolved) -> Result<(Box<dyn Backend>, Built)> {
        let (maps, built) = bpf::Maps::of(resolved)?;
        Ok((Box::new(maps), built))
    }

    #[cfg(not(feature = "bpf"))]
    fn bpf_maps(&self, _: &Resolved) -> Result<(Box<dyn Backend>, Built)> {
        anyhow::bail!("this build is without the feature bpf")
    }

    fn measure(&self, section: &mut Section, backends: &mut [Box<dyn Backend + '_>], trace: &query::Trace) -> Result<()> {
        let step = |what: &str| progress(&format!("{}, {}: {what}", section.workload.name(), trace.kind.name()));
        let mut asked: Vec<&mut dyn Backend> = Vec::new();
        for backend in backends.iter_mut().filter(|backend| backend.takes(trace.kind)) {
            step(&format!("checking {}", backend.name()));
            backend.prepare(&trace.queries);
            backend::check(&mut **backend, trace)?;
            asked.push(&mut **backend);
        }
        step("timing");
        let mut figures = measure::warm(&mut asked, Timed::of(trace), self.rounds, &self.machine);
        if matches!(section.workload, Workload::S3 | Workload::S4) && trace.kind == Kind::Bursts {
            step("timing cold caches");
            figures.extend(measure::cold(&mut asked, trace, self.samples, &self.sweeps, &self.machine)?);
        }
        section.traces.push(TraceCensus::of(trace));
        section.figures.extend(figures);
        Ok(())
    }
}
