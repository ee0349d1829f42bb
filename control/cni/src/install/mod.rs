//! `sluice-cni install` and `uninstall`: the plugin puts itself on a node, behind whatever CNI plugin the cluster has.
//!
//! ```text
//!   plan   the configuration that the runtime would choose ──▶ steps      (pure but for reading)
//!   step   each one atomic; after any number of them the runtime finds a whole configuration
//!   watch  waits for a configuration to appear, and for another installer to write it anew
//! ```

mod arguments;
mod edit;
mod error;
mod fields;
mod plan;
mod program;
mod step;
mod watch;

#[cfg(test)]
mod tests;

use arguments::{Arguments, Command, Install, Uninstall};
use clap::Parser;
use edit::PLUGIN;
use error::InstallError;
use program::Program;
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use step::{Step, sweep};
use watch::{Waiter, Woken};

/// How often a wait says that it goes on.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// Writers of several files are left to finish; and two installers that undo each other stay slow.
const QUIET: Duration = Duration::from_millis(500);

/// Runs the command line; whatever it says goes to stdout, troubles to stderr.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let done = match Arguments::parse_from(arguments).command {
        Command::Install(options) => install(&options),
        Command::Uninstall(options) => uninstall(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{PLUGIN}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn install(options: &Install) -> Result<(), InstallError> {
    let mut waiter = Waiter::new(vec![options.places.conf_dir.clone(), options.places.bin_dir.clone()]);
    let mut program = Program::new(&options.source, &options.places.bin_dir);
    let started = Instant::now();
    let mut reported: Option<(Instant, String)> = None;
    loop {
        let error = match install_once(options, &mut program, true) {
            Ok(()) => break,
            Err(error) if error.may_pass() && (options.watch || started.elapsed() < options.timeout) => error.to_string(),
            Err(error) => return Err(error),
        };
        if reported.as_ref().is_none_or(|(when, last)| *last != error || when.elapsed() >= REPORT_EVERY) {
            eprintln!("{PLUGIN}: waiting ({} s): {error}", started.elapsed().as_secs());
            reported = Some((Instant::now(), error));
        }
        let left = if options.watch { REPORT_EVERY } else { options.timeout.saturating_sub(started.elapsed()).min(REPORT_EVERY) };
        if waiter.wait(left) == Woken::Stop {
            return Err(InstallError::Interrupted);
        }
    }
    if options.watch {
        println!("watching {}", options.places.conf_dir.display());
        keep(options, &mut program, &mut waiter);
    }
    Ok(())
}

/// Installs again whenever the directories change, until a signal ends it.
fn keep(options: &Install, program: &mut Program, waiter: &mut Waiter) {
    let mut trouble = None;
    loop {
        match waiter.wait(watch::LOOK_EVERY) {
            Woken::Stop => return,
            Woken::Change if waiter.rest(QUIET) == Woken::Stop => return,
            Woken::Change | Woken::Time => {}
        }
        let failed = install_once(options, program, false).err().map(|error| error.to_string());
        // a trouble is said when it comes and when it goes
        match (&failed, &trouble) {
            (Some(error), last) if last.as_ref() != Some(error) => eprintln!("{PLUGIN}: {error}"),
            (None, Some(_)) => eprintln!("{PLUGIN}: in place again"),
            _ => {}
        }
        trouble = failed;
    }
}

/// One installation; nothing is written before all of it is decided. Says what it finds in place already only if `always`.
fn install_once(options: &Install, program: &mut Program, always: bool) -> Result<(), InstallError> {
    let places = &options.places;
    sweep(&places.conf_dir);
    let plan = plan::install(&places.conf_dir, &options.entry())?;
    // the program first: the runtime may run what stands in its configuration at once
    let replaced = program.put()?;
    for step in &plan.steps {
        step.perform()?;
    }
    if always || replaced || !plan.steps.is_empty() {
        plan.said.iter().for_each(|line| println!("{line}"));
        plan.warnings.iter().for_each(|line| eprintln!("{PLUGIN}: warning: {line}"));
    }
    Ok(())
}

fn uninstall(options: &Uninstall) -> Result<(), InstallError> {
    let places = &options.places;
    for dir in [&places.conf_dir, &places.bin_dir] {
        sweep(dir);
    }
    let mut plan = plan::uninstall(&places.conf_dir)?;
    let program = places.bin_dir.join(PLUGIN);
    if program.exists() {
        // last: as long as a configuration names it, the runtime runs it
        plan.said.push(format!("{}: removed", program.display()));
        plan.steps.push(Step::Remove { path: program });
    }
    for step in &plan.steps {
        step.perform()?;
    }
    plan.said.iter().for_each(|line| println!("{line}"));
    if plan.said.is_empty() {
        println!("nothing to remove");
    }
    Ok(())
}
