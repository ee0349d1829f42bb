//! `sluice-apiserver`: the test API server as a process, to be changed through its ordinary API.

#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use clap::Parser;
use sluice_apiserver::{Clock, Manifests, Recording, Rule, Script, Server, Size, Speed};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

const AFTER_HELP: &str = "\
Examples:
  An empty cluster, and a policy put into it:
    sluice-apiserver --listen 127.0.0.1:8001 &
    curl -X POST -H 'Content-Type: application/yaml' --data-binary @policy.yaml \\
      http://127.0.0.1:8001/apis/networking.k8s.io/v1/namespaces/default/networkpolicies

  A busy cluster behind TLS, with watches that break:
    sluice-apiserver --tls --kubeconfig /tmp/kubeconfig --pods 500 --changes-per-second 20 --faults faults.yaml

  A file of fault rules:
    - {resource: pods, verb: watch, nth: 2, fault: {end-after: 3}}
    - {verb: list, probability: 0.1, fault: {status: {code: 429, retry_after_s: 2}}}

  A recorded server, at ten times its pace:
    sluice-apiserver --replay recorded.tar.xz --speed 10

A pod's status is written to its /status; a pod on a node goes when it is deleted with gracePeriodSeconds=0.

SIGUSR1 begins an outage: everybody is cut off and new connections are refused. SIGUSR2 ends it, on the same address
and with the same objects.";

/// A test API server: speaks the Kubernetes API well enough for clients, watches and faults.
///
/// Prints its URL once it listens. Serves core/v1 namespaces, pods, services, nodes and events,
/// networking.k8s.io/v1 networkpolicies, discovery.k8s.io/v1 endpointslices, events.k8s.io/v1 events, and what the
/// CustomResourceDefinitions among the manifests define.
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER_HELP)]
struct Options {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Serve TLS, under an authority made at start; clients find it in the kubeconfig
    #[arg(long)]
    tls: bool,
    /// Require this bearer token
    #[arg(long)]
    token: Option<String>,
    /// Write a kubeconfig for this server
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Write token, ca.crt and namespace, as they are mounted into a pod
    #[arg(long, value_name = "DIR")]
    in_cluster: Option<PathBuf>,
    /// Load the YAML and JSON files of a directory at start
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
    /// Fault rules, YAML
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
    /// Refuse streaming lists, as servers without the WatchList feature do
    #[arg(long)]
    no_streaming_lists: bool,
    /// Seconds between the bookmarks of a watch
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    bookmark_interval: u64,
    /// Answer from a recording instead
    #[arg(long, value_name = "FILE", conflicts_with_all = ["manifests", "changes_per_second", "pods"])]
    replay: Option<PathBuf>,
    /// Pace of the replay against the recorded one; 0 sends everything at once
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, requires = "replay")]
    speed: f64,
    /// Seed of uids, faults and random changes
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Change a random cluster so often; --pods, --nodes and the like say how large it is
    #[arg(long, value_name = "RATE")]
    changes_per_second: Option<f64>,
    /// Pods of a random cluster
    #[arg(long, value_name = "COUNT")]
    pods: Option<usize>,
    /// Nodes of a random cluster
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    nodes: usize,
    /// Namespaces of a random cluster
    #[arg(long, value_name = "COUNT", default_value_t = 4)]
    namespaces: usize,
    /// Policies of a random cluster
    #[arg(long, value_name = "COUNT", default_value_t = 8)]
    policies: usize,
    /// Services of a random cluster
    #[arg(long, value_name = "COUNT", default_value_t = 4)]
    services: usize,
    /// Log requests; twice for more
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let level = ["sluice_apiserver=warn", "sluice_apiserver=info", "debug"][usize::from(options.verbose).min(2)];
    tracing_subscriber::fmt().with_env_filter(level).with_writer(std::io::stderr).init();
    let server = start(&options).await?;
    let script = random_cluster(&options, &server);
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let outages = outages(&server)?;
    // Whoever reads the URL may send signals at once.
    println!("{}", server.url());
    let changes = async {
        match (script, options.changes_per_second.filter(|rate| *rate > 0.0)) {
            (Some(script), Some(rate)) => change(script, rate).await,
            _ => std::future::pending().await,
        }
    };
    tokio::select! {
        () = changes => {}
        outage = outages => outage?,
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot wait for an interrupt")?,
    }
    server.end_watches();
    // The real server ends its watches in order before it goes.
    tokio::time::sleep(Duration::from_millis(100)).await;
    Ok(())
}

/// SIGUSR1 begins an outage, SIGUSR2 ends it; what is held stays.
fn outages(server: &Server) -> Result<impl Future<Output = Result<()>>> {
    let mut down = signal(SignalKind::user_defined1()).context("cannot wait for SIGUSR1")?;
    let mut back = signal(SignalKind::user_defined2()).context("cannot wait for SIGUSR2")?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = down.recv() => server.go_down().await.context("cannot begin an outage")?,
                _ = back.recv() => server.come_back().await.context("cannot end the outage")?,
            }
        }
    })
}

async fn start(options: &Options) -> Result<Server> {
    let manifests = match &options.manifests {
        Some(directory) => Manifests::read(directory).context("cannot read the manifests")?,
        None => Manifests::default(),
    };
    let mut builder = Server::builder()
        .listen(options.listen)
        .seed(options.seed)
        .clock(Clock::System)
        .tls(options.tls)
        .streaming_lists(!options.no_streaming_lists)
        .bookmark_interval(Duration::from_secs(options.bookmark_interval.max(1)));
    if let Some(token) = &options.token {
        builder = builder.token(token);
    }
    for resource in manifests.resources {
        builder = builder.resource(resource);
    }
    if let Some(file) = &options.replay {
        let recording = Recording::open(file).with_context(|| format!("cannot read the recording {}", file.display()))?;
        builder = builder.replay(recording, if options.speed > 0.0 { Speed::Times(options.speed) } else { Speed::AtOnce });
    }
    let server = builder.start().await?;
    server.store().load(manifests.objects).context("cannot load the manifests")?;
    for rule in options.faults.as_deref().map(rules).transpose()?.unwrap_or_default() {
        server.faults().add(rule);
    }
    if let Some(file) = &options.kubeconfig {
        std::fs::write(file, server.kubeconfig()).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if let Some(directory) = &options.in_cluster {
        server.write_in_cluster_files(directory).with_context(|| format!("cannot write into {}", directory.display()))?;
    }
    Ok(server)
}

fn rules(file: &Path) -> Result<Vec<Rule>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_saphyr::from_str(&text).with_context(|| format!("{} holds no fault rules", file.display()))
}

fn random_cluster(options: &Options, server: &Server) -> Option<Script> {
    let Options { nodes, namespaces, policies, services, .. } = *options;
    let wanted = options.pods.is_some() || options.changes_per_second.is_some();
    let size = Size { nodes, namespaces, pods: options.pods.unwrap_or(Size::default().pods), policies, services };
    wanted.then(|| Script::new(server.store().clone(), options.seed, size))
}

async fn change(mut script: Script, rate: f64) {
    let pause = Duration::try_from_secs_f64(1.0 / rate).unwrap_or(Duration::MAX);
    let mut ticks = tokio::time::interval(pause.min(Duration::from_secs(86_400)));
    loop {
        ticks.tick().await;
        let change = script.step();
        tracing::info!(version = change.version, what = change.what, "change");
    }
}
