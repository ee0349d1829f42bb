//! The objects of all resources under one resourceVersion counter: what etcd and the watch cache are to the real server.
//!
//! Every version of an object is serialised once; lists, watches and history share it. Watchers hold a position, not
//! a queue: they sleep on a per-resource [`watch`] channel that carries the last version alone.

mod defaults;
mod delete;
mod load;
mod object;
mod patch;
mod table;
mod write;

pub use delete::{DeleteOptions, Deleted};
pub use object::Object;
pub(crate) use object::{key, write_type};
pub(crate) use table::{Event, Snapshot, TooOld};
pub use write::Part;

use crate::clock::Clock;
use crate::resource::{Registry, Resource, ResourceId};
use crate::status::ApiError;
use serde_json::Value;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use table::Table;
use tokio::sync::watch;

/// An object's place: resource, namespace and name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// The resource.
    pub resource: ResourceId,
    /// The namespace; `None` for cluster-scoped resources.
    pub namespace: Option<&'a str>,
    /// The name.
    pub name: &'a str,
}

/// All objects, their history, and what makes new ones: uids and the clock.
#[derive(Debug)]
pub struct Store {
    registry: Registry,
    clock: Clock,
    state: Mutex<State>,
    changes: Vec<watch::Sender<u64>>,
}

#[derive(Debug)]
struct State {
    version: u64,
    tables: Vec<Table>,
    random: fastrand::Rng,
}

/// Changes of one resource as a watch reads them.
pub(crate) struct Batch {
    pub(crate) events: Vec<Arc<Event>>,
    /// The store's version when they were read: nothing of the resource up to it is missing if `events` ran dry.
    pub(crate) version: u64,
}

impl Store {
    /// An empty store. `history_max` bounds the changes kept for each resource.
    pub fn new(registry: Registry, clock: Clock, seed: u64, history_max: usize) -> Self {
        let tables = (0..registry.len()).map(|_| Table::new(history_max)).collect();
        let changes = (0..registry.len()).map(|_| watch::Sender::new(0)).collect();
        let state = State { version: 1, tables, random: fastrand::Rng::with_seed(seed) };
        Self { registry, clock, state: Mutex::new(state), changes }
    }

    /// The resources.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The clock that stamps objects.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The current resourceVersion.
    pub fn version(&self) -> u64 {
        self.lock().version
    }

    /// The place of an object, by the resource's plural or `plural.group`.
    ///
    /// Errors: an unknown resource.
    pub fn place<'a>(&self, resource: &str, namespace: &'a str, name: &'a str) -> Result<Place<'a>, ApiError> {
        let id = self.resource(resource)?;
        Ok(Place { resource: id, namespace: self.registry.get(id).namespaced.then_some(namespace), name })
    }

    fn resource(&self, name: &str) -> Result<ResourceId, ApiError> {
        self.registry.by_name(name).ok_or_else(ApiError::no_such_resource)
    }

    /// An object.
    ///
    /// Errors: 404.
    pub fn get(&self, place: Place<'_>) -> Result<Arc<Object>, ApiError> {
        self.lock().current(&self.registry, place).cloned()
    }

    /// All objects of a resource in the order of their keys, without kind and apiVersion, as a list shows them.
    ///
    /// Errors: an unknown resource.
    pub fn values(&self, resource: &str) -> Result<Vec<Value>, ApiError> {
        let id = self.resource(resource)?;
        Ok(self.snapshot(id).0.objects.iter().map(|object| object.value()).collect())
    }

    /// All objects of a resource in the order of their keys.
    ///
    /// Errors: an unknown resource.
    pub fn objects(&self, resource: &str) -> Result<Arc<Vec<Arc<Object>>>, ApiError> {
        let id = self.resource(resource)?;
        Ok(self.snapshot(id).0.objects)
    }

    /// The n-th object of a resource in the order of their keys, from 0.
    ///
    /// Cost: a walk over the n objects before it.
    ///
    /// Errors: an unknown resource.
    pub fn nth(&self, resource: &str, n: usize) -> Result<Option<Arc<Object>>, ApiError> {
        let id = self.resource(resource)?;
        Ok(self.lock().tables[id.0].nth(n).cloned())
    }

    /// How many objects a resource has.
    ///
    /// Errors: an unknown resource.
    pub fn count(&self, resource: &str) -> Result<usize, ApiError> {
        let id = self.resource(resource)?;
        Ok(self.lock().tables[id.0].len())
    }

    /// Forgets all history: watches and lists that begin at earlier versions get 410, as after etcd's compaction.
    pub fn compact(&self) {
        let mut state = self.lock();
        let version = state.version;
        state.tables.iter_mut().for_each(|table| table.compact(version));
    }

    /// All objects of a resource now, and the version of now.
    pub(crate) fn snapshot(&self, resource: ResourceId) -> (Snapshot, u64) {
        let mut state = self.lock();
        (state.tables[resource.0].snapshot(), state.version)
    }

    /// All objects of a resource at an earlier version.
    pub(crate) fn snapshot_at(&self, resource: ResourceId, version: u64) -> Result<Snapshot, TooOld> {
        self.lock().tables[resource.0].snapshot_at(version)
    }

    /// Keeps a snapshot for the next page of a list.
    pub(crate) fn keep(&self, resource: ResourceId, snapshot: &Snapshot) {
        self.lock().tables[resource.0].keep(snapshot);
    }

    /// Whether a watch of a resource may begin behind `version`.
    pub(crate) fn check_start(&self, resource: ResourceId, version: u64) -> Result<(), TooOld> {
        self.lock().tables[resource.0].check_start(version)
    }

    /// Changes of a resource above `after`, at most `max`.
    pub(crate) fn events_after(&self, resource: ResourceId, after: u64, max: usize) -> Result<Batch, TooOld> {
        let state = self.lock();
        Ok(Batch { events: state.tables[resource.0].events_after(after, max)?, version: state.version })
    }

    /// Wakes whenever the resource changes.
    pub(crate) fn subscribe(&self, resource: ResourceId) -> watch::Receiver<u64> {
        self.changes[resource.0].subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is complete before anything in it can panic, so a poisoned store is still consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spec(&self, resource: ResourceId) -> &Resource {
        self.registry.get(resource)
    }

    /// Stores a new version of an object.
    fn commit(&self, state: &mut State, resource: ResourceId, value: Value) -> Arc<Object> {
        let object = state.next(self.spec(resource), value);
        state.tables[resource.0].put(object.clone());
        self.changes[resource.0].send_replace(object.version());
        object
    }

    /// Removes an object whose last state is `value`.
    fn commit_removal(&self, state: &mut State, resource: ResourceId, value: Value) -> Arc<Object> {
        let last = state.next(self.spec(resource), value);
        state.tables[resource.0].remove(last.clone());
        self.changes[resource.0].send_replace(last.version());
        last
    }
}

impl State {
    fn next(&mut self, resource: &Resource, value: Value) -> Arc<Object> {
        self.version += 1;
        Arc::new(Object::from_value(resource, value, self.version))
    }

    fn current(&self, registry: &Registry, place: Place<'_>) -> Result<&Arc<Object>, ApiError> {
        let key = key(place.namespace, place.name);
        self.tables[place.resource.0].get(&key).ok_or_else(|| ApiError::not_found(registry.get(place.resource), place.name))
    }

    fn uid(&mut self) -> String {
        let bits = self.random.u128(..);
        // Version 4, variant 1 of RFC 9562: clients may parse it.
        let bits = bits & !(0xF << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
        let hex = format!("{bits:032x}");
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    /// The five characters that the server puts behind a `generateName`.
    fn name_suffix(&mut self) -> String {
        const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        (0..5).map(|_| ALPHABET[self.random.usize(..ALPHABET.len())] as char).collect()
    }
}
