//! The server as a value: built, started, tampered with, and gone when it is dropped.

use crate::api::Shared;
use crate::auth::Auth;
use crate::clock::Clock;
use crate::faults::Faults;
use crate::kubeconfig::{Access, kubeconfig, write_in_cluster_files};
use crate::listener::{Service, accept, reserve};
use crate::replay::{Recording, Replay, Speed};
use crate::resource::{Registry, Resource};
use crate::settings::Settings;
use crate::store::Store;
use crate::tls::{Tls, TlsError};
use serde_json::json;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::net::TcpSocket;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

/// Changes that are kept for each resource, unless the builder says otherwise.
const HISTORY_MAX: usize = 10_000;
/// Namespaces that every cluster has.
const SYSTEM_NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// No certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Settings of a server that is to start.
#[derive(Debug)]
pub struct Builder {
    address: SocketAddr,
    seed: Option<u64>,
    clock: Option<Clock>,
    tls: bool,
    token: Option<String>,
    registry: Registry,
    history_max: usize,
    system_namespaces: bool,
    settings: Settings,
    replay: Option<(Recording, Speed)>,
}

impl Builder {
    /// The address to listen on; a free port of 127.0.0.1 otherwise.
    pub fn listen(self, address: SocketAddr) -> Self {
        Self { address, ..self }
    }

    /// Makes uids, faults and times repeatable: the clock then moves only by [`Clock::advance`] and scripts, unless
    /// [`Builder::clock`] names another.
    pub fn seed(self, seed: u64) -> Self {
        Self { seed: Some(seed), ..self }
    }

    /// The clock for timestamps and the `Date` header.
    pub fn clock(self, clock: Clock) -> Self {
        Self { clock: Some(clock), ..self }
    }

    /// Whether to serve TLS, under an authority of its own; see [`Server::kubeconfig`].
    pub fn tls(self, tls: bool) -> Self {
        Self { tls, ..self }
    }

    /// Requires this bearer token; see [`Server::auth`] for others.
    pub fn token(self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self }
    }

    /// Serves one more resource.
    pub fn resource(mut self, resource: Resource) -> Self {
        self.registry.add(resource);
        self
    }

    /// Bounds the changes that are kept for each resource; watches from before them get 410.
    pub fn history_max(self, history_max: usize) -> Self {
        Self { history_max, ..self }
    }

    /// Whether `default`, `kube-system`, `kube-public` and `kube-node-lease` exist from the start; they do otherwise.
    pub fn system_namespaces(self, system_namespaces: bool) -> Self {
        Self { system_namespaces, ..self }
    }

    /// Time between bookmarks; a minute otherwise.
    pub fn bookmark_interval(mut self, interval: Duration) -> Self {
        self.settings.bookmark_interval = interval;
        self
    }

    /// Length of watches that name none; half an hour otherwise.
    pub fn watch_timeout(mut self, timeout: Duration) -> Self {
        self.settings.watch_timeout = timeout;
        self
    }

    /// Whether `sendInitialEvents` is served; it is otherwise.
    pub fn streaming_lists(mut self, streaming_lists: bool) -> Self {
        self.settings.streaming_lists = streaming_lists;
        self
    }

    /// Whether a watch from a version that is gone gets 410 as its HTTP status, for as long as it asks; otherwise 200 and an
    /// ERROR event, as recorded. Servers do either.
    pub fn expiry_as_status(mut self, expiry_as_status: bool) -> Self {
        self.settings.expiry_as_status = expiry_as_status;
        self
    }

    /// Answers from a recording instead of the store.
    pub fn replay(self, recording: Recording, speed: Speed) -> Self {
        Self { replay: Some((recording, speed)), ..self }
    }

    /// Starts the server on the current tokio runtime.
    ///
    /// Errors: an address that cannot be listened on, no certificate.
    ///
    /// Panics: outside of a tokio runtime.
    pub async fn start(self) -> Result<Server, StartError> {
        let requested = self.address;
        let listen = |source| StartError::Listen { address: requested, source };
        let seed = self.seed.unwrap_or(0);
        let clock = self.clock.unwrap_or(if self.seed.is_some() { Clock::manual() } else { Clock::System });
        let store = Arc::new(Store::new(self.registry, clock, seed, self.history_max));
        if self.system_namespaces {
            let namespaces = SYSTEM_NAMESPACES.map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
            store.load(namespaces).expect("system namespaces are well-formed");
        }
        let auth = Auth::default();
        self.token.iter().for_each(|token| auth.accept(token));
        let shared = Shared {
            store,
            faults: Faults::new(seed),
            auth,
            replay: self.replay.map(|(recording, speed)| Replay::new(recording, speed)),
            settings: self.settings,
            watch_ends: watch::Sender::new(0),
            requests: AtomicU64::new(0),
        };
        let tls = if self.tls { Some(Arc::new(Tls::new(requested.ip())?)) } else { None };
        let service = Service { shared: Arc::new(shared), tls, cut: watch::Sender::new(0) };
        let (address, task) = accept(reserve(requested).map_err(listen)?, service.clone()).map_err(listen)?;
        Ok(Server { address, service, token: self.token, line: Mutex::new(Line::Up(task)) })
    }
}

/// A running server; dropping it ends it and cuts off its clients.
pub struct Server {
    address: SocketAddr,
    service: Service,
    token: Option<String>,
    line: Mutex<Line>,
}

/// Whether connections are accepted.
enum Line {
    Up(JoinHandle<()>),
    /// The socket keeps the address and refuses connections.
    Down(TcpSocket),
    /// Between the two, and for good if the address was lost.
    Gone,
}

impl Server {
    /// Settings to start from.
    pub fn builder() -> Builder {
        Builder {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            seed: None,
            clock: None,
            tls: false,
            token: None,
            registry: Registry::default(),
            history_max: HISTORY_MAX,
            system_namespaces: true,
            settings: Settings::default(),
            replay: None,
        }
    }

    /// The address that it listens on, the same through all outages.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://` or `https://` and the address.
    pub fn url(&self) -> String {
        let scheme = if self.service.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The objects.
    pub fn store(&self) -> &Arc<Store> {
        &self.service.shared.store
    }

    /// The faults in force.
    pub fn faults(&self) -> &Faults {
        &self.service.shared.faults
    }

    /// Tokens and forbidden requests.
    pub fn auth(&self) -> &Auth {
        &self.service.shared.auth
    }

    /// The authority's certificate, PEM, if there is TLS.
    pub fn ca_pem(&self) -> Option<&str> {
        self.service.tls.as_ref().map(|tls| tls.ca_pem.as_str())
    }

    /// A kubeconfig for this server, with the builder's token.
    pub fn kubeconfig(&self) -> String {
        kubeconfig(self.access(&self.url()))
    }

    /// Writes `token`, `ca.crt` and `namespace` into a directory, as they are mounted into a pod.
    ///
    /// Errors: the directory cannot be written.
    pub fn write_in_cluster_files(&self, directory: &Path) -> io::Result<()> {
        write_in_cluster_files(self.access(&self.url()), directory)
    }

    fn access<'a>(&'a self, url: &'a str) -> Access<'a> {
        Access { url, ca_pem: self.ca_pem(), token: self.token.as_deref() }
    }

    /// Ends all watches in order, as a server does that is told to terminate.
    pub fn end_watches(&self) {
        self.service.shared.watch_ends.send_modify(|count| *count += 1);
    }

    /// Cuts off all connections, in the middle of whatever they carry. New ones are accepted.
    pub fn drop_connections(&self) {
        self.service.cut.send_modify(|count| *count += 1);
    }

    /// Begins an outage: all connections are cut off, new ones refused. The store can still be changed.
    ///
    /// Errors: the address was taken in the moment between.
    pub async fn go_down(&self) -> io::Result<()> {
        let mut line = self.line.lock().await;
        if let Line::Up(task) = std::mem::replace(&mut *line, Line::Gone) {
            task.abort();
            // An aborted task ends with an error that says just that.
            let _ = task.await;
            *line = Line::Down(reserve(self.address)?);
        }
        Ok(())
    }

    /// Ends an outage, on the same address.
    ///
    /// Errors: the address was lost.
    pub async fn come_back(&self) -> io::Result<()> {
        let mut line = self.line.lock().await;
        let socket = match std::mem::replace(&mut *line, Line::Gone) {
            Line::Up(task) => {
                *line = Line::Up(task);
                return Ok(());
            }
            Line::Down(socket) => socket,
            Line::Gone => reserve(self.address)?,
        };
        let (_, task) = accept(socket, self.service.clone())?;
        *line = Line::Up(task);
        Ok(())
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Line::Up(task) = self.line.get_mut() {
            task.abort();
        }
    }
}
