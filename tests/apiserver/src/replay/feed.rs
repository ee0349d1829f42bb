//! A recorded history fed into a store, event by event, so that lists, watches and faults at any point of it work
//! as they would have on the recorded server.

use super::recording::History;
use super::{RecordingError, WatchEvent};
use crate::replay::Recording;
use crate::status::ApiError;
use crate::store::Store;
use std::sync::Arc;

/// A history on its way into a store.
#[derive(Debug)]
pub struct Feed {
    store: Arc<Store>,
    history: History,
    next: usize,
}

impl Feed {
    /// Fills a store with the first lists of a scenario; no event has happened yet.
    ///
    /// Errors: a scenario that is not in the recording.
    ///
    /// Panics: if the recording names resources that the store does not know, or objects are in the way.
    pub fn new(store: Arc<Store>, recording: &Recording, scenario: &str) -> Result<Self, RecordingError> {
        let history = recording.history(scenario)?;
        for (resource, list) in &history.first {
            store.replay_list(resource, list).unwrap_or_else(|error| panic!("{resource}: {error}"));
        }
        Ok(Self { store, history, next: 0 })
    }

    /// The history.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// How many events are still to come, those behind the last lists included.
    pub fn remaining(&self) -> usize {
        self.history.events.len() - self.next
    }

    /// Lets the next event happen and returns it; `None` at the end.
    ///
    /// Errors: somebody else changed the store in between.
    pub fn step(&mut self) -> Result<Option<&WatchEvent>, ApiError> {
        let Some(event) = self.history.events.get(self.next) else { return Ok(None) };
        self.store.replay(event.object.clone(), event.kind == "DELETED")?;
        self.next += 1;
        Ok(Some(event))
    }

    /// Lets so many events happen, as far as there are so many.
    ///
    /// Errors: as [`Feed::step`].
    pub fn advance(&mut self, events: usize) -> Result<(), ApiError> {
        for _ in 0..events {
            self.step()?;
        }
        Ok(())
    }

    /// Lets everything happen that the last list of a resource shows, so that the store holds just that list.
    ///
    /// Errors: as [`Feed::step`].
    pub fn finish(&mut self, resource: &str) -> Result<(), ApiError> {
        let end = self.history.last_version(resource);
        while self.history.events.get(self.next).is_some_and(|event| event.version() <= end) {
            self.step()?;
        }
        Ok(())
    }
}
