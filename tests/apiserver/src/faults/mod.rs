//! Faults by rule: which requests, and what goes wrong with them.
//!
//! Tests add and remove [`Rule`]s while the server runs; a file of rules is YAML. All rules that match a request
//! apply to it together. Chance is drawn from a seeded generator in the order in which requests arrive.

mod plan;
mod rule;
mod stream;

pub(crate) use plan::{Answer, Plan};
pub use rule::{Fault, Rule, Verb};
pub(crate) use stream::{EventStream, Over, StreamFaults};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Names a rule that was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RuleId(u64);

/// The rules in force.
#[derive(Debug)]
pub struct Faults {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    rules: Vec<Active>,
    next_id: u64,
    random: fastrand::Rng,
}

#[derive(Debug)]
struct Active {
    id: RuleId,
    rule: Rule,
    /// Requests that the rule's resource and verb matched so far.
    matched: u64,
    /// Requests that it spoiled.
    hits: u64,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: Mutex::new(State { rules: Vec::new(), next_id: 0, random: fastrand::Rng::with_seed(seed) }) }
    }

    /// Puts a rule in force; it counts requests from now.
    pub fn add(&self, rule: Rule) -> RuleId {
        let mut state = self.lock();
        let id = RuleId(state.next_id);
        state.next_id += 1;
        state.rules.push(Active { id, rule, matched: 0, hits: 0 });
        id
    }

    /// Takes a rule away. Requests that it spoiled already stay spoiled: a silent watch stays silent to its end.
    pub fn remove(&self, id: RuleId) {
        self.lock().rules.retain(|active| active.id != id);
    }

    /// Takes all rules away.
    pub fn clear(&self) {
        self.lock().rules.clear();
    }

    /// How many requests a rule spoiled; 0 for one that was taken away. A rule with [`Fault::DelayMs`] of 0 spoils
    /// nothing and counts.
    pub fn hits(&self, id: RuleId) -> u64 {
        self.lock().rules.iter().find(|active| active.id == id).map_or(0, |active| active.hits)
    }

    /// What goes wrong with a request. `resource` is its plural and its qualified name.
    pub(crate) fn plan(&self, resource: Option<(&str, &str)>, verb: Verb) -> Plan {
        let mut guard = self.lock();
        let State { rules, random, .. } = &mut *guard;
        let mut plan = Plan::default();
        for active in rules.iter_mut().filter(|active| active.rule.covers(resource, verb)) {
            active.matched += 1;
            if active.rule.is_due(active.matched) && active.rule.probability.is_none_or(|chance| random.f64() < chance) {
                active.hits += 1;
                plan.add(&active.rule.fault);
            }
        }
        plan
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_count_the_requests_that_they_cover() {
        let faults = Faults::new(1);
        let second = faults.add(Rule::new(Fault::Hang).on("pods").verb(Verb::List).nth(2));
        let all = faults.add(Rule::new(Fault::Slow(10)).on("events.events.k8s.io"));
        let pods = Some(("pods", "pods"));
        let hangs: Vec<_> = (0..3).map(|_| faults.plan(pods, Verb::List).answer.is_some()).collect();
        assert_eq!(hangs, [false, true, false]);
        assert_eq!(faults.plan(pods, Verb::Watch), Plan::default());
        assert_eq!(faults.plan(Some(("events", "events")), Verb::List), Plan::default());
        assert_eq!(faults.plan(Some(("events", "events.events.k8s.io")), Verb::List).wire.bytes_per_second, Some(10));
        assert_eq!((faults.hits(second), faults.hits(all)), (1, 1));
        faults.remove(all);
        assert_eq!(faults.plan(Some(("events", "events.events.k8s.io")), Verb::List), Plan::default());
    }

    #[test]
    fn chance_repeats_under_the_same_seed() {
        let draw = |seed| {
            let faults = Faults::new(seed);
            faults.add(Rule::new(Fault::Close).probability(0.5));
            (0..64).map(|_| faults.plan(None, Verb::Get).answer.is_some()).collect::<Vec<_>>()
        };
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }
}
