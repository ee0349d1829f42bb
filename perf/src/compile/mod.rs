//! What a change costs on its way into force, stage by stage, and what a build from scratch costs.
//!
//! ```text
//!   round    fresh compiler and prover:    compile ▷ write, seal ▷ validate, load ▷ prove
//!   change   one object changes:           compile ▷ write, seal ▷ validate, load ▷ prove     by those that know the state before
//!            ... and is changed back:      the same
//!                                          └── published image ──┘
//! ```
//!
//! Every change starts from the same state, and the kinds take turns, so that a drift of the machine meets all alike.

mod report;
mod stages;
mod subject;

use crate::changes::{Changes, Kind};
use crate::cli::Compile as Arguments;
use crate::environment::{CpuTime, Environment, pin};
use crate::progress::{end_progress, progress};
use crate::report::{Destination, Outcome, print_doubts};
use crate::took::Took;
use crate::workload::{Census, Workload};
use anyhow::{Context, Result};
use report::{Report, Section};
use sluice_policy::Snapshot;
use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};
use subject::Subject;

/// Drawn labels that may turn out to be known before one must not.
const DRAWS_MAX: usize = 50;

/// What changes, in the order it is measured.
const KINDS: [Kind; 5] = [Kind::Address, Kind::Labels, Kind::Class, Kind::PolicyPorts, Kind::PolicyPeers];

/// Runs the bench.
///
/// # Errors
///
/// A table is wrong, a workload does not fit this machine, or something cannot be read or written.
pub(crate) fn run(arguments: &Arguments) -> Result<Outcome> {
    let destination = Destination::new(arguments.out.as_ref(), arguments.check)?;
    let (mut environment, ticks, start) = (Environment::read(), CpuTime::now(), Instant::now());
    print_doubts(&environment);
    let cpu = pin(arguments.cpu)?;
    let mut sections = Vec::new();
    for workload in workloads(arguments) {
        sections.push(section(workload, arguments).with_context(|| workload.name().to_owned())?);
    }
    environment.finish(ticks);
    let report = Report::new(environment, arguments, cpu, sections, start.elapsed());
    report.print();
    destination.finish(&report, report.musts_hold())
}

fn workloads(arguments: &Arguments) -> Vec<Workload> {
    use Workload::{S1, S2, S3, S4};
    match (&arguments.workloads[..], arguments.quick) {
        ([], true) => vec![S1],
        ([], false) => vec![S1, S2, S3, S4],
        (chosen, _) => chosen.to_vec(),
    }
}

fn section(workload: Workload, arguments: &Arguments) -> Result<Section> {
    let (name, needed_mb) = (workload.name(), workload.bytes_needed() >> 20);
    if needed_mb > 2048 {
        println!("\n{name} needs up to {needed_mb} MB of memory");
    }
    progress(&format!("{name}: making it"));
    let (snapshot, generated) = Took::of(|| workload.generate(arguments.seed));
    let snapshot = snapshot?;
    end_progress();
    let mut section = Section::new(workload, Census::of(&snapshot), generated);
    section.print_census();
    if !is_proved(workload, arguments) {
        println!(
            "  its proof takes minutes and gigabytes: each table is compared with the oracle on a sample instead (--prove-all proves it)"
        );
    }
    let mut subject = build(&mut section, snapshot, arguments)?;
    end_progress();
    section.finish_build();
    change(&mut section, &mut subject, arguments)?;
    end_progress();
    section.finish_changes();
    Ok(section)
}

/// From scratch, as often as asked; what the last one left.
fn build(section: &mut Section, snapshot: Snapshot, arguments: &Arguments) -> Result<Subject> {
    let (rounds, limit, start) = (if arguments.quick { 2 } else { arguments.rounds }, limit(arguments), Instant::now());
    let mut next = snapshot;
    for round in 1.. {
        progress(&format!("{}: from scratch, {round} of {rounds}", section.workload.name()));
        let (subject, step, memory) = Subject::new(next, is_proved(section.workload, arguments))?;
        section.add_build(&step, &memory);
        if round >= rounds || start.elapsed() >= limit {
            section.set_table(&subject.table, round < rounds);
            return Ok(subject);
        }
        next = subject.into_snapshot();
    }
    unreachable!("the loop ends by returning")
}

/// Every kind in turn, until each has its count or the time is over.
fn change(section: &mut Section, subject: &mut Subject, arguments: &Arguments) -> Result<()> {
    let (count, limit, start) = (if arguments.quick { 4 } else { arguments.changes }, limit(arguments), Instant::now());
    let free_node = subject.snapshot.pods.len().div_ceil(subject.snapshot.endpoints.len().max(1));
    let mut changes = Changes::of(&subject.snapshot, free_node, arguments.seed).editing(&subject.table);
    let known = label_sets(&subject.snapshot);
    let mut wanted = KINDS.to_vec();
    for round in 0..count {
        progress(&format!("{}: one object changes, {} of {count}", section.workload.name(), round + 1));
        // an appearance and a disappearance are one each
        for kind in wanted.clone().into_iter().filter(|kind| *kind != Kind::Address || round % 2 == 0) {
            if start.elapsed() >= limit {
                section.set_changes_cut();
                return Ok(());
            }
            if !change_once(section, subject, &mut changes, kind, &known)? {
                wanted.retain(|other| *other != kind);
            }
        }
    }
    Ok(())
}

/// Whether there was such a change.
fn change_once(
    section: &mut Section,
    subject: &mut Subject,
    changes: &mut Changes,
    kind: Kind,
    known: &HashSet<(String, Labels)>,
) -> Result<bool> {
    for _ in 0..DRAWS_MAX {
        // a cluster may have nothing to change so
        let Ok(edit) = changes.draw(kind, &subject.snapshot) else { return Ok(false) };
        if kind == Kind::Class && edit.label_sets().all(|set| known.contains(&set)) {
            continue;
        }
        let undo = edit.apply(&mut subject.snapshot);
        section.add_change(kind, &subject.step()?);
        undo.apply(&mut subject.snapshot);
        let undone = subject.step()?;
        if kind == Kind::Address {
            section.add_change(kind, &undone);
        }
        return Ok(true);
    }
    Ok(false)
}

fn is_proved(workload: Workload, arguments: &Arguments) -> bool {
    arguments.prove_all || !workload.has_long_proof()
}

fn limit(arguments: &Arguments) -> Duration {
    Duration::from_secs(arguments.seconds.into())
}

type Labels = BTreeMap<String, String>;

fn label_sets(snapshot: &Snapshot) -> HashSet<(String, Labels)> {
    snapshot.pods.iter().map(|(name, pod)| (name.namespace.clone(), pod.labels().clone())).collect()
}
