//! `sluice-perf`: each promise in numbers, and the bench that holds it.
//!
//! A bench prints *must / aim / measured*, says on what machine, and writes the same as JSON.
#![forbid(unsafe_code)]

mod cli;
mod environment;
mod forward;
mod stats;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli::Command::Forward(arguments) = cli::Cli::parse().command;
    match forward::run(&arguments) {
        Ok(forward::Outcome::Held) => ExitCode::SUCCESS,
        Ok(forward::Outcome::MustMissed) => ExitCode::FAILURE,
        Ok(forward::Outcome::Interrupted) => {
            eprintln!("interrupted; the lab is removed");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
