//! The reporter: on how many nodes each policy is in force, and events on those that cannot be represented. One in a
//! cluster; a second one would write the same.

use super::crd::{NodeStatus, Phase, PolicyReport, PolicyStatus, PolicyStatusSpec};
use super::events::Events;
use super::node::HEARTBEAT;
use super::{of_namespace, put};
use crate::engine::Event;
use crate::realized::problem_among;
use crate::source::Reading;
use futures::StreamExt;
use imbl::ordmap::DiffItem;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams};
use kube::runtime::reflector::{ObjectRef, Store, reflector, store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use sluice_flow::{Direction, ObjectName};
use sluice_policy::{Objects, Oracle, Snapshot};
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{MissedTickBehavior, interval};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Objects written between two looks at most; the rest follows.
const WRITES_MAX: usize = 50;
/// A node that told nothing for so long does not count as one where a policy is in force.
const SILENCE_MAX: Duration = Duration::from_secs(3 * HEARTBEAT.as_secs());

/// Reports for ever.
///
/// # Errors
/// When the source of objects ends.
pub(crate) async fn report(client: Client, instance: Option<String>, mut readings: UnboundedReceiver<Event>) {
    let (nodes, writer) = store();
    let followed = reflector(writer, watcher(Api::<NodeStatus>::all(client.clone()), watcher::Config::default()).default_backoff());
    tokio::spawn(followed.touched_objects().for_each(|_| std::future::ready(())));
    let mut reporter = Reporter { told: told(&client).await, client: client.clone(), nodes, selected: Selected::default() };
    let mut events = Events::new(client, instance);
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last: Option<Reading> = None;
    loop {
        tokio::select! {
            event = readings.recv() => match event {
                Some(Event::Read(reading)) => last = Some(reading),
                Some(_) => {}
                None => return,
            },
            _ = looks.tick() => {
                // what is not known yet is not absent
                let Some(reading) = last.as_ref().filter(|reading| reading.is_complete) else { continue };
                reporter.look(reading).await;
                events.tell(&reading.manifests.problems, &reading.manifests.snapshot).await;
            }
        }
    }
}

/// What an earlier reporter wrote; nothing where that cannot be read, and then all of it is written once more.
async fn told(client: &Client) -> BTreeMap<ObjectName, PolicyReport> {
    let listed = Api::<PolicyStatus>::all(client.clone()).list(&ListParams::default()).await;
    let statuses = listed.map(|list| list.items).unwrap_or_default();
    let named = |status: PolicyStatus| Some((ObjectName::new(status.metadata.namespace?, status.metadata.name?), status.status?));
    statuses.into_iter().filter_map(named).collect()
}

struct Reporter {
    client: Client,
    nodes: Store<NodeStatus>,
    selected: Selected,
    told: BTreeMap<ObjectName, PolicyReport>,
}

impl Reporter {
    async fn look(&mut self, reading: &Reading) {
        let snapshot = &reading.manifests.snapshot;
        self.selected.update(snapshot);
        let mut written = 0;
        for (name, policy) in &snapshot.policies {
            let report = self.report_on(name, policy, reading);
            if self.told.get(name) == Some(&report) {
                continue;
            }
            if written == WRITES_MAX {
                return;
            }
            written += 1;
            match self.write(name, policy, &report).await {
                Ok(()) => drop(self.told.insert(name.clone(), report)),
                Err(error) => return tracing::warn!(policy = %name, %error, "cannot write the status of a policy"),
            }
        }
        let gone: Vec<ObjectName> = self.told.keys().filter(|name| !snapshot.policies.contains_key(*name)).cloned().collect();
        for name in gone.into_iter().take(WRITES_MAX) {
            let api: Api<PolicyStatus> = Api::namespaced(self.client.clone(), &name.namespace);
            match api.delete(&name.name, &DeleteParams::default()).await {
                // the garbage collector was there before
                Ok(_) | Err(kube::Error::Api(_)) => drop(self.told.remove(&name)),
                Err(error) => return tracing::warn!(policy = %name, %error, "cannot delete the status of a policy"),
            }
        }
    }

    fn report_on(&self, name: &ObjectName, policy: &NetworkPolicy, reading: &Reading) -> PolicyReport {
        let generation = policy.metadata.generation.unwrap_or_default();
        let desired = self.selected.nodes(name);
        let behind: Vec<&SmolStr> = desired.iter().filter(|node| !self.is_in_force(node, name, policy)).collect();
        let problem = problem_among(&reading.manifests.problems, name);
        let (phase, message) = match (problem, behind.as_slice()) {
            (Some(problem), _) => (Phase::Refused, format!("{}; in force: {}", problem.message, problem.in_force)),
            (None, []) => (Phase::Realized, String::new()),
            (None, [first, rest @ ..]) => {
                let others = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
                (Phase::Realizing, format!("not in force yet on {first}{others}"))
            }
        };
        let current = desired.len() - behind.len();
        let before = self.told.get(name).filter(|told| (told.observed_generation, told.phase) == (generation, phase));
        PolicyReport {
            observed_generation: generation,
            phase,
            desired_nodes: desired.len() as i32,
            current_nodes: current as i32,
            nodes: format!("{current}/{}", desired.len()),
            since: before.and_then(|told| told.since.clone()).or_else(|| Some(Time(whole_second()))),
            message,
        }
    }

    fn is_in_force(&self, node: &str, name: &ObjectName, policy: &NetworkPolicy) -> bool {
        let Some(status) = self.nodes.get(&ObjectRef::new(node)) else { return false };
        let Some(report) = &status.status else { return false };
        let is_fresh = report.observed_at.as_ref().is_some_and(|Time(at)| {
            let age = SystemTime::now().duration_since(SystemTime::from(*at));
            // a node whose clock is ahead of ours has not fallen silent
            age.map_or(true, |age| age < SILENCE_MAX)
        });
        let here = report.policies.get(&name.namespace).and_then(|policies| policies.get(&name.name));
        is_fresh
            && here.is_some_and(|here| {
                Some(&here.uid) == policy.metadata.uid.as_ref() && here.generation >= policy.metadata.generation.unwrap_or_default()
            })
    }

    async fn write(&self, name: &ObjectName, policy: &NetworkPolicy, report: &PolicyReport) -> kube::Result<()> {
        let mut status = PolicyStatus::new(&name.name, PolicyStatusSpec::default());
        // it goes with the policy
        status.metadata.owner_references = policy.metadata.uid.clone().map(|uid| {
            vec![OwnerReference {
                api_version: "networking.k8s.io/v1".into(),
                kind: "NetworkPolicy".into(),
                name: name.name.clone(),
                uid,
                ..OwnerReference::default()
            }]
        });
        status.status = Some(report.clone());
        put(&Api::namespaced(self.client.clone(), &name.namespace), status).await
    }
}

/// As the API server would write it down.
fn whole_second() -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default()
}

/// On which nodes pods are that a policy selects.
#[derive(Debug, Default)]
struct Selected {
    pods: Objects<ObjectName, sluice_policy::pod::Pod>,
    policies: Objects<ObjectName, NetworkPolicy>,
    nodes: BTreeMap<ObjectName, BTreeSet<SmolStr>>,
}

impl Selected {
    fn nodes(&self, policy: &ObjectName) -> &BTreeSet<SmolStr> {
        static NONE: BTreeSet<SmolStr> = BTreeSet::new();
        self.nodes.get(policy).unwrap_or(&NONE)
    }

    /// Cost: that of the namespaces in which a pod or a policy changed.
    fn update(&mut self, snapshot: &Snapshot) {
        let mut changed = namespaces_of(self.pods.diff(&snapshot.pods));
        changed.extend(namespaces_of(self.policies.diff(&snapshot.policies)));
        (self.pods, self.policies) = (snapshot.pods.clone(), snapshot.policies.clone());
        for namespace in changed {
            self.nodes.retain(|policy, _| policy.namespace != namespace);
            let inside = Snapshot {
                namespaces: snapshot.namespaces.clone(),
                policies: of_namespace(&snapshot.policies, &namespace),
                pods: of_namespace(&snapshot.pods, &namespace),
                ..Snapshot::default()
            };
            if inside.policies.is_empty() {
                continue;
            }
            let oracle = Oracle::new(&inside);
            for (name, pod) in &inside.pods {
                let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) else { continue };
                for direction in Direction::BOTH {
                    for policy in oracle.side(name, direction).isolating() {
                        self.nodes.entry(policy.clone()).or_default().insert(node.clone());
                    }
                }
            }
        }
    }
}

fn namespaces_of<'s, V: 's>(differences: impl Iterator<Item = DiffItem<'s, 's, ObjectName, V>>) -> BTreeSet<String> {
    let named = |difference| match difference {
        DiffItem::Add(name, _) | DiffItem::Remove(name, _) | DiffItem::Update { new: (name, _), .. } => name,
    };
    differences.map(named).map(|name: &ObjectName| name.namespace.clone()).collect()
}
