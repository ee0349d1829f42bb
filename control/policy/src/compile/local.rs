//! This node's pods: which policies isolate them, the rules of those, and what each direction of a pod makes of them.
//!
//! Of a policy in a namespace without a pod of this node only the selector is looked at, once, to refuse what nobody can
//! represent. The others are read once; what follows from them is found anew when an endpoint, its pod or a policy of its
//! namespace changes.

use super::identity::{has_identity, named_ports, same_uid};
use super::model::{Model, ModelEndpoint, Profile};
use super::number::capacity;
use super::rules::{Policy, Rule};
use super::{CompileError, check_ports};
use crate::pod::Pod;
use crate::snapshot::{Objects, Snapshot};
use ahash::RandomState;
use imbl::ordmap::DiffItem;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use sluice_flow::{Direction, LocalEndpoint, ObjectName};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

/// What is remembered from one compilation to the next.
#[derive(Debug, Default)]
pub(super) struct Local {
    /// As of the last update that refused none.
    objects: Objects<ObjectName, NetworkPolicy>,
    /// Policies of namespaces with a pod of this node.
    spaces: BTreeMap<String, Space>,
    /// Namespaces whose policies must be read again.
    stale: BTreeSet<String>,
    /// Of the model's pods, when `model` was renewed; `None` where something changed since.
    current: Option<u64>,
}

/// The policies of one namespace, by name.
#[derive(Debug, Default)]
struct Space {
    policies: Vec<(ObjectName, Policy)>,
    /// Ids of the rules of each, in each direction in play.
    ids: Vec<[Range<u32>; 2]>,
    /// Whether it isolates somebody here, in each direction.
    isolates: Vec<[bool; 2]>,
}

impl Local {
    /// Renews endpoints, rules and profiles of `model` if something changed for them.
    pub(super) fn update(&mut self, model: &mut Model, snapshot: &Snapshot) -> Result<(), CompileError> {
        check_ports(&snapshot.endpoints)?;
        let mut refused = None;
        let (mut edited, mut others): (Vec<(ObjectName, Arc<NetworkPolicy>)>, Vec<&ObjectName>) = Default::default();
        for difference in self.objects.diff(&snapshot.policies) {
            let (name, new) = match difference {
                DiffItem::Add(name, new) | DiffItem::Update { new: (name, new), .. } => (name, Some(new)),
                DiffItem::Remove(name, _) => (name, None),
            };
            match new {
                _ if !self.spaces.contains_key(&name.namespace) => {}
                Some(new) if matches!(difference, DiffItem::Update { .. }) => edited.push((name.clone(), Arc::clone(new))),
                _ => others.push(name),
            }
            refused = refused.or(new.and_then(|policy| Policy::check(name, policy).err()));
        }
        if let Some(refused) = refused {
            return Err(refused);
        }
        self.stale.extend(others.into_iter().map(|name| name.namespace.clone()));
        let is_current = self.stale.is_empty() && self.current == Some(model.pods.local_edition);
        if !is_current || self.edit(model, &edited).is_none() {
            self.stale.extend(edited.into_iter().map(|(name, _)| name.namespace));
        }
        self.objects.clone_from(&snapshot.policies);
        if !self.stale.is_empty() || self.current != Some(model.pods.local_edition) {
            self.current = None;
            self.read_spaces(snapshot)?;
            self.renew(model, snapshot)?;
            self.current = Some(model.pods.local_edition);
        }
        Ok(())
    }

    /// Puts new rules in the places of old ones. `None` where more than that is another: then all is to be made anew.
    fn edit(&mut self, model: &mut Model, edited: &[(ObjectName, Arc<NetworkPolicy>)]) -> Option<()> {
        for (name, object) in edited {
            let space = self.spaces.get_mut(&name.namespace)?;
            let at = space.policies.binary_search_by(|(known, _)| known.cmp(name)).ok()?;
            let (before, mut now) = (&space.policies[at].1, Policy::read(name, object).ok()?);
            if (&before.selector, before.isolates) != (&now.selector, now.isolates) {
                return None;
            }
            for direction in Direction::BOTH.into_iter().filter(|&direction| space.isolates[at][direction as usize]) {
                let ids = space.ids[at][direction as usize].clone();
                let (old, new) = (&mut model.rules[ids.start as usize..ids.end as usize], now.rules(name, direction).ok()?);
                // where a rule begins to ask for them, profiles must tell pods' named ports apart
                if !old.iter().map(|rule| rule.has_named_ports()).eq(new.iter().map(|rule| rule.has_named_ports())) {
                    return None;
                }
                old.clone_from_slice(new);
            }
            space.policies[at].1 = now;
        }
        model.rules_edition += u64::from(!edited.is_empty());
        Some(())
    }

    fn read_spaces(&mut self, snapshot: &Snapshot) -> Result<(), CompileError> {
        let needed: BTreeSet<&str> = snapshot.endpoints.iter().map(|endpoint| endpoint.pod.namespace.as_str()).collect();
        self.spaces.retain(|name, _| needed.contains(name.as_str()));
        for namespace in needed {
            if !self.spaces.contains_key(namespace) || self.stale.contains(namespace) {
                let known = self.spaces.remove(namespace).unwrap_or_default();
                self.spaces.insert(namespace.to_owned(), Space::read(namespace, known, snapshot)?);
            }
        }
        self.stale.clear();
        Ok(())
    }

    fn renew(&mut self, model: &mut Model, snapshot: &Snapshot) -> Result<(), CompileError> {
        // an endpoint whose pod object is not known, or is another incarnation of the pod, has no row: its port stays closed
        let with_pod = snapshot.endpoints.iter().filter_map(|endpoint| Some((endpoint, snapshot.pods.get(&endpoint.pod)?)));
        let known: Vec<(&LocalEndpoint, &Arc<Pod>)> = with_pod.filter(|(endpoint, pod)| same_uid(pod, endpoint)).collect();
        self.spaces.values_mut().for_each(Space::clear);
        let mut selected: Vec<[Vec<usize>; 2]> = Vec::with_capacity(known.len());
        for (endpoint, pod) in &known {
            let space = self.spaces.get_mut(&endpoint.pod.namespace).expect("every endpoint's namespace was read");
            selected.push(space.isolating(pod));
        }
        let rules = self.rules_in_play()?;
        capacity("rules", rules.len(), u32::MAX as usize - 1)?;
        let (mut profiles, mut endpoints) = (Vec::new(), Vec::with_capacity(known.len()));
        let mut profile_index: HashMap<Profile, usize, RandomState> = HashMap::default();
        for ((source, pod), by) in known.into_iter().zip(selected) {
            let space = &self.spaces[&source.pod.namespace];
            let profile_ids = Direction::BOTH.map(|direction| {
                let profile = space.profile(pod, direction, &by[direction as usize], &rules)?;
                Some(*profile_index.entry(profile).or_insert_with_key(|profile| {
                    profiles.push(profile.clone());
                    profiles.len() - 1
                }))
            });
            let isolating = by.map(|policies| policies.into_iter().map(|policy| space.policies[policy].0.clone()).collect());
            endpoints.push(ModelEndpoint { source: source.clone(), isolating, profiles: profile_ids });
        }
        let same_places = model.rules.iter().map(|rule| rule.place()).eq(rules.iter().map(|rule| rule.place()));
        if !same_places || model.profiles != profiles || model.endpoints != endpoints {
            model.naming += 1;
        }
        (model.rules, model.profiles, model.endpoints) = (rules, profiles, endpoints);
        model.rules_edition += 1;
        Ok(())
    }

    /// The rules of the policies that isolate anyone here, in the order that makes the first allowing one deterministic:
    /// by policy name, then direction, then index.
    fn rules_in_play(&mut self) -> Result<Vec<Arc<Rule>>, CompileError> {
        let mut rules = Vec::new();
        for Space { policies, ids, isolates } in self.spaces.values_mut() {
            for (((name, policy), ids), isolates) in policies.iter_mut().zip(ids).zip(isolates) {
                for direction in Direction::BOTH.into_iter().filter(|&direction| isolates[direction as usize]) {
                    let first = rules.len() as u32;
                    rules.extend_from_slice(policy.rules(name, direction)?);
                    ids[direction as usize] = first..rules.len() as u32;
                }
            }
        }
        Ok(rules)
    }
}

impl Space {
    fn read(namespace: &str, known: Self, snapshot: &Snapshot) -> Result<Self, CompileError> {
        let mut known = known.policies.into_iter().peekable();
        let mut policies = Vec::new();
        let own = snapshot.policies.range(ObjectName::new(namespace, "")..).take_while(|(name, _)| name.namespace == namespace);
        for (name, object) in own {
            while known.next_if(|(known, _)| known < name).is_some() {}
            match known.next_if(|(known, policy)| known == name && policy.is_of(object)) {
                Some(same) => policies.push(same),
                None => policies.push((name.clone(), Policy::read(name, object)?)),
            }
        }
        Ok(Self { policies, ..Self::default() })
    }

    fn clear(&mut self) {
        self.ids = vec![[0..0, 0..0]; self.policies.len()];
        self.isolates = vec![[false; 2]; self.policies.len()];
    }

    /// The policies that isolate a pod, in each direction.
    fn isolating(&mut self, pod: &Pod) -> [Vec<usize>; 2] {
        let mut isolating = [Vec::new(), Vec::new()];
        if !has_identity(pod) {
            return isolating;
        }
        let labels = pod.labels();
        for (index, (_, policy)) in self.policies.iter().enumerate().filter(|(_, (_, policy))| policy.selector.matches(labels)) {
            for direction in Direction::BOTH.into_iter().filter(|&direction| policy.isolates[direction as usize]) {
                isolating[direction as usize].push(index);
                self.isolates[index][direction as usize] = true;
            }
        }
        isolating
    }

    fn profile(&self, pod: &Pod, direction: Direction, by: &[usize], rules: &[Arc<Rule>]) -> Option<Profile> {
        if by.is_empty() {
            return None;
        }
        let own: Vec<u32> = by.iter().flat_map(|&policy| self.ids[policy][direction as usize].clone()).collect();
        let asks = direction == Direction::Ingress && own.iter().any(|&rule| rules[rule as usize].has_named_ports());
        let named_ports = if asks { Arc::new(named_ports(pod)) } else { Arc::default() };
        Some(Profile { direction, rules: own, named_ports })
    }
}
