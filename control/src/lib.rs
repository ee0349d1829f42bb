//! The control process: objects in, proved tables out.
//!
//! ```text
//!   manifests or API server ──source───────▶ ┌────────┐ ──workshop (blocking)────▶ image ──link──▶ dataplane
//!   dataplane's endpoints ──link (thread)─▶ │ engine │ ◀─────── Adopted, Refused ────────────────────┘
//!                                           └───┬────┘
//!                                               ▼ View (watch channel)
//!                             server (threads): Status, Policies, Explain, Settle ◀── sluicectl
//! ```
//!
//! Everything that changes goes through one task, the [`engine`], as one event after another; everything that asks
//! reads the last [`view`] it left behind, so that a question never waits for a compilation. Reading directories and
//! sockets is blocking work on threads of its own, because both take the time they take.
//!
//! Invariants: nothing is published before everything was read once and the dataplane told its endpoints; only an image
//! that agrees with the oracle is published, or one whose proof goes on behind it and that is taken back if it fails; generations rise strictly, also across restarts of this process; where
//! anything fails, the table in force stays and the status says why.
#![forbid(unsafe_code)]

mod admin;
mod debounce;
mod engine;
mod explain;
mod identify;
mod link;
mod merge;
mod policies;
mod realized;
mod report;
mod server;
mod socket;
mod source;
mod view;
mod workshop;

pub use merge::Merger;
pub use report::definitions;
pub use source::cluster::{ClusterError, ClusterOptions, Pace};

use admin::Metrics;
use debounce::Debounce;
use sluice_wire::{DATAPLANE_SOCKET, WireError};
use source::Source;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// How long changes are collected before they are reported.
const REPORT_QUIET: Duration = Duration::from_millis(200);

/// A source of objects.
#[derive(Debug, Clone)]
pub enum Objects {
    /// A directory of manifests.
    Directory(PathBuf),
    /// An API server.
    Cluster(ClusterOptions),
}

/// What to watch and where to serve.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where objects come from.
    pub objects: Objects,
    /// Holds the dataplane's socket and this process's own.
    pub run_dir: PathBuf,
    /// This node, as pods' `spec.nodeName` has it; only pods of this node are behind its devices.
    pub node_name: String,
    /// Where health and metrics are served, if anywhere.
    pub admin: Option<SocketAddr>,
    /// Whether the API server is told what is in force here.
    pub tell_status: bool,
    /// How long the source must be quiet before a change is taken up. A pod that is being started waits for nothing.
    pub quiet: Duration,
    /// The longest that a change waits for quiet.
    pub quiet_wait_max: Duration,
    /// How long a change waits for its proof. A longer proof is finished behind the publication, once there is a proved
    /// table to go back to.
    pub proof_wait: Duration,
}

/// Why the control process cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A second control process would take the dataplane away from the first.
    #[error("another sluice-control serves {0}; stop it first, or use another --run-dir")]
    AlreadyRunning(PathBuf),
    /// The socket cannot be served.
    #[error("cannot serve the control socket: {0}")]
    Socket(WireError),
    /// Only root may write to the run directory, and no directory was made for this user.
    #[error(
        "cannot serve {}: {reason}. A control process that is not root needs `sluice-dataplane --control-user UID:GID`, which makes that directory for it",
        socket.display()
    )]
    NotPermitted {
        /// The socket.
        socket: PathBuf,
        /// The system's.
        reason: io::Error,
    },
    /// Health and metrics cannot be served.
    #[error("cannot serve health and metrics on {address}: {source}")]
    Admin {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// There is no API server to ask.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// Serves until `shutdown` is ready, then removes the socket. Dropping the future does the same.
///
/// # Errors
/// When the control socket cannot be served. Everything else, the dataplane's absence included, is a state that the
/// status shows, not an end.
pub async fn run(options: Options, shutdown: impl Future<Output = ()>) -> Result<(), ControlError> {
    let mut shutdown = std::pin::pin!(shutdown);
    let listener = tokio::select! {
        bound = socket::bind(&options.run_dir) => bound?,
        () = &mut shutdown => return Ok(()),
    };
    let (events, inbox) = tokio::sync::mpsc::unbounded_channel();
    let debounce = Debounce::new(options.quiet, options.quiet_wait_max);
    let (awaited, awaits) = tokio::sync::watch::channel(Arc::default());
    let mut client = None;
    let (source, name) = match &options.objects {
        Objects::Directory(directory) => {
            let handle = source::directory::start(directory, debounce, events.clone()).map_err(ControlError::Thread)?;
            (Source::Directory(handle), format!("directory {}", directory.display()))
        }
        Objects::Cluster(cluster) => {
            let (asked, server) = source::cluster::client(cluster).await?;
            let handle = source::cluster::start(&asked, server.clone(), cluster.pace, debounce, awaits, events.clone());
            client = Some(asked);
            (Source::Cluster(handle), format!("API server {server}"))
        }
    };
    tracing::info!(source = name, run_dir = %options.run_dir.display(), "serving");
    let metrics = Metrics::default();
    let (engine, view) = engine::Engine::new(name, options.proof_wait, metrics.clone(), awaited, events.clone());
    let dataplane = options.run_dir.join(DATAPLANE_SOCKET);
    let unidentified = identify::start(dataplane.clone(), options.node_name.clone(), view.clone()).map_err(ControlError::Thread)?;
    link::start(dataplane.clone(), events.clone(), unidentified).map_err(ControlError::Thread)?;
    let served = async {
        match listen(options.admin).await? {
            Some((address, listener)) => {
                let served = admin::serve(listener, dataplane, view.clone(), metrics, events).await;
                served.map_err(|source| ControlError::Admin { address, source })
            }
            None => std::future::pending().await,
        }
    };
    let told = async {
        match client.filter(|_| options.tell_status) {
            Some(client) => report::tell(client, options.node_name, view.clone()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = engine.run(inbox) => unreachable!("the engine holds a sender of its own inbox"),
        result = server::serve(listener, view.clone(), source) => result.map_err(ControlError::Socket),
        result = served => result,
        () = told => unreachable!("views are left as long as the engine lives"),
        () = &mut shutdown => Ok(()),
    }
}

/// Tells on how many nodes each policy is in force, and of those that cannot be represented, until `shutdown` is ready. Needs
/// neither a dataplane nor a run directory; one in a cluster suffices. `instance`: who the events are said to come from.
/// `admin`: where health and metrics are served, if anywhere.
///
/// # Errors
/// When there is no API server to ask, or health and metrics cannot be served.
pub async fn report(
    cluster: &ClusterOptions,
    instance: Option<String>,
    admin: Option<SocketAddr>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ControlError> {
    let (client, server) = source::cluster::client(cluster).await?;
    let (events, readings) = tokio::sync::mpsc::unbounded_channel();
    // nobody starts a pod here
    let (_awaited, awaits) = tokio::sync::watch::channel(Arc::default());
    let debounce = Debounce::new(REPORT_QUIET, REPORT_QUIET);
    let _source = source::cluster::start(&client, server.clone(), cluster.pace, debounce, awaits, events);
    tracing::info!(server, "reporting");
    let progress = Arc::new(report::Progress::default());
    let served = async {
        match listen(admin).await? {
            Some((address, listener)) => {
                admin::serve_reporter(listener, progress.clone()).await.map_err(|source| ControlError::Admin { address, source })
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = report::report(client, instance, readings, progress.clone()) => Ok(()),
        result = served => result,
        () = shutdown => Ok(()),
    }
}

async fn listen(admin: Option<SocketAddr>) -> Result<Option<(SocketAddr, TcpListener)>, ControlError> {
    let Some(address) = admin else { return Ok(None) };
    let failed = |source| ControlError::Admin { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    tracing::info!(%address, "health and metrics");
    Ok(Some((address, listener)))
}
