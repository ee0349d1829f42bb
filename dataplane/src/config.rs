//! Command line.

use crate::conntrack::Timeouts;
use crate::permission::ControlUser;
use crate::worker::Established;
use clap::{Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Enforces Kubernetes NetworkPolicy on the pods of this node.
///
/// Attaches small programs to the pods' devices, serves what they cannot decide by themselves with pinned workers, and
/// judges by the last table it was given: by sluice-control, or, before that is there, by the one kept in the run
/// directory. Stopping it leaves the programs in place: established flows go on, new ones wait until it is back.
///
/// PODS THAT RUN ALREADY, and were not attached through sluice-cni, are CLOSED when it starts on their node, unless
/// --existing-pods says otherwise.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "sluice-dataplane",
    version,
    after_help = "EXAMPLES:\n  sluice-dataplane --workers 2 --cpus 2,3\n  sluice-dataplane --control-user sluice      sluice-control may run as that user instead of root\n  sluice-dataplane --existing-pods adopt      on a node with running pods: enforce policy on them without a restart\n  sluice-dataplane remove                     take everything off this node; traffic then passes unjudged"
)]
pub struct Arguments {
    /// Sockets, the last good table and the ports' state live here (a tmpfs).
    #[arg(long, default_value = sluice_wire::RUN_DIR, global = true)]
    pub run_dir: PathBuf,
    /// Programs' links and maps are pinned here (on bpffs), in a directory for each ABI version.
    #[arg(long, default_value = "/sys/fs/bpf/sluice", global = true)]
    pub bpf_dir: PathBuf,
    /// The network sysctls, where they can be written. In a container /proc/sys is read-only: mount the node's /proc/sys/net elsewhere.
    #[arg(long, value_name = "DIR", default_value = "/proc/sys/net")]
    pub proc_sys_net: PathBuf,
    /// Workers, each with its own trunk and AF_XDP socket.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub workers: u32,
    /// CPUs to pin the workers to, in order; fewer than workers are used in turn. Without it workers float.
    #[arg(long, value_delimiter = ',')]
    pub cpus: Vec<usize>,
    /// How a worker waits for packets. Spinning takes its whole CPU, and nothing is faster; sleeping takes none, and a first packet
    /// waits for it to wake; adaptive spins for a moment behind each packet.
    #[arg(long, value_enum, default_value_t = Wait::Adaptive)]
    pub wait: Wait,
    /// What becomes of pods that run already and were not attached through sluice-cni.
    #[arg(long, value_enum, default_value_t = ExistingPods::Close)]
    pub existing_pods: ExistingPods,
    /// What a table does to established connections that it forbids.
    #[arg(long, value_enum, default_value_t = EstablishedArgument::Enforce)]
    pub established: EstablishedArgument,
    /// Let packets pass unjudged while no worker serves. Policy is then not enforced for new flows during a restart.
    #[arg(long)]
    pub fail_open: bool,
    /// New flows that one pod may open or be sent in a second, so that no pod's are what others' wait for; 0 for no limit. A tenth
    /// of it may come at once. What is established is never counted.
    #[arg(long, default_value_t = 20_000, value_name = "FLOWS", value_parser = clap::value_parser!(u32).range(0..=1_000_000_000))]
    pub new_flows_per_second: u32,
    /// Whether the kernel lets by itself what a worker has judged. Off: every packet of an isolated pod goes through its worker,
    /// GSO packets in segments; for exact work packet by packet, and for measuring. Bulk TCP is several times slower then.
    #[arg(long, value_enum, default_value_t = Offload::On)]
    pub offload: Offload,
    /// What goes straight from one pod's device to another's on this node, once it is established. The kernel's routing and
    /// firewall then see its first packet and one in 5 seconds, of TCP how it opens and ends and ten in a second; never where another
    /// program or filter stands behind ours on the sender's device. Off: every packet goes by the kernel, as rate limits in its
    /// forward chain need it.
    #[arg(long, value_enum, default_value_t = Direct::All)]
    pub direct: Direct,
    /// NICs on which what pods' policies denied before is dropped before the kernel makes a packet of it (XDP). Only where the
    /// driver runs XDP itself; attaching may reset its link for a moment.
    #[arg(long, value_delimiter = ',', value_name = "DEVICE")]
    pub uplink: Vec<String>,
    /// Idle seconds after which a UDP flow is forgotten.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub udp_timeout: u64,
    /// Seconds between scans for idle connections.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub scan_interval: u64,
    /// Also take tables from this user's control process, by numbers or names; without GID the user's own group. It may
    /// publish and look, nothing else. RUN/control becomes its directory, and the socket is open to its group.
    #[arg(long, value_name = "UID[:GID]")]
    pub control_user: Option<ControlUser>,
    /// Log format.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log: LogFormat,
    /// Something else than serving.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Other things to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Take programs, maps and trunks off this node. Traffic then passes unjudged.
    Remove,
}

/// Of pods whose devices are found and that no runtime told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExistingPods {
    /// Nothing passes to or from them until they are attached anew: no packet gets past policy.
    Close,
    /// They go on as before, and no policy holds for them until they are attached anew.
    Unmanaged,
    /// Nothing passes until sluice-control proves by their addresses which pods they are; then policy holds for them.
    Adopt,
}

impl std::fmt::Display for ExistingPods {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Close => "close",
            Self::Unmanaged => "unmanaged",
            Self::Adopt => "adopt",
        })
    }
}

/// How a worker waits for packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Wait {
    /// It never sleeps.
    Spin,
    /// It spins for a moment behind each packet, then sleeps.
    Adaptive,
    /// It sleeps whenever there is nothing to do.
    Sleep,
}

impl std::fmt::Display for Wait {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Spin => "spin",
            Self::Adaptive => "adaptive",
            Self::Sleep => "sleep",
        })
    }
}

/// Whether hits of the verdict cache stay in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Offload {
    /// They do.
    On,
    /// A worker sees every packet.
    Off,
}

/// What goes straight from one pod's device to another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Direct {
    /// UDP; and TCP where the kernel's connection tracking takes what it has not seen: where
    /// net.netfilter.nf_conntrack_tcp_be_liberal, nf_conntrack_tcp_ignore_invalid_rst and nf_conntrack_tcp_loose are 1, or it tracks
    /// nothing.
    All,
    /// UDP.
    Udp,
    /// Nothing.
    Off,
}

/// See [`Established`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EstablishedArgument {
    /// They stop.
    Enforce,
    /// They live until they end.
    Keep,
}

/// How to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

impl Arguments {
    /// The workers' idle times.
    pub fn timeouts(&self) -> Timeouts {
        let usual = Timeouts::default();
        // the kernel forgets a flow before we do: then somebody else may have its ports
        let kernels = std::fs::read_to_string(self.proc_sys_net.join("netfilter/nf_conntrack_udp_timeout"));
        let kernels_s: Option<u64> = kernels.ok().and_then(|text| text.trim().parse().ok());
        let translated_ns = kernels_s.map_or(usual.translated_ns, |s| usual.translated_ns.min(s.saturating_sub(5).max(1) * 1_000_000_000));
        Timeouts { udp_ns: self.udp_timeout * 1_000_000_000, translated_ns, ..usual }
    }

    /// The workers' choice.
    pub fn established(&self) -> Established {
        match self.established {
            EstablishedArgument::Enforce => Established::Enforce,
            EstablishedArgument::Keep => Established::Keep,
        }
    }
}
