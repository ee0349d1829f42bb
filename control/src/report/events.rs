//! Events on policies that cannot be represented: in the namespace of the policy, where its author looks.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use sluice_flow::ObjectName;
use sluice_policy::Snapshot;
use sluice_wire::ManifestProblem;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Events at once, and how soon one more may follow.
const BURST: u32 = 25;
const REFILL: Duration = Duration::from_secs(2);
/// An event is told again after so long, while the problem lasts; servers forget events after an hour.
const REPEAT: Duration = Duration::from_secs(1800);
/// Of a note. Source: events.k8s.io/v1, `note`.
const NOTE_MAX: usize = 1000;

/// Tells problems once, and again while they last, at a bounded rate.
pub(super) struct Events {
    recorder: Recorder,
    told: BTreeMap<(String, String), Instant>,
    budget: Budget,
}

impl Events {
    pub(super) fn new(client: Client, instance: Option<String>) -> Self {
        let recorder = Recorder::new(client, Reporter { controller: "sluice.network/reporter".into(), instance });
        Self { recorder, told: BTreeMap::new(), budget: Budget::new(Instant::now()) }
    }

    /// Tells of the problems what is due. What the budget does not allow now is due at the next call.
    pub(super) async fn tell(&mut self, problems: &[ManifestProblem], snapshot: &Snapshot) {
        let now = Instant::now();
        let key = |problem: &ManifestProblem| (problem.object.clone().unwrap_or_default(), problem.message.clone());
        let lasting: BTreeSet<_> = problems.iter().map(key).collect();
        self.told.retain(|key, _| lasting.contains(key));
        for problem in problems {
            let Some(regarding) = reference(problem, snapshot) else { continue };
            let is_told = self.told.get(&key(problem)).is_some_and(|at| now.duration_since(*at) < REPEAT);
            if is_told || !self.budget.take(now) {
                continue;
            }
            let event = Event {
                type_: EventType::Warning,
                reason: "NotRepresented".into(),
                note: Some(note(problem)),
                action: "Compile".into(),
                secondary: None,
            };
            match self.recorder.publish(&event, &regarding).await {
                Ok(()) => drop(self.told.insert(key(problem), now)),
                Err(error) => {
                    // it is in the status all the same
                    tracing::debug!(%error, "an event was not taken");
                    return;
                }
            }
        }
    }
}

fn note(problem: &ManifestProblem) -> String {
    let place = if problem.field.is_empty() { String::new() } else { format!("{}: ", problem.field) };
    let hint = problem.hint.as_ref().map_or_else(String::new, |hint| format!(" ({hint})"));
    let mut note = format!("{place}{}{hint}; in force: {}", problem.message, problem.in_force);
    if note.len() > NOTE_MAX {
        let end = (0..=NOTE_MAX).rev().find(|&end| note.is_char_boundary(end)).unwrap_or(0);
        note.truncate(end);
    }
    note
}

/// The object that it is about, `None` where that is no policy.
fn reference(problem: &ManifestProblem, snapshot: &Snapshot) -> Option<ObjectReference> {
    let name = ObjectName::parse(problem.object.as_deref()?.strip_prefix("NetworkPolicy ")?);
    let uid = snapshot.policies.get(&name).and_then(|policy| policy.metadata.uid.clone());
    Some(ObjectReference {
        api_version: Some("networking.k8s.io/v1".into()),
        kind: Some("NetworkPolicy".into()),
        name: Some(name.name),
        namespace: Some(name.namespace),
        uid,
        ..ObjectReference::default()
    })
}

/// A token bucket; time is an argument.
#[derive(Debug)]
struct Budget {
    tokens: u32,
    filled: Instant,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self { tokens: BURST, filled: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let fresh = (now.duration_since(self.filled).as_millis() / REFILL.as_millis()) as u32;
        self.filled += REFILL * fresh;
        self.tokens = self.tokens.saturating_add(fresh).min(BURST);
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
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let taken = |budget: &mut Budget, at: Duration| (0..100).filter(|_| budget.take(start + at)).count();
        assert_eq!(taken(&mut budget, Duration::ZERO), BURST as usize);
        assert_eq!(taken(&mut budget, REFILL - Duration::from_millis(1)), 0);
        assert_eq!(taken(&mut budget, REFILL * 3), 3);
        assert_eq!(taken(&mut budget, REFILL * 1000), BURST as usize);
    }
}
