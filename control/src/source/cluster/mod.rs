//! An API server as a source of objects: one watch for each kind, gathered into one snapshot.
//!
//! ```text
//!   follow(namespaces) ─┐
//!   follow(pods) ───────┼─ bounded channel ─▶ Gatherer ─ debounce ─▶ Reading ─▶ engine
//!   follow(services) ───┤
//!   follow(policies) ───┘
//! ```
//!
//! Before every kind was listed once, readings say that they are not complete, and nothing is published. When the server is
//! away, what was known stays; the watches show since when, and why.

mod broken;
mod gather;
mod kinds;
mod pace;
mod received;
mod watch;

use super::{Reading, Watch};
use crate::debounce::Debounce;
use crate::engine::{AwaitedPods, Event};
use crate::realized::Wanted;
use gather::Gatherer;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kinds::Kind;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
pub use pace::Pace;
use sluice_flow::ObjectName;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{Receiver, Sender, UnboundedSender, channel};
use tokio::sync::oneshot;
use watch::Notice;

/// Events on their way from the watches; beyond it the streams wait, so that memory is bounded.
const NOTICES_MAX: usize = 1024;
/// After so much silence the first word is told at once, so that the status knows when a watch was last heard.
const QUIET: Duration = Duration::from_secs(5);
/// How long the server may take to say which state of a policy it holds.
const NEWEST_MAX: Duration = Duration::from_secs(2);
/// How often the status says how far the first lists are.
const PROGRESS: Duration = Duration::from_secs(1);

/// Which server, as whom.
#[derive(Debug, Clone, Default)]
pub struct ClusterOptions {
    /// A kubeconfig; without it `$KUBECONFIG`, `~/.kube/config`, or what a pod is given.
    pub kubeconfig: Option<PathBuf>,
    /// A context of it; without it the current one.
    pub context: Option<String>,
    /// How patient to be.
    pub pace: Pace,
}

/// Why there is nobody to ask.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Neither file nor service account.
    #[error("no API server is known: {0}")]
    Unknown(String),
    /// The configuration makes no client.
    #[error("cannot talk to {server}: {source}")]
    Client {
        /// Its URL.
        server: String,
        /// Why.
        source: kube::Error,
    },
}

/// Asks the gathering task, or the server.
#[derive(Clone)]
pub(crate) struct Handle {
    asks: Sender<oneshot::Sender<u64>>,
    client: Client,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

impl Handle {
    /// See [`super::Source::read_now`].
    pub(super) fn read_now(&self) -> Option<u64> {
        let (answer, answered) = oneshot::channel();
        self.asks.blocking_send(answer).ok()?;
        answered.blocking_recv().ok()
    }

    /// The state of a policy that the server holds now; `None` where it holds none, or does not say in time.
    pub(super) async fn newest(&self, policy: &ObjectName) -> Option<Wanted> {
        let api: Api<NetworkPolicy> = Api::namespaced(self.client.clone(), &policy.namespace);
        let answer = tokio::time::timeout(NEWEST_MAX, api.get_opt(&policy.name)).await;
        let answer = match answer {
            Ok(Ok(answer)) => answer?,
            Ok(Err(error)) => {
                tracing::debug!(%policy, %error, "the server does not say which state it holds");
                return None;
            }
            Err(_) => return None,
        };
        Some(Wanted { uid: answer.metadata.uid, generation: answer.metadata.generation.unwrap_or(0) })
    }
}

/// A client, and the URL of its server.
///
/// # Errors
/// When no server is known, or the configuration is damaged. Whether the server answers is not asked.
pub(crate) async fn client(options: &ClusterOptions) -> Result<(Client, String), ClusterError> {
    let mut config = config(options).await.map_err(|error| ClusterError::Unknown(error.to_string()))?;
    config.connect_timeout = Some(options.pace.connect_max);
    // the watches wait by themselves, and show why
    config.default_retry = false;
    let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
    let client = Client::try_from(config).map_err(|source| ClusterError::Client { server: server.clone(), source })?;
    Ok((client, server))
}

async fn config(options: &ClusterOptions) -> Result<Config, Box<dyn std::error::Error + Send + Sync>> {
    let ClusterOptions { kubeconfig, context, .. } = options;
    let chosen = KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
    match kubeconfig {
        Some(file) => Ok(Config::from_custom_kubeconfig(Kubeconfig::read_from(file)?, &chosen).await?),
        None if context.is_some() => Ok(Config::from_kubeconfig(&chosen).await?),
        None => Ok(Config::infer().await?),
    }
}

/// Starts the watches and the gathering on the present runtime; they end with the receiver of `events`.
pub(crate) fn start(
    client: &Client,
    server: String,
    pace: Pace,
    debounce: Debounce,
    awaited: AwaitedPods,
    events: UnboundedSender<Event>,
) -> Handle {
    let (notices, inbox) = channel(NOTICES_MAX);
    for kind in Kind::ALL {
        tokio::spawn(watch::follow(client.clone(), kind, pace, notices.clone()));
    }
    let (asks, asked) = channel(1);
    let states = Kind::ALL.map(|kind| (kind, State { heard: Instant::now(), trouble: None, lists: 0, version: String::new() }));
    let gathering = Gathering { gatherer: Gatherer::new(server), states: states.into(), sequence: 0, debounce, awaited, events };
    tokio::spawn(gathering.run(inbox, asked));
    Handle { asks, client: client.clone() }
}

struct Gathering {
    gatherer: Gatherer,
    states: BTreeMap<Kind, State>,
    sequence: u64,
    debounce: Debounce,
    awaited: AwaitedPods,
    events: UnboundedSender<Event>,
}

/// How a watch is.
struct State {
    heard: Instant,
    /// Why it is broken, and since when.
    trouble: Option<(String, Instant)>,
    lists: u64,
    /// Up to which everything was told.
    version: String,
}

impl Gathering {
    async fn run(mut self, mut inbox: Receiver<(Kind, Notice)>, mut asked: Receiver<oneshot::Sender<u64>>) {
        let mut progress = tokio::time::interval(PROGRESS);
        let mut sent = true;
        while sent {
            let due = self.debounce.due();
            let quiet = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                notice = inbox.recv() => match notice {
                    Some((kind, notice)) => sent = self.take(kind, notice),
                    None => return,
                },
                () = quiet => sent = self.send_pending(),
                Ok(()) = self.awaited.changed() => {
                    // a pod is being started: what is known already must not lie here meanwhile
                    let is_any = !self.awaited.borrow_and_update().is_empty();
                    sent = !is_any || self.debounce.due().is_none() || self.send_pending();
                }
                _ = progress.tick(), if !self.gatherer.is_complete() => sent = self.send(Instant::now()),
                Some(ask) = asked.recv() => {
                    // what has arrived is taken in first
                    while let (true, Ok((kind, notice))) = (sent, inbox.try_recv()) {
                        sent = self.take(kind, notice);
                    }
                    sent = sent && self.send_pending();
                    // it may have given up meanwhile
                    let _ = ask.send(self.sequence);
                }
                () = self.events.closed() => return,
            }
        }
    }

    /// False when nobody listens any more.
    fn take(&mut self, kind: Kind, notice: Notice) -> bool {
        if let Notice::Trouble(reason) = notice {
            return self.trouble(kind, reason);
        }
        let now = Instant::now();
        let was_complete = self.gatherer.is_complete();
        let is_awaited = matches!(&notice, Notice::Changed(object) if kind == Kind::Pods && self.awaited.borrow().contains(&object.name()));
        let state = self.states.get_mut(&kind).expect("every kind has a state");
        // a list in pages begins before the server says anything
        let is_over = !matches!(notice, Notice::Begin) && state.trouble.take().is_some();
        let was_quiet = now.duration_since(std::mem::replace(&mut state.heard, now)) > QUIET;
        state.lists += u64::from(matches!(notice, Notice::Complete));
        match &notice {
            Notice::UpTo(version) => state.version.clone_from(version),
            Notice::Changed(object) | Notice::Gone(object) => object.resource_version().clone_into(&mut state.version),
            _ => {}
        }
        let is_change = self.gatherer.take(kind, notice);
        if is_change && was_complete {
            self.debounce.changed(now);
        }
        let is_told = is_over || was_quiet || is_awaited || (!was_complete && self.gatherer.is_complete());
        !is_told || self.send_pending()
    }

    fn trouble(&mut self, kind: Kind, reason: String) -> bool {
        let state = self.states.get_mut(&kind).expect("every kind has a state");
        let since = state.trouble.as_ref().map_or_else(Instant::now, |(_, since)| *since);
        let known = state.trouble.replace((reason.clone(), since));
        if known.is_some_and(|(known, _)| known == reason) {
            return true;
        }
        tracing::warn!(resource = kind.plural(), reason, "watch broken; what is known of it stays in force");
        self.send_pending()
    }

    fn send_pending(&mut self) -> bool {
        let changed_at = self.debounce.take();
        self.send(changed_at.unwrap_or_else(Instant::now))
    }

    fn send(&mut self, changed_at: Instant) -> bool {
        self.sequence += 1;
        let reading = Reading {
            sequence: self.sequence,
            changed_at,
            is_complete: self.gatherer.is_complete(),
            manifests: Arc::new(self.gatherer.manifests()),
            watches: self.states.iter().map(|(kind, state)| self.watch(*kind, state)).collect(),
        };
        self.events.send(Event::Read(reading)).is_ok()
    }

    fn watch(&self, kind: Kind, state: &State) -> Watch {
        Watch {
            resource: kind.plural(),
            is_needed: kind.is_needed(),
            objects: self.gatherer.count(kind),
            is_listed: self.gatherer.is_listed(kind),
            lists: state.lists,
            version: state.version.clone(),
            heard: state.heard,
            trouble: state.trouble.clone(),
        }
    }
}
