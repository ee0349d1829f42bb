//! `wait`: until something is in force on this node.

use crate::Ending;
use crate::arguments::{Form, Wait};
use crate::client::{Client, unexpected};
use crate::output::{age, json, seconds_since};
use crate::status::print_problems;
use anyhow::Result;
use owo_colors::OwoColorize;
use sluice_wire::{FromControl, Realization, RealizationState, ToControl};
use std::io::Write;

pub(crate) fn run(client: &Client, what: &Wait, form: Form, out: &mut dyn Write) -> Result<Ending> {
    let Wait::Policy { policy, generation, timeout } = what;
    let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    let question = ToControl::Realization { policy: policy.clone(), generation: *generation, timeout_ms };
    let FromControl::Realization(answer) = client.control(&question)? else { return unexpected() };
    match form {
        Form::Json => json(out, &answer)?,
        Form::Table => print(&answer, out)?,
    }
    Ok(if answer.state == RealizationState::Realized { Ending::Ok } else { Ending::No })
}

fn print(answer: &Realization, out: &mut dyn Write) -> Result<()> {
    let Realization { policy, state, generation, known_generation, since_ms, table_generation, problem, failure } = answer;
    let numbered = |generation: &Option<i64>| generation.map_or_else(String::new, |number| format!(" generation {number}"));
    let in_force = match since_ms {
        Some(since) => format!("{}{} is in force since {}, table {table_generation}", policy, numbered(generation), time_and_age(*since)),
        None => format!("nothing of {policy} is in force"),
    };
    match state {
        RealizationState::Realized => writeln!(out, "{} {in_force}", "realized".green().bold())?,
        RealizationState::Pending => {
            writeln!(out, "{}  the newest state{} is not in force yet; {in_force}", "pending".yellow().bold(), numbered(known_generation))?;
        }
        RealizationState::Unknown => writeln!(out, "{}  there is no NetworkPolicy {policy}", "unknown".yellow().bold())?,
        RealizationState::Refused => writeln!(out, "{}  its newest state cannot be represented; {in_force}", "refused".red().bold())?,
    }
    print_problems(problem.as_slice(), out)?;
    if let Some(failure) = failure {
        writeln!(out, "  {} {failure}", "the last table was not published:".red())?;
    }
    Ok(())
}

/// `2026-11-29T18:20:11.250Z (3s ago)`.
pub(crate) fn time_and_age(since_ms: u64) -> String {
    let time = i64::try_from(since_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let time = time.map_or_else(|| format!("{since_ms} ms"), |time| format!("{time:.3}"));
    format!("{time} ({} ago)", age(seconds_since(since_ms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_in_full_and_by_its_age() {
        assert!(time_and_age(1_000_000_250).starts_with("1970-01-12T13:46:40.250Z ("));
    }
}
