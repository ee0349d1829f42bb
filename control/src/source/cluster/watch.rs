//! One kind, followed for ever: listed, then watched from there on.
//!
//! ```text
//!            ┌──────────── history gone, event unreadable or older than one before ────────────┐
//!            ▼                                                                                  │
//!   Begin ─ list ─ Complete ─ watch ─ Changed, Gone, Alive ... ─ stream ends or breaks ─ watch ─┘
//!            ▲                  │                                   (from the last version)
//!            └──── breaks ──────┘
//! ```
//!
//! kube's own watcher is not used. Where a server answers 410 as a status, it asks for the same version for ever; behind an
//! event that cannot be read it goes on, and the event is lost; and it hides bookmarks, by which a watch that is well and
//! quiet is told from one that is dead (kube-runtime 5.0.0, `watcher.rs`).
//!
//! A server that cannot stream lists is listed in pages from then on. All delays grow and are drawn at random, so that the
//! nodes of a cluster do not come back to a restarted server at one moment.

use super::broken::{Broken, Then};
use super::kinds::Kind;
use super::pace::Pace;
use super::received::Received;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use kube::api::{ListParams, WatchParams};
use kube::core::WatchEvent;
use kube::{Api, Client};
use std::convert::Infallible;
use std::future::Future;
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, sleep, timeout};

/// Objects of a page.
const PAGE: u32 = 500;
/// The bookmark with this annotation ends a streamed list.
const LIST_ENDS: &str = "k8s.io/initial-events-end";

/// What a watch tells.
#[derive(Debug)]
pub(super) enum Notice {
    /// Everything is listed from here; what was known stays until the list is complete.
    Begin,
    /// Part of the list.
    Listed(Received),
    /// The list is whole.
    Complete,
    /// It came, or is another one now.
    Changed(Received),
    /// It is no more.
    Gone(Received),
    /// The server answers, or says that there is nothing new.
    Alive,
    /// Whatever happened up to this version has been told; with the next notice, if a list is being told.
    UpTo(String),
    /// Something is wrong, and will be tried again.
    Trouble(String),
}

type Events = BoxStream<'static, kube::Result<WatchEvent<Received>>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lists {
    Streamed,
    Paged,
}

/// Sends what happens to all objects of one kind, until the receiver is gone.
pub(super) async fn follow(client: Client, kind: Kind, pace: Pace, notices: Sender<(Kind, Notice)>) {
    let api = Api::all_with(client, &kind.resource());
    let mut follower = Follower { api, kind, pace, notices, lists: Lists::Streamed, version: None, is_heard: false };
    let mut delay = pace.retry_min;
    loop {
        follower.is_heard = false;
        let started = Instant::now();
        let Broken { reason, pause, then } = match follower.round().await {
            Ok(never) => match never {},
            Err(broken) => broken,
        };
        if follower.is_heard {
            delay = pace.retry_min;
        }
        match then {
            Then::Leave => return,
            Then::Resume if reason.is_none() && follower.is_heard => {
                // every stream ends in order after some minutes; one that ends at once is not asked for at once
                sleep(delay.saturating_sub(started.elapsed())).await;
                continue;
            }
            Then::Resume => {}
            Then::Begin => follower.version = None,
            Then::ListInPages => {
                tracing::info!(resource = kind.plural(), reason, "the server streams no lists; listing in pages");
                (follower.lists, follower.version) = (Lists::Paged, None);
                continue;
            }
        }
        let reason = reason.unwrap_or_else(|| "the watch ended without a word".to_owned());
        if follower.tell(Notice::Trouble(reason)).await.is_err() {
            return;
        }
        sleep(pause.max(delay.mul_f64(0.5 + 0.5 * fastrand::f64()))).await;
        delay = (delay * 2).min(pace.retry_max);
    }
}

struct Follower {
    api: Api<Received>,
    kind: Kind,
    pace: Pace,
    notices: Sender<(Kind, Notice)>,
    lists: Lists,
    /// From which to go on; `None` where everything must be listed.
    version: Option<String>,
    /// Whether the server said anything in this round.
    is_heard: bool,
}

impl Follower {
    /// Lists if it must, and watches until something breaks.
    async fn round(&mut self) -> Result<Infallible, Broken> {
        let events = match (self.version.clone(), self.lists) {
            (Some(version), _) => {
                let events = self.watch(&version).await?;
                self.tell(Notice::Alive).await?;
                events
            }
            (None, Lists::Streamed) => self.list_streamed().await?,
            (None, Lists::Paged) => {
                let version = self.list_in_pages().await?;
                self.watch(&version).await?
            }
        };
        self.follow_events(events).await
    }

    async fn watch(&self, version: &str) -> Result<Events, Broken> {
        let opened = self.answered(self.api.watch(&WatchParams::default(), version)).await?;
        Ok(opened.map_err(|error| Broken::by(&error, "cannot watch", &self.pace))?.boxed())
    }

    async fn list_streamed(&mut self) -> Result<Events, Broken> {
        let parameters = WatchParams::default().initial_events();
        let opened = self.answered(self.api.watch(&parameters, "0")).await?;
        let mut events = opened
            .map_err(|error| match &error {
                kube::Error::Api(status) if matches!(status.code, 400 | 405 | 422) => Broken::no_streamed_lists(&error),
                error => Broken::by(error, "cannot list", &self.pace),
            })?
            .boxed();
        self.tell(Notice::Begin).await?;
        loop {
            let Ok(event) = timeout(self.pace.list_silence_max, events.next()).await else {
                return Err(Broken::endless_list());
            };
            match event.ok_or_else(|| Broken::begin("the list broke off"))? {
                Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => self.tell(Notice::Listed(object)).await?,
                Ok(WatchEvent::Bookmark(bookmark)) if bookmark.metadata.annotations.contains_key(LIST_ENDS) => {
                    self.version = Some(bookmark.metadata.resource_version.clone());
                    self.is_heard = true;
                    self.tell(Notice::UpTo(bookmark.metadata.resource_version)).await?;
                    self.tell(Notice::Complete).await?;
                    return Ok(events);
                }
                Ok(WatchEvent::Bookmark(_)) => {}
                Ok(WatchEvent::Deleted(object)) => return Err(Broken::begin(format!("{} is deleted in a list", object.name()))),
                Ok(WatchEvent::Error(status)) => return Err(Broken::by_status(&status, "cannot list", &self.pace).beginning()),
                Err(error) => return Err(Broken::by(&error, "cannot list", &self.pace).beginning()),
            }
        }
    }

    async fn list_in_pages(&mut self) -> Result<String, Broken> {
        self.tell(Notice::Begin).await?;
        let mut parameters = ListParams::default().limit(PAGE);
        loop {
            let page = self.answered(self.api.list(&parameters)).await?;
            let page = page.map_err(|error| Broken::by(&error, "cannot list", &self.pace))?;
            for object in page.items {
                self.tell(Notice::Listed(object)).await?;
            }
            match (page.metadata.continue_.filter(|token| !token.is_empty()), page.metadata.resource_version) {
                (Some(token), _) => parameters = parameters.continue_token(&token),
                (None, Some(version)) if !version.is_empty() => {
                    self.version = Some(version.clone());
                    self.is_heard = true;
                    self.tell(Notice::UpTo(version.clone())).await?;
                    self.tell(Notice::Complete).await?;
                    return Ok(version);
                }
                (None, _) => return Err(Broken::begin("a list without a version")),
            }
        }
    }

    async fn follow_events(&mut self, mut events: Events) -> Result<Infallible, Broken> {
        loop {
            let event = timeout(self.pace.silence_max, events.try_next()).await;
            let event = event.map_err(|_| Broken::resume(format!("nothing was heard for {:?}", self.pace.silence_max)))?;
            let event = event.map_err(|error| Broken::by(&error, "cannot read on", &self.pace))?.ok_or_else(Broken::ended)?;
            let notice = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    self.advance(object.resource_version())?;
                    Notice::Changed(object)
                }
                WatchEvent::Deleted(object) => {
                    self.advance(object.resource_version())?;
                    Notice::Gone(object)
                }
                WatchEvent::Bookmark(bookmark) => {
                    self.advance(&bookmark.metadata.resource_version)?;
                    Notice::UpTo(bookmark.metadata.resource_version)
                }
                WatchEvent::Error(status) => return Err(Broken::by_status(&status, "the watch ended", &self.pace)),
            };
            self.is_heard = true;
            self.tell(notice).await?;
        }
    }

    /// Goes on from this version. No server goes back: since Kubernetes 1.35 versions are numbers that may be compared, and
    /// before that they were numbers all the same. Of a stream that does, nothing is believed.
    fn advance(&mut self, version: &str) -> Result<(), Broken> {
        let number = |text: &str| text.parse::<u64>().ok();
        let last = self.version.as_deref().and_then(number);
        match number(version) {
            Some(number) if last.is_some_and(|last| number < last) => {
                Err(Broken::begin(format!("version {number} came after {}", last.unwrap_or_default())))
            }
            _ if version.is_empty() => Err(Broken::begin("an event without a version")),
            _ => {
                self.version = Some(version.to_owned());
                Ok(())
            }
        }
    }

    async fn answered<T>(&self, answer: impl Future<Output = T>) -> Result<T, Broken> {
        timeout(self.pace.silence_max, answer).await.map_err(|_| Broken::resume(format!("no answer for {:?}", self.pace.silence_max)))
    }

    async fn tell(&self, notice: Notice) -> Result<(), Broken> {
        self.notices.send((self.kind, notice)).await.map_err(|_| Broken::unheard())
    }
}
