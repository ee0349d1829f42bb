//! `sluice-perf`: each promise in numbers, and the bench that holds it.
//!
//! A bench prints *must / aim / measured*, says on what machine, and writes the same as JSON.
//!
//! Unsafe code is allowed in four modules by name: the processor's clock, the allocator's call, the calls into DPDK, and the
//! memory shared with a BPF program.
#![deny(unsafe_code)]

mod changes;
mod cli;
mod compile;
mod control;
mod environment;
mod forward;
mod latency;
mod lookup;
#[allow(unsafe_code)]
mod memory;
mod page;
mod progress;
mod proof;
mod random;
mod report;
mod stats;
mod swap;
mod took;
mod workload;

use clap::Parser;
use report::Outcome;
use std::process::ExitCode;

fn main() -> ExitCode {
    let outcome = match cli::Cli::parse().command {
        cli::Command::Compile(arguments) => compile::run(&arguments),
        cli::Command::Control(arguments) => control::run(&arguments),
        cli::Command::Forward(arguments) => forward::run(&arguments),
        cli::Command::Lookup(arguments) => lookup::run(&arguments),
        cli::Command::Proof(arguments) => proof::run(&arguments),
        cli::Command::Report(arguments) => page::run(&arguments),
        cli::Command::Swap(arguments) => swap::run(&arguments),
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
