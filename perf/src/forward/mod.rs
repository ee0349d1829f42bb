//! Forwarding: the same pods in several states of their node, which take turns of an eighth of a second.
//!
//! ```text
//!   round 1   no policy │ Sluice │ Sluice │ no policy │ ...      one ratio
//!             no policy │ Sluice, 10 policies │ ...              another one
//!             no policy │ nft sets │ ...
//!   round 2   the same, others first
//!   ...                                                          medians of the ratios
//! ```
//!
//! The traffic of a line goes on through all its turns, so that both states see the same connections and the same moods of the
//! machine. What only informs takes part in some rounds.

mod arm;
mod bench;
mod cluster;
mod connect;
mod flood;
mod iperf;
mod kernel_counts;
mod kind;
mod latency;
mod peers;
mod report;
mod request;
mod turns;
mod udp;

pub(crate) use kind::Kind;

use crate::cli::Forward;
use crate::environment::{CpuTime, Environment, allowed_cpus, first_line_of};
use crate::progress::{end_progress, progress};
use crate::report::{Destination, Outcome, print_doubts};
use anyhow::{Context, Result, bail};
use arm::Arm;
use bench::{Bench, Ready};
use clap::ValueEnum;
use hdrhistogram::Histogram;
use report::{Part, Report, Section, WorkerInfo};
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use sluice_flow::DropReason;
use sluice_lab::LabConfig;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use turns::{Count, Meter, Taken, Turns};
use udp::Flows;

/// After so many rounds all states have taken part in either order equally often.
const LOOK_EVERY: u32 = 4;

/// One side of a contest. The value is in base units: bits, packets or connections per second, or microseconds.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    value: f64,
    /// In its turns.
    taken: Taken,
    /// Share of what was sent that did not arrive.
    lost: Option<f64>,
    /// Segments that TCP sent again, in the turns of both.
    retransmits: Option<u64>,
    /// Connections that got no answer, in the turns of both.
    stuck: u64,
    /// Of each connection or round trip.
    latency_ns: Option<Histogram<u64>>,
    /// Packets that a neighbour sent in the turns of both.
    flooded: Option<u64>,
}

/// The two of a contest: what others are compared to, and what is judged.
pub(crate) type Sides = [Sample; 2];

/// Takes turns while traffic goes on: given its meter, and a count that grows with what got through unless the meter has it.
type Drive<'a> = &'a mut dyn FnMut(&Meter, Option<Count<'_>>) -> Result<Option<[Taken; 2]>>;

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
    /// Traffic on the first two CPUs, workers on the others; on a small machine they share, the receiver's first, since the sender's
    /// carries the kernel's forwarding.
    fn choose(allowed: &BTreeSet<usize>, workers: &[usize], traffic: &[usize]) -> Self {
        let all: Vec<usize> = allowed.iter().copied().collect();
        let client = traffic.first().copied().unwrap_or(all[0]);
        let server = traffic.get(1).copied().unwrap_or_else(|| *all.iter().find(|cpu| **cpu != client).unwrap_or(&client));
        let free: Vec<usize> = all.iter().copied().filter(|cpu| ![client, server].contains(cpu)).collect();
        let workers = match (workers, free.is_empty()) {
            ([], true) => [server].into_iter().chain(all.into_iter().filter(|cpu| *cpu != server)).collect(),
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
    let bench = Bench::up(config, cpus, arguments.policies);
    end_progress();
    let bench = bench?;
    println!(
        "checked: enforced by Sluice or nft, port 5210 does not connect and port 5211 does; else both connect (checked again at every turn)\n\
         {} policies; client on CPU {}, server on CPU {}, {} workers on CPUs {:?}",
        arguments.policies, bench.cpus.client, bench.cpus.server, arguments.workers, bench.cpus.workers
    );
    let kinds = match &arguments.sections[..] {
        [] => Kind::value_variants().to_vec(),
        some => some.iter().copied().collect::<BTreeSet<_>>().into_iter().collect(),
    };
    let mut sections = Vec::with_capacity(kinds.len());
    for kind in kinds {
        let rounds = match arguments.rounds {
            Some(rounds) => rounds..=rounds,
            None if arguments.quick => 2..=2,
            None => kind.rounds(),
        };
        sections.push(section(&bench, kind, rounds, arguments.seconds).with_context(|| kind.title().to_owned())?);
    }
    let workers = bench.status()?.workers.into_iter().map(WorkerInfo::from).collect();
    let cpus = bench.cpus.clone();
    bench.down()?;
    environment.finish(ticks);
    Ok(Report::new(environment, arguments.quick, arguments.policies, cpus, workers, sections, start.elapsed()))
}

fn section(bench: &Bench, kind: Kind, rounds: RangeInclusive<u32>, seconds: u32) -> Result<Section> {
    let (unit, scale) = kind.unit();
    let (least, most) = rounds.into_inner();
    let more =
        if most > least { format!(", up to {most} while an interval is wider than the distance to its must") } else { String::new() };
    println!("\n{}: {least} rounds of {seconds} s for each side{more}", kind.title());
    let mut flows = kind.prepare(bench)?;
    let mut section = Section::new(kind);
    for round in 0..most {
        if round >= least && (round - least).is_multiple_of(LOOK_EVERY) && section.is_measurable(least as usize) {
            break;
        }
        let mut contenders = kind.contenders(round);
        if round % 2 == 1 {
            contenders.reverse();
        }
        let mut contests = Vec::new();
        for arm in contenders {
            match contest(bench, kind, arm, &mut flows, seconds, round)? {
                Contest::Held(contest) => contests.push(*contest),
                Contest::Full => return Ok(section.stop(round)),
                Contest::Stuck => {
                    println!("  note: round {}: {}: a connection got no answer in all turns; not counted", round + 1, arm.title())
                }
            }
        }
        // in the order of the kind's states, whatever that of the round was
        contests.sort_by_key(|[_, part]| kind.arms().iter().position(|arm| *arm == part.arm));
        let values: Vec<String> = (contests.iter())
            .map(|[base, part]| format!("{} {:.2} of {:.2}", part.arm.title(), part.value / scale, base.value / scale))
            .collect();
        let remarks: String = contests.iter().flatten().map(Part::remarks).collect();
        let Some([base, judged]) = contests.first() else { continue };
        let of = if round < least { least } else { most };
        println!("  {:>2}/{of}  {} {unit}  ratio {:.3}{remarks}", round + 1, values.join("  "), judged.value / base.value);
        section.add(contests);
    }
    Ok(section.finish())
}

/// What became of a contest.
enum Contest {
    /// Base and judged.
    Held(Box<[Part; 2]>),
    /// A pod holds as many connections as it may, so that there is nothing to measure.
    Full,
    /// One side had no turn in which a connection came about.
    Stuck,
}

/// Two states in one round.
fn contest(bench: &Bench, kind: Kind, arm: Arm, flows: &mut Option<Flows>, seconds: u32, round: u32) -> Result<Contest> {
    let arms = [kind.arms()[0], arm];
    // traffic begins under what is judged, and is not met in the middle
    if bench.switch(arm)? == Ready::Full {
        return Ok(Contest::Full);
    }
    let (length, settle) = kind.turn();
    let pairs = (Duration::from_secs(seconds.into()).as_millis() / length.as_millis()).max(1) as u32;
    let turns = Turns { bench, arms, length, settle, count: 2 * pairs, first: (round / 2 % 2) as usize };
    let mut drive = |meter: &Meter, counter: Option<Count<'_>>| turns.take(meter, counter);
    let Some(sides) = kind.measure(bench, flows, &mut drive)? else { return Ok(Contest::Full) };
    for (arm, sample) in arms.iter().zip(&sides) {
        let counters = &sample.taken.counters;
        match arm.enforces() {
            _ if kind == Kind::Free => {}
            _ if *arm == Arm::Every && counters.hits > 0 => bail!("every packet should meet a worker, but: {counters:?}"),
            _ if *arm == Arm::Every && counters.punts > 0 => {}
            true if counters.hits == 0 && counters.drops.contains_key(DropReason::ConnectionsFull.name()) => return Ok(Contest::Full),
            true if counters.hits == 0 => bail!("hooks on, but they saw none of the traffic: {counters:?}"),
            false if counters.hits + counters.punts > 0 => bail!("hooks off, but they saw traffic: {counters:?}"),
            _ => {}
        }
        // a SYN that got lost is repeated after a second, and again after two: the turns of one side may be over by then
        if sample.value <= 0.0 && matches!(kind, Kind::Connect | Kind::Free | Kind::Opening) {
            return Ok(Contest::Stuck);
        }
        if sample.value <= 0.0 {
            bail!("{}: nothing got through; the dataplane counted {counters:?}", arm.title());
        }
    }
    let mut arms = arms.into_iter();
    Ok(Contest::Held(Box::new(sides.map(|sample| Part::new(arms.next().unwrap_or(arm), sample)))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_leave_the_traffic_its_cpus_where_there_are_enough() {
        let cpus = |client, server, workers: &[usize]| Cpus { client, server, workers: workers.to_vec() };
        for (allowed, workers, traffic, chosen) in [
            (&[3][..], &[][..], &[][..], cpus(3, 3, &[3])),
            (&[0, 1], &[], &[], cpus(0, 1, &[1, 0])),
            (&[0, 1, 2, 3], &[], &[], cpus(0, 1, &[2, 3])),
            (&[0, 1, 2, 3], &[], &[2], cpus(2, 0, &[1, 3])),
            (&[0, 1, 2, 3], &[1], &[2, 2], cpus(2, 2, &[1])),
        ] {
            let allowed: BTreeSet<usize> = allowed.iter().copied().collect();
            assert_eq!(Cpus::choose(&allowed, workers, traffic), chosen, "{allowed:?} {workers:?} {traffic:?}");
        }
    }
}
