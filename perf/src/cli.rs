//! The command line.

use crate::forward::Kind;
use crate::lookup::Kind as Trace;
use crate::workload::Workload;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

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
    #[command(about = "Forwarding between two pods: hooks on against hooks off", long_about = FORWARD_ABOUT, after_help = FORWARD_EXAMPLES)]
    Forward(Forward),
    #[command(about = "The policy lookup beside its peers, warm and cold", long_about = LOOKUP_ABOUT, after_help = LOOKUP_EXAMPLES)]
    Lookup(Lookup),
    #[command(about = "The proof of a table: from scratch, and after a change of one pod", long_about = PROOF_ABOUT, after_help = PROOF_EXAMPLES)]
    Proof(Proof),
}

const FORWARD_ABOUT: &str = "\
Forwarding between two pods: hooks on against hooks off.

Brings up a lab with two pods that policies isolate in both directions (default deny plus the rules that allow the \
measured ports), and measures the same pods twice in each round: with Sluice's hooks on their devices, and with the \
hooks taken off (plain kernel routing). The order alternates, every half opens new connections, and the result is the \
median of the rounds' ratios, so that a slow drift of the machine cancels out.

Before anything is timed, and again at every switch, a port that no policy allows is tried: with hooks on it must not \
connect, with hooks off it must. The dataplane's counters must agree: hits with hooks on, none with hooks off.

  tcp      TCP, one stream, iperf3; the must
  tcp8     TCP, eight streams, iperf3
  udp      UDP, one flow of 64-byte frames; packets that reach the other pod's socket
  burst    connect, 64-byte request, 64-byte response, close; 400 of them, one after another
  connect  the same for as long as a half lasts: new connections faster than old ones are forgotten";

const FORWARD_EXAMPLES: &str = "\
Examples:
  sluice-perf forward                           everything, about two and a half minutes
  sluice-perf forward --quick                   does it run? (its figures mean little)
  sluice-perf forward --section tcp --rounds 30 --out tcp.json
  sluice-perf forward --cpus 2,3 --traffic-cpus 0,1 --check

Needs root, iperf3, and sluice-lab, sluice-dataplane, sluice-control and sluice-cni beside this program (`make release`).
The environment variables OUT and CHECK stand for --out and --check. Exit status: 0; 1 when something failed, or a must
was missed under --check; 130 when interrupted. The lab is removed in every case.";

/// See [`FORWARD_ABOUT`].
#[derive(Debug, Args)]
pub(crate) struct Forward {
    /// Write the report there as JSON [default: $OUT, else nowhere].
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Fail when a must is missed [default: whether $CHECK is set].
    #[arg(long)]
    pub(crate) check: bool,
    /// A short run that only shows that everything works: two rounds of one second each.
    #[arg(long, conflicts_with_all = ["rounds", "seconds"])]
    pub(crate) quick: bool,
    /// Only this section; may be repeated.
    #[arg(long = "section", value_enum, value_name = "NAME")]
    pub(crate) sections: Vec<Kind>,
    /// Rounds of each section [default: tcp 16, tcp8 4, others 8].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: Option<u32>,
    /// Seconds of each half of a round [default: tcp and tcp8 2, others 1].
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=60))]
    pub(crate) seconds: Option<u32>,
    /// Workers of the dataplane.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub(crate) workers: u32,
    /// The workers' CPUs, such as 2,3 [default: those without traffic if there are any, else all allowed].
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) cpus: Vec<usize>,
    /// CPUs of client and server [default: the first two allowed].
    #[arg(long, value_name = "CLIENT,SERVER", value_delimiter = ',', num_args = 1..=2)]
    pub(crate) traffic_cpus: Vec<usize>,
    /// The lab's name.
    #[arg(long, default_value = "perf", value_name = "NAME")]
    pub(crate) lab: String,
    /// Where Sluice's programs are [default: beside this program].
    #[arg(long, value_name = "DIR")]
    pub(crate) bin_dir: Option<PathBuf>,
}

const PROOF_ABOUT: &str = "\
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

const PROOF_EXAMPLES: &str = "\
Examples:
  sluice-perf proof                             both clusters
  sluice-perf proof --quick                     does it run? (its figures mean little)
  sluice-perf proof --pods 20000 --policies 5000 --changes 100
  sluice-perf proof --out proof.json --check

The environment variables OUT and CHECK stand for --out and --check. Exit status: 0; 1 when something failed, or a must was
missed under --check.";

/// See [`PROOF_ABOUT`].
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

const LOOKUP_ABOUT: &str = "\
The policy lookup beside its peers, warm and cold.

Makes clusters from a seed, compiles each, draws traces of packets, and times how long the table and its peers take to say \
whether a packet passes. On one core, in one process, in rounds that alternate; printed are the median over the rounds, the \
quartiles and the least. Before anything is timed, every answer of every backend is compared with the oracle's.

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

A peer that this build or this machine does not have is listed as skipped, and a promise about it counts as missed. Without \
--workload, lookups in the connection table are measured too: 10k, 100k and 1M flows.";

const LOOKUP_EXAMPLES: &str = "\
Examples:
  sluice-perf lookup                            S1 to S4, all that is promised
  sluice-perf lookup --quick                    does it run? (its figures mean little)
  sluice-perf lookup --workload s3 --trace zipf --trace bursts --rounds 30
  sluice-perf lookup --workload s3 --alone      while the table is being changed
  sluice-perf lookup --workload x               a million pods; says what memory it needs first
  sluice-perf lookup --out lookup.json --check

The environment variables OUT and CHECK stand for --out and --check. Exit status: 0; 1 when something failed, or a must was
missed under --check.";

/// See [`LOOKUP_ABOUT`].
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
