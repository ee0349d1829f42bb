//! Which state of each policy is in force on this node, and since when.

use crate::view::View;
use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use sluice_flow::ObjectName;
use sluice_policy::Objects;
use sluice_wire::{ManifestProblem, Realization, RealizationState};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// The policies of the table in force. A copy costs nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Realized {
    policies: Objects<ObjectName, NetworkPolicy>,
    since: OrdMap<ObjectName, SystemTime>,
}

/// Which state of a policy somebody waits for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Of this object, where it is known; another one of its name is another policy.
    pub(crate) uid: Option<String>,
    /// `metadata.generation`, at least; 0 for any.
    pub(crate) generation: i64,
}

impl Realized {
    /// A table of these policies is in force from `now` on. Cost: that of the policies that differ from the last.
    pub(crate) fn adopt(&mut self, policies: &Objects<ObjectName, NetworkPolicy>, now: SystemTime) {
        for difference in self.policies.diff(policies) {
            match difference {
                DiffItem::Remove(name, _) => drop(self.since.remove(name)),
                DiffItem::Update { old: (_, old), new: (_, new) } if says_the_same(old, new) => {}
                DiffItem::Add(name, _) | DiffItem::Update { new: (name, _), .. } => drop(self.since.insert(name.clone(), now)),
            }
        }
        self.policies = policies.clone();
    }

    /// The state in force of that policy and since when, milliseconds since 1970.
    pub(crate) fn get(&self, name: &ObjectName) -> Option<(&Arc<NetworkPolicy>, u64)> {
        let since = self.since.get(name)?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Some((self.policies.get(name)?, u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// Another label of a policy makes another object of it, and changes nothing.
fn says_the_same(one: &NetworkPolicy, other: &NetworkPolicy) -> bool {
    one.spec == other.spec && one.metadata.uid == other.metadata.uid && one.metadata.generation == other.metadata.generation
}

/// What `view` knows of a policy.
pub(crate) fn realization(view: &View, policy: &ObjectName, wanted: &Wanted) -> Realization {
    let problem = problem_among(&view.status.problems, policy).cloned();
    let in_force = view.realized.get(policy);
    let is_wanted = |object: &NetworkPolicy| {
        let uid = object.metadata.uid.as_ref();
        let same = wanted.uid.as_ref().is_none_or(|wanted| uid.is_none_or(|uid| uid == wanted));
        // a manifest has no generation: what was read is what is wanted
        same && object.metadata.generation.is_none_or(|generation| generation >= wanted.generation)
    };
    let known = view.snapshot.policies.get(policy);
    let is_current = |object: &Arc<NetworkPolicy>| known.is_some_and(|known| Arc::ptr_eq(known, object) || says_the_same(known, object));
    let state = match (&problem, in_force) {
        (Some(_), _) => RealizationState::Refused,
        (None, Some((object, _))) if is_wanted(object) && is_current(object) => RealizationState::Realized,
        (None, None) if known.is_none() && *wanted == Wanted::default() => RealizationState::Unknown,
        (None, _) => RealizationState::Pending,
    };
    let known_generation = known.and_then(|known| known.metadata.generation);
    Realization {
        policy: policy.clone(),
        state,
        generation: in_force.and_then(|(object, _)| object.metadata.generation),
        known_generation,
        since_ms: in_force.map(|(_, since)| since),
        table_generation: view.status.adopted_generation,
        problem,
        failure: view.status.last_failure.clone().filter(|_| view.failed),
    }
}

/// Why the newest state of a policy cannot be used, if so.
pub(crate) fn problem_among<'p>(problems: &'p [ManifestProblem], policy: &ObjectName) -> Option<&'p ManifestProblem> {
    let object = format!("NetworkPolicy {policy}");
    problems.iter().find(|problem| problem.object.as_ref() == Some(&object))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_policy::Snapshot;
    use std::time::Duration;

    fn policies(generations: &[(&str, i64, u16)]) -> Objects<ObjectName, NetworkPolicy> {
        let policy = |&(name, generation, port): &(&str, i64, u16)| {
            let object = serde_json::json!({
                "metadata": {"name": name, "namespace": "x", "uid": format!("uid of {name}"), "generation": generation},
                "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": port}]}]},
            });
            (ObjectName::new("x", name), Arc::new(serde_json::from_value(object).unwrap()))
        };
        generations.iter().map(policy).collect()
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_policy_is_in_force_since_its_content_is() {
        let (a, b) = (ObjectName::new("x", "a"), ObjectName::new("x", "b"));
        let mut realized = Realized::default();
        realized.adopt(&policies(&[("a", 1, 80), ("b", 1, 80)]), at(1));
        realized.adopt(&policies(&[("a", 1, 80), ("b", 2, 81)]), at(2));
        assert_eq!(realized.get(&a).map(|(_, since)| since), Some(1000), "nothing changed, though it was read again");
        assert_eq!(realized.get(&b).map(|(policy, since)| (policy.metadata.generation, since)), Some((Some(2), 2000)));
        realized.adopt(&policies(&[("a", 1, 80)]), at(3));
        assert!(realized.get(&b).is_none());
        realized.adopt(&policies(&[("a", 1, 80), ("b", 2, 81)]), at(4));
        assert_eq!(realized.get(&b).map(|(_, since)| since), Some(4000), "it was gone in between");
    }

    #[test]
    fn only_the_state_that_is_wanted_counts() {
        let a = ObjectName::new("x", "a");
        let mut view = View::empty("s".into());
        let wanted = |generation| Wanted { uid: Some("uid of a".into()), generation };
        assert_eq!(realization(&view, &a, &Wanted::default()).state, RealizationState::Unknown);
        assert_eq!(realization(&view, &a, &wanted(1)).state, RealizationState::Pending, "the server holds it");
        view.snapshot = Arc::new(Snapshot { policies: policies(&[("a", 2, 80)]), ..Snapshot::default() });
        assert_eq!(realization(&view, &a, &wanted(2)).state, RealizationState::Pending, "known, and not in force yet");
        view.realized.adopt(&policies(&[("a", 1, 79)]), at(1));
        assert_eq!(realization(&view, &a, &wanted(1)).state, RealizationState::Pending, "an older state is in force");
        view.realized.adopt(&policies(&[("a", 2, 80)]), at(2));
        assert_eq!(realization(&view, &a, &wanted(2)).state, RealizationState::Realized);
        assert_eq!(realization(&view, &a, &wanted(3)).state, RealizationState::Pending, "the server holds a newer one");
        let other = Wanted { uid: Some("another".into()), generation: 1 };
        assert_eq!(realization(&view, &a, &other).state, RealizationState::Pending, "made anew under the same name");
        assert_eq!(realization(&view, &a, &Wanted::default()).since_ms, Some(2000));
    }
}
