//! The control socket: accepts in the runtime, answers each connection on a thread of its own, because the wire crate's
//! connections block and an explanation takes CPU time.

use crate::explain::explain;
use crate::policies::policies;
use crate::realized::{Wanted, realization};
use crate::source::{Source, Watch};
use crate::view::{View, Views};
use sluice_flow::ObjectName;
use sluice_wire::{Connection, ControlStatus, FromControl, Listener, Realization, RealizationState, ToControl, WireError};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// Clients at a time; further ones wait to be accepted.
const CLIENTS_MAX: usize = 32;
/// A client that asks nothing for so long is hung up on.
const CLIENT_IDLE_MAX: Duration = Duration::from_secs(60);
/// Bounds what a client may ask to wait.
const SETTLE_MAX: Duration = Duration::from_secs(600);

/// Accepts for ever. The socket file goes when this future is dropped.
pub(crate) async fn serve(listener: Listener, views: Views, source: Source) -> Result<(), WireError> {
    listener.set_nonblocking(true)?;
    // A duplicate waits in the runtime; the wire crate's listener stays the owner of the socket's file.
    let incoming = UnixListener::from_std(listener.as_fd().try_clone_to_owned()?.into())?;
    let clients = Arc::new(Semaphore::new(CLIENTS_MAX));
    let started = Instant::now();
    loop {
        let client = Arc::clone(&clients).acquire_owned().await.expect("the semaphore is never closed");
        let connection = match incoming.accept().await.and_then(|(stream, _)| blocking(stream)) {
            Ok(connection) => connection,
            Err(error) => {
                // Out of descriptors, most likely: it passes, and spinning would not help.
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let answers = Answers { views: views.clone(), source: source.clone(), runtime: Handle::current(), started };
        let thread = std::thread::Builder::new().name("client".into()).spawn(move || {
            let _client = client;
            if let Err(error) = answers.converse(connection) {
                tracing::debug!(%error, "client gone");
            }
        });
        if let Err(error) = thread {
            tracing::warn!(%error, "cannot start a thread for a client");
        }
    }
}

fn blocking(stream: UnixStream) -> io::Result<Connection> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    Ok(Connection::new(stream))
}

struct Answers {
    views: Views,
    source: Source,
    runtime: Handle,
    started: Instant,
}

impl Answers {
    fn converse(mut self, mut connection: Connection) -> Result<(), WireError> {
        connection.set_receive_timeout(Some(CLIENT_IDLE_MAX))?;
        connection.set_send_timeout(Some(CLIENT_IDLE_MAX))?;
        loop {
            let question = match connection.recv::<ToControl>() {
                Ok(Some((question, _))) => question,
                Ok(None) | Err(WireError::Closed) => return Ok(()),
                Err(WireError::Format(error)) => {
                    let reason = format!("request not understood: {error}");
                    return connection.send(&FromControl::Failed { reason }, None);
                }
                Err(error) => return Err(error),
            };
            let answer = self.answer(&question);
            connection.send(&answer, None)?;
        }
    }

    fn answer(&mut self, question: &ToControl) -> FromControl {
        match question {
            ToControl::Status => FromControl::Status(self.status(&self.view())),
            ToControl::Policies => FromControl::Policies { policies: policies(&self.view()) },
            ToControl::Explain { src, dst, port, protocol } => match explain(&self.view(), src, dst, *port, protocol) {
                Ok(explanation) => FromControl::Explanation(explanation),
                Err(reason) => FromControl::Failed { reason },
            },
            ToControl::Realization { policy, generation, timeout_ms } => {
                let timeout = Duration::from_millis(*timeout_ms).min(SETTLE_MAX);
                FromControl::Realization(self.realization(policy, *generation, timeout))
            }
            ToControl::Settle { timeout_ms } => self.settle(Duration::from_millis(*timeout_ms).min(SETTLE_MAX)),
        }
    }

    /// Reads the directory now and waits until what it says is in force, has failed, or time is up; the status tells which.
    fn settle(&mut self, timeout: Duration) -> FromControl {
        let Some(sequence) = self.source.read_now() else {
            return FromControl::Failed { reason: "the source has ended".to_owned() };
        };
        let settled = |view: &Arc<View>| view.read_sequence >= sequence && (view.status.settled || view.failed);
        let views = &mut self.views;
        let waited = self.runtime.block_on(async { tokio::time::timeout(timeout, views.wait_for(settled)).await.map(|_| ()) });
        if waited.is_err() {
            tracing::debug!(timeout_ms = timeout.as_millis() as u64, "settle timed out");
        }
        FromControl::Status(self.status(&self.view()))
    }

    /// Waits until the state that the policy's source holds now is in force, is refused, or time is up.
    fn realization(&mut self, policy: &ObjectName, generation: Option<i64>, timeout: Duration) -> Realization {
        let deadline = Instant::now() + timeout;
        // what a directory holds now has to be read before anything can be said of it
        let sequence = self.source.read_now().unwrap_or(0);
        let (views, source) = (&mut self.views, &self.source);
        self.runtime.block_on(async {
            let wanted = match generation {
                Some(generation) => Wanted { uid: None, generation },
                None => source.newest(policy).await.unwrap_or_default(),
            };
            let is_over = |view: &Arc<View>| {
                let state = realization(view, policy, &wanted).state;
                view.read_sequence >= sequence && (view.failed || matches!(state, RealizationState::Realized | RealizationState::Refused))
            };
            // whether in time or not, what is known then is the answer
            let _ = tokio::time::timeout_at(deadline.into(), views.wait_for(is_over)).await;
            realization(&views.borrow(), policy, &wanted)
        })
    }

    fn view(&self) -> Arc<View> {
        Arc::clone(&self.views.borrow())
    }

    fn status(&self, view: &View) -> ControlStatus {
        let watches = view.watches.iter().map(Watch::status).collect();
        ControlStatus { uptime_s: self.started.elapsed().as_secs(), watches, ..view.status.clone() }
    }
}
