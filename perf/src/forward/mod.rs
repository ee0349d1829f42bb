//! Forwarding: the same two pods with Sluice's hooks and without, in interleaved pairs.
//!
//! ```text
//!   round 1   hooks on  ▶ measure │ hooks off ▶ measure    ratio on / off
//!   round 2   hooks off ▶ measure │ hooks on  ▶ measure    ratio on / off
//!   ...                                                    median of the ratios
//! ```
//!
//! Both halves of a round see the same machine within a few seconds, and the order alternates, so that drift and
//! neighbours cancel out. Both halves run the same code and open new connections.

mod bench;
mod connect;
mod iperf;
mod report;
mod udp;

use crate::cli::Forward;
use crate::environment::{CpuTime, Environment, allowed_cpus, first_line_of};
use crate::progress::{end_progress, progress};
use crate::report::{Bound, Destination, Outcome, Promise, print_doubts};
use anyhow::{Context, Result, bail};
use bench::{Bench, Counters, Hooks, Ready};
use clap::ValueEnum;
use connect::Until;
use hdrhistogram::Histogram;
use report::{Report, Round, Section, WorkerInfo};
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use sluice_flow::DropReason;
use sluice_lab::LabConfig;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// TCP, one stream.
    Tcp,
    /// TCP, eight streams.
    Tcp8,
    /// 64-byte UDP, one flow.
    Udp,
    /// Connect, request, response, close: 400 connections.
    Burst,
    /// The same for as long as a half lasts.
    Connect,
}

/// Connections of one half of a burst: few enough that all rounds together stay within a port's limit of connections
/// (`sluice_flow::limits::CONNECTIONS_PER_PORT_MAX`), even if none that has ended were forgotten.
const BURST: u64 = 400;

impl Kind {
    fn title(self) -> &'static str {
        match self {
            Self::Tcp => "TCP, 1 stream",
            Self::Tcp8 => "TCP, 8 streams",
            Self::Udp => "UDP, 64 B, 1 flow",
            Self::Burst => "connect/close, bursts",
            Self::Connect => "connect/close, sustained",
        }
    }

    /// The unit, and how many of the base unit it is.
    fn unit(self) -> (&'static str, f64) {
        match self {
            Self::Tcp | Self::Tcp8 => ("Gbit/s", 1e9),
            Self::Udp => ("kpps", 1e3),
            Self::Burst | Self::Connect => ("k/s", 1e3),
        }
    }

    /// Sections without one inform only.
    fn promise(self) -> Option<Promise> {
        (self == Self::Tcp).then_some(Promise { bound: Bound::AtLeast, must: 0.9, aim: 1.0 })
    }

    fn rounds(self) -> u32 {
        match self {
            Self::Tcp => 16,
            Self::Tcp8 => 4,
            Self::Udp | Self::Burst | Self::Connect => 8,
        }
    }

    fn seconds(self) -> u32 {
        match self {
            Self::Tcp | Self::Tcp8 => 2,
            Self::Udp | Self::Burst | Self::Connect => 1,
        }
    }

    fn measure(self, bench: &Bench, duration: Duration) -> Result<Sample> {
        match self {
            Self::Tcp => iperf::run(bench, 1, duration),
            Self::Tcp8 => iperf::run(bench, 8, duration),
            Self::Udp => udp::run(bench, duration),
            Self::Burst => connect::run(bench, Until::Count(BURST)),
            Self::Connect => connect::run(bench, Until::Elapsed(duration)),
        }
    }
}

/// One half of a round. The rate is in base units: bits, packets or connections per second.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    rate: f64,
    /// Share of what was sent that did not arrive.
    lost: Option<f64>,
    /// Segments that TCP sent again.
    retransmits: Option<u64>,
    /// A connection got no answer, and the half ended there.
    stuck: bool,
    /// Of each connection.
    latency_ns: Option<Histogram<u64>>,
}

/// Which CPU runs what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Cpus {
    /// The sending program, and with it the kernel's forwarding.
    pub(crate) client: usize,
    /// The receiving program.
    pub(crate) server: usize,
    /// The workers, in order.
    pub(crate) workers: Vec<usize>,
}

impl Cpus {
    /// Traffic on the first two CPUs, workers on the others; on a small machine they share.
    fn choose(allowed: &BTreeSet<usize>, workers: &[usize], traffic: &[usize]) -> Self {
        let all: Vec<usize> = allowed.iter().copied().collect();
        let client = traffic.first().copied().unwrap_or(all[0]);
        let server = traffic.get(1).copied().unwrap_or_else(|| *all.iter().find(|cpu| **cpu != client).unwrap_or(&client));
        let free: Vec<usize> = all.iter().copied().filter(|cpu| ![client, server].contains(cpu)).collect();
        let workers = match (workers, free.is_empty()) {
            ([], true) => all,
            ([], false) => free,
            (given, _) => given.to_vec(),
        };
        Self { client, server, workers }
    }
}

/// Runs the bench.
///
/// # Errors
///
/// Something does not work, or the hooks are not what they should be. The lab is removed in every case.
pub(crate) fn run(arguments: &Forward) -> Result<Outcome> {
    let destination = Destination::new(arguments.out.as_ref(), arguments.check)?;
    let mut config = LabConfig::new(&arguments.lab);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&config.interrupted)).context("cannot watch for signals")?;
    }
    let report = measure_all(arguments, &mut config);
    // Relaxed: a lone flag set by a signal handler; nothing is read on its account.
    if config.interrupted.load(Ordering::Relaxed) {
        return Ok(Outcome::Interrupted);
    }
    let report = report?;
    report.print();
    destination.finish(&report, report.musts_hold())
}

fn measure_all(arguments: &Forward, config: &mut LabConfig) -> Result<Report> {
    let cpus = Cpus::choose(&allowed_cpus(), &arguments.cpus, &arguments.traffic_cpus);
    config.workers = arguments.workers;
    config.cpus = Some(cpus.workers.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
    config.bin_dir = arguments.bin_dir.clone();
    config.progress = Arc::new(progress);
    let (mut environment, ticks, start) = (Environment::read(), CpuTime::now(), Instant::now());
    environment.iperf3 = first_line_of("iperf3", &["--version"]);
    if environment.iperf3.is_none() {
        bail!("iperf3 is not installed; `apt-get install iperf3`, or `make prepare`");
    }
    print_doubts(&environment);
    let bench = Bench::up(config, cpus);
    end_progress();
    let mut bench = bench?;
    println!(
        "checked: hooks on, port 5210 does not connect and port 5211 does; hooks off, both connect (checked again at every switch)\n\
         client on CPU {}, server on CPU {}, {} workers on CPUs {:?}",
        bench.cpus.client, bench.cpus.server, arguments.workers, bench.cpus.workers
    );
    let kinds = match &arguments.sections[..] {
        [] => Kind::value_variants().to_vec(),
        some => some.iter().copied().collect::<BTreeSet<_>>().into_iter().collect(),
    };
    let mut sections = Vec::with_capacity(kinds.len());
    for kind in kinds {
        let rounds = arguments.rounds.unwrap_or(if arguments.quick { 2 } else { kind.rounds() });
        let seconds = arguments.seconds.unwrap_or(if arguments.quick { 1 } else { kind.seconds() });
        sections.push(section(&mut bench, kind, rounds, seconds).with_context(|| kind.title().to_owned())?);
    }
    let workers = bench.status()?.workers.into_iter().map(WorkerInfo::from).collect();
    let cpus = bench.cpus.clone();
    bench.down()?;
    environment.finish(ticks);
    Ok(Report::new(environment, arguments.quick, cpus, workers, sections, start.elapsed()))
}

fn section(bench: &mut Bench, kind: Kind, rounds: u32, seconds: u32) -> Result<Section> {
    let (unit, scale) = kind.unit();
    let each = if kind == Kind::Burst { format!("{BURST} connections") } else { format!("{seconds} s") };
    println!("\n{}: {rounds} rounds of 2 × {each}", kind.title());
    let mut section = Section::new(kind);
    for round in 0..rounds {
        let order = if round % 2 == 0 { [Hooks::On, Hooks::Off] } else { [Hooks::Off, Hooks::On] };
        let Some((first, counters_first)) = half(bench, kind, order[0], seconds)? else { return Ok(section.stop(round)) };
        let Some((second, counters_second)) = half(bench, kind, order[1], seconds)? else { return Ok(section.stop(round)) };
        let (on, counters, off) = match order[0] {
            Hooks::On => (first, counters_first, second),
            Hooks::Off => (second, counters_second, first),
        };
        let done = Round::new(order[0], &on, &off, &counters);
        println!(
            "  {:>2}/{rounds}  on {:7.2}  off {:7.2} {unit}  ratio {:.3}  hits {}{}",
            round + 1,
            on.rate / scale,
            off.rate / scale,
            done.ratio,
            report::percent(done.hit_rate),
            done.remarks(),
        );
        section.add(done, &on, &off, &counters);
    }
    Ok(section.finish())
}

/// One measurement with the hooks as asked, and what the dataplane counted meanwhile. `None` when a pod holds as many
/// connections as it may, so that there is nothing to measure.
fn half(bench: &mut Bench, kind: Kind, hooks: Hooks, seconds: u32) -> Result<Option<(Sample, Counters)>> {
    if bench.switch(hooks)? == Ready::Full {
        return Ok(None);
    }
    let before = bench.counters()?;
    let sample = kind.measure(bench, Duration::from_secs(seconds.into()))?;
    let counters = bench.counters()?.since(&before);
    match hooks {
        Hooks::On if counters.hits == 0 && counters.drops.contains_key(DropReason::ConnectionsFull.name()) => return Ok(None),
        Hooks::On if counters.hits == 0 => bail!("hooks on, but they saw none of the traffic: {counters:?}"),
        Hooks::Off if counters.hits + counters.punts > 0 => bail!("hooks off, but they saw traffic: {counters:?}"),
        _ => {}
    }
    if sample.rate <= 0.0 {
        bail!("hooks {hooks:?}: nothing got through; the dataplane counted {counters:?}");
    }
    Ok(Some((sample, counters)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_leave_the_traffic_its_cpus_where_there_are_enough() {
        let cpus = |client, server, workers: &[usize]| Cpus { client, server, workers: workers.to_vec() };
        for (allowed, workers, traffic, chosen) in [
            (&[3][..], &[][..], &[][..], cpus(3, 3, &[3])),
            (&[0, 1], &[], &[], cpus(0, 1, &[0, 1])),
            (&[0, 1, 2, 3], &[], &[], cpus(0, 1, &[2, 3])),
            (&[0, 1, 2, 3], &[], &[2], cpus(2, 0, &[1, 3])),
            (&[0, 1, 2, 3], &[1], &[2, 2], cpus(2, 2, &[1])),
        ] {
            let allowed: BTreeSet<usize> = allowed.iter().copied().collect();
            assert_eq!(Cpus::choose(&allowed, workers, traffic), chosen, "{allowed:?} {workers:?} {traffic:?}");
        }
    }
}
