//! The dataplane's process, from its command line to its exit code. Two programs are made of it: the one that is shipped, and
//! `sluice-dataplane-next`, the same of another ABI version, for tests of upgrades.

use crate::config::{Arguments, Command, LogFormat};
use crate::keeper::{self, Keeper};
use anyhow::{Context, Result};
use clap::Parser;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Serves, or does what the command line says instead.
pub fn main() -> std::process::ExitCode {
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

/// A worker that panics must not leave its ports without anyone while the process looks alive: the supervisor restarts it
/// whole, and the hooks go on with what is cached.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::abort();
    }));
}

fn run(arguments: Arguments) -> Result<()> {
    if let Some(Command::Remove) = arguments.command {
        return keeper::remove(&arguments);
    }
    abort_on_panic();
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, stop.clone()).context("register a signal handler")?;
    }
    Keeper::start(arguments)?.run(&stop)
}
