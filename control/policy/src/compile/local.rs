//! This node's pods: which policies isolate them, the rules of those, and what each direction of a pod makes of them.
//!
//! Of other policies only the selector is looked at, once, to refuse what nobody can represent. All is found anew when an
//! endpoint, its pod or a policy of its namespace changes, from what was read of each policy.

use super::model::{Model, ModelEndpoint, Profile};
use super::number::capacity;
use super::pods::{has_identity, named_ports, same_uid};
use super::rules::{Policy, Rule};
use super::selector::Labels;
use super::{CompileError, check_ports};
use crate::snapshot::{Objects, Snapshot};
use ahash::RandomState;
use imbl::ordmap::DiffItem;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use sluice_flow::{Direction, LocalEndpoint, ObjectName};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// What is remembered from one compilation to the next.
#[derive(Debug, Default)]
pub(super) struct Local {
    /// As of the last update that succeeded.
    objects: Objects<ObjectName, NetworkPolicy>,
    endpoints: Vec<LocalEndpoint>,
    pods: Vec<Option<Arc<Pod>>>,
    /// Those of namespaces with a pod of this node.
    policies: HashMap<ObjectName, Policy, RandomState>,
    /// Whether the model says what the objects above say.
    is_current: bool,
}

/// The policies that isolate each endpoint, in each direction.
type Isolating<'a> = Vec<[Vec<&'a ObjectName>; 2]>;
/// From the first rule id of a policy's direction to one past the last.
type RuleIds<'a> = HashMap<(&'a ObjectName, Direction), (u32, u32), RandomState>;

impl Local {
    /// Renews endpoints, rules and profiles of `model` if something changed for them.
    pub(super) fn update(&mut self, model: &mut Model, snapshot: &Snapshot) -> Result<(), CompileError> {
        check_ports(&snapshot.endpoints)?;
        if self.endpoints != snapshot.endpoints {
            self.endpoints.clone_from(&snapshot.endpoints);
            self.is_current = false;
        }
        let before = self.objects.clone();
        let mut refused = None;
        for difference in before.diff(&snapshot.policies) {
            let (name, new) = match difference {
                DiffItem::Add(name, new) | DiffItem::Update { new: (name, new), .. } => (name, Some(new)),
                DiffItem::Remove(name, _) => (name, None),
            };
            self.is_current &= self.policies.remove(name).is_none();
            self.is_current = self.is_current && !self.endpoints.iter().any(|endpoint| endpoint.pod.namespace == name.namespace);
            refused = refused.or(new.and_then(|policy| Policy::check(name, policy).err()));
        }
        if let Some(refused) = refused {
            return Err(refused);
        }
        self.objects.clone_from(&snapshot.policies);
        let pods = snapshot.endpoints.iter().map(|endpoint| snapshot.pods.get(&endpoint.pod).cloned());
        let pods: Vec<_> = pods.collect();
        let same = |(one, other): (&Option<Arc<Pod>>, &Option<Arc<Pod>>)| match (one, other) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        if !self.is_current || pods.len() != self.pods.len() || !pods.iter().zip(&self.pods).all(same) {
            self.is_current = false;
            self.pods = pods;
            self.renew(model, snapshot)?;
            self.is_current = true;
        }
        Ok(())
    }

    fn renew(&mut self, model: &mut Model, snapshot: &Snapshot) -> Result<(), CompileError> {
        // an endpoint whose pod object is not known, or is another incarnation of the pod, has no row: its port stays closed
        let known: Vec<(&LocalEndpoint, &Arc<Pod>)> = snapshot
            .endpoints
            .iter()
            .zip(&self.pods)
            .filter_map(|(endpoint, pod)| pod.as_ref().map(|pod| (endpoint, pod)))
            .filter(|(endpoint, pod)| same_uid(pod, endpoint))
            .collect();
        let selected = isolating(&mut self.policies, snapshot, &known)?;
        let (rules, ids) = rules_in_play(&mut self.policies, &selected)?;
        capacity("rules", rules.len(), u32::MAX as usize - 1)?;
        let (mut profiles, mut endpoints) = (Vec::new(), Vec::with_capacity(known.len()));
        let mut profile_index: HashMap<Profile, usize, RandomState> = HashMap::default();
        for ((source, pod), isolating) in known.into_iter().zip(selected) {
            let of = |direction: Direction| {
                let profile = profile(pod, direction, &isolating[direction as usize], &rules, &ids)?;
                Some(*profile_index.entry(profile).or_insert_with_key(|profile| {
                    profiles.push(profile.clone());
                    profiles.len() - 1
                }))
            };
            let profile_ids = Direction::BOTH.map(of);
            let isolating = isolating.map(|policies| policies.into_iter().cloned().collect());
            endpoints.push(ModelEndpoint { source: source.clone(), isolating, profiles: profile_ids });
        }
        (model.rules, model.profiles, model.endpoints) = (rules, profiles, endpoints);
        Ok(())
    }
}

fn isolating<'a>(
    policies: &mut HashMap<ObjectName, Policy, RandomState>,
    snapshot: &'a Snapshot,
    known: &[(&LocalEndpoint, &Arc<Pod>)],
) -> Result<Isolating<'a>, CompileError> {
    let mut of_namespace: BTreeMap<&str, Vec<&'a ObjectName>> = BTreeMap::new();
    for (endpoint, _) in known {
        let namespace = endpoint.pod.namespace.as_str();
        if of_namespace.contains_key(namespace) {
            continue;
        }
        let mut names = Vec::new();
        let first = ObjectName::new(namespace, "");
        for (name, object) in snapshot.policies.range(first..).take_while(|(name, _)| name.namespace == namespace) {
            if !policies.contains_key(name) {
                policies.insert(name.clone(), Policy::read(name, object)?);
            }
            names.push(name);
        }
        of_namespace.insert(namespace, names);
    }
    policies.retain(|name, _| of_namespace.contains_key(name.namespace.as_str()));
    let none = Labels::new();
    let of_endpoint = |(endpoint, pod): &(&LocalEndpoint, &Arc<Pod>)| {
        let mut isolating = [Vec::new(), Vec::new()];
        let own = of_namespace.get(endpoint.pod.namespace.as_str()).filter(|_| has_identity(pod));
        let labels = pod.metadata.labels.as_ref().unwrap_or(&none);
        for name in own.into_iter().flatten() {
            let policy = &policies[*name];
            if policy.selector.matches(labels) {
                for direction in Direction::BOTH.into_iter().filter(|&direction| policy.isolates[direction as usize]) {
                    isolating[direction as usize].push(*name);
                }
            }
        }
        isolating
    };
    Ok(known.iter().map(of_endpoint).collect())
}

/// The rules of the policies that isolate anyone here, in the order that makes the first allowing one deterministic:
/// by policy name, then direction, then index; and which rule ids each policy got.
fn rules_in_play<'a>(
    policies: &mut HashMap<ObjectName, Policy, RandomState>,
    selected: &[[Vec<&'a ObjectName>; 2]],
) -> Result<(Vec<Arc<Rule>>, RuleIds<'a>), CompileError> {
    let in_play: BTreeSet<(&'a ObjectName, Direction)> = selected
        .iter()
        .flat_map(|isolating| Direction::BOTH.into_iter().zip(isolating))
        .flat_map(|(direction, by)| by.iter().map(move |&name| (name, direction)))
        .collect();
    let (mut rules, mut ids) = (Vec::new(), RuleIds::default());
    for (name, direction) in in_play {
        let policy = policies.get_mut(name).expect("a policy that isolates was read");
        let first = rules.len() as u32;
        rules.extend_from_slice(policy.rules(name, direction)?);
        ids.insert((name, direction), (first, rules.len() as u32));
    }
    Ok((rules, ids))
}

fn profile(pod: &Pod, direction: Direction, by: &[&ObjectName], rules: &[Arc<Rule>], ids: &RuleIds<'_>) -> Option<Profile> {
    if by.is_empty() {
        return None;
    }
    let mut own: Vec<u32> = by.iter().flat_map(|&policy| ids[&(policy, direction)].0..ids[&(policy, direction)].1).collect();
    own.sort_unstable();
    let asks = direction == Direction::Ingress && own.iter().any(|&rule| rules[rule as usize].has_named_ports());
    let named_ports = if asks { Arc::new(named_ports(pod)) } else { Arc::default() };
    Some(Profile { direction, rules: own, named_ports })
}
