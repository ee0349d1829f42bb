//! `sluice-cases`: plays the cases on oracle, table, worker and loader, and says which promise has no case.
//!
//! Exit codes: 0 every expectation is met, 1 some is not or a promise has no case, 2 a file cannot be used.
#![forbid(unsafe_code)]

use clap::{Parser, ValueEnum};
use sluice_tests::cases::rows::{self, Clause};
use sluice_tests::cases::{CaseError, Engine, Played, dir, play_all, read_all};
use std::path::PathBuf;
use std::process::ExitCode;

/// Plays the cases and shows what each promise is held by.
#[derive(Parser)]
#[command(name = "sluice-cases", version)]
struct Args {
    /// Only files whose path has this part; then promises without a case are no failure.
    #[arg(default_value = "")]
    file: String,
    /// The directory of cases. Default: `tests/cases`.
    #[arg(long)]
    dir: Option<PathBuf>,
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sluice-cases: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<bool, CaseError> {
    let dir = args.dir.clone().unwrap_or_else(dir);
    let cases = read_all(&dir, &args.file)?;
    let mut clauses = rows::read(&dir.join("rows.md"))?;
    let played = play_all(&cases);
    rows::count(&mut clauses, &cases, &played)?;
    let bare: Vec<&Clause> = clauses.iter().filter(|clause| clause.needs_case() && clause.cases == 0 && args.file.is_empty()).collect();
    match args.output {
        Output::Text => text(&clauses, &played, &bare),
        Output::Json => {
            let report = serde_json::json!({"engines": Engine::ALL, "cases": played, "clauses": clauses});
            println!("{report:#}");
        }
    }
    Ok(bare.is_empty() && played.iter().all(|case| case.failures.is_empty()))
}

fn text(clauses: &[Clause], played: &[Played], bare: &[&Clause]) {
    for failure in played.iter().flat_map(|case| &case.failures) {
        println!("{failure}\n");
    }
    println!("{}", rows::print(clauses));
    for clause in bare {
        println!("no case stands for {}", clause.name());
    }
    let met: u64 = played.iter().flat_map(|case| case.met).sum();
    let failed = played.iter().map(|case| case.failures.len()).sum::<usize>() + bare.len();
    println!("{} cases", played.len());
    println!("{met} passed, {failed} failed");
}
