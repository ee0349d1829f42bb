//! `sluice-e2e`: plays the traffic rows of Kubernetes' own NetworkPolicy suite in a lab of its own, through ClusterIPs.
//!
//! Exit codes: 0 every row passed, 1 some did not, 2 they could not be played.
#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use sluice_lab::{Lab, LabConfig};
use sluice_tests::upstream::{Played, Row, Suite, dir, rows};
use std::process::ExitCode;
use std::sync::Arc;

/// Plays the 48 traffic rows of Kubernetes' NetworkPolicy suite on live traffic: nine pods in three namespaces, asked through
/// their services' ClusterIPs, over IPv4 and IPv6, TCP, UDP and SCTP (by frames: INIT and INIT ACK). Needs root.
#[derive(Parser)]
#[command(name = "sluice-e2e", version)]
struct Args {
    /// Only rows whose number is this, or whose title or file has this part.
    #[arg(default_value = "")]
    row: String,
    /// Workers of the dataplane.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    workers: u32,
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Output {
    /// A line for each row as it ends.
    Text,
    /// For programs, at the end.
    Json,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sluice-e2e: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<bool> {
    let is_wanted = |row: &Row| match args.row.parse::<u32>() {
        Ok(number) => row.number == number,
        Err(_) => row.title.contains(&args.row) || row.name.contains(&args.row),
    };
    let wanted: Vec<Row> = rows()?.into_iter().filter(is_wanted).collect();
    anyhow::ensure!(!wanted.is_empty(), "no row {:?}; they are numbered 1 to 48, see {}", args.row, dir().display());
    let mut config = LabConfig::new(format!("e2e{}", std::process::id()));
    config.manifests = vec![dir().join("cluster.yaml")];
    config.workers = args.workers;
    config.progress = Arc::new(|_| {});
    let lab = Lab::up(&config).context("the lab does not come up")?;
    let suite = Suite::new(&lab)?;
    let mut played = Vec::with_capacity(wanted.len());
    for row in &wanted {
        let done = suite.play(row)?;
        if args.output == Output::Text {
            print(&done);
        }
        played.push(done);
    }
    drop(suite);
    lab.down()?;
    let failed = played.iter().filter(|row| !row.wrong.is_empty()).count();
    match args.output {
        Output::Json => println!("{:#}", serde_json::json!({ "rows": played, "failed": failed })),
        Output::Text => {
            let probes: usize = played.iter().map(|row| row.probes).sum();
            let took: f64 = played.iter().map(|row| row.took_s).sum();
            println!("{} passed, {failed} failed: {probes} connections tried through ClusterIPs in {took:.1} s", played.len() - failed);
        }
    }
    Ok(failed == 0)
}

fn print(row: &Played) {
    let verdict = if row.wrong.is_empty() { "pass" } else { "FAIL" };
    let title: String = row.title.chars().take(90).collect();
    let Played { number, probes, in_force_ms, took_s, .. } = row;
    println!("{verdict}  {number:>2}  {title:<90}  {probes:>3} probes  in force {in_force_ms:>5.1} ms  {took_s:>4.1} s");
    row.wrong.iter().for_each(|what| println!("          {what}"));
}
