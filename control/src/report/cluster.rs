//! The reporter: on how many nodes each policy is in force, and events on those that cannot be represented. One in a
//! cluster; a second one would write the same.

use super::crd::{NodeStatus, Phase, PolicyReport, PolicyStatus, PolicyStatusSpec};
use super::events::Events;
use super::node::HEARTBEAT;
use super::problems::warnings;
use super::progress::Progress;
use super::put;
use super::selected::Selected;
use crate::engine::Event;
use crate::realized::problem_among;
use crate::source::Reading;
use futures::StreamExt;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams};
use kube::runtime::reflector::{ObjectRef, Store, reflector, store};
use kube::runtime::{WatchStreamExt, events, watcher};
use kube::{Api, Client};
use sluice_flow::ObjectName;
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Without a change it is looked after so long all the same: a node may have fallen silent.
const LOOK_ANYWAY: Duration = Duration::from_secs(30);
/// Objects written between two looks at most; the rest follows.
const WRITES_MAX: usize = 50;
/// Events at once, and how soon one more may follow.
const BURST: u32 = 25;
const REFILL: Duration = Duration::from_secs(2);
/// A node that told nothing for so long does not count as one where a policy is in force.
const SILENCE_MAX: Duration = Duration::from_secs(3 * HEARTBEAT.as_secs());

/// Reports until the source of objects ends.
pub(crate) async fn report(client: Client, instance: Option<String>, mut readings: UnboundedReceiver<Event>, progress: Arc<Progress>) {
    let (nodes, writer) = store();
    let followed = reflector(writer, watcher(Api::<NodeStatus>::all(client.clone()), watcher::Config::default()).default_backoff());
    let nodes_spoke = Arc::new(AtomicBool::new(true));
    let heard = nodes_spoke.clone();
    tokio::spawn(followed.touched_objects().for_each(move |_| {
        heard.store(true, Ordering::Relaxed);
        std::future::ready(())
    }));
    let told = told(&client).await;
    let mut reporter = Reporter { told, client: client.clone(), nodes, selected: Selected::default(), progress: progress.clone() };
    let writer = events::Reporter { controller: "sluice.network/reporter".into(), instance };
    let mut events = Events::new(client, writer, BURST, REFILL);
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last: Option<Reading> = None;
    let mut again = Instant::now();
    loop {
        tokio::select! {
            event = readings.recv() => match event {
                Some(Event::Read(reading)) => (last, again) = (Some(reading), Instant::now()),
                Some(_) => {}
                None => return,
            },
            _ = looks.tick() => {
                progress.beat();
                // what is not known yet is not absent
                let Some(reading) = last.as_ref().filter(|reading| reading.is_complete) else { continue };
                progress.complete();
                if nodes_spoke.swap(false, Ordering::Relaxed) || Instant::now() >= again {
                    let is_done = reporter.look(reading).await;
                    again = Instant::now() + if is_done { LOOK_ANYWAY } else { LOOK };
                }
                events.tell(&warnings(&reading.manifests.problems, &reading.manifests.snapshot)).await;
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
    progress: Arc<Progress>,
}

impl Reporter {
    /// Writes what changed; tells whether all of it is written. Cost: a comparison for each policy.
    async fn look(&mut self, reading: &Reading) -> bool {
        let snapshot = &reading.manifests.snapshot;
        self.selected.update(snapshot);
        let (mut written, mut is_done, mut phases) = (0, true, BTreeMap::new());
        for (name, policy) in &snapshot.policies {
            let report = self.report_on(name, policy, reading);
            *phases.entry(report.phase).or_insert(0) += 1;
            if self.told.get(name) == Some(&report) {
                continue;
            }
            if written < WRITES_MAX {
                written += 1;
                let outcome = self.write(name, policy, &report).await;
                self.progress.wrote(outcome.is_ok());
                if let Err(error) = outcome {
                    tracing::warn!(policy = %name, %error, "cannot write the status of a policy");
                    return false;
                }
                self.told.insert(name.clone(), report);
            } else {
                is_done = false;
            }
        }
        self.progress.counted(phases);
        let gone: Vec<ObjectName> = self.told.keys().filter(|name| !snapshot.policies.contains_key(*name)).cloned().collect();
        is_done &= gone.len() <= WRITES_MAX;
        for name in gone.into_iter().take(WRITES_MAX) {
            let api: Api<PolicyStatus> = Api::namespaced(self.client.clone(), &name.namespace);
            match api.delete(&name.name, &DeleteParams::default()).await {
                // the garbage collector was there before
                Ok(_) | Err(kube::Error::Api(_)) => drop(self.told.remove(&name)),
                Err(error) => {
                    tracing::warn!(policy = %name, %error, "cannot delete the status of a policy");
                    return false;
                }
            }
        }
        is_done
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
