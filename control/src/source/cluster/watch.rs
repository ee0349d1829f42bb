//! One kind, followed for ever: kube's watcher, and what it leaves to its user.
//!
//! The watcher goes on from where it was when a stream breaks. It does not when going on is impossible or wrong, so here
//! it is begun anew, which lists everything again:
//!
//! * the server says 410 as a status of the response (the watcher would ask for the same version for ever);
//! * an event cannot be read (the watcher would go on behind it, and it would be lost);
//! * an event is older than one before it: no API server says such a thing, so nothing of that stream is believed.
//!
//! A server that cannot stream lists is listed in pages from then on. All delays grow and are drawn at random, so that the
//! nodes of a cluster do not come back to a restarted server at one moment.

use super::kinds::Kind;
use super::pace::Pace;
use super::received::Received;
use futures::StreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Error as ClientError};
use std::time::Duration;
use tokio::sync::mpsc::Sender;
use tokio::time::{sleep, timeout};

/// What a watch tells.
#[derive(Debug)]
pub(super) enum Notice {
    /// It goes on.
    Event(Event<Received>),
    /// It is broken, for the reason given, and will be tried again.
    Trouble(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lists {
    Streamed,
    Paged,
}

/// Why a watcher is not polled any more.
enum End {
    /// Nobody listens.
    Unheard,
    Anew {
        reason: String,
        pause: Duration,
    },
    NoStreamedLists {
        reason: String,
    },
}

/// Sends what happens to all objects of one kind, until the receiver is gone.
pub(super) async fn follow(client: Client, kind: Kind, pace: Pace, notices: Sender<(Kind, Notice)>) {
    let api = Api::all_with(client, &kind.resource());
    let mut follower = Follower { api, kind, pace, notices, delay: pace.retry_min };
    let mut lists = Lists::Streamed;
    loop {
        match follower.until_broken(lists).await {
            End::Unheard => return,
            End::Anew { reason, pause } => {
                tracing::warn!(resource = kind.plural(), reason, "watch begins anew");
                if !follower.trouble(reason, pause).await {
                    return;
                }
            }
            End::NoStreamedLists { reason } => {
                tracing::info!(resource = kind.plural(), reason, "the server streams no lists; listing in pages");
                lists = Lists::Paged;
            }
        }
    }
}

struct Follower {
    api: Api<Received>,
    kind: Kind,
    pace: Pace,
    notices: Sender<(Kind, Notice)>,
    delay: Duration,
}

impl Follower {
    async fn until_broken(&mut self, lists: Lists) -> End {
        let config = watcher::Config::default();
        let config = if lists == Lists::Streamed { config.streaming_lists() } else { config };
        let mut stream = watcher(self.api.clone(), config).boxed();
        let mut is_listing = true;
        let mut newest = 0;
        loop {
            let item = match timeout(self.pace.list_silence_max, stream.next()).await {
                Ok(item) => item.expect("a watcher never ends"),
                Err(_) if is_listing && lists == Lists::Streamed => {
                    return End::NoStreamedLists { reason: "the list does not come to its end".to_owned() };
                }
                // silence is what a quiet cluster says
                Err(_) => continue,
            };
            match item {
                Ok(event) => {
                    match &event {
                        Event::Init => (is_listing, newest) = (true, 0),
                        Event::InitApply(_) => {}
                        Event::InitDone => is_listing = false,
                        Event::Apply(object) | Event::Delete(object) => {
                            let version = object.version().unwrap_or(newest);
                            if version < newest {
                                let reason = format!("{} is of version {version}, after one of {newest}", object.name());
                                return End::Anew { reason, pause: Duration::ZERO };
                            }
                            newest = version;
                        }
                    }
                    // a watcher that begins has proved nothing yet
                    if !matches!(event, Event::Init) {
                        self.delay = self.pace.retry_min;
                    }
                    if self.notices.send((self.kind, Notice::Event(event))).await.is_err() {
                        return End::Unheard;
                    }
                }
                Err(error) => match self.consequence(&error, lists) {
                    Consequence::GoOn { reason, pause } => {
                        tracing::debug!(resource = self.kind.plural(), reason, "watch broken");
                        if !self.trouble(reason, pause).await {
                            return End::Unheard;
                        }
                    }
                    Consequence::End(end) => return end,
                },
            }
        }
    }

    /// Tells of it and waits; false where nobody listens.
    async fn trouble(&mut self, reason: String, pause: Duration) -> bool {
        let told = self.notices.send((self.kind, Notice::Trouble(reason))).await;
        sleep(pause.max(self.delay.mul_f64(0.5 + fastrand::f64()))).await;
        self.delay = (self.delay * 2).min(self.pace.retry_max);
        told.is_ok()
    }

    fn consequence(&self, error: &watcher::Error, lists: Lists) -> Consequence {
        use watcher::Error::{InitialListFailed, NoResourceVersion, WatchFailed, WatchStartFailed};
        let reason = reason(error);
        let anew = |reason| Consequence::End(End::Anew { reason, pause: Duration::ZERO });
        match error {
            WatchStartFailed(ClientError::Api(status)) if lists == Lists::Streamed && matches!(status.code, 400 | 405 | 422) => {
                Consequence::End(End::NoStreamedLists { reason })
            }
            WatchFailed(ClientError::SerdeError(_)) | NoResourceVersion => anew(reason),
            InitialListFailed(ClientError::Api(status))
            | WatchStartFailed(ClientError::Api(status))
            | WatchFailed(ClientError::Api(status)) => match status.code {
                410 => anew(reason),
                code => {
                    let asked_s = status.details.as_ref().map(|details| details.retry_after_seconds);
                    Consequence::GoOn { reason, pause: self.pace.pause(code, asked_s) }
                }
            },
            _ => Consequence::GoOn { reason, pause: Duration::ZERO },
        }
    }
}

enum Consequence {
    GoOn { reason: String, pause: Duration },
    End(End),
}

/// The error with its causes, and what to do where that is known.
fn reason(error: &watcher::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text += ": ";
            text += &part;
        }
        cause = error.source();
    }
    let code = match error {
        watcher::Error::InitialListFailed(ClientError::Api(status))
        | watcher::Error::WatchStartFailed(ClientError::Api(status))
        | watcher::Error::WatchFailed(ClientError::Api(status)) => status.code,
        _ => 0,
    };
    match code {
        401 => text + " (the credentials are refused: renew the token, or look whether the service account still exists)",
        403 => text + " (the service account may not list or watch this kind: apply the ClusterRole of deploy/)",
        _ => text,
    }
}
