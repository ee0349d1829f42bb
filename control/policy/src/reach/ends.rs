//! The ends of connections: classes of pods, and regions of addresses that are no pod's.
//!
//! The survey looks at one state or at two side by side. With two, an end is what neither state can tell apart, so that
//! its verdict in each has one meaning, and a pod that only one of them has is an end that only one of them has.

use super::assume::{Assumption, assume};
use super::blocks::{Blocks, family_of};
use super::mentions::{Mentions, Traits};
use super::naming::Naming;
use super::{Options, ReachError, State};
use crate::oracle::Oracle;
use crate::{ObjectName, Snapshot};
use ipnet::IpNet;
use sluice_flow::{Family, Protocol};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The ends of some states, and how each state is asked about them.
#[derive(Debug)]
pub struct Survey {
    /// Pods by namespace and name, then regions: mentioned ones, and all other addresses last.
    pub ends: Vec<End>,
    /// About pods without an address.
    pub assumption: Assumption,
    /// Pods on their node's network: no end, because they are their node's address.
    pub host_network: Vec<ObjectName>,
    /// Whether rows are classes, not workloads.
    pub by_class: bool,
    /// Each state with the assumed addresses.
    pub(super) snapshots: Vec<Snapshot>,
    pub(super) selected: Vec<bool>,
}

/// One row and column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// What it is called; no two ends share a name.
    pub name: String,
    /// What it stands for.
    pub kind: EndKind,
    /// Who answers for it in each state; `None` where the state does not have it.
    pub(super) speakers: Vec<Option<Speaker>>,
}

/// What an end stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndKind {
    /// Pods that no policy can tell apart.
    Pods {
        /// Of all of them.
        namespace: String,
        /// Which ones, by name; a pod made from a template is named like its workload.
        pods: Vec<ObjectName>,
        /// `Deployment`, or nothing for pods that stand for themselves.
        workload: Option<&'static str>,
        /// Whether it is exactly one pod, which has nobody of its own to talk to.
        is_single: bool,
        /// Ports that some container declares.
        ports: Vec<DeclaredPort>,
    },
    /// Addresses in one of these CIDRs that are in no other CIDR inside it and are no pod's. All are treated alike.
    Blocks(Vec<IpNet>),
    /// Every other address that is no pod's.
    Elsewhere,
}

/// A port of a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeclaredPort {
    /// The protocol.
    pub protocol: Protocol,
    /// The number.
    pub port: u16,
    /// Its name.
    pub name: Option<String>,
}

/// Who answers for an end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Speaker {
    /// Whose policies are asked; `None` for addresses that are no pod's.
    pub(super) pod: Option<ObjectName>,
    pub(super) v4: Option<IpAddr>,
    pub(super) v6: Option<IpAddr>,
}

impl Speaker {
    pub(super) fn address(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

impl End {
    /// Whether it is pods.
    pub fn is_pods(&self) -> bool {
        matches!(self.kind, EndKind::Pods { .. })
    }

    /// Its namespace, if it is pods.
    pub fn namespace(&self) -> Option<&str> {
        match &self.kind {
            EndKind::Pods { namespace, .. } => Some(namespace),
            EndKind::Blocks(_) | EndKind::Elsewhere => None,
        }
    }

    /// Ports that its containers declare.
    pub fn ports(&self) -> &[DeclaredPort] {
        match &self.kind {
            EndKind::Pods { ports, .. } => ports,
            EndKind::Blocks(_) | EndKind::Elsewhere => &[],
        }
    }

    /// Whether the state of this index has it.
    pub fn is_in(&self, state: usize) -> bool {
        self.speakers.get(state).is_some_and(Option::is_some)
    }
}

/// Finds the ends of `states`. Cost: each pod once for each state, and each mention once for each pod of its namespace.
pub(super) fn survey(states: &[State<'_>], options: &Options) -> Result<Survey, ReachError> {
    let blocks = Blocks::of(states.iter().map(|state| state.snapshot));
    let (snapshots, assumption) = assume(states, &blocks, &options.pod_cidrs)?;
    let oracles: Vec<Oracle<'_>> = snapshots.iter().map(Oracle::new).collect();
    let mentions: Vec<Mentions> = snapshots.iter().map(Mentions::of).collect();
    let mut classes: BTreeMap<(&str, Vec<Option<Traits>>), Vec<&ObjectName>> = BTreeMap::new();
    let names: BTreeSet<&ObjectName> = snapshots.iter().flat_map(|snapshot| snapshot.pods.keys()).collect();
    for &name in &names {
        let traits = |state: usize| {
            let oracle = &oracles[state];
            let takes_part = oracle.is_peer(name) && !oracle.addresses_of(name).is_empty();
            takes_part.then(|| mentions[state].traits(oracle, &snapshots[state], &blocks, name))
        };
        let key: Vec<Option<Traits>> = (0..states.len()).map(traits).collect();
        if key.iter().any(Option::is_some) {
            classes.entry((&name.namespace, key)).or_default().push(name);
        }
    }
    let host_network = names.iter().filter(|name| states.iter().any(|state| is_on_host_network(state.snapshot, name)));
    let host_network = host_network.map(|&name| name.clone()).collect();
    let naming = Naming { states, snapshots: &snapshots };
    let (mut ends, by_class) = naming.pod_ends(&classes, options.grouping);
    for end in &mut ends {
        let EndKind::Pods { pods, .. } = &end.kind else { continue };
        end.speakers = oracles.iter().map(|oracle| speaker(oracle, &pods[0])).collect();
    }
    ends.extend(regions(&blocks, &oracles));
    let mut selected = selection(&ends, states, options)?;
    drop(oracles);
    if options.inside {
        let mut chosen = selected.iter();
        ends.retain(|end| *chosen.next().expect("one for each end") || !end.is_pods());
        selected = vec![true; ends.len()];
    }
    Ok(Survey { ends, assumption, host_network, by_class, snapshots, selected })
}

fn speaker(oracle: &Oracle<'_>, pod: &ObjectName) -> Option<Speaker> {
    let addresses = oracle.addresses_of(pod);
    let first = |family| addresses.iter().copied().find(|address| family_of(*address) == family);
    (!addresses.is_empty()).then(|| Speaker { pod: Some(pod.clone()), v4: first(Family::V4), v6: first(Family::V6) })
}

fn is_on_host_network(snapshot: &Snapshot, name: &ObjectName) -> bool {
    let spec = snapshot.pods.get(name).and_then(|pod| pod.spec.as_ref());
    spec.and_then(|spec| spec.host_network) == Some(true)
}

/// One end for each region of a family that some pod has, and one for all other addresses.
fn regions(blocks: &Blocks, oracles: &[Oracle<'_>]) -> Vec<End> {
    let taken: BTreeSet<IpAddr> = oracles.iter().flat_map(Oracle::addresses).collect();
    let (mut ends, mut elsewhere) = (Vec::new(), Speaker::default());
    let speaking = |speaker: Speaker| vec![Some(speaker); oracles.len()];
    for family in [Family::V4, Family::V6].into_iter().filter(|family| taken.iter().any(|one| family_of(*one) == *family)) {
        for (net, address) in blocks.free(family, &taken) {
            let of = |speaker, address| match family {
                Family::V4 => Speaker { v4: Some(address), ..speaker },
                Family::V6 => Speaker { v6: Some(address), ..speaker },
            };
            if net.prefix_len() == 0 {
                elsewhere = of(elsewhere, stranger(blocks, &taken, net).unwrap_or(address));
            } else {
                let speakers = speaking(of(Speaker::default(), address));
                ends.push(End { name: net.to_string(), kind: EndKind::Blocks(vec![net]), speakers });
            }
        }
    }
    if elsewhere != Speaker::default() {
        let name = if ends.is_empty() { "outside" } else { "elsewhere" };
        ends.push(End { name: name.to_owned(), kind: EndKind::Elsewhere, speakers: speaking(elsewhere) });
    }
    ends
}

/// An address of nobody's that readers know as such (RFC 5737, RFC 3849), if it is as good as any other of the region.
fn stranger(blocks: &Blocks, taken: &BTreeSet<IpAddr>, region: IpNet) -> Option<IpAddr> {
    let known = ["203.0.113.7", "198.51.100.7", "192.0.2.7", "2001:db8::7"].map(|text| text.parse::<IpAddr>().expect("an address"));
    known.into_iter().find(|address| blocks.innermost(*address) == region && !taken.contains(address))
}

/// Which ends the caller asks about. An end that a selection does not find is a typing error, not an empty answer.
fn selection(ends: &[End], states: &[State<'_>], options: &Options) -> Result<Vec<bool>, ReachError> {
    if options.namespaces.is_empty() && options.pods.is_empty() {
        return Ok(vec![true; ends.len()]);
    }
    let holds = |end: &End, asked: &ObjectName| {
        let EndKind::Pods { pods, .. } = &end.kind else { return false };
        let workload = |pod| states.iter().find_map(|state| state.workloads.get(pod)).map(|workload| &workload.name);
        end.name == asked.to_string() || pods.iter().any(|pod| pod == asked || workload(pod) == Some(asked))
    };
    let mut selected = vec![false; ends.len()];
    let mut select = |wanted: &dyn Fn(&End) -> bool| {
        let found: Vec<usize> = (0..ends.len()).filter(|index| wanted(&ends[*index])).collect();
        found.iter().for_each(|index| selected[*index] = true);
        !found.is_empty()
    };
    for namespace in &options.namespaces {
        if !select(&|end| end.namespace() == Some(namespace)) {
            return Err(ReachError::NoNamespace(namespace.clone()));
        }
    }
    for pod in &options.pods {
        if !select(&|end| holds(end, pod)) {
            return Err(ReachError::NoPod(pod.clone()));
        }
    }
    Ok(selected)
}
