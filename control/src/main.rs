//! The `sluice-control` binary: arguments, logs, signals, exit codes.
#![forbid(unsafe_code)]

use anyhow::Context;
use clap::{Parser, ValueEnum};
use sluice_control::{ClusterOptions, ControlError, Objects, Options};
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Compiles Kubernetes NetworkPolicies into tables, proves each against an oracle and hands it to the dataplane.
///
/// Needs no capability, and need not be root: `sluice-dataplane --control-user UID:GID` takes tables from that user and makes
/// a directory for its socket. Ends on SIGTERM or SIGINT; the dataplane goes on with the last table.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 ended by a signal, 1 failed, 2 wrong usage, 3 another one is running.
Log filter: RUST_LOG, for example RUST_LOG=sluice_control=debug."
)]
struct Args {
    /// Take objects from a directory of manifests (*.yaml, *.yml, *.json, recursively), watched for changes.
    #[arg(long, value_name = "DIR", required_unless_present_any = ["kubernetes", "definitions"], conflicts_with = "kubernetes")]
    manifests: Option<PathBuf>,
    /// Take objects from an API server: of --kubeconfig, else $KUBECONFIG, else ~/.kube/config, else as a pod of the cluster.
    #[arg(long)]
    kubernetes: bool,
    /// The kubeconfig to use.
    #[arg(long, value_name = "FILE", requires = "kubernetes")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig to use; otherwise its current one.
    #[arg(long, value_name = "NAME", requires = "kubernetes")]
    context: Option<String>,
    /// This node's name, as in pods' spec.nodeName: tells which pods a dataplane with --existing-pods=adopt may have found, and
    /// whose status is told. Otherwise $NODE_NAME, else the host's name.
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// Tell the API server which policies are in force on this node (`kubectl get nodestatuses`), and write events on its pods
    /// that policies select and nobody attached; needs --definitions there.
    #[arg(long, requires = "kubernetes")]
    tell_status: bool,
    /// Enforce nothing; tell on how many nodes each policy is in force (`kubectl get policystatuses`), and write events on
    /// objects that cannot be represented. One such process in a cluster suffices.
    #[arg(long, requires = "kubernetes", conflicts_with = "tell_status")]
    report: bool,
    /// Print the definitions of the resources that are written, for `kubectl apply -f -`, and end.
    #[arg(long, exclusive = true)]
    definitions: bool,
    /// Directory of the sockets.
    #[arg(long, value_name = "DIR", default_value = sluice_wire::RUN_DIR)]
    run_dir: PathBuf,
    /// Serve /livez, /readyz and /metrics over HTTP here, for example 127.0.0.1:9808.
    #[arg(long, value_name = "ADDR:PORT")]
    metrics_bind_address: Option<SocketAddr>,
    /// Form of the log on stderr.
    #[arg(long, value_enum, default_value = "text")]
    log: LogForm,
    /// How long objects must be quiet before changes are compiled. A pod that is being started waits for nothing.
    #[arg(long, value_name = "MS", default_value_t = 20)]
    debounce_ms: u64,
    /// How long a change waits for quiet at most.
    #[arg(long, value_name = "MS", default_value_t = 60)]
    debounce_max_ms: u64,
    /// How long a change waits for its proof; a longer one is finished behind the publication, and a difference rolls back.
    #[arg(long, value_name = "MS", default_value_t = 5000)]
    proof_wait_ms: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogForm {
    Json,
    Text,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.definitions {
        print!("{}", sluice_control::definitions().expect("the definitions are plain data"));
        return ExitCode::SUCCESS;
    }
    start_log(args.log);
    match serve(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(reason = format!("{error:#}"), "cannot serve");
            match error.downcast_ref() {
                Some(ControlError::AlreadyRunning(_)) => ExitCode::from(3),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn serve(args: Args) -> anyhow::Result<()> {
    let cluster = ClusterOptions { kubeconfig: args.kubeconfig, context: args.context, ..ClusterOptions::default() };
    let options = Options {
        objects: args.manifests.map_or_else(|| Objects::Cluster(cluster.clone()), Objects::Directory),
        tell_status: args.tell_status,
        run_dir: args.run_dir,
        node_name: args.node_name.unwrap_or_else(node_name),
        admin: args.metrics_bind_address,
        quiet: Duration::from_millis(args.debounce_ms),
        quiet_wait_max: Duration::from_millis(args.debounce_max_ms),
        proof_wait: Duration::from_millis(args.proof_wait_ms),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("cannot start the runtime")?;
    let served = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
        let shutdown = async {
            tokio::select! {
                _ = terminate.recv() => tracing::info!(signal = "SIGTERM", "ending"),
                _ = interrupt.recv() => tracing::info!(signal = "SIGINT", "ending"),
            }
        };
        match args.report {
            // a pod's host name is its own
            true => {
                sluice_control::report(&cluster, std::env::var("HOSTNAME").ok(), options.admin, shutdown).await.map_err(anyhow::Error::from)
            }
            false => sluice_control::run(options, shutdown).await.map_err(anyhow::Error::from),
        }
    });
    // A compilation in flight has nothing to save.
    runtime.shutdown_background();
    served
}

/// As the kubelet names a node that nobody named otherwise.
fn node_name() -> String {
    let given = std::env::var("NODE_NAME").ok().filter(|name| !name.is_empty());
    let of_host = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_lowercase();
    given.unwrap_or_else(of_host)
}

fn start_log(form: LogForm) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,kube_client=off"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr);
    match form {
        LogForm::Json => log.json().flatten_event(true).init(),
        LogForm::Text => log.init(),
    }
}
