//! What each kind of remote gets from each profile: signature → column of rows.
//!
//! A signature says which rules match a remote and which named ports it has; a column says for each profile which row
//! follows from that. Both are remembered as long as rules, profiles and namespaces stay the same; their numbers are
//! those of first use and mean nothing outside of here.

use super::model::{Model, Namespaces, Profile};
use super::pods::{LabelSet, NamedPorts, Pods};
use super::ports::Rows;
use super::rules::{Namespaces as PeerNamespaces, Peer, Rule};
use sluice_flow::Direction;
use std::collections::HashMap;
use std::sync::Arc;

/// Rules matched by block or by pod, and the named ports found there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Signature {
    rules: Vec<u32>,
    named: Option<Arc<NamedPorts>>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Columns {
    rules: Vec<Arc<Rule>>,
    profiles: Vec<Profile>,
    namespaces_version: u64,
    label_set_numbering: u64,
    /// For each label set the rules whose pod peers match it, ascending; `None` until somebody asks.
    matched: Vec<Option<Arc<Vec<u32>>>>,
    pub(super) rows: Rows,
    columns: Vec<Vec<u32>>,
    column_of_signature: HashMap<Signature, u32>,
    column_ids: HashMap<Vec<u32>, u32>,
}

/// How many signatures may be remembered before all are forgotten.
const REMEMBERED_MAX: usize = 1 << 18;

impl Columns {
    /// Forgets what no longer holds for `model`.
    pub(super) fn renew(&mut self, model: &Model<'_>, namespaces: &Namespaces, pods: &Pods) {
        let same_rules = self.rules.len() == model.rules.len() && self.rules.iter().zip(&model.rules).all(|(a, b)| Arc::ptr_eq(a, b));
        let same_sets = self.namespaces_version == namespaces.version && self.label_set_numbering == pods.numbering;
        let same_matches = same_rules && same_sets;
        if !same_matches || self.profiles != model.profiles || self.column_of_signature.len() > REMEMBERED_MAX {
            let matched = if same_matches { std::mem::take(&mut self.matched) } else { Vec::new() };
            let (rules, profiles) = (model.rules.clone(), model.profiles.clone());
            let (namespaces_version, label_set_numbering) = (namespaces.version, pods.numbering);
            *self = Self { rules, profiles, namespaces_version, label_set_numbering, matched, ..Self::default() };
        }
        self.matched.resize(pods.label_sets.len(), None);
    }

    pub(super) fn column(&self, id: u32) -> &[u32] {
        &self.columns[id as usize]
    }

    /// The column of an address outside of all pods, `by_block` being the rules whose blocks hold it.
    pub(super) fn of_block(&mut self, model: &Model<'_>, by_block: &[u32]) -> u32 {
        self.of(model, Signature { rules: by_block.to_vec(), named: None })
    }

    /// The column of an address that pods claim. Where several do, it matches a selector, and offers a named port, only
    /// as all of them do.
    pub(super) fn of_pods(&mut self, model: &Model<'_>, memory: (&Namespaces, &Pods), by_block: &[u32], claims: &[u32]) -> u32 {
        let pods: Vec<_> = claims.iter().map(|&pod| &*model.pods[pod as usize]).collect();
        let mut common: Vec<u32> = self.matched(memory, pods[0].label_set).to_vec();
        let mut named = Arc::clone(&pods[0].named_ports);
        for other in &pods[1..] {
            let others = self.matched(memory, other.label_set);
            common.retain(|rule| others.binary_search(rule).is_ok());
            named = Arc::new(intersection(&named, &other.named_ports));
        }
        if pods.len() > 1 {
            // one peer must match them all; two peers that match one each do not add up
            let set = |label_set: u32| &*memory.1.label_sets[label_set as usize];
            let matches_all = |peer: &Peer| pods.iter().all(|pod| peer_matches(memory.0, peer, set(pod.label_set)));
            common.retain(|&rule| model.rules[rule as usize].peers.iter().flatten().any(matches_all));
        }
        common.extend_from_slice(by_block);
        common.sort_unstable();
        common.dedup();
        self.of(model, Signature { rules: common, named: Some(named) })
    }

    /// The rules whose pod peers match a label set.
    fn matched(&mut self, (namespaces, pods): (&Namespaces, &Pods), label_set: u32) -> Arc<Vec<u32>> {
        let rules = &self.rules;
        let matching = || {
            let set = &pods.label_sets[label_set as usize];
            let matches = |rule: &Rule| rule.peers.iter().flatten().any(|peer| peer_matches(namespaces, peer, set));
            Arc::new((0u32..).zip(rules).filter(|(_, rule)| matches(rule)).map(|(id, _)| id).collect())
        };
        Arc::clone(self.matched[label_set as usize].get_or_insert_with(matching))
    }

    fn of(&mut self, model: &Model<'_>, signature: Signature) -> u32 {
        if let Some(&column) = self.column_of_signature.get(&signature) {
            return column;
        }
        let rows = model.profiles.iter().map(|profile| self.row(model, profile, &signature)).collect();
        let next = self.columns.len() as u32;
        let column = *self.column_ids.entry(rows).or_insert_with_key(|rows| {
            self.columns.push(rows.clone());
            next
        });
        self.column_of_signature.insert(signature, column);
        column
    }

    fn row(&mut self, model: &Model<'_>, profile: &Profile, signature: &Signature) -> u32 {
        let allows = |rule: &u32| model.rules[*rule as usize].peers.is_none() || signature.rules.binary_search(rule).is_ok();
        let allowing: Vec<u32> = profile.rules.iter().copied().filter(allows).collect();
        let destination = match profile.direction {
            Direction::Ingress => Some(&*profile.named_ports),
            Direction::Egress => signature.named.as_deref(),
        };
        self.rows.row(&model.rules, &allowing, destination)
    }
}

fn peer_matches(namespaces: &Namespaces, peer: &Peer, set: &LabelSet) -> bool {
    match peer {
        Peer::Block { .. } => false,
        Peer::Pods { namespaces: which, pods } => {
            let in_namespace = match which {
                PeerNamespaces::Own(namespace) => *namespace == set.namespace,
                PeerNamespaces::Selected(selector) => selector.matches(namespaces.labels(&set.namespace)),
            };
            in_namespace && pods.matches(&set.labels)
        }
    }
}

fn intersection(ports: &NamedPorts, other: &NamedPorts) -> NamedPorts {
    let mut common = ports.clone();
    for (key, numbers) in &mut common {
        numbers.retain(|number| other.get(key).is_some_and(|others| others.contains(number)));
    }
    common.retain(|_, numbers| !numbers.is_empty());
    common
}
