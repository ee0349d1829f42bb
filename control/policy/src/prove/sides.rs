//! Whose policy is judged: each known endpoint in each direction has a *profile*, which is all that a verdict can depend
//! on at this end: the rules of the policies that isolate it, and for ingress what its own named ports are.

use super::interest::Interest;
use super::people::Environment;
use crate::oracle::{Rule, belongs, isolating, named_ports, rule_at, rules};
use crate::snapshot::Snapshot;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use sluice_flow::{Direction, LocalEndpoint, ObjectName};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub(super) type ProfileId = u32;
/// Position in [`Sides::rules`].
pub(super) type RuleIndex = u32;

/// A rule of a policy that isolates somebody here.
#[derive(Debug, Clone)]
pub(super) struct RuleInPlay {
    pub(super) policy: ObjectName,
    object: Arc<NetworkPolicy>,
    pub(super) direction: Direction,
    pub(super) index: usize,
}

impl RuleInPlay {
    /// The rule as the oracle reads it.
    pub(super) fn rule(&self) -> Rule<'_> {
        rule_at(&self.policy, &self.object, self.direction, self.index).expect("it was counted in the same object")
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.object, &other.object) && self.direction == other.direction && self.index == other.index
    }
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Profile {
    pub(super) direction: Direction,
    /// In deciding order.
    pub(super) rules: Vec<RuleIndex>,
    /// The pod's own named ports; empty for egress, where they do not matter.
    pub(super) environment: Environment,
}

/// One endpoint that the snapshot knows.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) endpoint: LocalEndpoint,
    /// Of each direction: the policies that isolate it, by name, and its profile; `None` where none does.
    pub(super) directions: [Option<(Vec<ObjectName>, ProfileId)>; 2],
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Sides {
    pub(super) rules: Vec<RuleInPlay>,
    pub(super) profiles: Vec<Profile>,
    pub(super) sides: Vec<Side>,
}

impl Sides {
    /// Reads the policies of each endpoint's namespace.
    pub(super) fn of(snapshot: &Snapshot, interest: &Interest) -> Self {
        let known = snapshot.endpoints.iter().filter_map(|endpoint| {
            let pod = snapshot.pods.get(&endpoint.pod)?;
            belongs(endpoint, pod).then_some((endpoint, pod))
        });
        let known: Vec<_> = known
            .map(|(endpoint, pod)| {
                (endpoint, pod, Direction::BOTH.map(|direction| isolating(snapshot, &endpoint.pod, direction).collect::<Vec<_>>()))
            })
            .collect();
        let mut in_play: BTreeMap<(&ObjectName, Direction), &Arc<NetworkPolicy>> = BTreeMap::new();
        for (direction, &(name, policy)) in
            known.iter().flat_map(|(.., by)| Direction::BOTH.into_iter().zip(by)).flat_map(|(d, by)| by.iter().map(move |one| (d, one)))
        {
            in_play.insert((name, direction), policy);
        }
        let mut sides = Self::default();
        let mut indexes: HashMap<(&ObjectName, Direction), Vec<RuleIndex>> = HashMap::new();
        for ((name, direction), policy) in in_play {
            let first = sides.rules.len();
            let count = rules(name, policy, direction).len();
            sides.rules.extend((0..count).map(|index| RuleInPlay { policy: name.clone(), object: Arc::clone(policy), direction, index }));
            indexes.insert((name, direction), (first as RuleIndex..(first + count) as RuleIndex).collect());
        }
        let mut ids: HashMap<Profile, ProfileId> = HashMap::new();
        for (endpoint, pod, by) in &known {
            let directions = Direction::BOTH.map(|direction| {
                let by = &by[direction as usize];
                if by.is_empty() {
                    return None;
                }
                let rules = by.iter().flat_map(|(name, _)| indexes[&(*name, direction)].iter().copied()).collect();
                let environment = match direction {
                    Direction::Ingress => interest.environment(|name, protocol| named_ports(pod, name, protocol)),
                    Direction::Egress => Environment::new(),
                };
                let profile = Profile { direction, rules, environment };
                let next = sides.profiles.len() as ProfileId;
                let id = *ids.entry(profile).or_insert_with_key(|profile| {
                    sides.profiles.push(profile.clone());
                    next
                });
                Some((by.iter().map(|&(name, _)| name.clone()).collect(), id))
            });
            sides.sides.push(Side { endpoint: (*endpoint).clone(), directions });
        }
        sides
    }

    /// Whether the rules are those of `other`, read from the same objects.
    pub(super) fn has_rules_of(&self, other: &Self) -> bool {
        self.rules.len() == other.rules.len() && self.rules.iter().zip(&other.rules).all(|(a, b)| a.is(b))
    }
}
