//! `sluice-perf lookup`.

use crate::lookup::Kind as Trace;
use crate::workload::Workload;
use clap::Args;
use std::path::PathBuf;

pub(super) const ABOUT: &str = "\
The policy lookup beside its peers, warm and cold.

Makes clusters from a seed, compiles each, draws traces of packets, and times how long the table and its peers take to say \
whether a packet passes. On one core, in one process, in rounds that alternate; printed are the median over the rounds, the \
quartiles and the least. Before anything is timed, every answer of every backend is compared with the oracle's (of nftables: what becomes of 16k packets).

  serial       each query is found through the verdict and rule before it: a chain
  throughput   1024 queries at once
  burst 32/64  as many at once as a worker has; in the bursts traces all of one pod and direction

  warm         what earlier lookups left in the caches
  L2 evicted   the caches up to L2 were read full of other things
  flushed      all caches were
  just swapped the table was just loaded

Peers, in S1 to S3:

  linear scan         the pod's rules one after another until one allows
  rte_acl             of DPDK: one context for each pod and direction, all rules written out
  rte_fib + rte_hash  of DPDK: longest prefix to a label, pod and direction and label to ports
  labels in BPF maps  the same in LPM tries of the kernel, through BPF_PROG_TEST_RUN (root)
  nftables sets       a verdict map from pod to chain, a set of address, protocol and port for each chain: what the \
rules add to packets in a network namespace of the bench's own, with and without them in turn (root)

A peer that this build or this machine does not have is listed as skipped, and a promise about it counts as missed. Without \
--workload, lookups in the connection table are measured too: 10k, 100k and 1M flows.";

pub(super) const EXAMPLES: &str = "\
Examples:
  sluice-perf lookup                            S1 to S4, all that is promised
  sluice-perf lookup --quick                    does it run? (its figures mean little)
  sluice-perf lookup --workload s3 --trace zipf --trace bursts --rounds 30
  sluice-perf lookup --workload s3 --alone      while the table is being changed
  sluice-perf lookup --workload x               a million pods; says what memory it needs first
  sluice-perf lookup --out lookup.json --check

The environment variables OUT and CHECK stand for --out and --check. Exit status: 0; 1 when something failed, or a must was
missed under --check.";

/// See [`ABOUT`].
#[derive(Debug, Args)]
pub(crate) struct Lookup {
    /// Write the report there as JSON [default: $OUT, else nowhere].
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Fail when a must is missed [default: whether $CHECK is set].
    #[arg(long)]
    pub(crate) check: bool,
    /// A short run that only shows that everything works: the smallest cluster, three rounds.
    #[arg(long, conflicts_with_all = ["rounds"])]
    pub(crate) quick: bool,
    /// Only this cluster; may be repeated [default: S1, S2, S3, S3-few, S4].
    #[arg(long = "workload", value_enum, value_name = "NAME", ignore_case = true)]
    pub(crate) workloads: Vec<Workload>,
    /// Only this trace; may be repeated [default: all of S3, fewer of the others].
    #[arg(long = "trace", value_enum, value_name = "NAME")]
    pub(crate) traces: Vec<Trace>,
    /// Without the peers that take minutes to build: only the table and the linear scan.
    #[arg(long)]
    pub(crate) alone: bool,
    /// Rounds over all backends.
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// Which clusters and which packets.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// The core to run on [default: the last allowed].
    #[arg(long, value_name = "CPU")]
    pub(crate) cpu: Option<usize>,
}
