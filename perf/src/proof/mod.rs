//! The proof of a table: from scratch, and after a change of one pod.
//!
//! ```text
//!   round    fresh compiler and prover:   compile ▷ load ▷ PROVE
//!   change   one pod changes:             compile ▷ load ▷ PROVE     by those that know the state before
//!            ... and is changed back:     compile ▷ load ▷ prove
//! ```
//!
//! Every change starts from the same state, and the kinds take turns, so that a drift of the machine meets all alike.

mod naive;
mod report;
mod subject;

pub(crate) use naive::Naive;

use crate::changes::{Changes, Kind};
use crate::cli::Proof as Arguments;
use crate::environment::{CpuTime, Environment, pin};
use crate::progress::{end_progress, progress};
use crate::report::{Bound, Destination, Outcome, Promise, print_doubts};
use crate::took::Took;
use crate::workload::{Census, Scale, cluster};
use anyhow::{Context, Result};
use report::{Report, Section};
use std::time::Instant;
use subject::{Step, Subject};

/// Pods attached here.
const LOCAL: usize = 110;
/// Drawn labels that may need no new class before one must.
const DRAWS_MAX: usize = 50;
/// Packets that the naive proof is asked about.
const QUESTIONS: usize = 20_000;

/// What is measured, and what was promised about it, in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Plan {
    scale: Scale,
    from_scratch: Option<Promise>,
    change: Option<Promise>,
}

impl Plan {
    fn all(arguments: &Arguments) -> Vec<Self> {
        let at_most = |must, aim| Some(Promise { bound: Bound::AtMost, must, aim });
        let scale = |pods, policies| Scale::of(pods, policies, LOCAL);
        if let (Some(pods), Some(policies)) = (arguments.pods, arguments.policies) {
            return vec![Self { scale: scale(pods as usize, policies as usize), from_scratch: None, change: None }];
        }
        let smaller = Self { scale: scale(10_000, 1_000), from_scratch: at_most(500.0, 100.0), change: None };
        let larger = Self { scale: scale(100_000, 10_000), from_scratch: at_most(5000.0, 1000.0), change: at_most(8.0, 2.0) };
        if arguments.quick { vec![smaller] } else { vec![smaller, larger] }
    }
}

/// Runs the bench.
///
/// # Errors
///
/// A table is wrong, or something cannot be read or written.
pub(crate) fn run(arguments: &Arguments) -> Result<Outcome> {
    let destination = Destination::new(arguments.out.as_ref(), arguments.check)?;
    let (mut environment, ticks, start) = (Environment::read(), CpuTime::now(), Instant::now());
    print_doubts(&environment);
    let cpu = pin(arguments.cpu)?;
    let mut sections = Vec::new();
    for plan in Plan::all(arguments) {
        sections.push(section(plan, arguments).with_context(|| format!("{} pods, {} policies", plan.scale.pods, plan.scale.policies))?);
    }
    environment.finish(ticks);
    let report = Report::new(environment, arguments, cpu, sections, start.elapsed());
    report.print();
    destination.finish(&report, report.musts_hold())
}

fn section(plan: Plan, arguments: &Arguments) -> Result<Section> {
    let (rounds, changes) = if arguments.quick { (2, 4) } else { (arguments.rounds, arguments.changes) };
    progress(&format!("making {} pods and {} policies", plan.scale.pods, plan.scale.policies));
    let (snapshot, generated) = Took::of(|| cluster(plan.scale, arguments.seed));
    end_progress();
    let mut section = Section::new(plan, Census::of(&snapshot), generated);
    let mut next = Some(snapshot);
    let mut subject = None;
    for round in 0..rounds {
        progress(&format!("from scratch, {} of {rounds}", round + 1));
        let snapshot = next.take().context("each round leaves the snapshot to the next")?;
        let (proved, step) = Subject::new(snapshot)?;
        section.add_from_scratch(&step);
        match round + 1 < rounds {
            true => next = Some(proved.into_snapshot()),
            false => subject = Some(proved),
        }
    }
    let mut subject = subject.context("at least one round")?;
    end_progress();
    section.print_from_scratch(&subject.table);
    let naive = Naive::measure(&subject.snapshot, &subject.table, QUESTIONS, section.required(), arguments.seed)?;
    section.set_naive(naive);
    change_pods(&mut section, &mut subject, plan.scale, changes as usize, arguments.seed)?;
    end_progress();
    section.finish();
    Ok(section)
}

/// Every kind in turn, until each has its count.
fn change_pods(section: &mut Section, subject: &mut Subject, scale: Scale, count: usize, seed: u64) -> Result<()> {
    let mut changes = Changes::of(&subject.snapshot, scale.pods.div_ceil(scale.local), seed);
    for round in 0..count {
        progress(&format!("one pod changes, {} of {count}", round + 1));
        for kind in Kind::OF_PODS {
            // an appearance and a disappearance are one each
            if kind != Kind::Address || round % 2 == 0 {
                change(section, subject, &mut changes, kind)?;
            }
        }
    }
    Ok(())
}

fn change(section: &mut Section, subject: &mut Subject, changes: &mut Changes, kind: Kind) -> Result<()> {
    for _ in 0..DRAWS_MAX {
        let before = subject.table.classes();
        let undo = changes.draw(kind, &subject.snapshot)?.apply(&mut subject.snapshot);
        let step = subject.step()?;
        let counts = kind != Kind::Class || subject.table.classes() > before;
        undo.apply(&mut subject.snapshot);
        let undone: Step = subject.step()?;
        if counts {
            section.add_change(kind, &step);
            if kind == Kind::Address {
                section.add_change(kind, &undone);
            }
            return Ok(());
        }
    }
    // a cluster may be too small to have a class to spare
    Ok(())
}
