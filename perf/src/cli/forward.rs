//! `sluice-perf forward`.

use crate::forward::Kind;
use clap::Args;
use std::path::PathBuf;

pub(super) const ABOUT: &str = "\
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

pub(super) const EXAMPLES: &str = "\
Examples:
  sluice-perf forward                           everything, about two and a half minutes
  sluice-perf forward --quick                   does it run? (its figures mean little)
  sluice-perf forward --section tcp --rounds 30 --out tcp.json
  sluice-perf forward --cpus 2,3 --traffic-cpus 0,1 --check

Needs root, iperf3, and sluice-lab, sluice-dataplane, sluice-control and sluice-cni beside this program (`make release`).
The environment variables OUT and CHECK stand for --out and --check. Exit status: 0; 1 when something failed, or a must
was missed under --check; 130 when interrupted. The lab is removed in every case.";

/// See [`ABOUT`].
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
