//! What all watches tell → one snapshot.
//!
//! While a kind is listed once more, what was known of it stays in force; the new list takes its place whole, when it is
//! complete. An object that cannot be read or is invalid keeps its last good state, as in a file.

use super::kinds::Kind;
use super::received::Received;
use super::watch::Notice;
use crate::source::Manifests;
use crate::source::places::{Addresses, Places, Slice};
use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sluice_flow::ObjectName;
use sluice_policy::Snapshot;
use sluice_policy::load::{NAMESPACE_NAME_LABEL, load_str};
use sluice_policy::pod::{Pod, Pool};
use sluice_policy::snapshot::{Objects, share};
use sluice_wire::ManifestProblem;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Changes after which parts that no pod shares any more are looked for.
const SHRINK_AFTER: usize = 20_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Gatherer {
    /// Named in problems.
    server: String,
    namespaces: Gathered<String, Namespace>,
    pods: Gathered<ObjectName, Pod>,
    services: Gathered<ObjectName, Service>,
    policies: Gathered<ObjectName, NetworkPolicy>,
    slices: Gathered<ObjectName, Slice>,
    nodes: Gathered<String, Addresses>,
    pool: Pool,
    changes: usize,
}

/// Objects of one kind.
#[derive(Debug)]
struct Gathered<K: Ord, T> {
    now: List<K, T>,
    /// What is being listed.
    coming: Option<List<K, T>>,
    is_complete: bool,
}

#[derive(Debug)]
struct List<K: Ord, T> {
    objects: Objects<K, T>,
    problems: BTreeMap<K, ManifestProblem>,
}

impl<K: Ord, T> Default for List<K, T> {
    fn default() -> Self {
        Self { objects: Objects::new(), problems: BTreeMap::new() }
    }
}

impl<K: Ord, T> Default for Gathered<K, T> {
    fn default() -> Self {
        Self { now: List::default(), coming: None, is_complete: false }
    }
}

/// What objects are filed under.
trait Key: Ord + Clone {
    fn of(object: &Received) -> Self;
}

impl Key for String {
    fn of(object: &Received) -> Self {
        object.name().name
    }
}

impl Key for ObjectName {
    fn of(object: &Received) -> Self {
        object.name()
    }
}

impl<K: Key, T: PartialEq> Gathered<K, T> {
    /// Whether anything is another thing now that is kept: most of what a server tells of an object is not.
    fn take(&mut self, notice: Notice, read: impl FnOnce(&Received) -> Result<T, Box<ManifestProblem>>) -> bool {
        match notice {
            Notice::Begin => {
                self.coming = Some(List::default());
                false
            }
            Notice::Listed(object) => {
                let key = K::of(&object);
                self.coming.get_or_insert_default().put(&key, read(&object), self.now.objects.get(&key).cloned());
                false
            }
            Notice::Complete => {
                let mut whole = self.coming.take().unwrap_or_default();
                // what stayed is known again by its place in memory, also by those who look after this
                share(&mut whole.objects, &self.now.objects);
                self.now = whole;
                self.is_complete = true;
                true
            }
            Notice::Changed(object) => {
                let key = K::of(&object);
                let (last, problem) = (self.now.objects.get(&key).cloned(), self.now.problems.get(&key).cloned());
                self.now.put(&key, read(&object), last.clone());
                let now = self.now.objects.get(&key);
                now.map(Arc::as_ptr) != last.as_ref().map(Arc::as_ptr) || self.now.problems.get(&key) != problem.as_ref()
            }
            Notice::Gone(object) => {
                let key = K::of(&object);
                let was_known = self.now.objects.remove(&key).is_some();
                self.now.problems.remove(&key).is_some() || was_known
            }
            Notice::Alive | Notice::UpTo(_) | Notice::Trouble(_) => false,
        }
    }

    /// How many there are, or have been listed so far.
    fn count(&self) -> usize {
        let list = self.coming.as_ref().filter(|_| !self.is_complete).unwrap_or(&self.now);
        list.objects.len()
    }
}

impl<K: Key, T: PartialEq> List<K, T> {
    /// `last`: its last good state. An equal object stays the same one, so that whoever remembers it knows it again.
    fn put(&mut self, key: &K, object: Result<T, Box<ManifestProblem>>, last: Option<Arc<T>>) {
        let object = match object {
            Ok(object) => {
                self.problems.remove(key);
                Some(last.filter(|last| **last == object).unwrap_or_else(|| Arc::new(object)))
            }
            Err(mut problem) => {
                let of = if last.is_some() { "the last good state" } else { "nothing, it was never good" };
                of.clone_into(&mut problem.in_force);
                self.problems.insert(key.clone(), *problem);
                last
            }
        };
        if let Some(object) = object {
            self.objects.insert(key.clone(), object);
        }
    }
}

impl Gatherer {
    /// Nothing known. `server` is named in problems.
    pub(super) fn new(server: String) -> Self {
        Self { server, ..Self::default() }
    }

    /// Takes what a watch tells of a kind. Returns whether it changed anything that is kept.
    pub(super) fn take(&mut self, kind: Kind, notice: Notice) -> bool {
        let Self { server, pool, .. } = self;
        let problem = |object: &Received, message| problem(server, kind, object, message);
        let is_change = match kind {
            Kind::Namespaces => self.namespaces.take(notice, |object| namespace(object).map_err(|error| problem(object, error))),
            Kind::Pods => self.pods.take(notice, |object| Ok(pool.share(typed(object).map_err(|error| problem(object, error))?))),
            Kind::Services => self.services.take(notice, |object| service(object).map_err(|error| problem(object, error))),
            Kind::NetworkPolicies => self.policies.take(notice, |object| policy(object, |error| problem(object, error))),
            Kind::EndpointSlices => {
                let read = |object: &Received| typed::<EndpointSlice>(object).map(Slice::from);
                self.slices.take(notice, |object| read(object).map_err(|error| problem(object, error)))
            }
            Kind::Nodes => {
                let read = |object: &Received| typed::<Node>(object).map(Addresses::from);
                self.nodes.take(notice, |object| read(object).map_err(|error| problem(object, error)))
            }
        };
        self.changes += 1;
        if self.changes >= SHRINK_AFTER {
            self.changes = 0;
            self.pool.shrink();
        }
        is_change
    }

    /// Whether every kind was listed once that verdicts depend on.
    pub(super) fn is_complete(&self) -> bool {
        Kind::ALL.into_iter().filter(|kind| kind.is_needed()).all(|kind| self.is_listed(kind))
    }

    /// Whether a kind was.
    pub(super) fn is_listed(&self, kind: Kind) -> bool {
        match kind {
            Kind::Namespaces => self.namespaces.is_complete,
            Kind::Pods => self.pods.is_complete,
            Kind::Services => self.services.is_complete,
            Kind::NetworkPolicies => self.policies.is_complete,
            Kind::EndpointSlices => self.slices.is_complete,
            Kind::Nodes => self.nodes.is_complete,
        }
    }

    /// How many objects of a kind there are, or have been listed so far.
    pub(super) fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Namespaces => self.namespaces.count(),
            Kind::Pods => self.pods.count(),
            Kind::Services => self.services.count(),
            Kind::NetworkPolicies => self.policies.count(),
            Kind::EndpointSlices => self.slices.count(),
            Kind::Nodes => self.nodes.count(),
        }
    }

    /// What is in force. Cost: that of the problems; objects are shared.
    pub(super) fn manifests(&self) -> Manifests {
        let snapshot = Snapshot {
            namespaces: self.namespaces.now.objects.clone(),
            pods: self.pods.now.objects.clone(),
            services: self.services.now.objects.clone(),
            policies: self.policies.now.objects.clone(),
            ..Snapshot::default()
        };
        let problems = self.namespaces.now.problems.values();
        let problems = problems.chain(self.pods.now.problems.values()).chain(self.services.now.problems.values());
        let problems = problems.chain(self.policies.now.problems.values()).cloned().collect();
        let places = Places { nodes: self.nodes.now.objects.clone(), slices: self.slices.now.objects.clone() };
        Manifests { snapshot, places, problems, policy_files: BTreeMap::new() }
    }
}

fn problem(server: &str, kind: Kind, object: &Received, message: String) -> Box<ManifestProblem> {
    let name = object.name();
    let name = if name.namespace.is_empty() { name.name } else { name.to_string() };
    Box::new(ManifestProblem {
        file: server.to_owned(),
        line: 0,
        column: 0,
        object: Some(format!("{} {name}", kind.singular())),
        field: String::new(),
        message,
        hint: None,
        in_force: String::new(),
    })
}

fn typed<'a, T: serde::Deserialize<'a>>(object: &'a Received) -> Result<T, String> {
    serde_json::from_str(object.text()).map_err(|error| format!("cannot be read: {error}"))
}

/// Of metadata only labels, and which object and which state of it this is; the rest is the larger part of most objects.
fn only_labels(metadata: ObjectMeta) -> ObjectMeta {
    let ObjectMeta { name, namespace, uid, generation, labels, .. } = metadata;
    ObjectMeta { name, namespace, uid, generation, labels, ..ObjectMeta::default() }
}

fn namespace(object: &Received) -> Result<Namespace, String> {
    let mut namespace: Namespace = typed(object)?;
    namespace.metadata = only_labels(namespace.metadata);
    let labels = namespace.metadata.labels.get_or_insert_default();
    labels.entry(NAMESPACE_NAME_LABEL.to_owned()).or_insert_with(|| object.name().name);
    Ok(Namespace { spec: None, status: None, ..namespace })
}

fn service(object: &Received) -> Result<Service, String> {
    let mut service: Service = typed(object)?;
    service.metadata = only_labels(service.metadata);
    Ok(service)
}

/// Validated as a manifest is: a server before 1.36 may hold what today's would not accept, and a newer one may know
/// fields whose meaning is unknown here.
fn policy(object: &Received, refused: impl Fn(String) -> Box<ManifestProblem>) -> Result<NetworkPolicy, Box<ManifestProblem>> {
    let mut document: serde_json::Value = typed(object).map_err(&refused)?;
    // items of a list do not say what they are
    document["apiVersion"] = "networking.k8s.io/v1".into();
    document["kind"] = Kind::NetworkPolicies.singular().into();
    let mut loaded = load_str("", &document.to_string());
    match (loaded.errors.first(), loaded.snapshot.policies.remove(&object.name())) {
        (None, Some(policy)) => {
            let mut policy = Arc::unwrap_or_clone(policy);
            policy.metadata = only_labels(policy.metadata);
            Ok(policy)
        }
        (Some(error), _) => {
            let (field, hint) = (error.field.clone(), error.hint.clone());
            Err(Box::new(ManifestProblem { field, hint, ..*refused(error.message.clone()) }))
        }
        (None, None) => Err(refused("is not the policy that it is called".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn received(object: Value) -> Received {
        serde_json::from_str(&object.to_string()).unwrap()
    }

    fn pod(name: &str, app: &str) -> Received {
        received(json!({
            "metadata": {"namespace": "x", "name": name, "resourceVersion": "1", "labels": {"app": app}, "managedFields": []},
            "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]},
        }))
    }

    fn policy(port: Value) -> Received {
        received(json!({
            "metadata": {"namespace": "x", "name": "web", "resourceVersion": "1", "uid": "u", "managedFields": [{"manager": "m"}]},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"ports": [{"protocol": "TCP", "port": port}]}]},
        }))
    }

    fn list(gatherer: &mut Gatherer, kind: Kind, objects: Vec<Received>) {
        assert!(!gatherer.take(kind, Notice::Begin));
        assert!(!objects.into_iter().any(|object| gatherer.take(kind, Notice::Listed(object))), "nothing before all of it");
        assert!(gatherer.take(kind, Notice::Complete));
    }

    fn pods(gatherer: &Gatherer) -> Vec<(String, Arc<Pod>)> {
        gatherer.manifests().snapshot.pods.iter().map(|(name, pod)| (name.name.clone(), Arc::clone(pod))).collect()
    }

    #[test]
    fn it_is_complete_when_every_kind_was_listed_to_its_end() {
        let mut gatherer = Gatherer::new("s".into());
        for kind in Kind::ALL.into_iter().filter(|kind| kind.is_needed()) {
            assert!(!gatherer.is_complete());
            gatherer.take(kind, Notice::Begin);
            assert!(!gatherer.is_listed(kind));
            gatherer.take(kind, Notice::Complete);
        }
        assert!(gatherer.is_complete());
        gatherer.take(Kind::Pods, Notice::Begin);
        assert!(gatherer.is_complete(), "what is listed once more stays known");
    }

    #[test]
    fn a_new_list_takes_the_place_of_the_old_one_whole_and_equal_objects_stay_the_same() {
        let mut gatherer = Gatherer::new("s".into());
        list(&mut gatherer, Kind::Pods, vec![pod("a", "web"), pod("b", "web")]);
        let before = pods(&gatherer);
        gatherer.take(Kind::Pods, Notice::Begin);
        gatherer.take(Kind::Pods, Notice::Listed(pod("a", "web")));
        assert_eq!(pods(&gatherer), before, "until it is complete, nothing changes");
        gatherer.take(Kind::Pods, Notice::Begin);
        gatherer.take(Kind::Pods, Notice::Listed(pod("a", "web")));
        gatherer.take(Kind::Pods, Notice::Listed(pod("c", "db")));
        gatherer.take(Kind::Pods, Notice::Complete);
        let after = pods(&gatherer);
        assert_eq!(after.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["a", "c"]);
        assert!(Arc::ptr_eq(&before[0].1, &after[0].1));
        assert!(!gatherer.take(Kind::Pods, Notice::Changed(pod("a", "web"))), "an event that says nothing new");
        assert!(Arc::ptr_eq(&before[0].1, &pods(&gatherer)[0].1));
        assert!(gatherer.take(Kind::Pods, Notice::Changed(pod("a", "db"))));
        assert!(gatherer.take(Kind::Pods, Notice::Gone(pod("a", "web"))));
        assert!(!gatherer.take(Kind::Pods, Notice::Gone(pod("never seen", "web"))));
        assert_eq!(pods(&gatherer).len(), 1);
    }

    #[test]
    fn a_policy_that_cannot_be_represented_keeps_its_last_good_state_until_it_is_good_or_gone() {
        let mut gatherer = Gatherer::new("https://server".into());
        let port = |gatherer: &Gatherer| {
            let policies = gatherer.manifests().snapshot.policies;
            policies.get(&ObjectName::parse("x/web")).map(|policy| format!("{:?}", policy.spec.as_ref().unwrap().ingress))
        };
        list(&mut gatherer, Kind::NetworkPolicies, vec![policy(json!(700_000))]);
        let manifests = gatherer.manifests();
        assert_eq!((port(&gatherer), manifests.problems.len()), (None, 1));
        assert_eq!(manifests.problems[0].object.as_deref(), Some("NetworkPolicy x/web"));
        assert_eq!(manifests.problems[0].field, "spec.ingress[0].ports[0].port");
        assert_eq!(manifests.problems[0].in_force, "nothing, it was never good");
        gatherer.take(Kind::NetworkPolicies, Notice::Changed(policy(json!(80))));
        let good = port(&gatherer);
        assert!(good.is_some() && gatherer.manifests().problems.is_empty());
        gatherer.take(Kind::NetworkPolicies, Notice::Changed(policy(json!(700_000))));
        assert_eq!((port(&gatherer), gatherer.manifests().problems[0].in_force.as_str()), (good.clone(), "the last good state"));
        list(&mut gatherer, Kind::NetworkPolicies, vec![policy(json!(700_000))]);
        assert_eq!(port(&gatherer), good, "also through a new list");
        gatherer.take(Kind::NetworkPolicies, Notice::Gone(policy(json!(700_000))));
        assert!(port(&gatherer).is_none() && gatherer.manifests().problems.is_empty());
    }

    #[test]
    fn nonsense_is_the_problem_of_its_object_alone() {
        let mut gatherer = Gatherer::new("s".into());
        let nonsense = received(json!({"metadata": {"namespace": "x", "name": "odd"}, "spec": {"containers": 7}}));
        list(&mut gatherer, Kind::Pods, vec![pod("a", "web"), nonsense]);
        let manifests = gatherer.manifests();
        assert_eq!((manifests.snapshot.pods.len(), manifests.problems.len()), (1, 1));
        assert!(manifests.problems[0].message.starts_with("cannot be read: "), "{}", manifests.problems[0].message);
    }

    #[test]
    fn a_namespace_has_the_label_of_its_name() {
        let mut gatherer = Gatherer::new("s".into());
        list(&mut gatherer, Kind::Namespaces, vec![received(json!({"metadata": {"name": "x"}}))]);
        let namespace = Arc::clone(&gatherer.manifests().snapshot.namespaces["x"]);
        assert_eq!(namespace.metadata.labels.as_ref().unwrap()[NAMESPACE_NAME_LABEL], "x");
    }
}
