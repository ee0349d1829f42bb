//! What classes of pods are called, so that an operator recognises them.

use super::ends::{DeclaredPort, End, EndKind};
use super::mentions::Traits;
use super::{Grouping, State, WORKLOADS_SHOWN_MAX};
use crate::pod::{Container, Pod};
use crate::{ObjectName, Snapshot};
use sluice_flow::Protocol;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Workloads that the name of a class lists before it says how many more there are.
const LISTED_MAX: usize = 3;

/// Pods of one namespace, by what each state sees of them.
pub(super) type Classes<'a> = BTreeMap<(&'a str, Vec<Option<Traits>>), Vec<&'a ObjectName>>;

/// Names ends.
pub(super) struct Naming<'a> {
    pub(super) states: &'a [State<'a>],
    pub(super) snapshots: &'a [Snapshot],
}

/// What made a pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Maker {
    name: String,
    kind: Option<&'static str>,
}

impl Naming<'_> {
    /// The ends of all classes, without their speakers, and whether they are whole classes.
    pub(super) fn pod_ends(&self, classes: &Classes<'_>, grouping: Grouping) -> (Vec<End>, bool) {
        let mut groups: Vec<(&str, Vec<Maker>, Vec<&ObjectName>)> = Vec::new();
        for ((namespace, _), pods) in classes {
            let mut by_maker: BTreeMap<Maker, Vec<&ObjectName>> = BTreeMap::new();
            for &pod in pods {
                by_maker.entry(self.maker(pod)).or_default().push(pod);
            }
            groups.extend(by_maker.into_iter().map(|(maker, pods)| (*namespace, vec![maker], pods)));
        }
        let by_class = grouping == Grouping::Class || (grouping == Grouping::Auto && groups.len() > WORKLOADS_SHOWN_MAX);
        if by_class {
            groups = classes.iter().map(|((namespace, _), pods)| (*namespace, self.makers(pods), pods.clone())).collect();
        }
        let mut ends: Vec<End> = Vec::with_capacity(groups.len());
        let totals = totals(&groups);
        for (namespace, makers, pods) in groups {
            let name = format!("{namespace}/{}", short_name(namespace, &makers, &pods, &totals));
            ends.push(self.end(name, namespace, &makers, pods));
        }
        ends.sort_by(|a, b| (a.namespace(), &a.name).cmp(&(b.namespace(), &b.name)));
        make_unique(&mut ends);
        (ends, by_class)
    }

    fn end(&self, name: String, namespace: &str, makers: &[Maker], pods: Vec<&ObjectName>) -> End {
        let workload = if let [maker] = makers { maker.kind } else { None };
        let is_template = |pod: &ObjectName| self.states.iter().any(|state| state.workloads.contains_key(pod));
        let is_single = pods.len() == 1 && !is_template(pods[0]);
        let objects = pods.iter().flat_map(|&pod| self.snapshots.iter().filter_map(|snapshot| snapshot.pods.get(pod)));
        let ports: BTreeSet<DeclaredPort> = objects.flat_map(|pod| declared_ports(pod)).collect();
        let kind = EndKind::Pods {
            namespace: namespace.to_owned(),
            pods: pods.into_iter().cloned().collect(),
            workload,
            is_single,
            ports: ports.into_iter().collect(),
        };
        End { name, kind, speakers: Vec::new() }
    }

    fn makers(&self, pods: &[&ObjectName]) -> Vec<Maker> {
        let makers: BTreeSet<Maker> = pods.iter().map(|pod| self.maker(pod)).collect();
        makers.into_iter().collect()
    }

    fn maker(&self, pod: &ObjectName) -> Maker {
        if let Some(workload) = self.states.iter().find_map(|state| state.workloads.get(pod)) {
            return Maker { name: workload.name.name.clone(), kind: Some(workload.kind) };
        }
        let object = self.snapshots.iter().find_map(|snapshot| snapshot.pods.get(pod));
        object.and_then(|object| controller(object)).unwrap_or_else(|| Maker { name: pod.name.clone(), kind: None })
    }
}

/// The workload that a person knows: a ReplicaSet's Deployment, a Job's CronJob, else the controller itself.
fn controller(pod: &Pod) -> Option<Maker> {
    let owners = pod.metadata.owner_references.iter().flat_map(|owners| owners.iter());
    let owner = owners.into_iter().find(|owner| owner.controller == Some(true))?;
    let hash = pod.labels().get("pod-template-hash");
    let deployment = hash.and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'));
    // A CronJob names its Jobs by the minute: eight digits until the year 2160.
    let scheduled = owner.name.rsplit_once('-').filter(|(_, minute)| minute.len() == 8 && minute.bytes().all(|b| b.is_ascii_digit()));
    let (name, kind) = match (owner.kind.as_str(), deployment, scheduled) {
        ("ReplicaSet", Some(name), _) => (name, Some("Deployment")),
        ("ReplicaSet", None, _) => (owner.name.as_str(), Some("ReplicaSet")),
        ("Job", _, Some((name, _))) => (name, Some("CronJob")),
        ("Job", _, None) => (owner.name.as_str(), Some("Job")),
        ("StatefulSet", ..) => (owner.name.as_str(), Some("StatefulSet")),
        ("DaemonSet", ..) => (owner.name.as_str(), Some("DaemonSet")),
        _ => (owner.name.as_str(), None),
    };
    Some(Maker { name: name.to_owned(), kind })
}

/// How many pods each namespace has, and each maker in it.
type Totals = (BTreeMap<String, usize>, BTreeMap<(String, Maker), (usize, usize)>);

fn totals(groups: &[(&str, Vec<Maker>, Vec<&ObjectName>)]) -> Totals {
    let mut totals = Totals::default();
    for (namespace, makers, pods) in groups {
        *totals.0.entry((*namespace).to_owned()).or_default() += pods.len();
        for maker in makers {
            let (groups, of_maker) = totals.1.entry(((*namespace).to_owned(), maker.clone())).or_default();
            *groups += 1;
            *of_maker += pods.len();
        }
    }
    totals
}

fn short_name(namespace: &str, makers: &[Maker], pods: &[&ObjectName], (in_namespace, of_makers): &Totals) -> String {
    if let [maker] = makers {
        return match of_makers.get(&(namespace.to_owned(), maker.clone())) {
            Some((2.., _)) if pods.len() == 1 => pods[0].name.clone(),
            Some((2.., all)) => format!("{} ({} of {all})", maker.name, pods.len()),
            _ => maker.name.clone(),
        };
    }
    if in_namespace.get(namespace) == Some(&pods.len()) {
        return "*".to_owned();
    }
    let mut listed: Vec<&str> = makers.iter().take(LISTED_MAX).map(|maker| maker.name.as_str()).collect();
    let more = format!("{} more", makers.len().saturating_sub(LISTED_MAX));
    if makers.len() > LISTED_MAX {
        listed.push(&more);
    }
    format!("{{{}}}", listed.join(", "))
}

/// Two different workloads may look alike; a number tells them apart.
fn make_unique(ends: &mut [End]) {
    let mut seen: HashSet<String> = HashSet::new();
    for end in ends {
        let plain = end.name.clone();
        let mut number = 2;
        while !seen.insert(end.name.clone()) {
            end.name = format!("{plain} #{number}");
            number += 1;
        }
    }
}

/// What the containers declare that serve as long as the pod lives.
fn declared_ports(pod: &Pod) -> Vec<DeclaredPort> {
    let restartable = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let containers = pod.containers().iter().chain(pod.init_containers().iter().filter(restartable));
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let declared = ports.filter_map(|port| {
        let protocol = Protocol::from_name(port.protocol.as_deref().unwrap_or("TCP"))?;
        Some(DeclaredPort { protocol, port: port.container_port.try_into().ok()?, name: port.name.clone() })
    });
    declared.collect()
}
