//! The command line of the two commands.

use super::edit::PLUGIN;
use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};
use sluice_wire::{DATAPLANE_SOCKET, RUN_DIR};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The chained CNI plugin: a pod's attachment is under policy before ADD returns.
///
/// A container runtime runs it with CNI_COMMAND in its environment and the configuration on standard input. The commands
/// below put it on a node and take it off.
#[derive(Debug, Parser)]
#[command(
    name = "sluice-cni",
    version,
    after_help = "Examples:
  sluice-cni install                       append it to the node's configuration, wait up to 5 minutes for one
  sluice-cni install --watch               stay, and put it back when another installer writes the configuration anew
  sluice-cni uninstall                     the configuration and the directory of plugins as they were
  CNI_COMMAND=VERSION sluice-cni           the versions of the specification that it serves

Exit codes: 0 done (or nothing to do), 1 failed, 2 wrong usage."
)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Copies itself to the runtime's plugins and appends itself to its network configuration.
    #[command(after_help = "The configuration is the one that the runtime chooses: the first of *.conflist, *.conf and *.json by name. A
list gets one more plugin, everything else in it stays byte for byte; a single plugin's file becomes a list
of the same name. What was there before is kept in a hidden file (.NAME.sluice-backup) that no runtime reads.
Each file is replaced at once or not at all, and doing it again is harmless. Pods that run already stay as
they are: the new configuration is for pods to come.")]
    Install(Install),
    /// Takes itself out of every network configuration, brings a single plugin's file back, removes the program.
    #[command(
        after_help = "It succeeds when there is nothing to remove. End a running `install --watch` first: it would put the plugin back. Some runtimes (CRI-O) delete a pod by the configuration by
which it was added: drain the node first, or restart its pods, where that matters."
    )]
    Uninstall(Uninstall),
}

#[derive(Debug, Args)]
pub(super) struct Places {
    /// Where the runtime looks for plugins.
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    pub(super) bin_dir: PathBuf,
    /// Where the runtime looks for its network configuration.
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    pub(super) conf_dir: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Install {
    #[command(flatten)]
    pub(super) places: Places,
    /// The program to copy; otherwise the one that runs.
    #[arg(long, value_name = "FILE", default_value = "/proc/self/exe", hide_default_value = true)]
    pub(super) source: PathBuf,
    /// The dataplane's run directory, as the plugin will see it.
    #[arg(long, value_name = "DIR", default_value = RUN_DIR)]
    pub(super) run_dir: PathBuf,
    /// How long ADD may wait for a table that knows the pod; otherwise the plugin's own 10 s.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub(super) deadline_ms: Option<u64>,
    /// How long to wait for a network configuration: `30s`, `5m`; `0s` does not wait. With --watch it waits without end.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    pub(super) timeout: Duration,
    /// Stay, and install again when the configuration or the program is replaced. Ends with SIGTERM; the plugin stays.
    #[arg(long)]
    pub(super) watch: bool,
}

impl Install {
    /// What stands in the list of plugins: what differs from the plugin's own defaults.
    pub(super) fn entry(&self) -> Value {
        let mut entry = json!({ "type": PLUGIN });
        let socket = self.run_dir.join(DATAPLANE_SOCKET);
        if self.run_dir.as_path() != Path::new(RUN_DIR) {
            entry["dataplaneSocket"] = json!(socket);
        }
        if let Some(deadline_ms) = self.deadline_ms {
            entry["deadlineMs"] = deadline_ms.into();
        }
        entry
    }
}

#[derive(Debug, Args)]
pub(super) struct Uninstall {
    #[command(flatten)]
    pub(super) places: Places,
}

fn duration(text: &str) -> Result<Duration, String> {
    let (number, seconds) = match text.strip_suffix('m') {
        Some(number) => (number, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    let number: Option<u64> = number.parse().ok();
    let duration = number.and_then(|number| number.checked_mul(seconds)).map(Duration::from_secs);
    duration.ok_or_else(|| "expected a time such as 30s or 5m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn install(arguments: &[&str]) -> Install {
        let arguments = ["sluice-cni", "install"].iter().chain(arguments);
        match Arguments::try_parse_from(arguments).unwrap().command {
            Command::Install(install) => install,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_entry_says_only_what_differs_from_the_defaults() {
        assert_eq!(install(&[]).entry(), json!({"type": "sluice-cni"}));
        let entry = install(&["--run-dir", "/run/other", "--deadline-ms", "700"]).entry();
        assert_eq!(entry, json!({"type": "sluice-cni", "dataplaneSocket": "/run/other/dataplane.sock", "deadlineMs": 700}));
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, seconds) in [("0s", Some(0)), ("90", Some(90)), ("5m", Some(300)), ("5h", None), ("-1s", None), ("", None)] {
            assert_eq!(duration(text).ok(), seconds.map(Duration::from_secs), "{text:?}");
        }
    }
}
