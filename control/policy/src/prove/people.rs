//! Who is behind each address: pods that no policy can tell apart are one *identity*, and the identities that claim one
//! address are one *group*. Nothing is merged by what policies say; only what they cannot see is left out.
//!
//! Pods are followed by a copy of the map that held them, which shares with the next one whatever did not change, and nothing
//! is kept for each of them: what a pod claimed is found by reading its old object once more, so that a change costs two
//! readings for each pod that changed. Nobody tells this module what changed: it looks, so that a mistake in telling is
//! found too.

use super::claims::Claims;
use super::interest::Interest;
use crate::oracle::{Standing, belongs, named_ports, standing_of, status_addresses};
use crate::pod::Pod;
use crate::snapshot::{Objects, Snapshot};
use ahash::RandomState;
use imbl::ordmap::DiffItem;
use sluice_flow::{LocalEndpoint, ObjectName, Protocol};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;
use std::net::IpAddr;
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

/// What an update changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Changed {
    /// The group of these addresses may be another.
    Addresses(Vec<IpAddr>),
    /// Everything was read anew.
    All,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct People {
    interest: Arc<Interest>,
    /// As of the last update.
    pods: Objects<ObjectName, Pod>,
    claims: Claims,
    /// As of the last update.
    endpoints: Vec<LocalEndpoint>,
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
        let reported = Reported::of(&snapshot.endpoints);
        let worn = self.identities.len() > REMEMBERED_MIN.max(2 * self.pods.len());
        if worn || self.groups.is_empty() || self.interest != *interest {
            *self = Self { interest: Arc::clone(interest), groups: vec![Vec::new()], ..Self::default() };
            self.group_ids.insert(Vec::new(), NOBODY);
            self.claims.reserve(snapshot.pods.len());
            for (name, pod) in &snapshot.pods {
                self.enter(name, pod, &reported, |_| {});
            }
            self.pods = snapshot.pods.clone();
            self.endpoints = snapshot.endpoints.clone();
            return Changed::All;
        }
        let mut changed = BTreeSet::new();
        let before = mem::replace(&mut self.pods, snapshot.pods.clone());
        let endpoints_before = mem::replace(&mut self.endpoints, snapshot.endpoints.clone());
        let reported_before = Reported::of(&endpoints_before);
        let mut seen = BTreeSet::new();
        for difference in before.diff(&snapshot.pods) {
            if let DiffItem::Remove(name, pod) | DiffItem::Update { old: (name, pod), .. } = difference {
                self.leave(name, pod, &reported_before, |address| _ = changed.insert(address));
                seen.insert(name);
            }
            if let DiffItem::Add(name, pod) | DiffItem::Update { new: (name, pod), .. } = difference {
                self.enter(name, pod, &reported, |address| _ = changed.insert(address));
                seen.insert(name);
            }
        }
        // pods whose object stayed but whose endpoints did not
        for &name in reported_before.0.keys().chain(reported.0.keys()).filter(|&name| reported_before.0.get(name) != reported.0.get(name)) {
            let Some(pod) = snapshot.pods.get(name).filter(|_| seen.insert(name)) else { continue };
            self.leave(name, pod, &reported_before, |address| _ = changed.insert(address));
            self.enter(name, pod, &reported, |address| _ = changed.insert(address));
        }
        Changed::Addresses(changed.into_iter().collect())
    }

    /// A pod claims its addresses; they are among the changed ones.
    fn enter(&mut self, name: &ObjectName, pod: &Arc<Pod>, reported: &Reported<'_>, mut changed: impl FnMut(IpAddr)) {
        if standing_of(pod) == Standing::Pod {
            let identity = self.identity(name, pod);
            for address in reported.addresses(name, pod) {
                self.claims.add(address, identity);
                changed(address);
            }
        }
    }

    /// Takes its claims back, as [`Self::enter`] made them; `pod` and `reported` are those of that time.
    fn leave(&mut self, name: &ObjectName, pod: &Arc<Pod>, reported: &Reported<'_>, mut changed: impl FnMut(IpAddr)) {
        if standing_of(pod) == Standing::Pod {
            let identity = self.identity(name, pod);
            for address in reported.addresses(name, pod) {
                self.claims.remove(address, identity);
                changed(address);
            }
        }
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
        let group = self.claims.at(address);
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
        self.claims.addresses()
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

/// What the dataplane says of the pods attached here.
struct Reported<'e>(BTreeMap<&'e ObjectName, Vec<&'e LocalEndpoint>>);

impl<'e> Reported<'e> {
    fn of(endpoints: &'e [LocalEndpoint]) -> Self {
        let mut reported: BTreeMap<&ObjectName, Vec<&LocalEndpoint>> = BTreeMap::new();
        for endpoint in endpoints {
            reported.entry(&endpoint.pod).or_default().push(endpoint);
        }
        Self(reported)
    }

    /// Where a pod is: where it is attached, else where its status says. Each address once.
    fn addresses(&self, name: &ObjectName, pod: &Pod) -> Vec<IpAddr> {
        let own: Vec<&&LocalEndpoint> = self.0.get(name).into_iter().flatten().filter(|endpoint| belongs(endpoint, pod)).collect();
        let mut addresses: Vec<IpAddr> = match own.is_empty() {
            true => status_addresses(pod),
            false => own.iter().flat_map(|endpoint| endpoint.addresses.iter().map(IpAddr::to_canonical)).collect(),
        };
        addresses.sort_unstable();
        addresses.dedup();
        addresses
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
    fn changes_are_found_and_nothing_else_is() {
        let even = |count: usize| (0..count).map(|number| pod(2 * number)).collect::<Objects<_, _>>();
        for count in [0, 1, 10, 1000, 3000] {
            let mut snapshot = Snapshot { pods: even(count), ..Snapshot::default() };
            let (mut people, interest) = (People::default(), Arc::default());
            assert_eq!(people.update(&snapshot, &interest), Changed::All);
            assert_eq!(people.update(&snapshot, &interest), Changed::Addresses(vec![]));
            let step = (count / 40).max(1);
            for number in (0..2 * count + 2).step_by(step) {
                let (name, object) = pod(number);
                // odd ones come; even ones are replaced, go or come
                match number % 4 {
                    2 => drop(snapshot.pods.remove(&name)),
                    0 => drop(snapshot.pods.insert(name, relabelled(object))),
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
            assert!(people.pods.ptr_eq(&snapshot.pods) || count == 0, "{count}");
        }
    }

    fn relabelled(mut pod: Arc<Pod>) -> Arc<Pod> {
        Arc::make_mut(&mut pod).metadata.labels = Some(Arc::new([("app".to_owned(), "other".to_owned())].into()));
        pod
    }
}
