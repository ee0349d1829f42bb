//! The objects of one resource, the history of their changes, and snapshots of the past.
//!
//! ```text
//!             dropped                last
//! --- forgotten ---|----- history -----|
//!             floor ^ or above
//! ```
//!
//! Every change above `dropped` is in the history. Watches and exact lists that begin below `floor` are expired; a
//! compaction raises it to the present, which leaves the watches that are running alone. A snapshot of an
//! earlier version is the present with the later changes undone; the ones of running paged lists are kept, the
//! present one until the next change.

use super::object::Object;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Snapshots that are kept for lists that are read page by page.
const SNAPSHOTS_MAX: usize = 8;

/// What happened to an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) version: u64,
    /// The state after the change; for a deletion the last state, under the version of the deletion.
    pub(crate) object: Arc<Object>,
    /// The state before; `None` for a new object.
    pub(crate) previous: Option<Arc<Object>>,
    pub(crate) deleted: bool,
}

/// All objects at one version, in the order of their keys.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    /// The last change that it holds.
    from: u64,
    pub(crate) objects: Arc<Vec<Arc<Object>>>,
}

/// History does not reach back so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooOld {
    /// The oldest version that it reaches back to.
    pub(crate) oldest: u64,
}

#[derive(Debug)]
pub(crate) struct Table {
    objects: BTreeMap<Arc<str>, Arc<Object>>,
    history: VecDeque<Arc<Event>>,
    history_max: usize,
    /// Version of the last change that is forgotten.
    dropped: u64,
    /// Nothing can begin below this version.
    floor: u64,
    /// The present, if nothing changed since somebody asked for it.
    current: Option<Snapshot>,
    /// What paged lists are reading.
    kept: VecDeque<Snapshot>,
}

impl Table {
    pub(crate) fn new(history_max: usize) -> Self {
        Self { objects: BTreeMap::new(), history: VecDeque::new(), history_max, dropped: 0, floor: 0, current: None, kept: VecDeque::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Arc<Object>> {
        self.objects.get(key)
    }

    pub(crate) fn nth(&self, n: usize) -> Option<&Arc<Object>> {
        self.objects.values().nth(n)
    }

    /// The objects of one namespace.
    pub(crate) fn namespace(&self, namespace: &str) -> impl Iterator<Item = &Arc<Object>> {
        let prefix: Arc<str> = format!("{namespace}/").into();
        self.objects.range(prefix.clone()..).map(|(_, object)| object).take_while(move |object| object.key().starts_with(&*prefix))
    }

    /// Stores a new version.
    pub(crate) fn put(&mut self, object: Arc<Object>) {
        let previous = self.objects.insert(object.shared_key(), object.clone());
        self.record(Event { version: object.version(), object, previous, deleted: false });
    }

    /// Removes an object; `last` is its last state under the version of the deletion.
    pub(crate) fn remove(&mut self, last: Arc<Object>) {
        let previous = self.objects.remove(last.key());
        self.record(Event { version: last.version(), object: last, previous, deleted: true });
    }

    fn record(&mut self, event: Event) {
        debug_assert!(self.admits(event.version));
        self.current = None;
        self.history.push_back(Arc::new(event));
        if self.history.len() > self.history_max
            && let Some(dropped) = self.history.pop_front()
        {
            self.dropped = dropped.version;
            self.floor = self.floor.max(self.dropped);
        }
    }

    /// Whether a change of this version can come next.
    pub(crate) fn admits(&self, version: u64) -> bool {
        version > self.last()
    }

    /// Version of the last change.
    fn last(&self) -> u64 {
        self.history.back().map_or(self.dropped, |event| event.version)
    }

    /// Whether a watch may begin behind `version`.
    pub(crate) fn check_start(&self, version: u64) -> Result<(), TooOld> {
        if version < self.floor { Err(TooOld { oldest: self.floor }) } else { Ok(()) }
    }

    /// Changes above `after`, oldest first, at most `max`, for a watch that is running.
    pub(crate) fn events_after(&self, after: u64, max: usize) -> Result<Vec<Arc<Event>>, TooOld> {
        if after < self.dropped {
            return Err(TooOld { oldest: self.dropped });
        }
        let start = self.history.partition_point(|event| event.version <= after);
        Ok(self.history.range(start..).take(max).cloned().collect())
    }

    /// All objects as they are.
    pub(crate) fn snapshot(&mut self) -> Snapshot {
        let from = self.last();
        let objects = &self.objects;
        self.current.get_or_insert_with(|| Snapshot { from, objects: Arc::new(objects.values().cloned().collect()) }).clone()
    }

    /// All objects as they were at `version`, which must not lie in the future.
    pub(crate) fn snapshot_at(&mut self, version: u64) -> Result<Snapshot, TooOld> {
        self.check_start(version)?;
        let later = self.history.partition_point(|event| event.version <= version);
        let from = if later == 0 { self.dropped } else { self.history[later - 1].version };
        if later == self.history.len() {
            return Ok(self.snapshot());
        }
        if let Some(kept) = self.kept.iter().find(|kept| (from..=version).contains(&kept.from)) {
            return Ok(kept.clone());
        }
        let mut objects = self.objects.clone();
        for event in self.history.range(later..).rev() {
            match &event.previous {
                Some(previous) => objects.insert(previous.shared_key(), previous.clone()),
                None => objects.remove(event.object.key()),
            };
        }
        Ok(Snapshot { from, objects: Arc::new(objects.into_values().collect()) })
    }

    /// Keeps a snapshot for the next page of a list.
    pub(crate) fn keep(&mut self, snapshot: &Snapshot) {
        if self.kept.iter().any(|kept| kept.from == snapshot.from) {
            return;
        }
        if self.kept.len() == SNAPSHOTS_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(snapshot.clone());
    }

    /// Forgets all history up to `version`, which must be the present one.
    pub(crate) fn compact(&mut self, version: u64) {
        self.dropped = self.last();
        self.floor = version;
        self.history.clear();
        self.kept.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Registry;
    use serde_json::json;

    fn pod(name: &str, version: u64) -> Arc<Object> {
        let registry = Registry::default();
        let pods = registry.get(registry.by_name("pods").unwrap());
        Arc::new(Object::from_value(pods, json!({"metadata": {"name": name, "namespace": "x"}}), version))
    }

    fn names(snapshot: &Snapshot) -> Vec<(String, u64)> {
        snapshot.objects.iter().map(|object| (object.name().to_owned(), object.version())).collect()
    }

    #[test]
    fn the_past_can_be_listed_as_long_as_history_holds_it() {
        let mut table = Table::new(3);
        table.put(pod("a", 1));
        table.put(pod("b", 2));
        table.put(pod("a", 5));
        table.remove(pod("b", 6));
        let owned = |pairs: &[(&str, u64)]| pairs.iter().map(|(name, version)| ((*name).to_owned(), *version)).collect::<Vec<_>>();
        assert_eq!(names(&table.snapshot()), owned(&[("a", 5)]));
        assert_eq!(names(&table.snapshot_at(5).unwrap()), owned(&[("a", 5), ("b", 2)]));
        assert_eq!(names(&table.snapshot_at(4).unwrap()), owned(&[("a", 1), ("b", 2)]));
        assert_eq!(names(&table.snapshot_at(1).unwrap()), owned(&[("a", 1)]));
        assert_eq!(table.snapshot_at(0).unwrap_err(), TooOld { oldest: 1 });
        assert_eq!(table.events_after(0, 9).unwrap_err(), TooOld { oldest: 1 });
        let versions: Vec<_> = table.events_after(1, 2).unwrap().iter().map(|event| event.version).collect();
        assert_eq!(versions, [2, 5]);
        table.compact(8);
        assert_eq!(table.check_start(7), Err(TooOld { oldest: 8 }));
        assert_eq!(table.events_after(6, 9), Ok(vec![]), "a running watch missed nothing");
        assert_eq!(table.events_after(5, 9).unwrap_err(), TooOld { oldest: 6 });
        assert_eq!(table.snapshot_at(7).unwrap_err(), TooOld { oldest: 8 });
        assert_eq!(names(&table.snapshot_at(8).unwrap()), owned(&[("a", 5)]));
    }
}
