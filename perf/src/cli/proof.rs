//! `sluice-perf proof`.

use clap::Args;
use std::path::PathBuf;

pub(super) const ABOUT: &str = "\
The proof of a table: from scratch, and after a change of one pod.

Makes a cluster from a seed (110 of its pods are attached here), compiles it and proves the table, on one core. From \
scratch means a new prover each time. Then one pod changes at a time, as often as asked, and what stands is proved again by \
the prover that proved the state before. Only the proof counts, by its time on the CPU: it computes and never waits, so \
that is what it takes of a free core. Its time by the wall's clock, compiling and loading are printed beside.

  address    a remote pod with known labels appears or disappears
  labels     a remote pod gets labels that no pod had before
  class      a remote pod gets labels that the table needs a new address class for
  endpoint   a pod attached here is replaced by another of its deployment

The promise about a change is judged by the worst median of the first three. Beside stands a naive proof: the oracle asked \
about one packet at a time, measured on a sample and extrapolated to as many questions as the proof has.";

pub(super) const EXAMPLES: &str = "\
Examples:
  sluice-perf proof                             both clusters
  sluice-perf proof --quick                     does it run? (its figures mean little)
  sluice-perf proof --pods 20000 --policies 5000 --changes 100
  sluice-perf proof --out proof.json --check

The environment variables OUT and CHECK stand for --out and --check. Exit status: 0; 1 when something failed, or a must was
missed under --check.";

/// See [`ABOUT`].
#[derive(Debug, Args)]
pub(crate) struct Proof {
    /// Write the report there as JSON [default: $OUT, else nowhere].
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Fail when a must is missed [default: whether $CHECK is set].
    #[arg(long)]
    pub(crate) check: bool,
    /// A short run that only shows that everything works: the smaller cluster, two rounds, four changes of each kind.
    #[arg(long, conflicts_with_all = ["rounds", "changes", "pods"])]
    pub(crate) quick: bool,
    /// A cluster of so many pods, instead of the two with promises.
    #[arg(long, value_name = "N", requires = "policies", value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    pub(crate) pods: Option<u32>,
    /// Its policies.
    #[arg(long, value_name = "N", requires = "pods", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) policies: Option<u32>,
    /// Proofs from scratch of each cluster.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// Changes of each kind.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    pub(crate) changes: u32,
    /// Which clusters and which changes.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// The core to run on [default: the last allowed].
    #[arg(long, value_name = "CPU")]
    pub(crate) cpu: Option<usize>,
}
