//! `sluice-vectors`: puts the vectors' questions to the oracle and the table, and says where they are wrong.
//!
//! Exit codes: 0 all agree, 1 some verdict differs, 2 the input cannot be used.
#![forbid(unsafe_code)]

use clap::{Parser, ValueEnum};
use sluice_tests::vectors::{DIFFERENCES_SHOWN_MAX, Engine, Tally, VectorFile, VectorsError, run};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Compares policy verdicts with vectors of known truth.
#[derive(Parser)]
#[command(name = "sluice-vectors", version)]
struct Args {
    /// Who answers.
    #[arg(long, value_enum, default_value_t = Engines::Both)]
    engine: Engines,
    /// Vector files, `.json.gz` or `.json`. Default: those in `tests/vectors`.
    files: Vec<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Engines {
    /// The oracle, on the objects as they are.
    Oracle,
    /// The compiled table.
    Table,
    /// Both.
    Both,
}

impl Engines {
    fn list(self) -> &'static [Engine] {
        match self {
            Engines::Oracle => &[Engine::Oracle],
            Engines::Table => &[Engine::Table],
            Engines::Both => &[Engine::Oracle, Engine::Table],
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    match compare_files(&args) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sluice-vectors: {error}");
            ExitCode::from(2)
        }
    }
}

/// The number of probes that failed.
fn compare_files(args: &Args) -> Result<u64, VectorsError> {
    let files = if args.files.is_empty() { default_files()? } else { args.files.clone() };
    let mut total = Tally::default();
    for path in &files {
        let started = Instant::now();
        eprintln!("{}: reading", path.display());
        let file = VectorFile::read(path)?;
        eprintln!("{}: {} cases", path.display(), file.cases.len());
        let tally = run(&file, args.engine.list())?;
        for difference in tally.differences.iter().take(DIFFERENCES_SHOWN_MAX - total.differences.len()) {
            println!("{difference}");
        }
        let Tally { cases, steps, passed, failed, .. } = tally;
        let seconds = started.elapsed().as_secs_f64();
        println!("{}: {cases} cases, {steps} steps, {passed} probes passed, {failed} failed, {seconds:.1} s", path.display());
        total.passed += passed;
        total.failed += failed;
        total.differences.extend(tally.differences);
        total.differences.truncate(DIFFERENCES_SHOWN_MAX);
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(total.failed)
}

/// Every vector file of this directory tree's `tests/vectors`, by name.
fn default_files() -> Result<Vec<PathBuf>, VectorsError> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    let error = |source| VectorsError::Read { path: folder.clone(), source };
    let mut files = Vec::new();
    for entry in folder.read_dir().map_err(error)? {
        let path = entry.map_err(error)?.path();
        if path.to_string_lossy().ends_with(".json.gz") {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(error(std::io::Error::new(std::io::ErrorKind::NotFound, "it holds no .json.gz file")));
    }
    Ok(files)
}
