//! `sluice-perf compile`.

use crate::workload::Workload;
use clap::Args;
use std::path::PathBuf;

pub(super) const ABOUT: &str = "\
From a change of an object to a published image, stage by stage.

Makes a cluster from a seed and takes it all the way that the product does, on one core: compile, write into a memfd and \
seal, read back and validate as the dataplane does, prove. First from scratch, each time with a new compiler and prover; \
then one object changes at a time, and those that know the state before make the next table. Every table is proved, or, where that takes minutes, \
compared with the oracle on a sample: a time of a wrong one would mean nothing.

  pod with known labels      appears or disappears, on another node
  labels never seen          a remote pod gets a label that no pod had before
  labels mixed anew          a remote pod gets a combination of known labels that its namespace did not have
  policy: a port more        a rule of a policy that isolates a pod attached here
  policy: another selector   the same, with the selector of another such rule

Each stage has its time on the CPU and by the wall's clock: median, least, p99, most. The promises are about CPU time (it \
computes and never waits) until the image is sealed. Memory: the peak of a build from scratch, and what the compiler \
remembers afterwards, by the process's resident memory.";

pub(super) const EXAMPLES: &str = "\
Examples:
  sluice-perf compile                           S1 to S4, all that is promised
  sluice-perf compile --quick                   does it run? (its figures mean little)
  sluice-perf compile --workload s3 --changes 200
  sluice-perf compile --workload g2 --workload g8 --rounds 3
  sluice-perf compile --out compile.json --check

A large workload says first what memory it needs, and is refused where that is missing. The environment variables OUT and
CHECK stand for --out and --check. Exit status: 0; 1 when something failed, or a must was missed under --check.";

/// See [`ABOUT`].
#[derive(Debug, Args)]
pub(crate) struct Compile {
    /// Write the report there as JSON [default: $OUT, else nowhere].
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Fail when a must is missed [default: whether $CHECK is set].
    #[arg(long)]
    pub(crate) check: bool,
    /// A short run that only shows that everything works: the smallest cluster, two rounds, four changes of each kind.
    #[arg(long, conflicts_with_all = ["rounds", "changes"])]
    pub(crate) quick: bool,
    /// Only this cluster; may be repeated [default: S1, S2, S3, S4].
    #[arg(long = "workload", value_enum, value_name = "NAME", ignore_case = true)]
    pub(crate) workloads: Vec<Workload>,
    /// Builds from scratch of each cluster.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// Changes of each kind.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    pub(crate) changes: u32,
    /// No round begins after so long, nor, counted anew, a change: slow workloads get fewer.
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) seconds: u32,
    /// Prove also the tables whose proof takes minutes and gigabytes (S4, X, G4, G7), not only compare a sample.
    #[arg(long)]
    pub(crate) prove_all: bool,
    /// Which clusters and which changes.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// The core to run on [default: the last allowed].
    #[arg(long, value_name = "CPU")]
    pub(crate) cpu: Option<usize>,
}
