//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use sluice_lab::{Agent, ServedPort};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  sluice-lab demo                                    see policies at work, step by step
  sluice-lab up -f manifests/                        make a cluster from manifests
  sluice-lab exec default/frontend -- curl backend   run a command in a pod
  sluice-lab apply -f deny-all.yaml                  change policy, see how long it took
  sluice-lab matrix                                  who reaches whom, tried for real
  sluice-lab matrix --port 80/TCP --port 53/UDP
  sluice-lab delete networkpolicy default/deny-all
  sluice-lab up --api-server --nodes 3 -f manifests/ several nodes that follow an API server
  sluice-lab outage on                               that server is away; then `outage off`
  sluice-lab down                                    remove everything";

/// Kubernetes nodes on this machine: pods in network namespaces, attached by real CNI plugins, under Sluice's policy.
#[derive(Debug, Parser)]
#[command(name = "sluice-lab", version, after_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Cli {
    /// The lab's name: lower-case letters and digits [default: lab, or demo for the demo].
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) lab: Option<String>,
    /// How to print results.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people; coloured on a terminal unless NO_COLOR is set.
    Text,
    /// For programs.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a cluster from manifests of namespaces, pods, services and policies.
    Up(Up),
    /// Create or change objects, and wait until that is in force.
    #[command(after_help = "Examples:\n  sluice-lab apply -f policy.yaml\n  sluice-lab apply -f one.yaml -f more/")]
    Apply(Files),
    /// Remove objects, and wait until that is in force.
    #[command(
        after_help = "Examples:\n  sluice-lab delete -f policy.yaml\n  sluice-lab delete networkpolicy default/deny-all\n  sluice-lab delete pod frontend"
    )]
    Delete(Delete),
    /// Run a command in a pod; its exit code is passed on.
    #[command(after_help = "Examples:\n  sluice-lab exec default/frontend -- curl -s backend\n  sluice-lab exec frontend -- bash")]
    Exec(Exec),
    /// Try every pair of pods and print who reaches whom.
    Matrix(Matrix),
    /// What runs, and what the agents say.
    Status,
    /// Show the agents' and servers' logs.
    Logs(Logs),
    /// Start an agent that was killed.
    Start(AgentArg),
    /// End an agent (SIGTERM) and start it again.
    Restart(AgentArg),
    /// SIGKILL an agent, as a crash would.
    Kill(AgentArg),
    /// Cut everybody off from the API server, or let them back; its objects stay.
    Outage(Outage),
    /// Take a node down with everything on it, and bring it back.
    Reboot {
        /// Which one.
        node: String,
    },
    /// Play a walkthrough of default-deny policies on live traffic.
    Demo(Demo),
    /// Play a walkthrough of two nodes behind an API server: a rollout, outages and crashes under traffic.
    ClusterDemo(ClusterDemo),
    /// Remove the lab and everything of it, also after a crash.
    Down,
    /// The server of one pod.
    #[command(hide = true)]
    ServePod { pod: String, ports: Vec<ServedPort> },
    /// The DNS server.
    #[command(hide = true)]
    ServeDns { hosts: PathBuf },
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sluice-lab up -f manifests/\n  sluice-lab up --api-server --nodes 3 -f manifests/\n  sluice-lab --lab base up -f manifests/ --no-sluice"
)]
pub(crate) struct Up {
    /// Manifest files or directories.
    #[arg(short, long = "filename", value_name = "PATH", required = true)]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) make: Make,
    /// Without agents and without policy: plain ptp, a baseline to measure against.
    #[arg(long)]
    pub(crate) no_sluice: bool,
    /// Put the objects on a test API server, which the agents follow, instead of in a directory.
    #[arg(long)]
    pub(crate) api_server: bool,
    /// Nodes of the cluster [default: 2].
    #[arg(long, value_name = "COUNT", requires = "api_server", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) nodes: Option<u8>,
    /// How pods' packets cross from node to node.
    #[arg(long, value_enum, requires = "api_server", default_value_t = sluice_lab::Paths::Routed)]
    pub(crate) paths: sluice_lab::Paths,
    /// How long after ADD a pod's addresses appear in its status.
    #[arg(long, value_name = "MS", requires = "api_server", default_value_t = 0)]
    pub(crate) status_delay_ms: u64,
}

/// How a lab is made, for `up` and `demo`.
#[derive(Debug, Args)]
pub(crate) struct Make {
    /// Workers of each dataplane.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) workers: u32,
    /// CPUs of the workers, such as 0,1 [default: the first ones allowed].
    #[arg(long, value_name = "LIST")]
    pub(crate) cpus: Option<String>,
    /// Where sluice-dataplane, sluice-control and sluice-cni are [default: beside this program].
    #[arg(long, value_name = "DIR")]
    pub(crate) bin_dir: Option<PathBuf>,
    /// A further argument of sluice-dataplane; may be repeated.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) dataplane_arg: Vec<String>,
    /// A further argument of sluice-control; may be repeated.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) control_arg: Vec<String>,
    /// Replace a living lab of the same name.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Files {
    /// Manifest files or directories.
    #[arg(short, long = "filename", value_name = "PATH", required = true)]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Every object in these manifest files or directories.
    #[arg(short, long = "filename", value_name = "PATH", conflicts_with_all = ["kind", "names"])]
    pub(crate) files: Vec<PathBuf>,
    /// pod, service, networkpolicy or namespace.
    #[arg(required_unless_present = "files", requires = "names")]
    pub(crate) kind: Option<String>,
    /// `namespace/name`, or a name in `default`.
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// `namespace/name`, or a name in `default`.
    pub(crate) pod: String,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Without --port each pair is tried on all TCP ports that the destination serves.\n\nExamples:\n  sluice-lab matrix\n  sluice-lab matrix --port 80/TCP --family 6 -o json"
)]
pub(crate) struct Matrix {
    /// Try this port everywhere, one grid for each; PORT or PORT/PROTOCOL.
    #[arg(long = "port", value_name = "PORT/PROTO")]
    pub(crate) ports: Vec<ServedPort>,
    /// 4 or 6.
    #[arg(long, default_value_t = 4, value_parser = family)]
    pub(crate) family: u8,
    /// How long to wait for an answer.
    #[arg(long, default_value_t = 950, value_name = "MS")]
    pub(crate) timeout_ms: u64,
    /// Also probe from and to the DNS pod.
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Only this one.
    #[arg(value_enum)]
    pub(crate) of: Option<LogOf>,
    /// The last lines of each.
    #[arg(long, default_value_t = 50)]
    pub(crate) tail: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogOf {
    Dataplane,
    Control,
    Servers,
    Apiserver,
}

#[derive(Debug, Args)]
pub(crate) struct AgentArg {
    /// Which one.
    #[arg(value_enum)]
    pub(crate) agent: AgentName,
    /// Of this node only [default: of every node].
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Outage {
    /// Whether the server is away.
    #[arg(value_enum)]
    pub(crate) state: Switch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AgentName {
    Dataplane,
    Control,
}

impl From<AgentName> for Agent {
    fn from(name: AgentName) -> Self {
        match name {
            AgentName::Dataplane => Self::Dataplane,
            AgentName::Control => Self::Control,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Leave the lab up at the end and say what to try next.
    #[arg(long)]
    pub(crate) keep: bool,
    #[command(flatten)]
    pub(crate) make: Make,
}

#[derive(Debug, Args)]
pub(crate) struct ClusterDemo {
    #[command(flatten)]
    pub(crate) demo: Demo,
    /// Another build of sluice-dataplane, which takes the place of node2's under traffic, and leaves it again.
    #[arg(long, value_name = "FILE")]
    pub(crate) next: Option<PathBuf>,
}

fn family(text: &str) -> Result<u8, String> {
    match text {
        "4" => Ok(4),
        "6" => Ok(6),
        _ => Err("the family is 4 or 6".into()),
    }
}
