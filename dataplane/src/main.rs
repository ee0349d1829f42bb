//! The dataplane's process: see the library for what it does.

use anyhow::{Context, Result};
use clap::Parser;
use sluice_dataplane::config::{Arguments, Command, LogFormat};
use sluice_dataplane::keeper::{self, Keeper};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match arguments.log {
        LogFormat::Text => log.with_ansi(false).init(),
        LogFormat::Json => log.json().init(),
    }
    match run(arguments) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sluice-dataplane: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    if let Some(Command::Remove) = arguments.command {
        return keeper::remove(&arguments);
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, stop.clone()).context("register a signal handler")?;
    }
    Keeper::start(arguments)?.run(&stop)
}
