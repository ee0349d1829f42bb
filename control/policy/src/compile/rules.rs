//! Policies → rules: blocks as number ranges, ports as ranges or names.

use super::CompileError;
use super::selector::Selector;
use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sluice_flow::{Direction, ObjectName, Protocol};
use std::net::IpAddr;
use std::sync::Arc;

/// Whom a rule lets through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Peer {
    /// Pods: in these namespaces, with these labels.
    Pods { namespaces: Namespaces, pods: Selector },
    /// Addresses: inclusive ranges of one family, excepts already taken out.
    Block { v6: bool, ranges: Vec<(u128, u128)> },
}

/// Which namespaces a pod peer looks into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Namespaces {
    /// The policy's own.
    Own(String),
    /// Those with matching labels.
    Selected(Selector),
}

/// Which ports a rule opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PortSpec {
    /// All ports of a protocol, or a range of them.
    Range(Protocol, u16, u16),
    /// A name, resolved at the destination pod.
    Named(Protocol, String),
}

/// One rule of a policy.
#[derive(Debug, Clone)]
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
    /// Where it stands; rules in play ascend by it.
    pub(super) fn place(&self) -> (&ObjectName, usize, u32) {
        (&self.policy, self.direction as usize, self.index)
    }

    pub(super) fn has_named_ports(&self) -> bool {
        self.ports.iter().flatten().any(|port| matches!(port, PortSpec::Named(..)))
    }
}

/// A policy as far as it was needed: whom it selects always, its rules once it isolates someone on this node.
#[derive(Debug)]
pub(super) struct Policy {
    object: Arc<NetworkPolicy>,
    pub(super) selector: Selector,
    pub(super) isolates: [bool; 2],
    rules: [Option<Vec<Arc<Rule>>>; 2],
}

impl Policy {
    /// Whether [`Self::read`] would refuse it.
    pub(super) fn check(name: &ObjectName, object: &NetworkPolicy) -> Result<(), CompileError> {
        match object.spec.as_ref().and_then(|spec| spec.pod_selector.as_ref()) {
            Some(selector) => Selector::check(selector).map_err(|reason| refused(name, "spec.podSelector".into(), reason)),
            None => Ok(()),
        }
    }

    pub(super) fn read(name: &ObjectName, object: &Arc<NetworkPolicy>) -> Result<Self, CompileError> {
        let spec = object.spec.as_ref();
        let selector = match spec.and_then(|spec| spec.pod_selector.as_ref()) {
            Some(selector) => Selector::of(selector).map_err(|reason| refused(name, "spec.podSelector".into(), reason))?,
            None => Selector(Vec::new()),
        };
        let types = spec.and_then(|spec| spec.policy_types.as_ref()).filter(|types| !types.is_empty());
        let isolates = match types {
            Some(types) => [types.iter().any(|t| t == "Ingress"), types.iter().any(|t| t == "Egress")],
            None => [true, spec.and_then(|spec| spec.egress.as_ref()).is_some_and(|rules| !rules.is_empty())],
        };
        Ok(Self { object: Arc::clone(object), selector, isolates, rules: [None, None] })
    }

    /// Whether it was read from this very object.
    pub(super) fn is_of(&self, object: &Arc<NetworkPolicy>) -> bool {
        Arc::ptr_eq(&self.object, object)
    }

    /// The rules of one direction; the same ones every time.
    pub(super) fn rules(&mut self, name: &ObjectName, direction: Direction) -> Result<&[Arc<Rule>], CompileError> {
        let slot = &mut self.rules[direction as usize];
        if slot.is_none() {
            *slot = Some(read_rules(name, &self.object, direction)?);
        }
        Ok(slot.as_deref().unwrap_or_default())
    }
}

fn refused(name: &ObjectName, field: String, reason: String) -> CompileError {
    CompileError::Object { object: format!("NetworkPolicy {name}"), field, reason }
}

fn read_rules(name: &ObjectName, object: &NetworkPolicy, direction: Direction) -> Result<Vec<Arc<Rule>>, CompileError> {
    let Some(spec) = &object.spec else { return Ok(Vec::new()) };
    let read = |(index, (peers, ports))| read_rule(name, direction, index, peers, ports).map(Arc::new);
    match direction {
        Direction::Ingress => {
            spec.ingress.iter().flatten().map(|rule| (rule.from.as_ref(), rule.ports.as_ref())).enumerate().map(read).collect()
        }
        Direction::Egress => {
            spec.egress.iter().flatten().map(|rule| (rule.to.as_ref(), rule.ports.as_ref())).enumerate().map(read).collect()
        }
    }
}

fn read_rule(
    policy: &ObjectName,
    direction: Direction,
    position: usize,
    peers: Option<&Vec<NetworkPolicyPeer>>,
    ports: Option<&Vec<NetworkPolicyPort>>,
) -> Result<Rule, CompileError> {
    let list = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    let refused = |list, index, reason| refused(policy, format!("spec.{direction}[{position}].{list}[{index}]"), reason);
    // a missing and an empty list mean the same: no restriction
    let peers = peers.filter(|peers| !peers.is_empty()).map(|peers| {
        let one = |(index, peer)| read_peer(policy, peer).map_err(|reason| refused(list, index, reason));
        peers.iter().enumerate().map(one).collect::<Result<Vec<_>, _>>()
    });
    let ports = ports.filter(|ports| !ports.is_empty()).map(|ports| {
        let one = |(index, port)| read_port(port).map_err(|reason| refused("ports", index, reason));
        ports.iter().enumerate().map(one).collect::<Result<Vec<_>, _>>()
    });
    Ok(Rule { policy: policy.clone(), direction, index: position as u32, peers: peers.transpose()?, ports: ports.transpose()? })
}

fn read_peer(policy: &ObjectName, peer: &NetworkPolicyPeer) -> Result<Peer, String> {
    if let Some(block) = &peer.ip_block {
        if peer.pod_selector.is_some() || peer.namespace_selector.is_some() {
            return Err("ipBlock excludes podSelector and namespaceSelector".into());
        }
        let parse = |text: &str| text.parse::<IpNet>().map_err(|e| format!("{text:?}: {e}"));
        let cidr = parse(&block.cidr)?;
        let excepts = block.except.iter().flatten().map(|except| parse(except)).collect::<Result<Vec<_>, _>>()?;
        return Ok(Peer::Block { v6: matches!(cidr, IpNet::V6(_)), ranges: without(range(cidr), excepts.into_iter().map(range)) });
    }
    let namespaces = match &peer.namespace_selector {
        Some(selector) => Namespaces::Selected(Selector::of(selector)?),
        None => Namespaces::Own(policy.namespace.clone()),
    };
    let pods = match (&peer.pod_selector, &peer.namespace_selector) {
        (Some(selector), _) => Selector::of(selector)?,
        (None, Some(_)) => Selector(Vec::new()),
        (None, None) => return Err("a peer needs one of podSelector, namespaceSelector, ipBlock".into()),
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

fn read_port(port: &NetworkPolicyPort) -> Result<PortSpec, String> {
    let protocol = match port.protocol.as_deref() {
        None | Some("TCP") => Protocol::TCP,
        Some("UDP") => Protocol::UDP,
        Some("SCTP") => Protocol::SCTP,
        Some(other) => return Err(format!("unknown protocol {other:?}")),
    };
    let number = |value: i32| u16::try_from(value).map_err(|_| format!("{value} is not a port number"));
    match (&port.port, port.end_port) {
        (None, None) => Ok(PortSpec::Range(protocol, 0, u16::MAX)),
        (Some(IntOrString::Int(first)), end) => {
            let (first, last) = (number(*first)?, number(end.unwrap_or(*first))?);
            if last < first {
                return Err(format!("endPort {last} is below port {first}"));
            }
            Ok(PortSpec::Range(protocol, first, last))
        }
        (Some(IntOrString::String(name)), None) => Ok(PortSpec::Named(protocol, name.clone())),
        (_, Some(_)) => Err("endPort needs a numeric port".into()),
    }
}
