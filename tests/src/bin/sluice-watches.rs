//! `sluice-watches`: runs control processes against API servers that break, for a range of seeds.
//!
//! Exit codes: 0 every promise was kept, 1 a seed broke one, 2 the arguments cannot be used.
#![forbid(unsafe_code)]

use clap::Parser;
use sluice_apiserver::Recording;
use sluice_tests::watching::{Run, run};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const FAILURES_SHOWN_MAX: usize = 5;

/// Runs control processes against API servers that break in every way, and checks what they publish in the end.
///
/// One number, the seed, decides a run: the cluster (recorded from a real server, or random), its changes, and what goes
/// wrong: cut, reset, hanging, slow and half-written answers, 401 to 504, expired versions as a status and in the stream,
/// doubled and swapped events, lost bookmarks, outages, forgotten history, no streamed lists. In the end the published
/// table must be the one compiled from what the server holds. Needs no root.
#[derive(Parser)]
#[command(name = "sluice-watches", version)]
#[command(after_help = "Examples:
  sluice-watches                            the first 1000 seeds
  sluice-watches --first 42 --seeds 1 -v    all that is done in seed 42

Exit codes: 0 every promise was kept, 1 a seed broke one, 2 the arguments cannot be used.")]
struct Args {
    /// The first seed.
    #[arg(long, default_value_t = 0, value_name = "N")]
    first: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// How many run at a time.
    #[arg(long, default_value_t = 24, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=256))]
    at_once: u64,
    /// Print what was done in every seed.
    #[arg(short, long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let Some(end) = args.first.checked_add(args.seeds) else {
        eprintln!("sluice-watches: --first {} and --seeds {}: there are not so many seeds", args.first, args.seeds);
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let total = runtime.block_on(run_all(&args, end));
    // what control processes left behind ends with this one
    runtime.shutdown_background();
    total.print();
    if total.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn run_all(args: &Args, end: u64) -> Total {
    let recording = Arc::new(Recording::bundled());
    let mut total = Total { passed: 0, failed: Vec::new(), changes: 0, faults: 0, tables: 0, started: Instant::now() };
    let (mut seeds, mut running) = (args.first..end, JoinSet::new());
    let mut next_report = Instant::now() + Duration::from_secs(1);
    loop {
        while running.len() < args.at_once as usize
            && let Some(seed) = seeds.next()
        {
            let recording = Arc::clone(&recording);
            running.spawn(async move { run(seed, &recording).await });
        }
        let Some(run) = running.join_next().await else { return total };
        total.take(run.expect("a run does not panic"), args.verbose);
        if Instant::now() >= next_report {
            let done = total.passed + total.failed.len() as u64;
            eprintln!("{done} of {} seeds, {} failed", args.seeds, total.failed.len());
            next_report = Instant::now() + Duration::from_secs(if std::io::stderr().is_terminal() { 1 } else { 10 });
        }
    }
}

struct Total {
    passed: u64,
    failed: Vec<u64>,
    changes: u64,
    faults: u64,
    tables: u64,
    started: Instant,
}

impl Total {
    fn take(&mut self, run: Run, verbose: bool) {
        self.changes += run.changes;
        self.faults += run.faults;
        self.tables += run.tables;
        let is_shown = verbose || (run.failure.is_some() && self.failed.len() < FAILURES_SHOWN_MAX);
        if is_shown {
            run.log.iter().for_each(|line| println!("  {line}"));
        }
        match &run.failure {
            None => self.passed += 1,
            Some(failure) => {
                self.failed.push(run.seed);
                if is_shown {
                    println!("seed {} FAILED: {failure}", run.seed);
                    println!("again: sluice-watches --first {} --seeds 1 -v", run.seed);
                }
            }
        }
    }

    fn print(&self) {
        println!("{} changes, {} faults, {} tables published", self.changes, self.faults, self.tables);
        if self.failed.len() > FAILURES_SHOWN_MAX {
            println!("failed: {:?}", self.failed);
        }
        println!("{:.1} s", self.started.elapsed().as_secs_f64());
        println!("{} passed, {} failed", self.passed, self.failed.len());
    }
}
