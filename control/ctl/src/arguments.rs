//! The command line: one place for names, help texts and the forms of values.

use crate::client::Client;
use crate::{diff, doctor, matrix};
use clap::{Args, Parser, Subcommand, ValueEnum};
use sluice_flow::{ObjectName, Protocol};
use sluice_policy::lint::WarningKind;
use std::path::PathBuf;
use std::time::Duration;

/// Shows what this node enforces, and why a connection passes or not.
#[derive(Debug, Parser)]
#[command(
    name = "sluicectl",
    version,
    after_help = "Examples:
  sluicectl doctor
  sluicectl status --wait --timeout 30s
  sluicectl wait policy shop/web
  sluicectl get endpoints
  sluicectl get connections --pod shop/web -o json
  sluicectl explain shop/client shop/web 80
  sluicectl explain shop/client 10.0.0.9 53/udp -f manifests/
  sluicectl lint -f manifests/
  sluicectl table dump
  sluicectl matrix -f manifests/ --html matrix.html
  sluicectl diff -f before/ -f after/

Exit codes: 0 done, allowed or equal, 1 denied (explain), different (diff), not ready or not in force (status --wait,
wait), something missing (doctor) or errors found (lint), 2 error."
)]
pub(crate) struct Arguments {
    /// Directory of the sockets.
    #[arg(long, global = true, value_name = "DIR", default_value = sluice_wire::RUN_DIR)]
    pub(crate) run_dir: PathBuf,
    /// Form of the output.
    #[arg(short, long, global = true, value_enum, default_value = "table")]
    pub(crate) output: Form,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Arguments {
    pub(crate) fn client(&self) -> Client {
        Client::new(&self.run_dir)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// For people.
    Table,
    /// For scripts; the field names are stable.
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    /// Hooks on every pod: policy is enforced.
    On,
    /// No hooks: everything passes, until `on` or a restart of the dataplane.
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Offload {
    /// The verdict cache decides in the kernel: as fast as that is.
    On,
    /// Workers see every packet: slower, and each is judged for itself.
    Off,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Both processes, the generation in force, and what could not be used.
    Status(StatusOptions),
    /// Waits until a policy is in force on this node.
    #[command(subcommand)]
    Wait(Wait),
    /// Lists endpoints, policies, connections or drops.
    #[command(subcommand)]
    Get(Get),
    /// The compiled table that the workers use.
    #[command(subcommand)]
    Table(TableCommand),
    /// Takes the hooks off all pods, or puts them back. Off, nothing is enforced: for emergencies and measurements.
    Enforce {
        /// `on` or `off`.
        #[arg(value_enum)]
        state: Switch,
    },
    /// Lets the kernel decide what a worker has judged before, or sends every packet of isolated pods through its worker. Until a
    /// restart of the dataplane, whose `--offload` says what it begins with.
    Offload {
        /// `on` or `off`.
        #[arg(value_enum)]
        state: Offload,
    },
    /// Why a connection passes or not.
    #[command(after_help = "Examples:
  sluicectl explain shop/client shop/web 80          TCP to port 80
  sluicectl explain shop/client shop/web 53/udp
  sluicectl explain 203.0.113.7 shop/web icmp        from outside, a protocol without ports
  sluicectl explain shop/client shop/web 80 -f .     from manifests, without a running node")]
    Explain(Question),
    /// Who may reach whom on which port, from manifests alone.
    #[command(after_help = "Every pair is judged on every port. Rows open connections to columns. Pods without an address (workloads
have none) are judged too; ipBlocks look at addresses only, so a note says where they are assumed to be.

Examples:
  sluicectl matrix -f manifests/                            a grid, or a line for each pair if it is too wide
  sluicectl matrix -f manifests/ --html matrix.html         a page to look at: rules, nearest misses, search
  sluicectl matrix -f manifests/ --list --all               each pair with the rules that decide
  sluicectl matrix -f manifests/ -n shop --inside           one namespace, and the outside
  sluicectl matrix -f manifests/ --pod shop/web --list      who reaches shop/web, and whom it reaches
  sluicectl matrix -f manifests/ -o json | jq '.pairs[] | select(.verdict == \"open\")'
  kubectl get ns,deploy,sts,ds,pods,netpol -A -o yaml | sluicectl matrix -f -")]
    Matrix(matrix::Request),
    /// Which pairs change their verdict between two states of manifests, and what is responsible.
    #[command(after_help = "Every pair is compared on every port. Each change names the rule that allows now, or the policies that
isolate now. Pods that only one state has are listed apart.

Examples:
  sluicectl diff -f before/ -f after/
  sluicectl diff -f base.yaml,old.yaml -f base.yaml,new.yaml      several paths make one state
  git worktree add ../main main && sluicectl diff -f ../main/k8s -f k8s

Exit codes, as diff has them: 0 no change, 1 changes, 2 error.")]
    Diff(diff::Request),
    /// What this machine has for Sluice, what is missing, and what to do about it.
    #[command(after_help = "It changes nothing. Real devices are only read; tcx is tried in a network namespace that ends
with the try. Run it as root, on the node (or in the dataplane's container), before and after installing.

Examples:
  sluicectl doctor
  sluicectl doctor --cpus 2,3                         are these cores good for workers?
  sluicectl doctor --kubeconfig /etc/sluice/kubeconfig
  sluicectl doctor -o json | jq '.checks[] | select(.state == \"missing\")'

Exit codes: 0 all fine or only advice, 1 something required is missing, 2 error.")]
    Doctor(doctor::Options),
    /// What is wrong with manifests, and what is legal but probably unmeant. Needs no cluster.
    #[command(
        after_help = "Every finding shows file, line and column, the line itself, what it means in effect and what was probably meant.
Pods are read from Pods and from the templates of Deployments and their like.

Examples:
  sluicectl lint -f manifests/                      every manifest below a directory
  sluicectl lint -f policies.yaml -f pods.yaml      together: policies add up, peers match pods
  helm template . | sluicectl lint -f -             from standard input
  sluicectl lint -f . --deny warnings               for CI: warnings end with 1 too
  sluicectl lint -f . --allow covered-rule          without one kind of warning
  sluicectl lint --explain dns-cut-off              what a warning means, with an example
  sluicectl lint --explain                          all kinds of warnings
  sluicectl lint -f . -o json                       for scripts

Exit codes: 0 clean or only warnings, 1 errors or denied warnings, 2 wrong usage or a path that cannot be read."
    )]
    Lint(LintOptions),
}

#[derive(Debug, Args)]
pub(crate) struct LintOptions {
    /// Files or directories; `-` is standard input.
    #[arg(short = 'f', long = "filename", value_name = "PATH", required_unless_present = "explain")]
    pub(crate) manifests: Vec<PathBuf>,
    /// Leaves a kind of warning out.
    #[arg(long, value_name = "ID", value_parser = warning_kind)]
    pub(crate) allow: Vec<WarningKind>,
    /// Ends with 1 on these: `warnings` for all, or one kind.
    #[arg(long, value_name = "warnings|ID", value_parser = denied)]
    pub(crate) deny: Vec<Denied>,
    /// Says what a kind of warning means, with an example; without ID lists all kinds.
    #[arg(long, value_name = "ID", num_args = 0..=1, value_parser = warning_kind, conflicts_with_all = ["manifests", "allow", "deny"])]
    pub(crate) explain: Option<Option<WarningKind>>,
}

/// Which warnings count as errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    Warnings,
    Kind(WarningKind),
}

fn warning_kind(text: &str) -> Result<WarningKind, String> {
    text.parse().map_err(|error| format!("{error}"))
}

fn denied(text: &str) -> Result<Denied, String> {
    match text {
        "warnings" => Ok(Denied::Warnings),
        _ => warning_kind(text).map(Denied::Kind),
    }
}

#[derive(Debug, Args)]
pub(crate) struct StatusOptions {
    /// Wait until the manifests as they are now are in force; exit 1 if they are not in time.
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait: `500ms`, `30s`, `2m`.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration, requires = "wait")]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Wait {
    /// In force: every worker of this node judges by it.
    #[command(after_help = "Without --generation the newest state is meant: an API server is asked which that is, a directory is read.
With it, that state or a later one; `kubectl apply -o jsonpath={.metadata.generation}` tells it.

Examples:
  kubectl apply -f web.yaml && sluicectl wait policy shop/web
  sluicectl wait policy shop/web --generation 4 --timeout 5s
  sluicectl wait policy shop/web --timeout 0s -o json      only look

Exit codes: 0 in force, 1 not in time or refused, 2 error.")]
    Policy {
        /// The policy.
        #[arg(value_name = "NS/NAME", value_parser = pod)]
        policy: ObjectName,
        /// Its `metadata.generation`, at least.
        #[arg(long, value_name = "N")]
        generation: Option<i64>,
        /// How long to wait: `500ms`, `30s`, `2m`; `0s` only looks.
        #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
        timeout: Duration,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Get {
    /// Pods attached to this node.
    #[command(visible_aliases = ["endpoint", "ep"])]
    Endpoints,
    /// Policies in force, and what they select.
    #[command(visible_aliases = ["policy", "netpol"])]
    Policies,
    /// Connections that workers track.
    #[command(visible_aliases = ["connection", "conntrack"])]
    Connections {
        /// Only of this pod.
        #[arg(short, long, value_name = "NS/POD", value_parser = pod)]
        pod: Option<ObjectName>,
        /// At most so many.
        #[arg(long, value_name = "N", default_value_t = 1000)]
        max: u32,
    },
    /// What each rule let through: connections that live and that are over, packets, bytes; since the dataplane started.
    #[command(visible_aliases = ["rule"])]
    Rules,
    /// Connections that new tables cut, newest first, and the rules that had allowed them.
    #[command(visible_aliases = ["cut"])]
    Cuts,
    /// Dropped packets by reason.
    Drops,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TableCommand {
    /// Prints the table with names.
    Dump {
        /// A saved image instead of the live one.
        #[arg(long, value_name = "FILE")]
        image: Option<PathBuf>,
    },
    /// Saves the live image, for `table dump --image` and bug reports.
    Save {
        /// Where to; replaced if it exists.
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Question {
    /// `ns/pod` or an address.
    pub(crate) src: String,
    /// `ns/pod` or an address.
    pub(crate) dst: String,
    /// Destination port, `PORT` or `PORT/PROTOCOL`, or a protocol without ports such as `icmp`.
    #[arg(value_name = "PORT[/PROTO]", value_parser = port)]
    pub(crate) port: PortAndProtocol,
    /// Answer from these manifests (files or directories) instead of the running node.
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    pub(crate) manifests: Vec<PathBuf>,
    /// With `-f`: where pods live that have no address in the manifests; may be repeated.
    #[arg(long = "pod-cidr", value_name = "CIDR", value_parser = crate::analysis::cidr, requires = "manifests")]
    pub(crate) pod_cidrs: Vec<ipnet::IpNet>,
}

/// What a rule's `ports` look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PortAndProtocol {
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
}

impl PortAndProtocol {
    /// As the control process reads it.
    pub(crate) fn protocol_name(self) -> String {
        match self.protocol {
            Protocol::TCP => "TCP".to_owned(),
            Protocol::UDP => "UDP".to_owned(),
            Protocol::SCTP => "SCTP".to_owned(),
            Protocol(number) => number.to_string(),
        }
    }
}

fn port(text: &str) -> Result<PortAndProtocol, String> {
    if let Some(protocol) = Protocol::from_name(text).filter(|_| text.parse::<u16>().is_err()) {
        return match protocol.has_ports() {
            true => Err(format!("{text} needs a port, such as 80/{text}")),
            false => Ok(PortAndProtocol { port: 0, protocol }),
        };
    }
    let (number, protocol) = text.split_once('/').unwrap_or((text, "TCP"));
    let protocol = Protocol::from_name(protocol).ok_or_else(|| format!("unknown protocol {protocol:?}"))?;
    let port = number.parse().map_err(|_| format!("{number:?} is no port (0 to 65535)"))?;
    Ok(PortAndProtocol { port, protocol })
}

pub(crate) fn pod(text: &str) -> Result<ObjectName, String> {
    let name = ObjectName::parse(text);
    if name.namespace.is_empty() || name.name.is_empty() || name.name.contains('/') {
        return Err("expected NS/POD".to_owned());
    }
    Ok(name)
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "expected a time such as 500ms, 30s or 2m".to_owned())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" | "" => Ok(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs).ok_or_else(|| "too long".to_owned()),
        other => Err(format!("unknown unit {other:?}; use ms, s or m")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn ports_and_protocols_are_read_as_people_write_them() {
        for (text, expected) in [
            ("80", Some((80, Protocol::TCP))),
            ("53/udp", Some((53, Protocol::UDP))),
            ("9/SCTP", Some((9, Protocol::SCTP))),
            ("icmp", Some((0, Protocol::ICMP))),
            ("0/47", Some((0, Protocol(47)))),
            ("tcp", None),
            ("65536", None),
            ("80/http", None),
            ("", None),
        ] {
            let read = port(text).ok().map(|p| (p.port, p.protocol));
            assert_eq!(read, expected, "{text:?}");
        }
    }

    #[test]
    fn times_have_units() {
        for (text, expected) in [
            ("500ms", Some(Duration::from_millis(500))),
            ("30s", Some(Duration::from_secs(30))),
            ("7", Some(Duration::from_secs(7))),
            ("2m", Some(Duration::from_secs(120))),
            ("2h", None),
            ("s", None),
            ("-1s", None),
        ] {
            assert_eq!(duration(text).ok(), expected, "{text:?}");
        }
    }
}
