//! Kubernetes objects → what the compiler works on: selectors as requirement lists, blocks as number ranges, pods with
//! an identity, and only those rules whose policy isolates a pod of this node.

use super::{CompileError, capacity, check_ports};
use crate::snapshot::Snapshot;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sluice_flow::{Addr, Direction, LocalEndpoint, ObjectName, Protocol};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

pub(super) type Labels = BTreeMap<String, String>;
/// Named ports of a pod: (name, protocol) → port numbers.
pub(super) type NamedPorts = BTreeMap<(String, Protocol), BTreeSet<u16>>;

/// A pod with an identity: selected by policies, matched by peers.
pub(super) struct ModelPod<'a> {
    pub(super) name: &'a ObjectName,
    pub(super) labels: &'a Labels,
    pub(super) named_ports: NamedPorts,
}

/// One requirement on a label key.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    In(String, BTreeSet<String>),
    NotIn(String, BTreeSet<String>),
    Exists(String),
    DoesNotExist(String),
}

/// A label selector; no requirement selects everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selector(Vec<Requirement>);

impl Selector {
    fn of(selector: &LabelSelector, context: &dyn Fn(String) -> CompileError) -> Result<Self, CompileError> {
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(Requirement::In(key.clone(), BTreeSet::from([value.clone()])));
        }
        for expression in selector.match_expressions.iter().flatten() {
            let key = expression.key.clone();
            let values: BTreeSet<String> = expression.values.iter().flatten().cloned().collect();
            requirements.push(match expression.operator.as_str() {
                "In" => Requirement::In(key, values),
                "NotIn" => Requirement::NotIn(key, values),
                "Exists" => Requirement::Exists(key),
                "DoesNotExist" => Requirement::DoesNotExist(key),
                other => return Err(context(format!("unknown operator {other:?}"))),
            });
        }
        Ok(Self(requirements))
    }

    pub(super) fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Requirement::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Requirement::Exists(key) => labels.contains_key(key),
            Requirement::DoesNotExist(key) => !labels.contains_key(key),
        })
    }
}

/// Whom a rule lets through.
pub(super) enum Peer {
    /// Pods: in these namespaces, with these labels.
    Pods { namespaces: Namespaces, pods: Selector },
    /// Addresses: inclusive ranges of one family, excepts already taken out.
    Block { v6: bool, ranges: Vec<(u128, u128)> },
}

/// Which namespaces a pod peer looks into.
pub(super) enum Namespaces {
    /// The policy's own.
    Own(String),
    /// Those with matching labels.
    Selected(Selector),
}

/// Which ports a rule opens.
pub(super) enum PortSpec {
    /// All ports of a protocol, or a range of them.
    Range(Protocol, u16, u16),
    /// A name, resolved at the destination pod.
    Named(Protocol, String),
}

/// One rule of a policy that isolates a pod of this node. Its position in [`Model::rules`] is its rule id.
pub(super) struct Rule {
    pub(super) policy: ObjectName,
    pub(super) direction: Direction,
    pub(super) index: u32,
    /// `None`: every peer.
    pub(super) peers: Option<Vec<Peer>>,
    /// `None`: every port of every protocol.
    pub(super) ports: Option<Vec<PortSpec>>,
}

impl Rule {
    pub(super) fn has_named_ports(&self) -> bool {
        self.ports.iter().flatten().any(|port| matches!(port, PortSpec::Named(..)))
    }
}

/// One direction of endpoints that cannot be told apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Profile {
    pub(super) direction: Direction,
    /// Rule ids, ascending: the first that allows is the one that decides.
    pub(super) rules: Vec<u32>,
    /// The pod's own named ports, where an ingress rule asks for them.
    pub(super) named_ports: NamedPorts,
}

/// A pod of this node.
pub(super) struct ModelEndpoint<'a> {
    pub(super) source: &'a LocalEndpoint,
    pub(super) isolating: [Vec<&'a ObjectName>; 2],
    /// Index into [`Model::profiles`], `None` where not isolated.
    pub(super) profiles: [Option<usize>; 2],
}

/// Everything the compiler looks at.
pub(super) struct Model<'a> {
    pub(super) pods: Vec<ModelPod<'a>>,
    /// Which pods carry an address; more than one only while the cluster contradicts itself.
    pub(super) addresses: BTreeMap<IpAddr, Vec<usize>>,
    pub(super) namespace_labels: BTreeMap<&'a str, Labels>,
    pub(super) rules: Vec<Rule>,
    pub(super) profiles: Vec<Profile>,
    pub(super) endpoints: Vec<ModelEndpoint<'a>>,
    pub(super) services: Vec<u128>,
}

impl<'a> Model<'a> {
    pub(super) fn of(snapshot: &'a Snapshot) -> Result<Self, CompileError> {
        check_ports(&snapshot.endpoints)?;
        let (pods, addresses) = identities(snapshot);
        let pod_index: BTreeMap<&ObjectName, usize> = pods.iter().enumerate().map(|(index, pod)| (pod.name, index)).collect();
        let mut policies = Vec::new();
        for (name, policy) in &snapshot.policies {
            policies.push(PolicyModel::of(name, policy)?);
        }
        // an endpoint whose pod object is not known, or is another incarnation of the pod, has no row: its port stays closed
        let known: Vec<&LocalEndpoint> = snapshot
            .endpoints
            .iter()
            .filter(|endpoint| snapshot.pods.get(&endpoint.pod).is_some_and(|pod| same_uid(pod, endpoint)))
            .collect();
        let mut selected: Vec<[Vec<usize>; 2]> = Vec::new();
        for endpoint in &known {
            let mut isolating = [Vec::new(), Vec::new()];
            if let Some(&pod) = pod_index.get(&endpoint.pod) {
                for (index, policy) in policies.iter().enumerate() {
                    if policy.name.namespace == endpoint.pod.namespace && policy.selector.matches(pods[pod].labels) {
                        for direction in Direction::BOTH {
                            if policy.isolates[direction as usize] {
                                isolating[direction as usize].push(index);
                            }
                        }
                    }
                }
            }
            selected.push(isolating);
        }
        let (rules, rules_of_policy) = rules_in_play(&policies, &selected)?;
        capacity("rules", rules.len(), u32::MAX as usize - 1)?;

        let mut profiles: Vec<Profile> = Vec::new();
        let mut profile_index: BTreeMap<Profile, usize> = BTreeMap::new();
        let mut endpoints = Vec::new();
        for (source, isolating) in known.iter().zip(&selected) {
            let profile_of = |direction: Direction| {
                let by = &isolating[direction as usize];
                let mut ids: Vec<u32> = by.iter().flat_map(|&policy| rules_of_policy[policy][direction as usize].clone()).collect();
                ids.sort_unstable();
                let asks = direction == Direction::Ingress && ids.iter().any(|&rule| rules[rule as usize].has_named_ports());
                let named_ports = match pod_index.get(&source.pod) {
                    Some(&pod) if asks => pods[pod].named_ports.clone(),
                    _ => NamedPorts::new(),
                };
                (!by.is_empty()).then_some(Profile { direction, rules: ids, named_ports })
            };
            let mut indexes = [None, None];
            for direction in Direction::BOTH {
                indexes[direction as usize] = profile_of(direction).map(|profile| {
                    *profile_index.entry(profile.clone()).or_insert_with(|| {
                        profiles.push(profile);
                        profiles.len() - 1
                    })
                });
            }
            let isolating = isolating.each_ref().map(|by| by.iter().map(|&policy| policies[policy].name).collect());
            endpoints.push(ModelEndpoint { source, isolating, profiles: indexes });
        }
        let namespace_labels = namespace_labels(snapshot);
        Ok(Self { pods, addresses, namespace_labels, rules, profiles, endpoints, services: service_addresses(snapshot) })
    }
}

/// A policy read as far as selection goes; its rules are read only if it isolates someone here.
struct PolicyModel<'a> {
    name: &'a ObjectName,
    policy: &'a NetworkPolicy,
    selector: Selector,
    isolates: [bool; 2],
}

impl<'a> PolicyModel<'a> {
    fn of(name: &'a ObjectName, policy: &'a NetworkPolicy) -> Result<Self, CompileError> {
        let error = |reason| object_error(name, "spec.podSelector".into(), reason);
        let spec = policy.spec.as_ref();
        let selector = match spec.and_then(|spec| spec.pod_selector.as_ref()) {
            Some(selector) => Selector::of(selector, &error)?,
            None => Selector(Vec::new()),
        };
        let types = spec.and_then(|spec| spec.policy_types.as_ref()).filter(|types| !types.is_empty());
        let isolates = match types {
            Some(types) => [types.iter().any(|t| t == "Ingress"), types.iter().any(|t| t == "Egress")],
            None => [true, spec.and_then(|spec| spec.egress.as_ref()).is_some_and(|rules| !rules.is_empty())],
        };
        Ok(Self { name, policy, selector, isolates })
    }
}

fn object_error(name: &ObjectName, field: String, reason: String) -> CompileError {
    CompileError::Object { object: format!("NetworkPolicy {name}"), field, reason }
}

/// The rules of the policies that isolate anyone here, in the order that makes the first allowing one deterministic:
/// by policy name, then direction, then index. Also which rule ids each policy got.
#[allow(clippy::type_complexity)]
fn rules_in_play(policies: &[PolicyModel<'_>], selected: &[[Vec<usize>; 2]]) -> Result<(Vec<Rule>, Vec<[Vec<u32>; 2]>), CompileError> {
    let mut in_play = vec![[false; 2]; policies.len()];
    for (direction, by) in selected.iter().flat_map(|isolating| isolating.iter().enumerate()) {
        by.iter().for_each(|&policy| in_play[policy][direction] = true);
    }
    let (mut rules, mut of_policy) = (Vec::new(), vec![[Vec::new(), Vec::new()]; policies.len()]);
    for (index, policy) in policies.iter().enumerate() {
        let Some(spec) = &policy.policy.spec else { continue };
        let mut add =
            |direction: Direction, position: usize, peers: Option<&Vec<NetworkPolicyPeer>>, ports: Option<&Vec<NetworkPolicyPort>>| {
                if !in_play[index][direction as usize] {
                    return Ok(());
                }
                of_policy[index][direction as usize].push(rules.len() as u32);
                rules.push(rule(policy.name, direction, position, peers, ports)?);
                Ok(())
            };
        for (position, rule) in spec.ingress.iter().flatten().enumerate() {
            add(Direction::Ingress, position, rule.from.as_ref(), rule.ports.as_ref())?;
        }
        for (position, rule) in spec.egress.iter().flatten().enumerate() {
            add(Direction::Egress, position, rule.to.as_ref(), rule.ports.as_ref())?;
        }
    }
    Ok((rules, of_policy))
}

fn rule(
    policy: &ObjectName,
    direction: Direction,
    position: usize,
    peers: Option<&Vec<NetworkPolicyPeer>>,
    ports: Option<&Vec<NetworkPolicyPort>>,
) -> Result<Rule, CompileError> {
    let field = |part: String| format!("spec.{direction}[{position}].{part}");
    let list = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    // a missing and an empty list mean the same: no restriction
    let peers = peers.filter(|peers| !peers.is_empty()).map(|peers| {
        let one = |(index, peer)| self::peer(policy, peer, &|reason| object_error(policy, field(format!("{list}[{index}]")), reason));
        peers.iter().enumerate().map(one).collect::<Result<Vec<_>, _>>()
    });
    let ports = ports.filter(|ports| !ports.is_empty()).map(|ports| {
        let one = |(index, port)| port_spec(port, &|reason| object_error(policy, field(format!("ports[{index}]")), reason));
        ports.iter().enumerate().map(one).collect::<Result<Vec<_>, _>>()
    });
    Ok(Rule { policy: policy.clone(), direction, index: position as u32, peers: peers.transpose()?, ports: ports.transpose()? })
}

fn peer(policy: &ObjectName, peer: &NetworkPolicyPeer, error: &dyn Fn(String) -> CompileError) -> Result<Peer, CompileError> {
    if let Some(block) = &peer.ip_block {
        if peer.pod_selector.is_some() || peer.namespace_selector.is_some() {
            return Err(error("ipBlock excludes podSelector and namespaceSelector".into()));
        }
        let parse = |text: &str| text.parse::<IpNet>().map_err(|e| error(format!("{text:?}: {e}")));
        let cidr = parse(&block.cidr)?;
        let excepts = block.except.iter().flatten().map(|except| parse(except)).collect::<Result<Vec<_>, _>>()?;
        return Ok(Peer::Block { v6: matches!(cidr, IpNet::V6(_)), ranges: without(range(cidr), excepts.into_iter().map(range)) });
    }
    let namespaces = match &peer.namespace_selector {
        Some(selector) => Namespaces::Selected(Selector::of(selector, error)?),
        None => Namespaces::Own(policy.namespace.clone()),
    };
    let pods = match (&peer.pod_selector, &peer.namespace_selector) {
        (Some(selector), _) => Selector::of(selector, error)?,
        (None, Some(_)) => Selector(Vec::new()),
        (None, None) => return Err(error("a peer needs one of podSelector, namespaceSelector, ipBlock".into())),
    };
    Ok(Peer::Pods { namespaces, pods })
}

/// First and last address as numbers.
fn range(net: IpNet) -> (u128, u128) {
    let number = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    };
    (number(net.network()), number(net.broadcast()))
}

/// `whole` minus `holes`, as disjoint ascending ranges.
fn without(whole: (u128, u128), holes: impl Iterator<Item = (u128, u128)>) -> Vec<(u128, u128)> {
    let mut holes: Vec<_> = holes.collect();
    holes.sort_unstable();
    let (mut ranges, mut next) = (Vec::new(), Some(whole.0));
    for (first, last) in holes {
        let Some(start) = next else { break };
        if last < start || first > whole.1 {
            continue;
        }
        if first > start {
            ranges.push((start, first - 1));
        }
        next = if last >= whole.1 { None } else { Some(last + 1) };
    }
    ranges.extend(next.map(|start| (start, whole.1)));
    ranges
}

fn port_spec(port: &NetworkPolicyPort, error: &dyn Fn(String) -> CompileError) -> Result<PortSpec, CompileError> {
    let protocol = match port.protocol.as_deref() {
        None | Some("TCP") => Protocol::TCP,
        Some("UDP") => Protocol::UDP,
        Some("SCTP") => Protocol::SCTP,
        Some(other) => return Err(error(format!("unknown protocol {other:?}"))),
    };
    let number = |value: i32| u16::try_from(value).map_err(|_| error(format!("{value} is not a port number")));
    match (&port.port, port.end_port) {
        (None, None) => Ok(PortSpec::Range(protocol, 0, u16::MAX)),
        (Some(IntOrString::Int(first)), end) => {
            let (first, last) = (number(*first)?, number(end.unwrap_or(*first))?);
            if last < first {
                return Err(error(format!("endPort {last} is below port {first}")));
            }
            Ok(PortSpec::Range(protocol, first, last))
        }
        (Some(IntOrString::String(name)), None) => Ok(PortSpec::Named(protocol, name.clone())),
        (_, Some(_)) => Err(error("endPort needs a numeric port".into())),
    }
}

fn same_uid(pod: &Pod, endpoint: &LocalEndpoint) -> bool {
    match pod.metadata.uid.as_deref() {
        None | Some("") => true,
        Some(uid) => endpoint.uid.is_empty() || endpoint.uid == uid,
    }
}

/// The pods that take part in policy, with their addresses: those the dataplane reports, else those of the status.
fn identities(snapshot: &Snapshot) -> (Vec<ModelPod<'_>>, BTreeMap<IpAddr, Vec<usize>>) {
    static NO_LABELS: Labels = Labels::new();
    let mut reported: BTreeMap<&ObjectName, Vec<&LocalEndpoint>> = BTreeMap::new();
    for endpoint in &snapshot.endpoints {
        reported.entry(&endpoint.pod).or_default().push(endpoint);
    }
    let (mut pods, mut addresses) = (Vec::new(), BTreeMap::<IpAddr, Vec<usize>>::new());
    for (name, pod) in &snapshot.pods {
        let status = pod.status.as_ref();
        let host_network = pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false);
        let finished = matches!(status.and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"));
        if host_network || finished {
            continue;
        }
        let endpoints: Vec<_> = reported.get(name).into_iter().flatten().filter(|endpoint| same_uid(pod, endpoint)).collect();
        let mut own: BTreeSet<IpAddr> = endpoints.iter().flat_map(|endpoint| endpoint.addresses.iter().copied()).collect();
        if endpoints.is_empty() {
            let listed = status.and_then(|status| status.pod_ips.as_ref()).into_iter().flatten().map(|ip| ip.ip.as_str());
            let single = status.and_then(|status| status.pod_ip.as_deref());
            own.extend(listed.chain(single).filter_map(|text| text.parse::<IpAddr>().ok()));
        }
        for address in own {
            addresses.entry(address).or_default().push(pods.len());
        }
        pods.push(ModelPod { name, labels: pod.metadata.labels.as_ref().unwrap_or(&NO_LABELS), named_ports: named_ports(pod) });
    }
    (pods, addresses)
}

/// Named ports of containers and restartable init containers.
fn named_ports(pod: &Pod) -> NamedPorts {
    let mut named = NamedPorts::new();
    let Some(spec) = &pod.spec else { return named };
    let sidecars = spec.init_containers.iter().flatten().filter(|container| container.restart_policy.as_deref() == Some("Always"));
    for port in spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten()) {
        let protocol = Protocol::from_name(port.protocol.as_deref().unwrap_or("TCP"));
        if let (Some(name), Some(protocol), Ok(number)) = (&port.name, protocol, u16::try_from(port.container_port)) {
            named.entry((name.clone(), protocol)).or_default().insert(number);
        }
    }
    named
}

fn namespace_labels(snapshot: &Snapshot) -> BTreeMap<&str, Labels> {
    let names = snapshot.namespaces.keys().chain(snapshot.pods.keys().map(|pod| &pod.namespace));
    names
        .map(|name| {
            let stored = snapshot.namespaces.get(name).and_then(|namespace| namespace.metadata.labels.clone());
            let mut labels = stored.unwrap_or_default();
            labels.insert("kubernetes.io/metadata.name".into(), name.clone());
            (name.as_str(), labels)
        })
        .collect()
}

/// Every address that kube-proxy would translate.
fn service_addresses(snapshot: &Snapshot) -> Vec<u128> {
    let of = |service: &Service| -> Vec<String> {
        let spec = service.spec.iter();
        let own = spec
            .clone()
            .flat_map(|spec| spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip).chain(spec.external_ips.iter().flatten()));
        let balancers = service.status.iter().flat_map(|s| &s.load_balancer).flat_map(|b| b.ingress.iter().flatten()).flat_map(|i| &i.ip);
        own.chain(balancers).cloned().collect()
    };
    let addresses = snapshot.services.values().flat_map(|service| of(service)).filter_map(|text| text.parse::<IpAddr>().ok());
    let sorted: BTreeSet<u128> = addresses.map(|address| Addr::from(address).to_u128()).collect();
    sorted.into_iter().collect()
}
