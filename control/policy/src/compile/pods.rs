//! Pods → who they are to policies. Pods that share namespace, labels and named ports are one *kind*; the kinds that claim
//! one address are one *group*.
//!
//! Pods are followed by a copy of the map that held them. Nothing is kept for each pod: what one contributed is found by
//! reading its old object once more, so that a change costs two readings.

use super::crowd::{self, Part};
use super::identity::{Addresses, NamedPorts, has_identity, named_ports, placed, stated, write_key};
use super::sorted::Sorted;
use crate::pod::Pod;
use crate::snapshot::{Objects, Snapshot};
use ahash::RandomState;
use imbl::ordmap::DiffItem;
use sluice_flow::{LocalEndpoint, ObjectName};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

pub(super) type KindId = u32;
pub(super) type GroupId = u32;

/// The group of an address that no pod claims.
pub(super) const NOBODY: GroupId = 0;

/// Pods that no policy can tell apart.
#[derive(Debug, Clone)]
pub(super) struct Kind {
    pub(super) namespace: String,
    /// One of them, for its labels.
    pub(super) representative: Arc<Pod>,
    pub(super) named_ports: Arc<NamedPorts>,
}

/// Addresses whose group may be another since somebody asked last.
#[derive(Debug, Default)]
pub(super) enum Changed {
    /// All were read anew, and kinds and groups got other numbers.
    #[default]
    All,
    Addresses(BTreeSet<IpAddr>),
}

/// All pods that have an identity, and the addresses that they carry.
#[derive(Debug, Default)]
pub(super) struct Pods {
    /// As of the last update.
    pub(super) objects: Objects<ObjectName, Pod>,
    endpoints: Vec<LocalEndpoint>,
    /// Where the dataplane has those pods that are attached here.
    placed: BTreeMap<ObjectName, Vec<IpAddr>>,
    pub(super) kinds: Vec<Kind>,
    kind_ids: HashMap<Box<[u8]>, KindId, RandomState>,
    /// Kinds of each group, ascending; twice where two pods of one kind claim the same address.
    pub(super) groups: Vec<Vec<KindId>>,
    group_ids: HashMap<Vec<KindId>, GroupId, RandomState>,
    /// Groups of claimed addresses.
    pub(super) v4: Sorted<u32>,
    pub(super) v6: Sorted<u128>,
    pub(super) changed: Changed,
    /// Raised whenever kinds and groups get other numbers.
    pub(super) numbering: u64,
    /// Raised whenever an endpoint or its pod may be another.
    pub(super) local_edition: u64,
}

/// How many kinds or groups may be remembered for each pod.
const REMEMBERED_FACTOR: usize = 4;
const REMEMBERED_MIN: usize = 4096;

impl Pods {
    /// Reads what changed. Cost: that of the pods that differ, and of all where most of what is remembered is out of use.
    pub(super) fn update(&mut self, snapshot: &Snapshot) {
        let remembered = self.kinds.len().max(self.groups.len());
        if self.groups.is_empty() || remembered > REMEMBERED_MIN.max(self.objects.len() * REMEMBERED_FACTOR) {
            self.read_all(snapshot);
            return;
        }
        let before = std::mem::replace(&mut self.objects, snapshot.pods.clone());
        let mut differing: BTreeMap<ObjectName, [Option<Arc<Pod>>; 2]> = BTreeMap::new();
        for difference in before.diff(&snapshot.pods) {
            let (name, pair) = match difference {
                DiffItem::Add(name, new) => (name, [None, Some(new)]),
                DiffItem::Remove(name, old) => (name, [Some(old), None]),
                DiffItem::Update { old: (name, old), new: (_, new) } => (name, [Some(old), Some(new)]),
            };
            differing.insert(name.clone(), pair.map(|pod| pod.cloned()));
        }
        let concerned = self.endpoints.iter().any(|endpoint| differing.contains_key(&endpoint.pod));
        let mut placed_before = None;
        if concerned || self.endpoints != snapshot.endpoints {
            self.local_edition += 1;
            self.endpoints.clone_from(&snapshot.endpoints);
            let now = placed(snapshot);
            for name in now.keys().chain(self.placed.keys()).filter(|&name| now.get(name) != self.placed.get(name)) {
                let same = || [before.get(name).cloned(), snapshot.pods.get(name).cloned()];
                differing.entry(name.clone()).or_insert_with(same);
            }
            placed_before = Some(std::mem::replace(&mut self.placed, now));
        }
        for (name, [old, new]) in differing {
            if let Some((kind, addresses)) =
                old.and_then(|pod| self.read(&name, &pod, placed_before.as_ref().unwrap_or(&self.placed).get(&name).cloned()))
            {
                addresses.into_iter().for_each(|address| self.claim(address, kind, false));
            }
            if let Some((kind, addresses)) = new.and_then(|pod| self.read(&name, &pod, self.placed.get(&name).cloned())) {
                addresses.into_iter().for_each(|address| self.claim(address, kind, true));
            }
        }
    }

    fn read_all(&mut self, snapshot: &Snapshot) {
        *self = Self {
            objects: snapshot.pods.clone(),
            endpoints: snapshot.endpoints.clone(),
            placed: placed(snapshot),
            groups: vec![Vec::new()],
            group_ids: [(Vec::new(), NOBODY)].into_iter().collect(),
            numbering: self.numbering + 1,
            local_edition: self.local_edition + 1,
            ..Self::default()
        };
        let (mut v4, mut v6) = (Vec::with_capacity(snapshot.pods.len()), Vec::with_capacity(snapshot.pods.len()));
        let placed = std::mem::take(&mut self.placed);
        for Part { kinds, v4: own_v4, v6: own_v6 } in crowd::read(&snapshot.pods, &placed) {
            let ids: Vec<KindId> = kinds.into_iter().map(|(key, kind)| self.kind(&key, || kind)).collect();
            v4.extend(own_v4.into_iter().map(|(address, kind)| (address, ids[kind as usize])));
            v6.extend(own_v6.into_iter().map(|(address, kind)| (address, ids[kind as usize])));
        }
        self.placed = placed;
        self.v4 = self.grouped(v4);
        self.v6 = self.grouped(v6);
    }

    fn grouped<K: Ord + Copy>(&mut self, mut claims: Vec<(K, KindId)>) -> Sorted<K> {
        claims.sort_unstable();
        let mut entries: Vec<(K, u32)> = Vec::with_capacity(claims.len());
        let mut alone = vec![NOBODY; self.kinds.len()];
        for claims in claims.chunk_by(|one, other| one.0 == other.0) {
            let group = match *claims {
                [(_, kind)] if alone[kind as usize] != NOBODY => alone[kind as usize],
                [(_, kind)] => {
                    alone[kind as usize] = self.group(vec![kind]);
                    alone[kind as usize]
                }
                _ => self.group(claims.iter().map(|claim| claim.1).collect()),
            };
            entries.push((claims[0].0, group));
        }
        Sorted::from_ascending(&entries)
    }

    /// Kind and addresses of a pod with an identity.
    fn read(&mut self, name: &ObjectName, pod: &Arc<Pod>, placed: Option<Vec<IpAddr>>) -> Option<(KindId, Addresses)> {
        let mut key = Vec::with_capacity(256);
        write_key(&mut key, &name.namespace, pod);
        let kind = || Kind { namespace: name.namespace.clone(), representative: Arc::clone(pod), named_ports: Arc::new(named_ports(pod)) };
        has_identity(pod).then(|| (self.kind(&key, kind), placed.map_or_else(|| stated(pod), Addresses::from_vec)))
    }

    /// Adds a claim or takes it away.
    fn claim(&mut self, address: IpAddr, kind: KindId, comes: bool) {
        let mut group = self.groups[self.group_at(address) as usize].clone();
        match (group.binary_search(&kind), comes) {
            (Ok(at) | Err(at), true) => group.insert(at, kind),
            (Ok(at), false) => drop(group.remove(at)),
            (Err(_), false) => unreachable!("whoever leaves has claimed"),
        }
        let group = self.group(group);
        self.put(address, group);
        if let Changed::Addresses(addresses) = &mut self.changed {
            addresses.insert(address);
        }
    }

    /// The group that claims an address.
    pub(super) fn group_at(&self, address: IpAddr) -> GroupId {
        let group = match address {
            IpAddr::V4(address) => self.v4.get(u32::from(address)),
            IpAddr::V6(address) => self.v6.get(u128::from(address)),
        };
        group.unwrap_or(NOBODY)
    }

    /// Gives an address to a group.
    pub(super) fn put(&mut self, address: IpAddr, group: GroupId) {
        let group = (group != NOBODY).then_some(group);
        match address {
            IpAddr::V4(address) => self.v4.set(u32::from(address), group),
            IpAddr::V6(address) => self.v6.set(u128::from(address), group),
        };
    }

    /// `kinds`: ascending.
    pub(super) fn group(&mut self, kinds: Vec<KindId>) -> GroupId {
        if let Some(&id) = self.group_ids.get(&kinds) {
            return id;
        }
        let id = self.groups.len() as GroupId;
        self.groups.push(kinds.clone());
        self.group_ids.insert(kinds, id);
        id
    }

    fn kind(&mut self, key: &[u8], make: impl FnOnce() -> Kind) -> KindId {
        if let Some(&id) = self.kind_ids.get(key) {
            return id;
        }
        let id = self.kinds.len() as KindId;
        self.kinds.push(make());
        self.kind_ids.insert(key.into(), id);
        id
    }

    /// Every claimed address with the first pod that claims it, by name; ascending. Cost: all pods.
    pub(super) fn first_claims(&self) -> BTreeMap<IpAddr, &ObjectName> {
        let mut first = BTreeMap::new();
        for (name, pod) in self.objects.iter().filter(|(_, pod)| has_identity(pod)) {
            for address in self.placed.get(name).map_or_else(|| stated(pod), |placed| Addresses::from(placed.as_slice())) {
                first.entry(address).or_insert(name);
            }
        }
        first
    }
}
