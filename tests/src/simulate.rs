//! `sluice-simulate`: runs the simulation for a range of seeds, and shows why one fails.
//!
//! Exit codes: 0 every promise was kept, 1 a seed broke one, 2 the arguments cannot be used.
#![forbid(unsafe_code)]

use clap::{Parser, ValueEnum};
use serde_json::{Value, json};
use sluice_tests::simulation::{Ledger, Options, Run, run};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

const TRACE_EVENTS: usize = 40;
const FAILURES_SHOWN_MAX: usize = 5;

/// Runs a node in memory under random traffic and faults, and checks every packet against the policies.
///
/// One number, the seed, decides a whole run: pods and policies, connections, lost, late and doubled packets, table swaps,
/// workers that stall, die and come back, full tables, and time. Real TCP, UDP and ICMP stacks play the pods; the hooks are
/// the twin of the BPF programs; the workers are the dataplane's own. Needs no root and no kernel feature.
#[derive(Parser)]
#[command(name = "sluice-simulate", version)]
#[command(after_help = "Examples:
  sluice-simulate                              the first 500 seeds
  sluice-simulate --first 500 --seeds 10000    others, a longer run
  sluice-simulate --first 42 --seeds 1 --trace everything that happens in seed 42

A failing seed prints itself, what was violated and when, the last events, and the command that shows it again.
Exit codes: 0 every promise was kept, 1 a seed broke one, 2 the arguments cannot be used.")]
struct Args {
    /// The first seed.
    #[arg(long, default_value_t = 0, value_name = "N")]
    first: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 500, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Print every event of every seed; best with `--seeds 1`.
    #[arg(long)]
    trace: bool,
    /// How to print the result.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

#[derive(Default)]
struct Total {
    passed: u64,
    failed: Vec<Run>,
    events: u64,
    generations: u64,
    ledger: Ledger,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let Some(end) = args.first.checked_add(args.seeds) else {
        eprintln!("sluice-simulate: --first {} and --seeds {}: there are not so many seeds", args.first, args.seeds);
        return ExitCode::from(2);
    };
    let started = Instant::now();
    let mut progress = Progress::new(args.seeds);
    let mut total = Total::default();
    for seed in args.first..end {
        progress.show(seed - args.first, total.failed.len());
        total.take(one(seed, &args), &args);
    }
    progress.clear();
    match args.output {
        Output::Text => total.print(started.elapsed()),
        Output::Json => println!("{:#}", total.json(started.elapsed())),
    }
    if total.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A seed that fails without a trace is run again with one: it does the same.
fn one(seed: u64, args: &Args) -> Run {
    let all = Options { trace_events: usize::MAX, ..Options::default() };
    let first = run(seed, if args.trace { all } else { Options::default() });
    match first.violation {
        Some(_) if !args.trace => run(seed, Options { trace_events: TRACE_EVENTS, ..Options::default() }),
        _ => first,
    }
}

impl Total {
    fn take(&mut self, run: Run, args: &Args) {
        self.events += run.events;
        self.generations += run.generations;
        self.ledger.add(&run.ledger);
        let text = args.output == Output::Text;
        let shown = args.trace || (run.violation.is_some() && self.failed.len() < FAILURES_SHOWN_MAX);
        if text && shown {
            explain(&run);
        }
        match run.violation {
            None => self.passed += 1,
            Some(_) => self.failed.push(run),
        }
    }

    fn print(&self, elapsed: Duration) {
        let Ledger { sent, delivered, dropped, lost, lost_with_worker, duplicated } = &self.ledger;
        println!(
            "{} events, {} tables, {sent} packets ({duplicated} doubled): {delivered} delivered, {lost} lost by links, \
             {lost_with_worker} with workers, dropped:",
            self.events, self.generations
        );
        for (reason, count) in dropped {
            println!("  {:<24} {count:>9}", reason.name());
        }
        for run in self.failed.iter().skip(FAILURES_SHOWN_MAX) {
            println!("seed {} failed as well: {}", run.seed, replay(run.seed));
        }
        println!("{:.1} s", elapsed.as_secs_f64());
        println!("{} passed, {} failed", self.passed, self.failed.len());
    }

    fn json(&self, elapsed: Duration) -> Value {
        let dropped: serde_json::Map<String, Value> =
            self.ledger.dropped.iter().map(|(reason, count)| (reason.name().to_owned(), json!(count))).collect();
        let failures: Vec<Value> = self.failed.iter().map(failure).collect();
        json!({
            "passed": self.passed, "failed": self.failed.len(), "events": self.events, "tables": self.generations,
            "packets": {
                "sent": self.ledger.sent, "delivered": self.ledger.delivered, "lost": self.ledger.lost,
                "lost_with_worker": self.ledger.lost_with_worker,
                "duplicated": self.ledger.duplicated, "dropped": dropped,
            },
            "failures": failures, "seconds": elapsed.as_secs_f64(),
        })
    }
}

fn failure(run: &Run) -> Value {
    let violation = run.violation.as_ref().expect("it failed");
    json!({"seed": run.seed, "event": violation.event, "at_ns": violation.at_ns, "what": violation.what,
        "trace": run.trace, "replay": replay(run.seed)})
}

fn replay(seed: u64) -> String {
    format!("sluice-simulate --first {seed} --seeds 1 --trace")
}

fn explain(run: &Run) {
    for line in &run.trace {
        println!("{line}");
    }
    match &run.violation {
        None => println!("seed {}: {} events, digest {:016x}", run.seed, run.events, run.digest),
        Some(violation) => {
            println!("seed {} FAILED at event {}, {:.6} s: {}", run.seed, violation.event, violation.at_ns as f64 / 1e9, violation.what);
            println!("again: {}   or: make simulate FIRST={} SEEDS=1\n", replay(run.seed), run.seed);
        }
    }
}

/// To a terminal, one line that changes; elsewhere a line every few seconds.
struct Progress {
    seeds: u64,
    terminal: bool,
    next: Instant,
}

impl Progress {
    fn new(seeds: u64) -> Self {
        Self { seeds, terminal: std::io::stderr().is_terminal(), next: Instant::now() + Duration::from_secs(1) }
    }

    fn show(&mut self, done: u64, failed: usize) {
        if Instant::now() < self.next {
            return;
        }
        let text = format!("{done} of {} seeds, {failed} failed", self.seeds);
        if self.terminal {
            eprint!("\r{text} ");
            let _ = std::io::stderr().flush();
            self.next = Instant::now() + Duration::from_millis(200);
        } else {
            eprintln!("{text}");
            self.next = Instant::now() + Duration::from_secs(10);
        }
    }

    fn clear(&self) {
        if self.terminal {
            eprint!("\r{:60}\r", "");
        }
    }
}
