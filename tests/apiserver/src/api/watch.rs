//! Watches: events as chunks, from a position in the history.

use super::options::{Scope, Start};
use super::{Call, Failure};
use crate::faults::{EventStream, Over};
use crate::http::response::{JSON, Responder};
use crate::resource::{Resource, ResourceId};
use crate::status::ApiError;
use crate::store::{Event, Object};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Events that are read at once, so that the store is not locked for long.
const BATCH_MAX: usize = 512;
/// How long a swapped event waits for another one to go first.
const SWAP_WAIT: Duration = Duration::from_millis(100);
/// The last bookmark comes so long before the end, as recorded.
const LAST_BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// Above this, a watch is as good as endless.
const WATCH_MAX: Duration = Duration::from_secs(86_400);

impl Call<'_> {
    pub(super) async fn watch(&self, resource: ResourceId, namespace: Option<&str>, responder: &mut Responder<'_>) -> Result<(), Failure> {
        self.check_accept()?;
        let scope = self.scope(resource, namespace)?;
        let start = self.watch_start()?;
        let deadline = Instant::now() + self.watch_timeout()?;
        if let Start::After(version) = start
            && self.shared.settings.expiry_as_status
        {
            self.store().check_start(resource, version).map_err(|too_old| ApiError::watch_expired(version, too_old.oldest))?;
        }
        responder.begin(200, JSON, &[]);
        responder.flush().await?;
        let watch = Watch {
            call: self,
            resource,
            spec: self.spec(resource),
            scope,
            bookmarks: self.query.is_true("allowWatchBookmarks"),
            deadline,
            line: Vec::new(),
        };
        let mut stream = EventStream::new(responder, self.plan.stream.clone());
        match watch.run(start, &mut stream).await {
            Over::InOrder => Ok(responder.finish().await?),
            Over::Hangup => Err(Failure::Hangup),
        }
    }

    fn watch_timeout(&self) -> Result<Duration, ApiError> {
        let Some(text) = self.query.get("timeoutSeconds") else { return Ok(self.shared.settings.watch_timeout) };
        let seconds = text.parse::<u64>().map_err(|error| ApiError::bad_request(format!("invalid timeoutSeconds: {error}")))?;
        let asked = if seconds == 0 { self.shared.settings.watch_timeout } else { Duration::from_secs(seconds) };
        Ok(asked.min(WATCH_MAX))
    }
}

struct Watch<'c> {
    call: &'c Call<'c>,
    resource: ResourceId,
    spec: &'c Resource,
    scope: Scope,
    bookmarks: bool,
    deadline: Instant,
    /// The event that is being written; kept for its memory.
    line: Vec<u8>,
}

impl Watch<'_> {
    async fn run(mut self, start: Start, stream: &mut EventStream<'_, '_>) -> Over {
        match self.follow(start, stream).await {
            Ok(()) => match stream.release().await {
                Ok(()) => Over::InOrder,
                Err(over) => over,
            },
            Err(over) => over,
        }
    }

    /// Sends events until the time is up.
    async fn follow(&mut self, start: Start, stream: &mut EventStream<'_, '_>) -> Result<(), Over> {
        let store = self.call.store();
        let mut changes = store.subscribe(self.resource);
        let mut ends = self.call.shared.watch_ends.subscribe();
        stream.open().await?;
        let mut after = self.begin(start, stream).await?;
        let interval = self.call.shared.settings.bookmark_interval;
        let mut last_bookmark_due = self.deadline.checked_sub(LAST_BOOKMARK_BEFORE_END).filter(|at| *at > Instant::now());
        let mut bookmark_at = Instant::now() + interval;
        loop {
            // Before the read, so that a change during it wakes the wait below.
            changes.borrow_and_update();
            let reached = self.catch_up(&mut after, stream).await?;
            stream.flush().await?;
            let holding = stream.is_holding();
            let next_bookmark = last_bookmark_due.map_or(bookmark_at, |last| last.min(bookmark_at));
            tokio::select! {
                _ = changes.changed() => {}
                _ = ends.changed() => return Ok(()),
                () = stream.client_gone() => return Err(Over::Hangup),
                () = sleep_until(self.deadline) => return Ok(()),
                () = sleep_until(next_bookmark), if self.bookmarks => {
                    if last_bookmark_due.is_some_and(|last| last <= next_bookmark) {
                        last_bookmark_due = None;
                    }
                    bookmark_at = Instant::now() + interval;
                    // A watch from the future has nothing to mark yet.
                    if reached == after {
                        self.bookmark(after, false, stream).await?;
                    }
                }
                () = tokio::time::sleep(SWAP_WAIT), if holding => stream.release().await?,
            }
        }
    }

    /// Sends what comes before the changes; returns the version behind which they begin.
    async fn begin(&mut self, start: Start, stream: &mut EventStream<'_, '_>) -> Result<u64, Over> {
        let store = self.call.store();
        match start {
            Start::Now => Ok(store.version()),
            Start::After(version) => match store.check_start(self.resource, version) {
                Ok(()) => Ok(version),
                Err(too_old) => Err(stream.error(&ApiError::watch_expired(version, too_old.oldest)).await),
            },
            Start::Everything => self.send_all(stream).await,
            Start::InitialEvents { not_before } => {
                if store.version() < not_before {
                    return Err(stream.error(&ApiError::version_too_large(not_before, store.version())).await);
                }
                let version = self.send_all(stream).await?;
                if self.bookmarks {
                    self.bookmark(version, true, stream).await?;
                }
                Ok(version)
            }
        }
    }

    async fn send_all(&mut self, stream: &mut EventStream<'_, '_>) -> Result<u64, Over> {
        let (snapshot, version) = self.call.store().snapshot(self.resource);
        for object in snapshot.objects.iter().filter(|object| self.scope.selects(object)) {
            write_event(&mut self.line, "ADDED", self.spec, object, None);
            stream.event(object.key(), &self.line).await?;
        }
        Ok(version)
    }

    /// Sends all changes behind `after`; returns the store's version.
    async fn catch_up(&mut self, after: &mut u64, stream: &mut EventStream<'_, '_>) -> Result<u64, Over> {
        loop {
            // A watcher that history left behind is ended in order; its next request gets the 410.
            let batch = self.call.store().events_after(self.resource, *after, BATCH_MAX).map_err(|_| Over::InOrder)?;
            for event in &batch.events {
                if self.write_change(event) {
                    stream.event(event.object.key(), &self.line).await?;
                }
            }
            if batch.events.len() < BATCH_MAX {
                *after = batch.version.max(*after);
                return Ok(batch.version);
            }
            *after = batch.events.last().map_or(batch.version, |event| event.version);
        }
    }

    /// Writes a change as this watch sees it: leaving the selection is a deletion, entering it an addition.
    fn write_change(&mut self, event: &Event) -> bool {
        let before = event.previous.as_ref().filter(|previous| self.scope.selects(previous));
        let selected = !event.deleted && self.scope.selects(&event.object);
        let line = &mut self.line;
        match (before, selected) {
            (None, false) => return false,
            (None, true) => write_event(line, "ADDED", self.spec, &event.object, None),
            (Some(_), true) => write_event(line, "MODIFIED", self.spec, &event.object, None),
            (Some(_), false) if event.deleted => write_event(line, "DELETED", self.spec, &event.object, None),
            (Some(previous), false) => write_event(line, "DELETED", self.spec, previous, Some(event.version)),
        }
        true
    }

    async fn bookmark(&mut self, version: u64, initial_end: bool, stream: &mut EventStream<'_, '_>) -> Result<(), Over> {
        let annotation = if initial_end { r#","annotations":{"k8s.io/initial-events-end":"true"}"# } else { "" };
        let Resource { kind, bookmark_body, .. } = self.spec;
        let comma = if bookmark_body.is_empty() { "" } else { "," };
        let line = format!(
            r#"{{"type":"BOOKMARK","object":{{"kind":"{kind}","apiVersion":"{}","metadata":{{"resourceVersion":"{version}"{annotation}}}{comma}{bookmark_body}}}}}{}"#,
            self.spec.api_version(),
            "\n"
        );
        stream.bookmark(line.as_bytes()).await
    }
}

fn write_event(line: &mut Vec<u8>, kind: &str, spec: &Resource, object: &Object, version: Option<u64>) {
    line.clear();
    line.extend_from_slice(format!("{{\"type\":\"{kind}\",\"object\":").as_bytes());
    match version {
        Some(version) => object.write_typed_at(spec, version, line),
        None => object.write_typed(spec, line),
    }
    line.extend_from_slice(b"}\n");
}
