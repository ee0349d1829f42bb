//! What a worker's lookups feel of table swaps, and whether any of them mixed two tables.
//!
//! ```text
//!  core A   worker     asks │ adopts │ asks …                       every answer is checked against the table it was asked of
//!  core B   publisher  a thousand edits a second ▷ 10 or 100 images a second ▷ memfd ▷ validated ▷ handed over
//!
//!  round 1   quiet │ work of 10 │ 10 swaps │ work of 100 │ 100 swaps       work: everything but the hand-over
//!  round 2   100 swaps │ … │ quiet                                         ratio swaps / work in each round, median over rounds
//! ```

mod check;
mod editor;
mod marker;
mod publisher;
mod reader;
mod report;

use crate::cli::Swap as Arguments;
use crate::environment::{CpuTime, Environment, allowed_cpus, pin};
use crate::lookup::clock;
use crate::lookup::query::{Kind, Query};
use crate::lookup::resolved::Resolved;
use crate::lookup::trace::{Length, trace};
use crate::progress::{end_progress, progress};
use crate::report::{Destination, Outcome, print_doubts};
use crate::workload::{Census, Workload};
use anyhow::{Context, Result, ensure};
use check::{BURST, Known, Questions};
use editor::Editor;
use publisher::{Published, Publisher, Rate, Source, beside};
use reader::Reader;
use report::{Phase, Report, State};
use sluice_policy::{Oracle, Snapshot};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Edits of the cluster in a second.
const EDITS_PER_SECOND: u32 = 1000;
/// Images in a second.
const RATES: [u32; 2] = [10, 100];
/// Images of a ring.
const RING: usize = 16;
/// Packets that are asked about in bursts, and as many one by one.
const PACKETS: usize = 1 << 14;
/// A publisher that would be busy for more of its time falls behind at the first disturbance.
const LIVE_BUSY_MAX: f64 = 0.7;

/// Runs the bench.
///
/// # Errors
///
/// There is one core only, a workload does not fit this machine, or something cannot be read or written.
pub(crate) fn run(arguments: &Arguments) -> Result<Outcome> {
    let destination = Destination::new(arguments.out.as_ref(), arguments.check)?;
    let (mut environment, ticks, start) = (Environment::read(), CpuTime::now(), Instant::now());
    print_doubts(&environment);
    let allowed = allowed_cpus();
    let cpu = pin(arguments.cpu)?;
    let publisher_cpu = arguments.publisher_cpu.or_else(|| allowed.iter().copied().find(|other| *other != cpu));
    let publisher_cpu = publisher_cpu.context("this bench needs two cores: one for the worker, one for the publisher")?;
    ensure!(allowed.contains(&publisher_cpu) && publisher_cpu != cpu, "CPU {publisher_cpu} cannot be the publisher's");

    let workload = arguments.workload.unwrap_or(if arguments.quick { Workload::S1 } else { Workload::S3 });
    progress(&format!("{}: making it", workload.name()));
    let snapshot = workload.generate(arguments.seed)?;
    let census = Census::of(&snapshot);
    progress(&format!("{}: compiling it", workload.name()));
    let mut editor = Editor::new(snapshot, arguments.seed)?;
    progress(&format!("{}: asking the oracle", workload.name()));
    let questions = questions(&editor, arguments.seed);
    let mut rates = Vec::new();
    for per_second in RATES {
        rates.push(rate(per_second, &mut editor, &questions, if arguments.quick { 4 } else { RING })?);
    }
    let bench = Bench { arguments, questions: &questions, publisher_cpu };
    let phases = bench.phases(&mut editor, &mut rates)?;
    end_progress();
    environment.finish(ticks);
    let report = Report::new(environment, arguments, [cpu, publisher_cpu], workload, census, &rates, phases, start.elapsed());
    report.print();
    destination.finish(&report, report.musts_hold())
}

/// Packets as they are drawn for the lookup bench, with the marker's questions among them.
fn questions(editor: &Editor, seed: u64) -> Questions {
    let snapshot: &Snapshot = editor.snapshot();
    let oracle = Oracle::new(snapshot);
    let resolved = Resolved::of(snapshot, &oracle);
    let draw = |kind, packets| -> Vec<Query> {
        let mut queries = trace(kind, snapshot, &oracle, &resolved, Length::of(packets), seed).queries;
        queries.truncate(PACKETS);
        queries
    };
    // rows that stay short are left out of bursts
    Questions::new(draw(Kind::Bursts, PACKETS * 4), draw(Kind::Zipf, PACKETS), editor.marker())
}

/// Live where the compiler can keep that rate, else a ring.
fn rate(per_second: u32, editor: &mut Editor, questions: &Questions, ring: usize) -> Result<Rate> {
    let edits = (EDITS_PER_SECOND / per_second) as usize;
    let mut took_s = Vec::new();
    for _ in 0..3 {
        progress(&format!("{per_second} images a second: can the compiler keep up?"));
        let (start, made) = (Instant::now(), editor.make(edits, questions, false)?.0);
        sluice_table::Table::from_bytes(&made.image).context("loading the image")?;
        took_s.push(start.elapsed().as_secs_f64());
    }
    took_s.sort_unstable_by(f64::total_cmp);
    let is_live = took_s[1] * f64::from(per_second) <= LIVE_BUSY_MAX;
    let source = if is_live {
        Source::Live
    } else {
        let step = |image: usize| progress(&format!("{per_second} images a second: making and proving {} of {ring}", image + 1));
        Source::Ring { images: editor.ring(ring, edits, questions, step)?, next: 0 }
    };
    Ok(Rate { per_second, edits, make_ms: took_s[1] * 1e3, source })
}

struct Bench<'a> {
    arguments: &'a Arguments,
    questions: &'a Questions,
    publisher_cpu: usize,
}

impl Bench<'_> {
    fn phases(&self, editor: &mut Editor, rates: &mut [Rate]) -> Result<Vec<Phase>> {
        let (rounds, time) = match self.arguments.quick {
            true => (2, Duration::from_millis(300)),
            false => (self.arguments.rounds, Duration::from_millis(self.arguments.millis.into())),
        };
        let known = Known::default();
        let mut reader = Reader::new(&editor.snapshot().endpoints, self.questions, known.clone());
        let (shared, cpu) = (reader.shared(), self.publisher_cpu);
        let mut publisher = Publisher { cpu, shared, known, questions: self.questions, table: None, waiting: VecDeque::new() };
        publisher.begin(&editor.make(2, self.questions, false)?.0, &mut reader)?;
        let tick_ns = clock::tick_ns();
        let states = [State::Quiet].into_iter().chain((0..rates.len()).flat_map(|rate| [State::Work(rate), State::Swaps(rate)]));
        let mut phases: Vec<Phase> = states.map(|state| Phase::new(state, tick_ns)).collect();
        for round in 0..rounds {
            let mut order: Vec<usize> = (0..phases.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for index in order {
                let state = phases[index].state;
                progress(&format!("round {} of {rounds}: {}", round + 1, state.title(rates)));
                let (stretch, published) = beside(&mut reader, time, |stop| match state {
                    State::Quiet => Ok(Published::default()),
                    State::Work(rate) => publisher.run(&mut rates[rate], editor, false, stop),
                    State::Swaps(rate) => publisher.run(&mut rates[rate], editor, true, stop),
                })?;
                phases[index].add(&stretch, published);
            }
        }
        Ok(phases)
    }
}
