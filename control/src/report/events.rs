//! Events: what is wrong with an object is said in its namespace, where its author looks.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// An event is told again after so long, while its cause lasts; servers forget events after an hour.
const REPEAT: Duration = Duration::from_secs(1800);
/// Of a note. Source: events.k8s.io/v1, `note`.
const NOTE_MAX: usize = 1000;

/// Something that the owner of an object should know, as long as it lasts.
#[derive(Debug, Clone)]
pub(super) struct Warning {
    /// The object.
    pub(super) regarding: ObjectReference,
    /// For machines: `NotRepresented`.
    pub(super) reason: &'static str,
    /// For people.
    pub(super) note: String,
    /// What was tried: `Compile`.
    pub(super) action: &'static str,
}

/// Tells warnings once, and again while they last, at a bounded rate.
pub(super) struct Events {
    client: Client,
    reporter: Reporter,
    told: BTreeMap<Key, Instant>,
    budget: Budget,
}

/// Kind, namespace and name of the object, and the note.
type Key = (String, String, String, String);

impl Events {
    /// Tells as `reporter`: `burst` events at once at most, and one more each `refill`.
    pub(super) fn new(client: Client, reporter: Reporter, burst: u32, refill: Duration) -> Self {
        Self { client, reporter, told: BTreeMap::new(), budget: Budget::new(burst, refill, Instant::now()) }
    }

    /// Tells what is due of all that is wrong now. What the budget does not allow now is due at the next call.
    pub(super) async fn tell(&mut self, warnings: &[Warning]) {
        let now = Instant::now();
        let lasting: BTreeSet<Key> = warnings.iter().map(key).collect();
        self.told.retain(|key, _| lasting.contains(key));
        for warning in warnings {
            let is_told = self.told.get(&key(warning)).is_some_and(|at| now.duration_since(*at) < REPEAT);
            if is_told || !self.budget.take(now) {
                continue;
            }
            let event = Event {
                type_: EventType::Warning,
                reason: warning.reason.into(),
                note: Some(bounded(&warning.note)),
                action: warning.action.into(),
                secondary: None,
            };
            // a recorder that remembers would count another note as the first one again
            let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
            match recorder.publish(&event, &warning.regarding).await {
                Ok(()) => drop(self.told.insert(key(warning), now)),
                Err(error) => {
                    // it is in the status all the same
                    tracing::debug!(%error, "an event was not taken");
                    return;
                }
            }
        }
    }
}

fn key(warning: &Warning) -> Key {
    let ObjectReference { kind, namespace, name, .. } = warning.regarding.clone();
    (kind.unwrap_or_default(), namespace.unwrap_or_default(), name.unwrap_or_default(), warning.note.clone())
}

fn bounded(note: &str) -> String {
    let end = (0..=NOTE_MAX.min(note.len())).rev().find(|&end| note.is_char_boundary(end)).unwrap_or(0);
    note[..end].to_owned()
}

/// A token bucket; time is an argument.
#[derive(Debug)]
struct Budget {
    burst: u32,
    refill: Duration,
    tokens: u32,
    filled: Instant,
}

impl Budget {
    fn new(burst: u32, refill: Duration, now: Instant) -> Self {
        Self { burst, refill, tokens: burst, filled: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let fresh = (now.duration_since(self.filled).as_millis() / self.refill.as_millis()) as u32;
        self.filled += self.refill * fresh;
        self.tokens = self.tokens.saturating_add(fresh).min(self.burst);
        let is_any = self.tokens > 0;
        self.tokens -= u32::from(is_any);
        is_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_bounded_and_comes_back() {
        const BURST: u32 = 25;
        const REFILL: Duration = Duration::from_secs(2);
        let start = Instant::now();
        let mut budget = Budget::new(BURST, REFILL, start);
        let taken = |budget: &mut Budget, at: Duration| (0..100).filter(|_| budget.take(start + at)).count();
        assert_eq!(taken(&mut budget, Duration::ZERO), BURST as usize);
        assert_eq!(taken(&mut budget, REFILL - Duration::from_millis(1)), 0);
        assert_eq!(taken(&mut budget, REFILL * 3), 3);
        assert_eq!(taken(&mut budget, REFILL * 1000), BURST as usize);
    }

    #[test]
    fn a_note_ends_between_characters() {
        assert_eq!(bounded("short"), "short");
        let long = format!("{}\u{e9}tail", "x".repeat(NOTE_MAX - 1));
        assert_eq!(bounded(&long), "x".repeat(NOTE_MAX - 1));
    }
}
