//! `sluice-perf control`.

use crate::workload::Workload;
use clap::Args;
use std::path::PathBuf;

pub(super) const ABOUT: &str = "\
The control process in front of a large cluster: start, memory, idle, and a storm of changes.

Fills the test API server with a cluster (objects as large as real ones), starts the sluice-control that lies beside this \
program, and plays a dataplane that adopts each table as it comes. Measured are the time from its start to the first \
adopted table, its peak of memory, its memory and CPU time when nothing happens, and its CPU time and the time from a change \
to the adopted table that knows it while pods change all the time; then, as root, how long the plugin's ADD takes through a \
real dataplane in a network namespace of its own. The server and the dataplane take CPU time of their own, \
on the same cores.

A change is seen in a table by its verdict: some of the new pods carry a label that one policy lets in.";

pub(super) const EXAMPLES: &str = "\
Examples:
  sluice-perf control                       150k pods, 10k services, 1.7k policies
  sluice-perf control --quick               does it run? (its figures mean little)
  sluice-perf control --workload g6 --rate 20 --seconds 60
  sluice-perf control --out control.json --check

The environment variables OUT and CHECK stand for --out and --check. Exit status: 0; 1 when something failed, or a must was
missed under --check.";

/// See [`ABOUT`].
#[derive(Debug, Args)]
pub(crate) struct Control {
    /// Write the report there as JSON [default: $OUT, else nowhere].
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Fail when a must is missed [default: whether $CHECK is set].
    #[arg(long)]
    pub(crate) check: bool,
    /// A short run that only shows that everything works: S1, two seconds of each.
    #[arg(long, conflicts_with_all = ["workload", "seconds"])]
    pub(crate) quick: bool,
    /// The cluster.
    #[arg(long, value_name = "NAME", value_enum, ignore_case = true, default_value = "g1")]
    pub(crate) workload: Workload,
    /// Changes of pods a second.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rate: u32,
    /// How long nothing happens, and how long pods change.
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u32).range(2..=600))]
    pub(crate) seconds: u32,
    /// Services, besides those of the cluster, up to so many.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(crate) services: usize,
    /// Bytes of a pod as the server sends it; a recorded one has 3600 on average.
    #[arg(long, value_name = "BYTES", default_value_t = 3600, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub(crate) pod_bytes: u32,
    /// Which cluster and which changes.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
}
