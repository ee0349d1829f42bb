//! `sluice-perf forward`.

use crate::forward::Kind;
use clap::Args;
use std::path::PathBuf;

pub(super) const ABOUT: &str = "\
Forwarding between two pods: Sluice, nftables and no policy, in the same rounds.

Brings up a lab whose pods are isolated in both directions by thousands of policies, and measures the same pods in each \
round several times: without policy (plain kernel routing, connection tracking and services as they are), with Sluice's \
hooks under all policies and under ten, and with rules of nftables that express the same. Two states at a time take turns of \
an eighth of a second under traffic that goes on, and the result is the median of the rounds' ratios, so that the machine's \
moods cancel out. Where the 95 % interval is wider than the distance to the must, there are more rounds, up to a bound; then the line says \
so and is not passed.

Before anything is timed, and again at every turn, a port that no policy allows is tried: it must connect where nothing \
enforces, and nowhere else. The dataplane's counters must agree: hits with hooks on, none with hooks off.

  tcp, tcp8, service   TCP throughput (iperf3): one stream, eight, one through a ClusterIP
  udp, udp1k, udp100k  64-byte frames that arrive: one flow, 1000, 100,000 of 16 pairs of pods
  request              64-byte request and response over one connection, one at a time
  connect, free        connect, 64-byte request and response, close; free: between pods that no policy selects
  first, cold          round trip of a flow's first packet: others from the same address to the same port came before; none did
  latency              round trip of an established flow at a fixed pace, open loop
  denied, opening      TCP, and connections, beside one pod that floods with what is denied, and with new flows; against nft
                       rules that stop the same flood
  swaps                100,000 flows while ten tables a second are published";

pub(super) const EXAMPLES: &str = "\
Examples:
  sluice-perf forward                           everything, 26 minutes, or up to 80
  sluice-perf forward --quick                   does it run? (its figures mean little)
  sluice-perf forward --section tcp --rounds 30 --out tcp.json
  sluice-perf forward --cpus 2,3 --traffic-cpus 0,1 --check

Needs root, iperf3, nft, and sluice-lab, sluice-dataplane, sluice-control and sluice-cni beside this program (`make release`).
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
    #[arg(long, conflicts_with = "rounds")]
    pub(crate) quick: bool,
    /// Only this section; may be repeated.
    #[arg(long = "section", value_enum, value_name = "NAME")]
    pub(crate) sections: Vec<Kind>,
    /// Rounds of each section [default: 20, and up to 60, 120 or 200 while a must is not measurable; tcp8, udp1k and request 8]. States that inform take part in 20 at most.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: Option<u32>,
    /// Seconds of each side in a round.
    #[arg(long, value_name = "S", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=60))]
    pub(crate) seconds: u32,
    /// Policies of the cluster; every tenth selects the measured pods.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = policies)]
    pub(crate) policies: usize,
    /// Workers of the dataplane [default: as its own].
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
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

fn policies(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 10..=100_000) => Ok(count),
        _ => Err("a number from 10 to 100000".into()),
    }
}
