//! `sluice-perf swap`.

use crate::workload::Workload;
use clap::Args;
use std::path::PathBuf;

pub(super) const ABOUT: &str = "\
What lookups feel of table swaps, and that none mixes two tables.

One core is the worker's: the product's own worker, on memory in place of sockets and maps, which takes new tables between \
bursts as ever. The other core publishes: a thousand edits a second (pods come and go and change their labels, policies \
change), coalesced into 10 or into 100 images a second, each written into a memfd, sealed, read back, validated, loaded and \
handed over. Where the compiler cannot keep that rate, a ring of different images is made and proved before, and published \
in turn; the report says so.

Rounds alternate between nothing beside the worker, all of that work without the hand-over, and with it. The promise is \
about p99.9 of one lookup with swaps against the same work without them, less the empty bracket of the clock.

Every answer is checked, when the clock stands, against what the table says that the worker had when it began the burst. A \
policy that is another in each image flips ports, and each burst asks about some of them at both ends and in between.";

pub(super) const EXAMPLES: &str = "\
Examples:
  sluice-perf swap                              S3, about a minute
  sluice-perf swap --quick                      does it run? (its figures mean little)
  sluice-perf swap --workload s2 --rounds 20
  sluice-perf swap --cpu 3 --publisher-cpu 2 --out swap.json --check

Needs two cores. The environment variables OUT and CHECK stand for --out and --check. Exit status: 0; 1 when something
failed, or a must was missed under --check.";

/// See [`ABOUT`].
#[derive(Debug, Args)]
pub(crate) struct Swap {
    /// Write the report there as JSON [default: $OUT, else nowhere].
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Fail when a must is missed [default: whether $CHECK is set].
    #[arg(long)]
    pub(crate) check: bool,
    /// A short run that only shows that everything works: the smallest cluster, two rounds of 0.3 seconds in each state.
    #[arg(long, conflicts_with_all = ["rounds", "millis"])]
    pub(crate) quick: bool,
    /// Which cluster [default: S3].
    #[arg(long, value_enum, value_name = "NAME", ignore_case = true)]
    pub(crate) workload: Option<Workload>,
    /// Rounds through all states.
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// Milliseconds of a state in each round.
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(100..=60_000))]
    pub(crate) millis: u32,
    /// Which cluster and which edits.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// The worker's core [default: the last allowed].
    #[arg(long, value_name = "CPU")]
    pub(crate) cpu: Option<usize>,
    /// The publisher's [default: the first other].
    #[arg(long, value_name = "CPU")]
    pub(crate) publisher_cpu: Option<usize>,
}
