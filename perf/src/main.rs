//! `sluice-perf`: each promise in numbers, and the bench that holds it.
//!
//! A bench prints *must / aim / measured*, says on what machine, and writes the same as JSON.
//!
//! Unsafe code is allowed in three modules by name: the processor's clock, the calls into DPDK, and the memory shared with a
//! BPF program.
#![deny(unsafe_code)]

mod cli;
mod environment;
mod forward;
mod lookup;
mod progress;
mod proof;
mod random;
mod report;
mod stats;
mod workload;

use clap::Parser;
use report::Outcome;
use std::process::ExitCode;

fn main() -> ExitCode {
    let outcome = match cli::Cli::parse().command {
        cli::Command::Forward(arguments) => forward::run(&arguments),
        cli::Command::Lookup(arguments) => lookup::run(&arguments),
        cli::Command::Proof(arguments) => proof::run(&arguments),
    };
    match outcome {
        Ok(Outcome::Held) => ExitCode::SUCCESS,
        Ok(Outcome::MustMissed) => ExitCode::FAILURE,
        Ok(Outcome::Interrupted) => {
            eprintln!("interrupted; the lab is removed");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
