//! When everything that one selector, peer or port entry matches is certain to be matched by another.
//!
//! A selector is, for each label key, a set of permitted states: some values, and perhaps "not there". Each operator cuts
//! that set; sets are finite or the complement of a finite one, so that containment is decided exactly. Label values are
//! treated as endless, which can only lose a containment, never invent one.

use crate::lint::cluster::Cluster;
use crate::oracle::protocol_of;
use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::{BTreeMap, BTreeSet};

/// The label that holds a namespace's name.
pub(in crate::lint) const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// What a selector permits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::lint) struct Permitted<'s> {
    keys: BTreeMap<&'s str, States<'s>>,
}

/// What a selector permits for one key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct States<'s> {
    absent: bool,
    values: Values<'s>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Values<'s> {
    Only(BTreeSet<&'s str>),
    AllBut(BTreeSet<&'s str>),
}

impl<'s> States<'s> {
    fn all() -> Self {
        Self { absent: true, values: Values::AllBut(BTreeSet::new()) }
    }

    fn is_empty(&self) -> bool {
        !self.absent && matches!(&self.values, Values::Only(values) if values.is_empty())
    }

    fn intersect(&self, other: &Self) -> Self {
        let values = match (&self.values, &other.values) {
            (Values::Only(a), Values::Only(b)) => Values::Only(a & b),
            (Values::Only(only), Values::AllBut(but)) | (Values::AllBut(but), Values::Only(only)) => Values::Only(only - but),
            (Values::AllBut(a), Values::AllBut(b)) => Values::AllBut(a | b),
        };
        Self { absent: self.absent && other.absent, values }
    }

    fn within(&self, other: &Self) -> bool {
        let values = match (&self.values, &other.values) {
            (Values::Only(a), Values::Only(b)) => a.is_subset(b),
            (Values::Only(only), Values::AllBut(but)) => only.is_disjoint(but),
            (Values::AllBut(a), Values::AllBut(b)) => b.is_subset(a),
            (Values::AllBut(_), Values::Only(_)) => false,
        };
        values && (!self.absent || other.absent)
    }
}

impl<'s> Permitted<'s> {
    pub(in crate::lint) fn by(selector: &'s LabelSelector) -> Self {
        let mut permitted = Self::default();
        for (key, value) in selector.match_labels.iter().flatten() {
            permitted.cut(key, States { absent: false, values: Values::Only([value.as_str()].into()) });
        }
        for requirement in selector.match_expressions.iter().flatten() {
            let listed: BTreeSet<&str> = requirement.values.iter().flatten().map(String::as_str).collect();
            let (absent, values) = match requirement.operator.as_str() {
                "In" => (false, Values::Only(listed)),
                "NotIn" => (true, Values::AllBut(listed)),
                "Exists" => (false, Values::AllBut(BTreeSet::new())),
                "DoesNotExist" => (true, Values::Only(BTreeSet::new())),
                // Holds never; the loader refuses it.
                _ => (false, Values::Only(BTreeSet::new())),
            };
            permitted.cut(&requirement.key, States { absent, values });
        }
        permitted
    }

    /// Only the namespace of this name.
    fn namespace(name: &'s str) -> Self {
        let mut permitted = Self::default();
        permitted.cut(NAMESPACE_NAME, States { absent: false, values: Values::Only([name].into()) });
        permitted
    }

    fn cut(&mut self, key: &'s str, states: States<'s>) {
        let before = self.keys.entry(key).or_insert_with(States::all);
        *before = before.intersect(&states);
    }

    /// Whether no labels at all can satisfy it.
    pub(in crate::lint) fn is_contradiction(&self) -> bool {
        self.keys.values().any(States::is_empty)
    }

    /// Whether everything that satisfies this satisfies `other`.
    pub(in crate::lint) fn within(&self, other: &Self) -> bool {
        let all = States::all();
        self.is_contradiction() || other.keys.iter().all(|(key, states)| self.keys.get(key).unwrap_or(&all).within(states))
    }

    /// Whether some labels could satisfy both.
    pub(in crate::lint) fn meets(&self, other: &Self) -> bool {
        let mut both = self.clone();
        other.keys.iter().for_each(|(key, states)| both.cut(key, states.clone()));
        !both.is_contradiction()
    }
}

/// Whether every pod that `selector` selects is selected by `other`; an absent selector is an empty one.
pub(in crate::lint) fn selector_within(selector: Option<&LabelSelector>, other: Option<&LabelSelector>) -> bool {
    let permitted = |selector: Option<&'_ LabelSelector>| selector.cloned().unwrap_or_default();
    let (a, b) = (permitted(selector), permitted(other));
    Permitted::by(&a).within(&Permitted::by(&b))
}

/// Whether every packet that `peer` matches is matched by `other`, for policies of one namespace.
pub(super) fn peer_within(cluster: &Cluster<'_>, own_namespace: &str, peer: &NetworkPolicyPeer, other: &NetworkPolicyPeer) -> bool {
    match (&peer.ip_block, &other.ip_block) {
        (Some(block), Some(outer)) => block_within(block, outer),
        (None, None) => {
            namespaces_within(cluster, own_namespace, peer, other)
                && selector_within(peer.pod_selector.as_ref(), other.pod_selector.as_ref())
        }
        // Which pods have which addresses changes from day to day.
        (Some(_), None) | (None, Some(_)) => false,
    }
}

fn namespaces_within(cluster: &Cluster<'_>, own_namespace: &str, peer: &NetworkPolicyPeer, other: &NetworkPolicyPeer) -> bool {
    let own = Permitted::namespace(own_namespace);
    match (&peer.namespace_selector, &other.namespace_selector) {
        (None, None) => true,
        (Some(namespaces), Some(outer)) => Permitted::by(namespaces).within(&Permitted::by(outer)),
        (Some(namespaces), None) => Permitted::by(namespaces).within(&own),
        (None, Some(outer)) => {
            let outer_permits = Permitted::by(outer);
            own.within(&outer_permits) || cluster.is_written(own_namespace) && cluster.oracle.namespace_matches(outer, own_namespace)
        }
    }
}

/// Each except of `outer` that touches `block` must lie inside one of the block's own.
fn block_within(block: &IPBlock, outer: &IPBlock) -> bool {
    let nets = |texts: &Option<Vec<String>>| texts.iter().flatten().map(|text| text.parse().ok()).collect::<Option<Vec<IpNet>>>();
    let parsed = (block.cidr.parse::<IpNet>(), outer.cidr.parse::<IpNet>(), nets(&block.except), nets(&outer.except));
    let (Ok(net), Ok(outer_net), Some(excepts), Some(outer_excepts)) = parsed else { return false };
    let apart = |a: &IpNet, b: &IpNet| !a.contains(b) && !b.contains(a);
    outer_net.contains(&net) && outer_excepts.iter().all(|except| apart(except, &net) || excepts.iter().any(|own| own.contains(except)))
}

/// Whether every port that `entry` matches is matched by `other`, at any one destination.
pub(super) fn port_within(entry: &NetworkPolicyPort, other: &NetworkPolicyPort) -> bool {
    if protocol_of(entry) != protocol_of(other) {
        return false;
    }
    match (&entry.port, &other.port) {
        (_, None) => true,
        (Some(IntOrString::Int(first)), Some(IntOrString::Int(outer))) => {
            let (last, outer_last) = (entry.end_port.unwrap_or(*first), other.end_port.unwrap_or(*outer));
            outer <= first && last <= outer_last
        }
        (Some(IntOrString::String(name)), Some(IntOrString::String(outer))) => name == outer,
        _ => false,
    }
}
