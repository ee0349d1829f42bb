//! `sluicectl`: what a node enforces and why, for people and for scripts.
//!
//! It asks the two processes over their sockets, or reads an image or manifests from disk, and prints a table or JSON.
//! Every answer about the table is read from the very bytes that the workers use.
// doctor asks bpf(2), and nothing else may
#![deny(unsafe_code)]

mod analysis;
mod arguments;
mod client;
mod diff;
mod doctor;
mod explain;
mod get;
mod lint;
mod matrix;
mod output;
mod status;
mod table;
mod wait;

use arguments::{Arguments, Command, Offload, Switch, TableCommand};
use clap::Parser;
use owo_colors::OwoColorize;
use std::io::{self, Write};
use std::process::ExitCode;

/// How a command ended; the numbers are promised in `--help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Done, allowed, or clean.
    Ok,
    /// Denied, not ready, different, or wrong.
    No,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut out = anstream::stdout().lock();
    match run(&arguments, &mut out).and_then(|ending| Ok(out.flush().map(|()| ending)?)) {
        Ok(Ending::Ok) => ExitCode::SUCCESS,
        Ok(Ending::No) => ExitCode::from(1),
        // `sluicectl ... | head` is not an error.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(anstream::stderr(), "{} {error:#}", "error:".red().bold());
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments, out: &mut dyn Write) -> anyhow::Result<Ending> {
    let (client, form) = (arguments.client(), arguments.output);
    match &arguments.command {
        Command::Status(options) => status::run(&client, options, form, out),
        Command::Wait(what) => wait::run(&client, what, form, out),
        Command::Get(what) => get::run(&client, what, form, out).map(|()| Ending::Ok),
        Command::Table(TableCommand::Dump { image }) => table::dump(&client, image.as_deref(), form, out).map(|()| Ending::Ok),
        Command::Table(TableCommand::Save { file }) => table::save(&client, file, form, out).map(|()| Ending::Ok),
        Command::Offload { state } => status::offload(&client, *state == Offload::On, form, out).map(|()| Ending::Ok),
        Command::Enforce { state } => status::enforce(&client, *state == Switch::On, form, out).map(|()| Ending::Ok),
        Command::Explain(question) => explain::run(&client, question, form, out),
        Command::Matrix(request) => matrix::run(request, form, out),
        Command::Diff(request) => diff::run(request, form, out),
        Command::Doctor(options) => doctor::run(&client, &arguments.run_dir, options, form, out),
        Command::Lint(options) => lint::run(options, form, out),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    io.into_iter().any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}
