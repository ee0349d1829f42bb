//! Clusters and their changes from a seed: what nodes, controllers and people do to a real one, one step at a time.
//!
//! A script reads the store before every step, so that it goes on sensibly whatever else changes there. Given the
//! same seed, size and store, the same steps make the same changes, byte by byte.

mod addresses;
mod objects;
mod pods;
mod policies;
mod services;
mod topology;

use crate::store::{Object, Store};
use addresses::Addresses;
use serde_json::Value;
use std::sync::Arc;

/// How large a random cluster is at the start; changes keep it near that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Nodes.
    pub nodes: usize,
    /// Namespaces, besides those of the system.
    pub namespaces: usize,
    /// Pods.
    pub pods: usize,
    /// NetworkPolicies.
    pub policies: usize,
    /// Services, each with its EndpointSlices.
    pub services: usize,
}

impl Default for Size {
    fn default() -> Self {
        Self { nodes: 3, namespaces: 4, pods: 30, policies: 8, services: 4 }
    }
}

/// One step of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What was done, for the log of a failing test.
    pub what: String,
    /// The store's version behind it. Equal to the one before if there was nothing to do.
    pub version: u64,
}

/// A seeded sequence of changes to a store.
#[derive(Debug)]
pub struct Script {
    store: Arc<Store>,
    random: fastrand::Rng,
    size: Size,
    addresses: Addresses,
    /// Number of the next new object, so that names do not repeat by chance.
    next: usize,
}

impl Script {
    /// A script for a store, which gets its first nodes, namespaces, pods, policies and services here.
    pub fn new(store: Arc<Store>, seed: u64, size: Size) -> Self {
        let mut script = Self { store, random: fastrand::Rng::with_seed(seed), size, addresses: Addresses::default(), next: 0 };
        (0..size.nodes).for_each(|_| drop(script.add_node()));
        (0..size.namespaces).for_each(|_| drop(script.add_namespace()));
        // Some attempts meet a name that is taken.
        for _ in 0..size.pods * 2 {
            if script.count("pods") < size.pods {
                script.start_pod();
            }
        }
        for pod in script.list("pods").iter() {
            script.advance_pod(pod);
            if let Some(bound) = script.reread("pods", pod) {
                script.advance_pod(&bound);
            }
        }
        (0..size.policies).for_each(|_| drop(script.add_policy()));
        (0..size.services).for_each(|_| drop(script.add_service()));
        script
    }

    /// Makes the next change. The store's clock, if it is a manual one, moves by a second.
    pub fn step(&mut self) -> Change {
        self.store.clock().advance(1);
        let what = match self.random.u32(..100) {
            0..12 => self.start_or_delete_pod(),
            12..50 => self.advance_some_pod(),
            50..57 => self.delete_some_pod(),
            57..65 => self.relabel_some_pod(),
            65..79 => self.change_policies(),
            79..85 => self.change_namespaces(),
            85..98 => self.change_services(),
            _ => self.change_nodes(),
        };
        Change { what, version: self.store.version() }
    }

    fn list(&self, resource: &str) -> Arc<Vec<Arc<Object>>> {
        self.store.objects(resource).expect("scripts use built-in resources")
    }

    fn count(&self, resource: &str) -> usize {
        self.store.count(resource).expect("scripts use built-in resources")
    }

    fn reread(&self, resource: &str, object: &Object) -> Option<Arc<Object>> {
        self.store.get(self.store.place(resource, object.namespace(), object.name()).ok()?).ok()
    }

    /// One of all objects of a resource, by lot.
    fn pick(&mut self, resource: &str) -> Option<Arc<Object>> {
        let count = self.count(resource);
        if count == 0 {
            return None;
        }
        self.store.nth(resource, self.random.usize(..count)).expect("scripts use built-in resources")
    }

    /// One of the namespaces that take new content.
    fn pick_namespace(&mut self) -> Option<String> {
        let namespaces = self.list("namespaces");
        let open: Vec<_> = namespaces.iter().filter(|namespace| topology::is_ours(namespace) && namespace.phase() == "Active").collect();
        (!open.is_empty()).then(|| open[self.random.usize(..open.len())].name().to_owned())
    }

    fn one_of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.random.usize(..choices.len())]
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.u32(..100) < percent
    }

    fn number(&mut self) -> usize {
        self.next += 1;
        self.next
    }

    /// Creates an object as a client would.
    fn create(&self, resource: &str, object: Value) -> String {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (text("namespace"), text("name"));
        let place = self.store.place(resource, &namespace, &name).expect("scripts use built-in resources");
        match self.store.create(place.resource, place.namespace, object) {
            Ok(created) => format!("create {resource} {}", created.key()),
            Err(error) => format!("create {resource} {namespace}/{name}: {error}"),
        }
    }

    /// Merges a patch into an object, or into its status.
    fn patch(&self, resource: &str, object: &Object, part: crate::store::Part, patch: &Value) -> String {
        let place = self.store.place(resource, object.namespace(), object.name()).expect("scripts use built-in resources");
        match self.store.patch(place, part, patch) {
            Ok(patched) => format!("patch {resource} {}: {patch}", patched.key()),
            Err(error) => format!("patch {resource} {}: {error}", object.key()),
        }
    }

    fn delete(&self, resource: &str, object: &Object, options: &crate::store::DeleteOptions) -> String {
        let place = self.store.place(resource, object.namespace(), object.name()).expect("scripts use built-in resources");
        match self.store.delete(place, options) {
            Ok(_) => format!("delete {resource} {} {options:?}", object.key()),
            Err(error) => format!("delete {resource} {}: {error}", object.key()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::resource::Registry;
    use std::collections::BTreeSet;

    fn run(seed: u64, steps: usize) -> (Vec<Change>, Vec<Value>) {
        let store = Arc::new(Store::new(Registry::default(), Clock::manual(), seed, 1000));
        let mut script = Script::new(store.clone(), seed, Size::default());
        let changes = (0..steps).map(|_| script.step()).collect();
        let resources = ["namespaces", "nodes", "pods", "networkpolicies", "services", "endpointslices"];
        let values = resources.iter().flat_map(|resource| store.values(resource).unwrap()).collect();
        (changes, values)
    }

    #[test]
    fn a_seed_gives_the_same_cluster_again() {
        assert_eq!(run(11, 400), run(11, 400));
        assert_ne!(run(11, 400).1, run(12, 400).1);
    }

    #[test]
    fn everything_that_a_cluster_does_happens() {
        let (changes, _) = run(5, 4000);
        let failed: Vec<_> = changes.iter().filter(|change| change.what.contains(": 4") || change.what.contains(": 5")).collect();
        assert_eq!(failed, Vec::<&Change>::new(), "a script makes only changes that the server takes");
        for what in [
            "create pods",
            "\"Running\"",
            "\"Succeeded\"",
            "\"Failed\"",
            "finalizers",
            "grace_s: None",
            "grace_s: Some(0)",
            "create networkpolicies",
            "patch networkpolicies",
            "delete networkpolicies",
            "create namespaces",
            "patch namespaces",
            "delete namespaces",
            "create services",
            "delete services",
            "slices of",
            "create nodes",
            "delete nodes",
        ] {
            assert!(changes.iter().any(|change| change.what.contains(what)), "{what} never happened");
        }
    }

    #[test]
    fn live_pods_do_not_share_addresses_and_ended_ones_give_theirs_away() {
        let store = Arc::new(Store::new(Registry::default(), Clock::manual(), 3, 10));
        let mut script = Script::new(store.clone(), 3, Size::default());
        let mut reused = false;
        for _ in 0..3000 {
            let change = script.step();
            let mut live = BTreeSet::new();
            let mut ended = BTreeSet::new();
            for pod in store.values("pods").unwrap() {
                let ip = pod["status"]["podIP"].as_str().map(str::to_owned);
                let Some(ip) = ip.filter(|_| pod["spec"]["hostNetwork"] != true) else { continue };
                if matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
                    ended.insert(ip);
                } else {
                    assert!(live.insert(ip.clone()), "{ip} twice after {}", change.what);
                }
            }
            reused |= live.intersection(&ended).next().is_some();
        }
        assert!(reused, "no address of an ended pod was used again");
    }
}
