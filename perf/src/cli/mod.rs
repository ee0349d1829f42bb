//! The command line: one file for each command.

mod compile;
mod control;
mod forward;
mod lookup;
mod page;
mod proof;
mod swap;

pub(crate) use compile::Compile;
pub(crate) use control::Control;
pub(crate) use forward::Forward;
pub(crate) use lookup::Lookup;
pub(crate) use page::Page;
pub(crate) use proof::Proof;
pub(crate) use swap::Swap;

use clap::{Parser, Subcommand};

/// Measures what Sluice promises in numbers. Each bench prints must / aim / measured and the machine it ran on.
#[derive(Debug, Parser)]
#[command(name = "sluice-perf", version, max_term_width = 110)]
pub(crate) struct Cli {
    /// What to measure.
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(about = "From a change of an object to a published image, stage by stage", long_about = compile::ABOUT, after_help = compile::EXAMPLES)]
    Compile(Compile),
    #[command(about = "The control process before a large cluster: start, memory, idle, a storm of changes", long_about = control::ABOUT, after_help = control::EXAMPLES)]
    Control(Control),
    #[command(about = "Forwarding between two pods: hooks on against hooks off", long_about = forward::ABOUT, after_help = forward::EXAMPLES)]
    Forward(Forward),
    #[command(about = "The policy lookup beside its peers, warm and cold", long_about = lookup::ABOUT, after_help = lookup::EXAMPLES)]
    Lookup(Lookup),
    #[command(about = "The proof of a table: from scratch, and after a change of one pod", long_about = proof::ABOUT, after_help = proof::EXAMPLES)]
    Proof(Proof),
    #[command(about = "One page of what benches wrote", long_about = page::ABOUT, after_help = page::EXAMPLES)]
    Report(Page),
    #[command(about = "What lookups feel of table swaps, and that none mixes two tables", long_about = swap::ABOUT, after_help = swap::EXAMPLES)]
    Swap(Swap),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Workload;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split(' ')).map(|cli| cli.command)
    }

    #[test]
    fn the_command_line_is_sound_and_every_command_teaches_by_examples() {
        Cli::command().debug_assert();
        for command in Cli::command().get_subcommands() {
            let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(examples.contains(&format!("sluice-perf {}", command.get_name())), "{}: {examples}", command.get_name());
            assert!(examples.contains("Exit status"), "{}", command.get_name());
        }
    }

    #[test]
    fn workloads_are_named_in_any_case_and_may_be_several() {
        let Ok(Command::Compile(arguments)) = parse("sluice-perf compile --workload S3 --workload g7-250 --seconds 5") else { panic!() };
        assert_eq!((arguments.workloads, arguments.seconds), (vec![Workload::S3, Workload::G7Full], 5));
        let Ok(Command::Swap(arguments)) = parse("sluice-perf swap --workload s2 --publisher-cpu 0") else { panic!() };
        assert_eq!((arguments.workload, arguments.publisher_cpu), (Some(Workload::S2), Some(0)));
    }

    #[test]
    fn what_contradicts_itself_or_is_out_of_range_is_refused() {
        for line in [
            "sluice-perf compile --quick --rounds 3",
            "sluice-perf compile --changes 1",
            "sluice-perf compile --workload s9",
            "sluice-perf swap --quick --millis 500",
            "sluice-perf swap --millis 1",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
