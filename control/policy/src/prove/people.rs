//! Who is behind each address: pods that no policy can tell apart are one *identity*, and the identities that claim one
//! address are one *group*. Nothing is merged by what policies say; only what they cannot see is left out.
//!
//! Pods are followed by the pointers of their objects, so that a change costs one step for each pod and one reading for
//! each that changed. Nobody tells this module what changed: it looks, so that a mistake in telling is found too.

use super::interest::Interest;
use crate::oracle::{Standing, belongs, named_ports, standing_of, status_addresses};
use crate::snapshot::Snapshot;
use ahash::RandomState;
use k8s_openapi::api::core::v1::Pod;
use sluice_flow::{LocalEndpoint, ObjectName, Protocol};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;
use std::net::IpAddr;
use std::ops::{Bound, Range};
use std::sync::Arc;

pub(super) type IdentityId = u32;
pub(super) type GroupId = u32;
/// What the named ports that policies mention are at some pod: (name, protocol, number), sorted.
pub(super) type Environment = Vec<(String, Protocol, i32)>;

/// The group of an address that no pod claims.
pub(super) const NOBODY: GroupId = 0;

/// Pods that share namespace, every label that some peer asks for, and every named port that some rule asks for.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) namespace: String,
    /// One of them; what a selector says of it, it says of all.
    pub(super) representative: Arc<Pod>,
    pub(super) environment: Environment,
}

#[derive(Debug)]
struct Person {
    name: ObjectName,
    /// `None` where the pod takes part in nothing.
    identity: Option<IdentityId>,
    /// What the endpoints of this pod said when its addresses were read.
    reported: Vec<LocalEndpoint>,
    addresses: Vec<IpAddr>,
}

/// What an update changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Changed {
    /// The group of these addresses may be another.
    Addresses(Vec<IpAddr>),
    /// Everything was read anew.
    All,
}

/// A part of the pods' order.
#[derive(Debug, Clone)]
struct Stretch {
    /// Where it was at the last update.
    known: Range<usize>,
    /// The names that belong to it.
    names: (Bound<ObjectName>, Bound<ObjectName>),
}

const STRETCHES: usize = 16;
/// Fewer pods are not worth stretches.
const STRETCHED_MIN: usize = 1024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct People {
    interest: Arc<Interest>,
    /// By name, like the snapshot.
    order: Vec<(Arc<Pod>, u32)>,
    people: Vec<Person>,
    free: Vec<u32>,
    claims: HashMap<IpAddr, Vec<u32>, RandomState>,
    /// Pods that had an endpoint at the last update.
    attached: BTreeSet<ObjectName>,
    pub(super) identities: Vec<Identity>,
    identity_ids: HashMap<Vec<u8>, IdentityId, RandomState>,
    /// Identities of each group, ascending; the first group is [`NOBODY`].
    pub(super) groups: Vec<Vec<IdentityId>>,
    group_ids: HashMap<Vec<IdentityId>, GroupId, RandomState>,
}

/// How many identities may be remembered before those that left are forgotten.
const REMEMBERED_MIN: usize = 4096;

impl People {
    /// Looks at every pod and endpoint.
    pub(super) fn update(&mut self, snapshot: &Snapshot, interest: &Arc<Interest>) -> Changed {
        let mut reported: BTreeMap<&ObjectName, Vec<&LocalEndpoint>> = BTreeMap::new();
        for endpoint in &snapshot.endpoints {
            reported.entry(&endpoint.pod).or_default().push(endpoint);
        }
        let worn = self.identities.len() > REMEMBERED_MIN.max(2 * self.order.len());
        if worn || self.groups.is_empty() || self.interest != *interest {
            *self = Self { interest: Arc::clone(interest), groups: vec![Vec::new()], ..Self::default() };
            self.group_ids.insert(Vec::new(), NOBODY);
            self.attached = reported.keys().map(|&name| name.clone()).collect();
            for (name, object) in &snapshot.pods {
                let person = self.enter(name, object, reported.get(name));
                self.order.push((Arc::clone(object), person));
            }
            return Changed::All;
        }
        let mut changed = BTreeSet::new();
        self.follow(snapshot, &reported, &mut changed);
        self.follow_endpoints(&reported, &mut changed);
        Changed::Addresses(changed.into_iter().collect())
    }

    /// Finds pods that came, went or changed. Most stretches are the same throughout, so only the others are gone through
    /// pod by pod, from the last to the first, so that positions before them stay what they are.
    fn follow(&mut self, snapshot: &Snapshot, reported: &BTreeMap<&ObjectName, Vec<&LocalEndpoint>>, changed: &mut BTreeSet<IpAddr>) {
        for stretch in self.differing(snapshot) {
            let behind = self.order.split_off(stretch.known.end);
            let mut old = self.order.split_off(stretch.known.start).into_iter().peekable();
            for (name, object) in snapshot.pods.range(stretch.names) {
                while let Some((_, person)) =
                    old.next_if(|(known, person)| !Arc::ptr_eq(known, object) && self.people[*person as usize].name <= *name)
                {
                    self.leave(person, changed);
                }
                let same = old.next_if(|(known, _)| Arc::ptr_eq(known, object));
                let entry = same.unwrap_or_else(|| {
                    let person = self.enter(name, object, reported.get(name));
                    changed.extend(&self.people[person as usize].addresses);
                    (Arc::clone(object), person)
                });
                self.order.push(entry);
            }
            old.for_each(|(_, person)| self.leave(person, changed));
            self.order.extend(behind);
        }
    }

    /// The stretches in which some object is another, the last first.
    fn differing(&self, snapshot: &Snapshot) -> Vec<Stretch> {
        let mut walks: Vec<_> = self
            .stretches()
            .into_iter()
            .map(|stretch| (self.order[stretch.known.clone()].iter(), snapshot.pods.range(stretch.names.clone()), stretch))
            .collect();
        let mut differing = Vec::new();
        // the map's nodes lie all over the memory: walks side by side wait for them together
        while !walks.is_empty() {
            walks.retain_mut(|(old, new, stretch)| match (old.next(), new.next()) {
                (Some((known, _)), Some((_, object))) if Arc::ptr_eq(known, object) => true,
                (None, None) => false,
                _ => {
                    differing.push(stretch.clone());
                    false
                }
            });
        }
        differing.sort_unstable_by_key(|stretch| Reverse(stretch.known.start));
        differing
    }

    /// Cuts all names into stretches at names that are known.
    fn stretches(&self) -> Vec<Stretch> {
        let pods = self.order.len();
        let count = if pods < STRETCHED_MIN { 1 } else { STRETCHES };
        let name = |at: usize| self.people[self.order[at].1 as usize].name.clone();
        let stretch = |index: usize| {
            let known = index * pods / count..(index + 1) * pods / count;
            let first = if index == 0 { Bound::Unbounded } else { Bound::Included(name(known.start)) };
            let end = if index + 1 == count { Bound::Unbounded } else { Bound::Excluded(name(known.end)) };
            Stretch { known, names: (first, end) }
        };
        (0..count).map(stretch).collect()
    }

    /// Finds pods whose object stayed but whose endpoints did not.
    fn follow_endpoints(&mut self, reported: &BTreeMap<&ObjectName, Vec<&LocalEndpoint>>, changed: &mut BTreeSet<IpAddr>) {
        let moved = |person: &Person| {
            let now = reported.get(&person.name).map_or(&[][..], Vec::as_slice);
            !person.reported.iter().eq(now.iter().copied())
        };
        // only those that had or have an endpoint can have moved
        let attached: BTreeSet<ObjectName> = reported.keys().map(|&name| name.clone()).collect();
        let before = mem::replace(&mut self.attached, attached.clone());
        for name in attached.union(&before) {
            let Ok(at) = self.order.binary_search_by(|(_, person)| self.people[*person as usize].name.cmp(name)) else { continue };
            let (object, person) = (Arc::clone(&self.order[at].0), self.order[at].1);
            if moved(&self.people[person as usize]) {
                self.leave(person, changed);
                let person = self.enter(name, &object, reported.get(name));
                changed.extend(&self.people[person as usize].addresses);
                self.order[at].1 = person;
            }
        }
    }

    /// Adds a pod; returns its number.
    fn enter(&mut self, name: &ObjectName, pod: &Arc<Pod>, reported: Option<&Vec<&LocalEndpoint>>) -> u32 {
        let takes_part = standing_of(pod) == Standing::Pod;
        let identity = takes_part.then(|| self.identity(name, pod));
        let reported: Vec<LocalEndpoint> = reported.into_iter().flatten().map(|&endpoint| endpoint.clone()).collect();
        let mut addresses: Vec<IpAddr> = Vec::new();
        if takes_part {
            let own: Vec<&LocalEndpoint> = reported.iter().filter(|endpoint| belongs(endpoint, pod)).collect();
            match own.is_empty() {
                true => addresses = status_addresses(pod),
                false => addresses.extend(own.iter().flat_map(|endpoint| endpoint.addresses.iter().map(IpAddr::to_canonical))),
            }
            addresses.sort_unstable();
            addresses.dedup();
        }
        let person = self.free.pop().unwrap_or(self.people.len() as u32);
        for &address in &addresses {
            self.claims.entry(address).or_default().push(person);
        }
        let entry = Person { name: name.clone(), identity, reported, addresses };
        match self.people.get_mut(person as usize) {
            Some(slot) => *slot = entry,
            None => self.people.push(entry),
        }
        person
    }

    /// Removes a pod; its addresses are among the changed ones.
    fn leave(&mut self, person: u32, changed: &mut BTreeSet<IpAddr>) {
        for address in mem::take(&mut self.people[person as usize].addresses) {
            if let Some(claims) = self.claims.get_mut(&address) {
                claims.retain(|&other| other != person);
                if claims.is_empty() {
                    self.claims.remove(&address);
                }
            }
            changed.insert(address);
        }
        self.free.push(person);
    }

    fn identity(&mut self, name: &ObjectName, pod: &Arc<Pod>) -> IdentityId {
        let environment = self.interest.environment(|name, protocol| named_ports(pod, name, protocol));
        let key = key_of(&name.namespace, self.interest.labels(pod), &environment);
        let next = self.identities.len() as IdentityId;
        *self.identity_ids.entry(key).or_insert_with(|| {
            self.identities.push(Identity { namespace: name.namespace.clone(), representative: Arc::clone(pod), environment });
            next
        })
    }

    /// The group that claims an address now.
    pub(super) fn group_at(&mut self, address: IpAddr) -> GroupId {
        let Some(claims) = self.claims.get(&address) else { return NOBODY };
        let mut group: Vec<IdentityId> = claims.iter().filter_map(|&person| self.people[person as usize].identity).collect();
        group.sort_unstable();
        group.dedup();
        if let Some(&id) = self.group_ids.get(&group) {
            return id;
        }
        let id = self.groups.len() as GroupId;
        self.groups.push(group.clone());
        self.group_ids.insert(group, id);
        id
    }

    /// Every address that some pod claims, in no order.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.claims.keys().copied()
    }

    /// The named ports that all pods of a group define alike.
    pub(super) fn environment(&self, group: GroupId) -> Environment {
        let mut identities = self.groups[group as usize].iter().map(|&identity| &self.identities[identity as usize].environment);
        let Some(first) = identities.next() else { return Environment::new() };
        let mut common = first.clone();
        for other in identities {
            common.retain(|entry| other.contains(entry));
        }
        common
    }
}

/// Lengths go before texts, so that different lists never make the same key.
fn key_of<'t>(namespace: &str, labels: impl Iterator<Item = (&'t str, &'t str)>, environment: &Environment) -> Vec<u8> {
    let mut key = Vec::with_capacity(96);
    let mut add = |text: &str| {
        key.extend_from_slice(&(text.len() as u32).to_le_bytes());
        key.extend_from_slice(text.as_bytes());
    };
    add(namespace);
    for (name, value) in labels {
        add(name);
        add(value);
    }
    // a label's name is never empty, so this ends the labels
    add("");
    for (name, protocol, number) in environment {
        add(name);
        key_number(&mut add, i32::from(protocol.0));
        key_number(&mut add, *number);
    }
    key
}

fn key_number(add: &mut impl FnMut(&str), number: i32) {
    add(&number.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(number: usize) -> (ObjectName, Arc<Pod>) {
        let name = format!("p{number:05}");
        let ip = format!("10.0.{}.{}", number / 256, number % 256);
        let pod = json!({"metadata": {"namespace": "x", "name": name}, "status": {"podIP": ip}});
        (ObjectName::new("x", name), Arc::new(serde_json::from_value(pod).unwrap()))
    }

    #[test]
    fn changes_in_any_stretch_are_found_and_nothing_else_is() {
        let even = |count: usize| (0..count).map(|number| pod(2 * number)).collect::<BTreeMap<_, _>>();
        for count in [0, 1, 10, STRETCHED_MIN, 3 * STRETCHED_MIN + 7] {
            let mut snapshot = Snapshot { pods: even(count), ..Snapshot::default() };
            let (mut people, interest) = (People::default(), Arc::default());
            assert_eq!(people.update(&snapshot, &interest), Changed::All);
            assert_eq!(people.update(&snapshot, &interest), Changed::Addresses(vec![]));
            let step = (count / 40).max(1);
            for number in (0..2 * count + 2).step_by(step) {
                let (name, object) = pod(number);
                // odd ones come; even ones are replaced, go or come
                match number % 4 {
                    0 => drop(snapshot.pods.insert(name, object)),
                    2 => drop(snapshot.pods.remove(&name)),
                    _ => drop(snapshot.pods.insert(name, object)),
                }
            }
            let before: BTreeSet<IpAddr> = people.addresses().collect();
            let Changed::Addresses(changed) = people.update(&snapshot, &interest) else { panic!("read anew") };
            let after: BTreeSet<IpAddr> = people.addresses().collect();
            assert!(before.symmetric_difference(&after).all(|address| changed.contains(address)), "{count}");
            assert!(changed.len() <= (2 * count + 2).div_ceil(step), "{count}: {} changed", changed.len());
            let mut fresh = People::default();
            fresh.update(&snapshot, &interest);
            assert_eq!(after, fresh.addresses().collect::<BTreeSet<_>>(), "{count}");
            assert!(people.order.iter().map(|entry| Arc::as_ptr(&entry.0)).eq(snapshot.pods.values().map(Arc::as_ptr)), "{count}");
        }
    }
}
