//! Addresses → classes.
//!
//! The bounds of all blocks cut each family's address space into intervals; every pod address is an atom of its own. What
//! an atom matches is the union of the rules that match its interval by block and the rules that match its pods by
//! selector. Atoms are then merged by their column: the row of every profile.

use super::model::{Model, ModelPod, NamedPorts, Namespaces, Peer, Rule};
use super::ports::Rows;
use super::{CompileError, capacity};
use sluice_flow::Direction;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::rc::Rc;

/// A namespace and a label set: pods that share both are matched by the same rules.
type LabelSet<'a> = (&'a str, Vec<(&'a str, &'a str)>);
/// Rule ids, ascending; shared by all pods of a label set.
type MatchedRules = Rc<Vec<u32>>;

/// The result: intervals and exact addresses with their class, and for each class its column.
pub(super) struct Classes {
    pub(super) v4_intervals: Vec<(u32, u16)>,
    pub(super) v6_intervals: Vec<(u128, u16)>,
    pub(super) v6_exact: Vec<(u128, u16)>,
    columns: Vec<Vec<u16>>,
}

impl Classes {
    pub(super) fn count(&self) -> usize {
        self.columns.len()
    }

    /// The row of each class for one profile.
    pub(super) fn rows_of_profile(&self, profile: usize) -> Vec<u16> {
        self.columns.iter().map(|column| column[profile]).collect()
    }
}

pub(super) fn classify(model: &Model<'_>, rows: &mut Rows<'_>) -> Result<Classes, CompileError> {
    let by_pods = pod_matches(model);
    let mut classifier =
        Classifier { model, rows, columns: Vec::new(), class_of_column: HashMap::new(), class_of_signature: HashMap::new() };

    let v4 = Sweep::of(model, false);
    let mut v4_intervals = Vec::new();
    let mut push = |start: u32, class: u16| match v4_intervals.last() {
        Some(&(_, last)) if last == class => {}
        _ => v4_intervals.push((start, class)),
    };
    let mut pods = model.addresses.iter().filter_map(|(address, pods)| match address {
        IpAddr::V4(v4) => Some((u32::from(*v4), pods)),
        IpAddr::V6(_) => None,
    });
    let mut pod = pods.next();
    for (index, &(start, ref rules)) in v4.intervals.iter().enumerate() {
        let start = start as u32;
        let last = v4.intervals.get(index + 1).map_or(u32::MAX, |next| (next.0 - 1) as u32);
        let outside = classifier.class(rules, None)?;
        let mut next = Some(start);
        while let Some((address, members)) = pod.filter(|(address, _)| *address <= last) {
            if let Some(from) = next.filter(|&from| from < address) {
                push(from, outside);
            }
            push(address, classifier.class(rules, Some((members, &by_pods)))?);
            next = (address < last).then(|| address + 1);
            pod = pods.next();
        }
        if let Some(from) = next {
            push(from, outside);
        }
    }

    let v6 = Sweep::of(model, true);
    let (mut v6_intervals, mut v6_exact) = (Vec::new(), Vec::new());
    for (start, rules) in &v6.intervals {
        v6_intervals.push((*start, classifier.class(rules, None)?));
    }
    for (address, members) in &model.addresses {
        if let IpAddr::V6(address) = address {
            let address = u128::from(*address);
            let interval = v6.intervals.partition_point(|(start, _)| *start <= address) - 1;
            v6_exact.push((address, classifier.class(&v6.intervals[interval].1, Some((members, &by_pods)))?));
        }
    }
    let columns = classifier.columns;
    Ok(Classes { v4_intervals, v6_intervals, v6_exact, columns })
}

/// For each pod the rules whose pod peers match it, ascending. Pods with equal labels and namespace are matched once.
fn pod_matches(model: &Model<'_>) -> Vec<MatchedRules> {
    let mut memo: HashMap<LabelSet<'_>, MatchedRules> = HashMap::new();
    model
        .pods
        .iter()
        .map(|pod| {
            let labels = pod.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            let matched = memo.entry((pod.name.namespace.as_str(), labels)).or_insert_with(|| {
                let matching = (0u32..).zip(&model.rules).filter(|(_, rule)| matches_pod(model, rule, pod)).map(|(id, _)| id);
                Rc::new(matching.collect())
            });
            matched.clone()
        })
        .collect()
}

fn matches_pod(model: &Model<'_>, rule: &Rule, pod: &ModelPod<'_>) -> bool {
    rule.peers.iter().flatten().any(|peer| peer_matches_pod(model, peer, pod))
}

fn peer_matches_pod(model: &Model<'_>, peer: &Peer, pod: &ModelPod<'_>) -> bool {
    match peer {
        Peer::Block { .. } => false,
        Peer::Pods { namespaces, pods } => {
            let in_namespace = match namespaces {
                Namespaces::Own(namespace) => *namespace == pod.name.namespace,
                Namespaces::Selected(selector) => selector.matches(&model.namespace_labels[pod.name.namespace.as_str()]),
            };
            in_namespace && pods.matches(pod.labels)
        }
    }
}

/// One family's address space, cut at every bound of a block; each interval with the rules whose blocks cover it.
struct Sweep {
    intervals: Vec<(u128, Vec<u32>)>,
}

impl Sweep {
    fn of(model: &Model<'_>, family_v6: bool) -> Self {
        let mut ranges: Vec<(u128, u128, u32)> = Vec::new();
        for (id, rule) in (0u32..).zip(&model.rules) {
            for peer in rule.peers.iter().flatten() {
                if let Peer::Block { v6, ranges: block } = peer
                    && *v6 == family_v6
                {
                    ranges.extend(block.iter().map(|&(first, last)| (first, last, id)));
                }
            }
        }
        let end = if family_v6 { u128::MAX } else { u128::from(u32::MAX) };
        let mut bounds: BTreeSet<u128> = BTreeSet::from([0]);
        for &(first, last, _) in &ranges {
            bounds.insert(first);
            bounds.extend((last < end).then(|| last + 1));
        }
        let mut intervals: Vec<(u128, Vec<u32>)> = bounds.into_iter().map(|start| (start, Vec::new())).collect();
        for (first, last, id) in ranges {
            let from = intervals.partition_point(|(start, _)| *start < first);
            for (_, rules) in intervals[from..].iter_mut().take_while(|(start, _)| *start <= last) {
                rules.push(id);
            }
        }
        for (_, rules) in &mut intervals {
            rules.sort_unstable();
            rules.dedup();
        }
        Self { intervals }
    }
}

/// What is known of an atom: rules matched by block and by pod, and the named ports found there.
type Signature = (Vec<u32>, Option<NamedPorts>);

struct Classifier<'m, 'a, 'r, 'n> {
    model: &'m Model<'a>,
    rows: &'r mut Rows<'n>,
    columns: Vec<Vec<u16>>,
    class_of_column: HashMap<Vec<u16>, u16>,
    class_of_signature: HashMap<Signature, u16>,
}

impl Classifier<'_, '_, '_, '_> {
    /// The class of an atom. An address that several pods claim matches a selector, and offers a named port, only
    /// where all of them do.
    fn class(&mut self, by_block: &[u32], members: Option<(&[usize], &[MatchedRules])>) -> Result<u16, CompileError> {
        let mut rules: Vec<u32> = by_block.to_vec();
        let mut named: Option<NamedPorts> = None;
        if let Some((pods, by_pods)) = members {
            let mut common: Vec<u32> = by_pods[pods[0]].to_vec();
            let mut ports = self.model.pods[pods[0]].named_ports.clone();
            for &other in &pods[1..] {
                common.retain(|rule| by_pods[other].binary_search(rule).is_ok());
                ports = intersection(ports, &self.model.pods[other].named_ports);
            }
            if pods.len() > 1 {
                // one peer must match them all; two peers that match one each do not add up
                let matches_all = |peer: &Peer| pods.iter().all(|&pod| peer_matches_pod(self.model, peer, &self.model.pods[pod]));
                common.retain(|&rule| self.model.rules[rule as usize].peers.iter().flatten().any(matches_all));
            }
            rules.extend(common);
            rules.sort_unstable();
            rules.dedup();
            named = Some(ports);
        }
        let signature = (rules, named);
        if let Some(&class) = self.class_of_signature.get(&signature) {
            return Ok(class);
        }
        let column = self.column(&signature)?;
        let class = match self.class_of_column.get(&column) {
            Some(&class) => class,
            None => {
                capacity("address classes", self.columns.len() + 1, usize::from(u16::MAX))?;
                let class = self.columns.len() as u16;
                self.columns.push(column.clone());
                self.class_of_column.insert(column, class);
                class
            }
        };
        self.class_of_signature.insert(signature, class);
        Ok(class)
    }

    fn column(&mut self, (rules, named): &Signature) -> Result<Vec<u16>, CompileError> {
        let mut column = Vec::with_capacity(self.model.profiles.len());
        for profile in &self.model.profiles {
            let allowing: Vec<u32> = profile
                .rules
                .iter()
                .copied()
                .filter(|rule| self.model.rules[*rule as usize].peers.is_none() || rules.binary_search(rule).is_ok())
                .collect();
            let destination = match profile.direction {
                Direction::Ingress => Some(&profile.named_ports),
                Direction::Egress => named.as_ref(),
            };
            column.push(self.rows.row(&allowing, destination)?);
        }
        Ok(column)
    }
}

fn intersection(mut ports: NamedPorts, other: &NamedPorts) -> NamedPorts {
    for (key, numbers) in &mut ports {
        numbers.retain(|number| other.get(key).is_some_and(|others| others.contains(number)));
    }
    ports.retain(|_, numbers| !numbers.is_empty());
    ports
}
