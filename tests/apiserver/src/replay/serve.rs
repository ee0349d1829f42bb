//! Recorded answers to live requests.
//!
//! A request gets the capture of the very same path and query, or else of the nearest one (see
//! [`Capture::is_nearly`]). Where several fit, the n-th request gets the n-th of them in the order of their names
//! and later ones the last. A watch that nothing fits stays silent, as it would on a server where nothing happens; a
//! streamed list that nothing fits is refused, as by a server that has none.

use super::capture::{Capture, End};
use super::recording::Recording;
use crate::api::Next;
use crate::http::request::Request;
use crate::http::response::{JSON, Responder};
use crate::http::wire::Hangup;
use crate::query::{Query, split_target};
use crate::status::ApiError;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Length of a silent watch that names no timeout.
const SILENT_WATCH: Duration = Duration::from_secs(1800);

/// How fast recorded streams are served.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// All bytes at once.
    AtOnce,
    /// With the recorded pauses divided by this; 1 is the recorded pace.
    Times(f64),
}

/// A recording that answers requests.
#[derive(Debug)]
pub(crate) struct Replay {
    recording: Recording,
    speed: Speed,
    /// Requests so far, by the name of the first capture that fits them.
    served: Mutex<HashMap<String, usize>>,
}

impl Replay {
    pub(crate) fn new(recording: Recording, speed: Speed) -> Self {
        Self { recording, speed, served: Mutex::default() }
    }

    pub(crate) async fn serve(&self, request: &Request, query: &Query, responder: &mut Responder<'_>) -> Result<Next, Hangup> {
        match self.choose(request) {
            Some(capture) => self.play(capture, responder).await,
            // to be silent would be to say that the list is not at its end yet
            None if query.is_true("sendInitialEvents") => responder.error(&ApiError::streaming_lists_off()).await.map(|()| Next::Request),
            None if query.is_true("watch") => silence(query, responder).await,
            None => responder.error(&ApiError::no_such_resource()).await.map(|()| Next::Request),
        }
    }

    fn choose(&self, request: &Request) -> Option<&Capture> {
        let (path, query) = split_target(&request.target);
        let accept = request.accept.as_deref().unwrap_or("*/*");
        let special = accept.contains("as=") || accept.contains("protobuf");
        let form = |capture: &&Capture| if special { capture.accepts(accept) } else { capture.is_plain() };
        let all =
            |fits: &dyn Fn(&Capture) -> bool| self.recording.captures().filter(form).filter(|capture| fits(capture)).collect::<Vec<_>>();
        let mut fitting = all(&|capture| capture.is_exactly(&path, &query));
        if fitting.is_empty() {
            fitting = all(&|capture| capture.is_nearly(&path, &query));
        }
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = served.entry(fitting.first()?.name().to_owned()).or_default();
        *turn += 1;
        fitting.get(*turn - 1).or(fitting.last()).copied()
    }

    async fn play(&self, capture: &Capture, responder: &mut Responder<'_>) -> Result<Next, Hangup> {
        let pieces = match capture.pieces() {
            Ok(pieces) => pieces,
            Err(error) => {
                responder.error(&ApiError::new(500, Some("InternalError"), error.to_string())).await?;
                return Ok(Next::Request);
            }
        };
        let start = Instant::now();
        for (at, bytes) in pieces {
            if let Speed::Times(factor) = self.speed {
                let due = start + at.div_f64(factor.max(f64::MIN_POSITIVE)).min(SILENT_WATCH);
                tokio::select! {
                    () = tokio::time::sleep_until(due) => {}
                    () = responder.client_gone() => return Err(Hangup),
                }
            }
            responder.raw(bytes).await?;
        }
        match capture.end() {
            End::InOrder => Ok(Next::Request),
            End::Close => Ok(Next::Close),
            End::BrokenOff => Err(Hangup),
        }
    }
}

async fn silence(query: &Query, responder: &mut Responder<'_>) -> Result<Next, Hangup> {
    let asked = query.get("timeoutSeconds").and_then(|text| text.parse().ok()).map(Duration::from_secs);
    responder.begin(200, JSON, &[]);
    responder.flush().await?;
    tokio::select! {
        () = tokio::time::sleep(asked.unwrap_or(SILENT_WATCH).min(SILENT_WATCH)) => responder.finish().await.map(|()| Next::Request),
        () = responder.client_gone() => Err(Hangup),
    }
}
