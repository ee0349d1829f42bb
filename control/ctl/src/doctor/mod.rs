//! `doctor`: what this machine has for Sluice, what is missing, and what to do about it.
//!
//! ```text
//!   tree checks   read /proc, /sys and /etc below a root directory: tests give them the trees of odd machines
//!   live checks   ask the kernel and the processes, in a network namespace of their own where they try something
//! ```
//!
//! Nothing is changed, and real devices are only read.

mod agents;
mod bpf;
mod cni;
mod cpu;
mod finding;
mod kernel;
mod netdev;
mod network;
mod nic;
mod run_dir;
mod server;
mod tcx;
mod tree;

#[cfg(test)]
mod tests;

use crate::Ending;
use crate::arguments::Form;
use crate::client::Client;
use crate::output::{count, json};
use anyhow::Result;
use clap::Args;
use finding::{Finding, State};
use owo_colors::OwoColorize;
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;
use tree::Tree;

/// What the machine is to be checked for.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// CPUs meant for workers, as for `sluice-dataplane --cpus`; otherwise those of the running workers.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) cpus: Vec<usize>,
    /// The runtime's network configuration.
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    pub(crate) conf_dir: PathBuf,
    /// The runtime's plugins.
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    pub(crate) bin_dir: PathBuf,
    /// Also check that the API server of this kubeconfig can be reached.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Also check the service account of the pod in which this runs.
    #[arg(long)]
    pub(crate) in_cluster: bool,
}

/// Checks that only read files; in the order in which they are shown.
const TREE_CHECKS: [fn(&Tree) -> Vec<Finding>; 16] = [
    kernel::version,
    kernel::btf,
    kernel::bpffs,
    kernel::memlock,
    kernel::cgroup,
    kernel::capabilities,
    kernel::jit,
    kernel::unprivileged,
    network::forwarding,
    network::reverse_path,
    network::pod_mtu,
    network::netfilter,
    run_dir::tmpfs,
    cpu::clock,
    cpu::workers,
    cni::configuration,
];

#[derive(Debug, Serialize)]
struct Report<'a> {
    ok: bool,
    checks: &'a [Finding],
}

/// Checks, prints, and ends with [`Ending::No`] if something required is missing.
pub(crate) fn run(client: &Client, run_dir: &std::path::Path, options: &Options, form: Form, out: &mut dyn Write) -> Result<Ending> {
    let agents = agents::Agents::ask(client);
    let cpus = if options.cpus.is_empty() { agents.cpus() } else { options.cpus.clone() };
    let tree = Tree::of_this_machine(run_dir, options, cpus);
    let mut findings: Vec<Finding> = TREE_CHECKS.iter().flat_map(|check| check(&tree)).collect();
    findings.extend(tcx::attach());
    findings.extend(run_dir::room(run_dir));
    findings.extend(nic::devices(&tree));
    findings.extend(agents.findings(&tree));
    findings.extend(options.kubeconfig.as_deref().map(server::kubeconfig));
    findings.extend(options.in_cluster.then(server::service_account));
    let ok = findings.iter().all(|finding| finding.state != State::Missing);
    match form {
        Form::Json => json(out, &Report { ok, checks: &findings })?,
        Form::Table => print(&findings, out)?,
    }
    Ok(if ok { Ending::Ok } else { Ending::No })
}

/// A line for each check; what to do stands below it.
fn print(findings: &[Finding], out: &mut dyn Write) -> Result<()> {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    writeln!(out, "{:width$}   STATE     FOUND", "CHECK")?;
    for finding in findings {
        let state = format!("{:<7}", finding.state.name());
        let state = match finding.state {
            State::Fine => state.green().to_string(),
            State::Advice => state.yellow().to_string(),
            State::Unknown => state.blue().to_string(),
            State::Missing => state.red().bold().to_string(),
        };
        writeln!(out, "{:width$}   {state}   {}", finding.check, finding.found)?;
        for line in finding.advice.iter().flat_map(|advice| advice.lines()) {
            writeln!(out, "{:width$}             {} {line}", "", "do:".bold())?;
        }
    }
    let number = |state| findings.iter().filter(|finding| finding.state == state).count() as u64;
    let unknown = match number(State::Unknown) {
        0 => String::new(),
        unknown => format!(", {unknown} not checked"),
    };
    let advice = count(number(State::Advice), "piece of advice", "pieces of advice");
    writeln!(out, "\n{} fine, {advice}, {} missing{unknown}", number(State::Fine), number(State::Missing))?;
    Ok(())
}
