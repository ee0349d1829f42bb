//! The matrix answers every question as the oracle does, and a comparison reports exactly what differs. On random
//! clusters, asked at random places: what was not asked while computing must follow from what was.

mod cluster;

use cluster::{address, snapshot};
use proptest::prelude::*;
use sluice_flow::{Direction, LocalEndpoint, Protocol};
use sluice_policy::load::{ClusterManifests, load_cluster_str};
use sluice_policy::reach::{
    Comparison, End, EndKind, Families, Grouping, Options, PairChange, Reach, ReachError, State, Survey, compare, reach,
};
use sluice_policy::{ObjectName, Oracle, Snapshot};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// A port to ask about.
fn port() -> impl Strategy<Value = (Protocol, u16)> {
    let protocol = prop::sample::select(vec![Protocol::TCP, Protocol::UDP, Protocol::SCTP, Protocol::ICMP, Protocol(47)]);
    (protocol, prop_oneof![3 => 78..87u16, 1 => any::<u16>()])
}

fn grouping() -> impl Strategy<Value = Grouping> {
    prop::sample::select(vec![Grouping::Workload, Grouping::Class])
}

/// The same objects in one namespace, its pods with one label each, so that many pods differ in one thing or in nothing.
fn crowded(snapshot: Snapshot) -> Snapshot {
    let here = |name: &ObjectName| ObjectName::new("x", &name.name);
    let pods = snapshot.pods.iter().map(|(name, pod)| {
        let mut pod = (**pod).clone();
        pod.metadata.labels.iter_mut().for_each(|labels| Arc::make_mut(labels).retain(|key, _| key == "app"));
        (here(name), Arc::new(pod))
    });
    let endpoints = snapshot.endpoints.iter().map(|endpoint| LocalEndpoint { pod: here(&endpoint.pod), ..endpoint.clone() });
    let policies = snapshot.policies.iter().map(|(name, policy)| (here(name), Arc::clone(policy)));
    Snapshot { pods: pods.collect(), endpoints: endpoints.collect(), policies: policies.collect(), ..snapshot.clone() }
}

fn cluster() -> impl Strategy<Value = Snapshot> {
    prop_oneof![snapshot(), snapshot().prop_map(crowded)]
}

fn judged(snapshot: &Snapshot, grouping: Grouping) -> (Survey, Reach) {
    let options = Options { grouping, ..Options::default() };
    reach(State { snapshot, workloads: &BTreeMap::new() }, &options, |_, _| ()).unwrap()
}

/// Which end an address belongs to, found without the survey's own means: the pod at it, or the longest block around it.
fn end_of(survey: &Survey, pod: Option<&ObjectName>, address: IpAddr) -> Option<usize> {
    let block = |end: &End| match &end.kind {
        EndKind::Blocks(nets) => nets.iter().filter(|net| net.contains(&address)).map(|net| net.prefix_len() + 1).max(),
        EndKind::Elsewhere => Some(0),
        _ => None,
    };
    let ends = survey.ends.iter().enumerate();
    match pod {
        Some(pod) => ends.into_iter().position(|(_, end)| matches!(&end.kind, EndKind::Pods { pods, .. } if pods.contains(pod))),
        None => ends.filter_map(|(index, end)| Some((block(end)?, index))).max().map(|(_, index)| index),
    }
}

fn allows(reach: &Reach, from: usize, to: usize, is_ipv4: bool, (protocol, port): (Protocol, u16)) -> Option<bool> {
    let cell = reach.cell(reach.pair(from, to)?);
    let family = if is_ipv4 { Families::V4 } else { Families::V6 };
    let way = cell.ways.iter().find(|way| way.families == family || way.families == Families::Both)?;
    Some(way.allowed.contains(protocol, port))
}

/// Both halves as the oracle judges them; an address that is no pod's has no half.
fn truth(
    oracle: &Oracle<'_>,
    (src_pod, src): (Option<&ObjectName>, IpAddr),
    (dst_pod, dst): (Option<&ObjectName>, IpAddr),
    port: (Protocol, u16),
) -> bool {
    let half =
        |pod: Option<&ObjectName>, direction, remote| pod.is_none_or(|pod| oracle.judge(pod, direction, remote, port.0, port.1).allowed);
    half(src_pod, Direction::Egress, dst) && half(dst_pod, Direction::Ingress, src)
}

/// Pods with their addresses, one of each family, and some addresses of nobody.
fn ends<'a>(oracle: &Oracle<'a>, snapshot: &'a Snapshot, others: &[IpAddr]) -> Vec<(Option<&'a ObjectName>, IpAddr)> {
    let pods = snapshot.pods.keys().flat_map(|pod| {
        let addresses = oracle.addresses_of(pod);
        let first = |v4: bool| addresses.iter().copied().find(|address| address.is_ipv4() == v4);
        [first(true), first(false)].into_iter().flatten().map(|address| (Some(pod), address)).collect::<Vec<_>>()
    });
    let nobody = others.iter().copied().filter(|address| oracle.pods_at(*address).is_empty());
    pods.chain(nobody.map(|address| (None, address))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn the_matrix_says_what_the_oracle_says(
        snapshot in cluster(),
        grouping in grouping(),
        others in prop::collection::vec(address(), 8),
        ports in prop::collection::vec(port(), 12),
    ) {
        let (survey, reach) = judged(&snapshot, grouping);
        let oracle = Oracle::new(&snapshot);
        let ends = ends(&oracle, &snapshot, &others);
        for &src in &ends {
            for &dst in ends.iter().filter(|dst| src.1.is_ipv4() == dst.1.is_ipv4() && (src.0.is_some() || dst.0.is_some())) {
                let found = (end_of(&survey, src.0, src.1), end_of(&survey, dst.0, dst.1));
                let (Some(from), Some(to)) = found else {
                    // A family that no pod has: nobody can be asked about it.
                    prop_assert!(oracle.addresses().all(|address| address.is_ipv4() != src.1.is_ipv4()), "{src:?} {dst:?}");
                    continue;
                };
                for &port in &ports {
                    let Some(allowed) = allows(&reach, from, to, src.1.is_ipv4(), port) else {
                        prop_assert!(src.0.is_some() && src.0 == dst.0, "no answer for {src:?} {dst:?}");
                        continue;
                    };
                    prop_assert_eq!(allowed, truth(&oracle, src, dst, port), "{:?} {:?} {:?}", src, dst, port);
                }
            }
        }
    }

    #[test]
    fn a_comparison_reports_exactly_what_differs(
        before in cluster(),
        edited in cluster(),
        ports in prop::collection::vec(port(), 12),
    ) {
        // The same pods under other policies, and other pods under the same policies.
        for after in [Snapshot { policies: edited.policies.clone(), ..before.clone() }, Snapshot { policies: before.policies.clone(), ..edited.clone() }] {
            let none = BTreeMap::new();
            let state = |snapshot| State { snapshot, workloads: &none };
            let comparison = compare(state(&before), state(&after), &Options::default(), |_, _| ()).unwrap();
            let (old, new) = (Oracle::new(&before), Oracle::new(&after));
            for (src, dst) in before.pods.keys().flat_map(|src| before.pods.keys().map(move |dst| (src, dst))).filter(|(src, dst)| src != dst) {
                for is_ipv4 in [true, false] {
                    let ends = |oracle: &Oracle<'_>| {
                        let first = |pod| oracle.addresses_of(pod).into_iter().find(|address| address.is_ipv4() == is_ipv4);
                        Some(((Some(src), first(src)?), (Some(dst), first(dst)?)))
                    };
                    let (Some(then), Some(now)) = (ends(&old), ends(&new)) else { continue };
                    for &port in &ports {
                        let (was, is) = (truth(&old, then.0, then.1, port), truth(&new, now.0, now.1, port));
                        let reported = reported(&comparison, src, dst, is_ipv4, port);
                        prop_assert_eq!(reported, (was != is).then_some(is), "{} {} {:?}", src, dst, port);
                    }
                }
            }
            let same = compare(state(&before), state(&before), &Options::default(), |_, _| ()).unwrap();
            prop_assert!(same.is_equal());
        }
    }
}

/// Whether a change of this port is reported, and to what. Every change must have a reason that fits.
fn reported(comparison: &Comparison, src: &ObjectName, dst: &ObjectName, is_ipv4: bool, (protocol, port): (Protocol, u16)) -> Option<bool> {
    let index = |pod| end_of(&comparison.survey, Some(pod), "0.0.0.0".parse().unwrap()).unwrap();
    let (from, to) = (index(src), index(dst));
    let PairChange { changes, .. } = comparison.pairs.iter().find(|pair| (pair.from, pair.to) == (from, to))?;
    let family = if is_ipv4 { Families::V4 } else { Families::V6 };
    let mut hits =
        changes.iter().filter(|change| [family, Families::Both].contains(&change.families) && change.ports.contains(protocol, port));
    let change = hits.next()?;
    assert!(hits.next().is_none(), "reported twice");
    assert!(!change.reasons.is_empty());
    Some(change.allowed)
}

const SHOP: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 3
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop, labels: {app: client}}
spec: {containers: [{name: c}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: client}}}]
    ports: [{port: http}]
  - from: [{ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.7/32]}}]
";

fn shop(text: &str) -> ClusterManifests {
    let cluster = load_cluster_str("shop.yaml", text);
    assert!(cluster.loaded.errors.is_empty(), "{:?}", cluster.loaded.errors);
    cluster
}

/// Every pair as one line.
fn lines(cluster: &ClusterManifests, options: &Options) -> Vec<String> {
    let (survey, reach) = reach(State::of(cluster), options, |_, _| ()).unwrap();
    let name = |end: u32| &survey.ends[end as usize].name;
    let line =
        |pair: &sluice_policy::reach::Pair| format!("{} > {}: {}", name(pair.from), name(pair.to), reach.cell(*pair).ways[0].allowed);
    reach.pairs.iter().map(line).collect()
}

#[test]
fn templates_regions_and_named_ports_are_judged() {
    let expected = "\
shop/client > shop/web: 8080/TCP
shop/client > 203.0.113.0/24: all ports
shop/client > 203.0.113.7/32: all ports
shop/client > elsewhere: all ports
shop/web > shop/client: all ports
shop/web > shop/web: none
shop/web > 203.0.113.0/24: all ports
shop/web > 203.0.113.7/32: all ports
shop/web > elsewhere: all ports
203.0.113.0/24 > shop/client: all ports
203.0.113.0/24 > shop/web: all ports
203.0.113.7/32 > shop/client: all ports
203.0.113.7/32 > shop/web: none
elsewhere > shop/client: all ports
elsewhere > shop/web: none";
    assert_eq!(lines(&shop(SHOP), &Options::default()).join("\n"), expected);
}

/// The pods `a` and `b` and those beside them, by class, under one policy.
fn classes(a: &str, b: &str, others: &str, policy: &str) -> Vec<String> {
    let pod = |name: &str, rest: &str| format!("{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, {rest}}}}}\n---\n");
    let spec = "spec: {podSelector: {matchLabels: {app: none}}, ingress: [{";
    let policy = format!("{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p}}, {spec}{policy}}}]}}}}");
    let cluster = shop(&format!("{}{}{others}{policy}", pod("a", a), pod("b", b)));
    let options = Options { grouping: Grouping::Class, ..Options::default() };
    let (survey, _) = reach(State::of(&cluster), &options, |_, _| ()).unwrap();
    let pods = survey.ends.iter().filter(|end| end.is_pods());
    pods.map(|end| end.name.clone()).collect()
}

#[test]
fn pods_are_told_apart_by_what_policies_mention_and_by_nothing_else() {
    let pod = |labels: &str, port: &str, ip: &str| {
        format!("labels: {{{labels}}}}}, spec: {{containers: [{{name: c, ports: [{port}]}}]}}, status: {{podIP: {ip}")
    };
    let http = |number: u16| format!("{{name: http, containerPort: {number}}}");
    let expression = |operator: &str, values: &str| {
        format!("from: [{{podSelector: {{matchExpressions: [{{key: tier, operator: {operator}{values}}}]}}}}]")
    };
    let plain = |labels: &str| pod(labels, "", "10.0.0.1");
    let other = |labels: &str| pod(labels, "", "10.0.0.2");
    let sharing = format!("{{apiVersion: v1, kind: Pod, metadata: {{name: c, {}}}}}\n---\n", pod("team: c", "", "10.0.0.2"));
    for (a, b, others, policy, apart) in [
        (plain("tier: x"), other("tier: v"), "", String::new(), false),
        (plain("tier: x"), other(""), "", expression("Exists", ""), true),
        (plain("tier: x"), other("tier: v"), "", expression("Exists", ""), false),
        (plain("tier: x"), other("tier: v"), "", expression("NotIn", ", values: [x]"), true),
        (plain("tier: v"), other("tier: w"), "", expression("In", ", values: [x]"), false),
        (pod("", &http(80), "10.0.0.1"), pod("", &http(81), "10.0.0.2"), "", String::new(), false),
        (pod("", &http(80), "10.0.0.1"), pod("", &http(81), "10.0.0.2"), "", "ports: [{port: http}]".into(), true),
        (plain(""), other(""), "", "from: [{ipBlock: {cidr: 10.0.0.0/30}}]".into(), false),
        (plain(""), other(""), "", "from: [{ipBlock: {cidr: 10.0.0.2/31}}]".into(), true),
        // `b` is one of two that claim an address: a peer matches it only if it matches both.
        (plain(""), other(""), sharing.as_str(), "from: [{podSelector: {matchLabels: {tier: x}}}]".into(), true),
    ] {
        let names = classes(&a, &b, others, &policy);
        assert_eq!(names.iter().any(|name| name == "default/a"), apart, "{policy}: {names:?}");
    }
}

#[test]
fn blocks_that_everybody_treats_alike_share_a_row() {
    let text = SHOP.replace("except: [203.0.113.7/32]", "except: [203.0.113.7/32, 203.0.113.64/26, 203.0.113.9/32]");
    let (survey, _) = reach(State::of(&shop(&text)), &Options::default(), |_, _| ()).unwrap();
    let names: Vec<&str> = survey.ends.iter().map(|end| end.name.as_str()).collect();
    assert_eq!(names, ["shop/client", "shop/web", "203.0.113.0/24", "203.0.113.7/32 and 2 more", "elsewhere"]);
}

#[test]
fn a_selection_judges_the_pairs_it_touches_and_refuses_what_it_does_not_find() {
    let cluster = shop(SHOP);
    let of = |pods: &[&str]| Options { pods: pods.iter().map(|pod| ObjectName::parse(pod)).collect(), ..Options::default() };
    let selected = lines(&cluster, &of(&["shop/client"]));
    assert!(selected.len() == 6 && selected.iter().all(|line| line.contains("shop/client")), "{selected:?}");
    let inside = lines(&cluster, &Options { inside: true, ..of(&["shop/client"]) });
    assert!(inside.len() == 4 && !inside.iter().any(|line| line.contains("shop/web")), "{inside:?}");
    let error = reach(State::of(&cluster), &of(&["shop/nobody"]), |_, _| ()).unwrap_err();
    assert_eq!(error.to_string(), "there is no pod or workload shop/nobody");
    let options = Options { namespaces: vec!["none".into()], ..Options::default() };
    assert_eq!(reach(State::of(&cluster), &options, |_, _| ()).unwrap_err(), ReachError::NoNamespace("none".into()));
}

#[test]
fn too_many_pairs_are_refused_before_any_is_judged() {
    let pod = |index: usize| format!("{{apiVersion: v1, kind: Pod, metadata: {{name: p{index}}}, spec: {{containers: [{{name: c}}]}}}}\n");
    let text: Vec<String> = (0..2100).map(pod).collect();
    let cluster = shop(&text.join("---\n"));
    let options = Options { grouping: Grouping::Workload, ..Options::default() };
    let refused = reach(State::of(&cluster), &options, |_, _| panic!("judged")).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "2101 rows make 4414200 pairs, and at most 4000000 are judged at once; choose some with --namespace or --pod"
    );
    assert_eq!(reach(State::of(&cluster), &Options::default(), |_, _| ()).unwrap().0.ends.len(), 2, "one class and the outside");
}

#[test]
fn rules_too_long_for_their_pairs_are_refused() {
    let pod = |index: usize| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: p{index}, labels: {{app: a{index}}}}}, spec: {{containers: [{{name: c}}]}}}}\n"
        )
    };
    let pods: Vec<String> = (0..1000).map(pod).collect();
    let peers: Vec<String> = (0..1000).map(|index| format!("{{podSelector: {{matchLabels: {{app: a{index}}}}}}}")).collect();
    let policy = format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p}}, spec: {{podSelector: {{}}, ingress: [{{from: [{}]}}]}}}}",
        peers.join(", ")
    );
    let cluster = shop(&format!("{}---\n{policy}", pods.join("---\n")));
    let refused = reach(State::of(&cluster), &Options::default(), |_, _| panic!("judged")).unwrap_err();
    assert_eq!(refused, ReachError::TooManyPeers { peers: 1_001_000_000, max: 1_000_000_000 });
    let one = Options { pods: vec![ObjectName::parse("default/p7")], ..Options::default() };
    assert_eq!(reach(State::of(&cluster), &one, |_, _| ()).unwrap().1.pairs.len(), 2000);
}

#[test]
fn a_dump_of_a_cluster_counts_each_pod_once() {
    let dump = format!(
        "{SHOP}---
apiVersion: v1
kind: List
items:
- apiVersion: apps/v1
  kind: ReplicaSet
  metadata: {{name: web-5f8, namespace: shop, ownerReferences: [{{kind: Deployment, name: web}}]}}
  spec: {{template: {{metadata: {{labels: {{app: web, pod-template-hash: 5f8}}}}, spec: {{containers: [{{name: c}}]}}}}}}
- apiVersion: v1
  kind: Pod
  metadata:
    name: web-5f8-abcde
    namespace: shop
    labels: {{app: web, pod-template-hash: 5f8}}
    ownerReferences: [{{apiVersion: apps/v1, kind: ReplicaSet, name: web-5f8, uid: u, controller: true}}]
  spec: {{containers: [{{name: c}}]}}
  status: {{podIP: 10.0.0.1}}
"
    );
    let (survey, _) = reach(State::of(&shop(&dump)), &Options::default(), |_, _| ()).unwrap();
    let names: Vec<&str> = survey.ends.iter().map(|end| end.name.as_str()).collect();
    assert_eq!(names, ["shop/client", "shop/web", "203.0.113.0/24", "203.0.113.7/32", "elsewhere"]);
    let EndKind::Pods { pods, workload, .. } = &survey.ends[1].kind else { panic!() };
    assert_eq!((pods.as_slice(), *workload), (&[ObjectName::new("shop", "web-5f8-abcde")][..], Some("Deployment")));
}

#[test]
fn a_wrong_template_is_reported_where_it_stands() {
    let wrong = SHOP.replace("containerPort: 8080", "containerPort: 80800");
    let cluster = load_cluster_str("shop.yaml", &wrong);
    assert_eq!(
        cluster.loaded.errors[0].to_string(),
        "shop.yaml:10:66: Deployment shop/web: spec.template.spec.containers[0].ports[0].containerPort: \
         Invalid value: 80800: must be between 1 and 65535, inclusive
  10 |       containers: [{name: c, ports: [{name: http, containerPort: 80800}]}]
     |                                                                  ^"
    );
    assert!(!cluster.workloads.contains_key(&ObjectName::parse("shop/web")), "whole or not at all");
    for (from, to, expected) in [
        ("  template:", "  templates:", "shop.yaml:5:1: Deployment shop/web: spec.template: Required value: the template of its pods"),
        ("{name: web, namespace: shop}\nspec:\n  replicas", "{namespace: shop}\nspec:\n  replicas", "shop.yaml:4:1: Deployment: "),
    ] {
        let cluster = load_cluster_str("shop.yaml", &SHOP.replacen(from, to, 1));
        assert!(cluster.loaded.errors[0].to_string().starts_with(expected), "{}", cluster.loaded.errors[0]);
    }
}

#[test]
fn workloads_of_other_projects_are_none() {
    let other = SHOP.replace("apps/v1", "apps.kruise.io/v1");
    assert!(load_cluster_str("shop.yaml", &other).workloads.is_empty());
}
