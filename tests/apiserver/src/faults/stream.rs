//! The events of one watch on their way to the client, under the faults that repeat, reorder and end them.

use crate::http::response::Responder;
use crate::http::wire::Hangup;
use crate::status::ApiError;

/// Faults of a watch's events; numbers count events from 1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StreamFaults {
    pub(crate) expire_after: Option<u64>,
    pub(crate) end_after: Option<u64>,
    pub(crate) cut_in: Option<u64>,
    pub(crate) duplicate: Option<u64>,
    pub(crate) swap: Option<u64>,
    pub(crate) drop_bookmarks: bool,
    pub(crate) silent: bool,
}

/// Why a watch is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// The stream ends in order: the last chunk is still to be sent.
    InOrder,
    /// Nothing more can be sent.
    Hangup,
}

impl From<Hangup> for Over {
    fn from(_: Hangup) -> Self {
        Self::Hangup
    }
}

/// Sends events and bookmarks, each as a chunk of its own.
pub(crate) struct EventStream<'r, 'a> {
    responder: &'r mut Responder<'a>,
    faults: StreamFaults,
    events: u64,
    /// An event that waits for one of another object to go first: its object's key and its line.
    held: Option<(String, Vec<u8>)>,
}

impl<'r, 'a> EventStream<'r, 'a> {
    pub(crate) fn new(responder: &'r mut Responder<'a>, faults: StreamFaults) -> Self {
        Self { responder, faults, events: 0, held: None }
    }

    /// Ends the stream if it is to end before its first event.
    pub(crate) async fn open(&mut self) -> Result<(), Over> {
        self.end_if_due().await
    }

    /// Sends an event about the object with this key; `line` is its JSON with the line feed.
    pub(crate) async fn event(&mut self, key: &str, line: &[u8]) -> Result<(), Over> {
        if self.faults.silent {
            return Ok(());
        }
        self.events += 1;
        if self.faults.cut_in == Some(self.events) {
            return Err(self.responder.half_chunk(line).await.into());
        }
        if self.faults.swap == Some(self.events) {
            self.held = Some((key.to_owned(), line.to_vec()));
            return Ok(());
        }
        if self.held.as_ref().is_some_and(|(held_key, _)| held_key == key) {
            self.release().await?;
        }
        self.responder.chunk(line).await?;
        if self.faults.duplicate == Some(self.events) {
            self.responder.chunk(line).await?;
        }
        self.release().await?;
        self.end_if_due().await
    }

    /// Sends a bookmark.
    pub(crate) async fn bookmark(&mut self, line: &[u8]) -> Result<(), Over> {
        self.release().await?;
        if self.faults.drop_bookmarks || self.faults.silent {
            return Ok(());
        }
        Ok(self.responder.chunk(line).await?)
    }

    /// Sends the server's own ERROR event, behind which the watch is over.
    pub(crate) async fn error(&mut self, error: &ApiError) -> Over {
        let line = format!("{{\"type\":\"ERROR\",\"object\":{}}}\n", error.to_status());
        match self.responder.chunk(line.as_bytes()).await {
            Ok(()) => Over::InOrder,
            Err(hangup) => hangup.into(),
        }
    }

    /// Whether an event is held back.
    pub(crate) fn is_holding(&self) -> bool {
        self.held.is_some()
    }

    /// Sends the event that is held back, if there is one.
    pub(crate) async fn release(&mut self) -> Result<(), Over> {
        match self.held.take() {
            Some((_, line)) => Ok(self.responder.chunk(&line).await?),
            None => Ok(()),
        }
    }

    pub(crate) async fn flush(&mut self) -> Result<(), Over> {
        Ok(self.responder.flush().await?)
    }

    /// Resolves when the client is gone.
    pub(crate) async fn client_gone(&mut self) {
        self.responder.client_gone().await;
    }

    async fn end_if_due(&mut self) -> Result<(), Over> {
        if self.faults.expire_after == Some(self.events) {
            return Err(self.error(&ApiError::watch_expired(1, 2)).await);
        }
        if self.faults.end_after == Some(self.events) { Err(Over::InOrder) } else { Ok(()) }
    }
}
