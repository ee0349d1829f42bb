//! `sluice-lab`: a cluster on one machine, from manifests to live traffic and back to nothing.

mod cli;
mod cluster_demo;
mod commands;
mod demo;
mod print;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match commands::run(cli) {
        Ok(code) => code,
        Err(error) => {
            anstream::eprintln!("{} {error:#}", owo_colors::OwoColorize::red(&"error:"));
            ExitCode::FAILURE
        }
    }
}
