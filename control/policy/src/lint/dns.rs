//! What egress isolation leaves of name resolution, judged over all policies that add up for a pod.
//!
//! Pods are grouped by the set of selectors that select them; what each selector's policies open together is worked out
//! once. Where a namespace's pods are unknown, each policy stands for the pods it would select: they may have every policy
//! whose selector does not contradict this one, so what none of those allows is cut off for certain.

use super::cluster::Cluster;
use super::covered::subset::{NAMESPACE_NAME, Permitted};
use super::{Findings, Grouped, RuleView, WarningKind, names, rules_in_force, spec};
use crate::load::Field;
use crate::oracle::{names_direction, protocol_of, selector_text};
use k8s_openapi::api::networking::v1::{NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sluice_flow::{Direction, ObjectName, Protocol};
use std::collections::BTreeMap;

/// Where clusters keep their DNS servers.
const DNS_NAMESPACE: &str = "kube-system";
const DNS_PORT: i32 = 53;

const SUGGESTED: &str = "add a rule that allows it, for instance\n    - to:\n      - namespaceSelector:\n          matchLabels:\n            \
     kubernetes.io/metadata.name: kube-system\n      ports:\n      - {port: 53, protocol: UDP}\n      - {port: 53, protocol: TCP}";

/// What some policies open together.
#[derive(Debug, Clone, Default)]
struct Open<'a> {
    /// The first policy with an egress rule, and that rule's field.
    anything: Option<Place<'a>>,
    /// The first rule that allows DNS over UDP, and over TCP.
    udp: Option<Place<'a>>,
    tcp: Option<Place<'a>>,
}

/// A policy and a field of it.
type Place<'a> = (&'a ObjectName, Field);

impl<'a> Open<'a> {
    fn add(&mut self, other: &Self) {
        let first = |mine: &mut Option<Place<'a>>, theirs: &Option<Place<'a>>| {
            if let Some(place) = theirs.as_ref().filter(|place| mine.as_ref().is_none_or(|mine| place.0 < mine.0)) {
                *mine = Some(place.clone());
            }
        };
        first(&mut self.anything, &other.anything);
        first(&mut self.udp, &other.udp);
        first(&mut self.tcp, &other.tcp);
    }
}

/// The egress policies of a namespace that share one selector.
struct Class<'a> {
    selector: LabelSelector,
    policies: Vec<(&'a ObjectName, Open<'a>)>,
    open: Open<'a>,
}

pub(super) fn check(cluster: &Cluster<'_>, found: &mut Findings<'_>) {
    let mut namespaces: BTreeMap<&str, BTreeMap<String, Class<'_>>> = BTreeMap::new();
    for (name, policy) in &cluster.snapshot.policies {
        if !names_direction(policy, Direction::Egress) || !cluster.policies_known(&name.namespace) {
            continue;
        }
        let selector = spec(policy).and_then(|spec| spec.pod_selector.clone()).unwrap_or_default();
        let mut open = Open::default();
        rules_in_force(name, policy)
            .filter(|rule| rule.direction == Direction::Egress)
            .for_each(|rule| open.add(&opened(cluster, name, &rule)));
        let classes = namespaces.entry(&name.namespace).or_default();
        let class =
            classes.entry(selector_text(&selector)).or_insert_with(|| Class { selector, policies: Vec::new(), open: Open::default() });
        class.open.add(&open);
        class.policies.push((name, open));
    }
    for (namespace, classes) in namespaces {
        let classes: Vec<Class<'_>> = classes.into_values().collect();
        if cluster.pods_known(namespace) {
            known_pods(cluster, namespace, &classes, found);
        } else {
            unknown_pods(cluster, &classes, found);
        }
    }
}

fn opened<'a>(cluster: &Cluster<'_>, name: &'a ObjectName, rule: &RuleView<'_>) -> Open<'a> {
    let place = || Some((name, rule.field.clone()));
    let mut open = Open { anything: place(), ..Open::default() };
    let may_be_dns = || rule.peers.is_empty() || rule.peers.iter().any(|peer| may_hold_dns(cluster, name, peer));
    let allows = |protocol| {
        rule.ports.iter().any(|port| is_dns_by_name(port, protocol))
            || (rule.ports.is_empty() || rule.ports.iter().any(|port| holds_dns_port(port, protocol))) && may_be_dns()
    };
    if allows(Protocol::UDP) {
        open.udp = place();
    }
    if allows(Protocol::TCP) {
        open.tcp = place();
    }
    open
}

/// The entry names DNS itself: port 53, or a port called dns.
fn is_dns_by_name(port: &NetworkPolicyPort, protocol: Protocol) -> bool {
    protocol_of(port) == Some(protocol)
        && match &port.port {
            Some(IntOrString::Int(number)) => *number == DNS_PORT,
            Some(IntOrString::String(name)) => name.contains("dns") || name == "domain",
            None => false,
        }
}

fn holds_dns_port(port: &NetworkPolicyPort, protocol: Protocol) -> bool {
    protocol_of(port) == Some(protocol)
        && match (&port.port, port.end_port) {
            (None, _) => true,
            (Some(IntOrString::Int(first)), Some(last)) => (*first..=last).contains(&DNS_PORT),
            _ => false,
        }
}

/// Whether a rule for all ports may be meant to reach a DNS server through this peer. Doubt counts as yes.
fn may_hold_dns(cluster: &Cluster<'_>, policy: &ObjectName, peer: &NetworkPolicyPeer) -> bool {
    let pods = peer.pod_selector.clone().unwrap_or_default();
    if peer.ip_block.is_some() || selector_text(&pods).contains("dns") {
        return true;
    }
    let serves =
        |pod: &ObjectName| [Protocol::UDP, Protocol::TCP].into_iter().any(|protocol| cluster.declares_port(pod, DNS_PORT, protocol));
    if cluster.peer_pods(&policy.namespace, peer).any(|pod| cluster.step() && serves(pod)) {
        return true;
    }
    let may_be = |selector: &LabelSelector, key: &str, value: &str| Permitted::by(selector).meets(&Permitted::by(&label(key, value)));
    let server = may_be(&pods, "k8s-app", "kube-dns");
    match &peer.namespace_selector {
        None => policy.namespace == DNS_NAMESPACE && !cluster.pods_known(DNS_NAMESPACE) && server,
        Some(namespaces) => {
            let elsewhere = selector_text(namespaces).contains("dns");
            let kube_system = match cluster.is_written(DNS_NAMESPACE) {
                true => cluster.oracle.namespace_matches(namespaces, DNS_NAMESPACE),
                false => may_be(namespaces, NAMESPACE_NAME, DNS_NAMESPACE),
            };
            elsewhere || kube_system && !cluster.pods_known(DNS_NAMESPACE) && server
        }
    }
}

fn label(key: &str, value: &str) -> LabelSelector {
    let requirement = LabelSelectorRequirement { key: key.to_owned(), operator: "In".to_owned(), values: Some(vec![value.to_owned()]) };
    LabelSelector { match_expressions: Some(vec![requirement]), ..LabelSelector::default() }
}

fn known_pods(cluster: &Cluster<'_>, namespace: &str, classes: &[Class<'_>], found: &mut Findings<'_>) {
    let mut selecting: Grouped<&ObjectName, usize> = BTreeMap::new();
    for (class, of) in classes.iter().enumerate() {
        for pod in cluster.selected(Some(namespace), Some(&of.selector)) {
            selecting.entry(pod).or_default().push(class);
        }
    }
    if !found.complete() {
        return;
    }
    let mut groups: Grouped<Vec<usize>, &ObjectName> = BTreeMap::new();
    selecting.into_iter().for_each(|(pod, classes)| groups.entry(classes).or_default().push(pod));
    let (mut cut_off, mut udp_only) = (BTreeMap::new(), BTreeMap::new());
    for (members, pods) in groups {
        let mut open = Open::default();
        members.iter().for_each(|class| open.add(&classes[*class].open));
        sort_out(open, pods, &mut cut_off, &mut udp_only);
    }
    report(cut_off, udp_only, &|pods| names(pods.iter().copied()), found);
}

fn unknown_pods(cluster: &Cluster<'_>, classes: &[Class<'_>], found: &mut Findings<'_>) {
    let permitted: Vec<Permitted<'_>> = classes.iter().map(|class| Permitted::by(&class.selector)).collect();
    let (mut cut_off, mut udp_only) = (BTreeMap::new(), BTreeMap::new());
    for (class, own) in classes.iter().zip(&permitted) {
        if class.open.anything.is_none() || own.is_contradiction() {
            continue;
        }
        let mut open = Open { anything: class.open.anything.clone(), ..Open::default() };
        let others = classes.iter().zip(&permitted).filter(|(_, other)| cluster.step() && own.meets(other));
        others.for_each(|(other, _)| open.add(&Open { anything: None, ..other.open.clone() }));
        sort_out(open, Vec::new(), &mut cut_off, &mut udp_only);
    }
    if found.complete() {
        report(cut_off, udp_only, &|_| "the pods that this policy selects".to_owned(), found);
    }
}

/// By the place where a warning goes: the pods that it is about, and whether DNS over TCP is open to them.
type Affected<'a> = BTreeMap<(&'a ObjectName, String), (Field, bool, Vec<&'a ObjectName>)>;

fn sort_out<'a>(open: Open<'a>, pods: Vec<&'a ObjectName>, cut_off: &mut Affected<'a>, udp_only: &mut Affected<'a>) {
    let Open { anything: Some(anything), udp, tcp } = open else { return };
    let tcp_only = udp.is_none() && tcp.is_some();
    let (place, list) = match (udp, tcp) {
        (Some(_), Some(_)) => return,
        (Some(udp), None) => (udp, udp_only),
        (None, tcp) => (tcp.unwrap_or(anything), cut_off),
    };
    let entry = list.entry((place.0, place.1.to_string())).or_insert_with(|| (place.1, tcp_only, Vec::new()));
    entry.2.extend(pods);
}

fn report(cut_off: Affected<'_>, udp_only: Affected<'_>, pods_text: &dyn Fn(&[&ObjectName]) -> String, found: &mut Findings<'_>) {
    for ((policy, _), (field, tcp_only, pods)) in cut_off {
        let who = pods_text(&pods);
        let (field, message, hint) = match tcp_only {
            true => (
                field.key("ports"),
                format!(
                    "{who} may ask DNS over TCP only; queries go over UDP port 53 first, which no policy allows, so names do not resolve"
                ),
                "a port without `protocol` means TCP; add `- {port: 53, protocol: UDP}`",
            ),
            false => (
                field,
                format!("{who} may connect somewhere, but no policy allows DNS (port 53) to them, so names do not resolve"),
                SUGGESTED,
            ),
        };
        found.add(WarningKind::DnsCutOff, policy, &field, message, Some(hint.to_owned()));
    }
    for ((policy, _), (field, _, pods)) in udp_only {
        let message =
            format!("{} may ask DNS over UDP only; an answer too long for UDP is asked for again over TCP, and fails", pods_text(&pods));
        found.add(WarningKind::DnsWithoutTcp, policy, &field.key("ports"), message, Some("add `- {port: 53, protocol: TCP}`".to_owned()));
    }
}
