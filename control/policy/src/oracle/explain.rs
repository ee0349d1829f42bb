//! Why a connection between two named ends passes or not: both halves, and what a reader should know beside them.

use super::identity::{self, Standing};
use super::miss::port_text;
use super::service::service_addresses;
use super::{Judgement, NearMiss, Oracle};
use crate::Snapshot;
use sluice_flow::{Direction, ObjectName, Protocol};
use std::net::IpAddr;

/// Why a question cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// No such pod.
    #[error("there is no pod {pod}{}", hint(.elsewhere))]
    NoPod {
        /// As asked.
        pod: ObjectName,
        /// Pods of that name in other namespaces.
        elsewhere: Vec<ObjectName>,
    },
    /// The pod takes part in nothing yet, or no longer.
    #[error("{pod} has no address: {why}")]
    NoAddress {
        /// Which pod.
        pod: ObjectName,
        /// Why not.
        why: &'static str,
    },
    /// One end has only IPv4 and the other only IPv6.
    #[error("{src} and {dst} share no address family")]
    Families {
        /// As asked.
        src: String,
        /// As asked.
        dst: String,
    },
}

fn hint(elsewhere: &[ObjectName]) -> String {
    match elsewhere {
        [] => String::new(),
        pods => {
            let names: Vec<String> = pods.iter().map(ObjectName::to_string).collect();
            format!("; did you mean {}?", names.join(" or "))
        }
    }
}

/// Why a connection passes or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// The source as understood: `ns/pod (address)`.
    pub src: String,
    /// The destination as understood.
    pub dst: String,
    /// `80/TCP`.
    pub port: String,
    /// Both halves allow, or a note says why policies do not matter.
    pub allowed: bool,
    /// Judged at the source pod; absent when the source is no pod.
    pub egress: Option<ExplainedHalf>,
    /// Judged at the destination pod; absent when the destination is no pod.
    pub ingress: Option<ExplainedHalf>,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// One end's verdict and its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainedHalf {
    /// Whose policy judged.
    pub pod: ObjectName,
    /// In which direction.
    pub direction: Direction,
    /// The other end's address, for asking a table the same question.
    pub remote: IpAddr,
    /// The verdict.
    pub allowed: bool,
    /// Whether some policy isolates the pod in this direction.
    pub isolated: bool,
    /// The policies that do.
    pub isolating: Vec<ObjectName>,
    /// The first rule that allows it: `ns/policy ingress[0]`.
    pub rule: Option<String>,
    /// If denied: the rule that came nearest, and what it lacked.
    pub nearest_miss: Option<(String, String)>,
}

/// One end of the question.
struct End {
    /// Whose policies judge: a pod that policies can select.
    pod: Option<ObjectName>,
    addresses: Vec<IpAddr>,
}

/// Answers for `src` and `dst`, each `ns/pod`, a pod of the namespace `default`, or an address.
///
/// Between pods with several addresses the question is about a family that both have, IPv4 first.
///
/// # Errors
/// When an end names no pod, or a pod without an address, or the ends share no family.
pub fn explain(snapshot: &Snapshot, src: &str, dst: &str, port: u16, protocol: Protocol) -> Result<Explained, ExplainError> {
    let oracle = Oracle::new(snapshot);
    let port = if protocol.has_ports() { port } else { 0 };
    let mut notes = Vec::new();
    let (from, to) = (end(&oracle, src, &mut notes)?, end(&oracle, dst, &mut notes)?);
    let Some((src_ip, dst_ip)) = shared_family(&from.addresses, &to.addresses) else {
        return Err(ExplainError::Families { src: src.to_owned(), dst: dst.to_owned() });
    };
    let half = |pod: &ObjectName, direction, remote| half(pod, direction, remote, oracle.judge(pod, direction, remote, protocol, port));
    let egress = from.pod.as_ref().map(|pod| half(pod, Direction::Egress, dst_ip));
    let ingress = to.pod.as_ref().map(|pod| half(pod, Direction::Ingress, src_ip));
    let mut allowed = [&egress, &ingress].into_iter().flatten().all(|half| half.allowed);
    if from.pod.is_some() && from.pod == to.pod {
        notes.push("self-traffic is always allowed: it never leaves the pod".to_owned());
        allowed = true;
    }
    for (pod, other) in [(&from.pod, dst_ip), (&to.pod, src_ip)] {
        if let Some(pod) = pod.as_ref().filter(|pod| hosts(snapshot, pod).contains(&other)) {
            notes.push(format!("{other} is the node of {pod}: traffic between a pod and its own node is always allowed"));
            allowed = true;
        }
    }
    if let Some(service) = service_at(snapshot, dst_ip) {
        notes.push(format!("{dst_ip} is the service {service}: policies judge the backend that it picks, ask about that"));
    }
    if from.pod.is_none() && to.pod.is_none() {
        notes.push("neither end is a pod that policies select, so no policy has a say".to_owned());
    }
    Ok(Explained {
        src: end_text(&from, src_ip),
        dst: end_text(&to, dst_ip),
        port: port_text(protocol, port),
        allowed,
        egress,
        ingress,
        notes,
    })
}

fn end(oracle: &Oracle<'_>, text: &str, notes: &mut Vec<String>) -> Result<End, ExplainError> {
    if let Ok(address) = text.parse::<IpAddr>() {
        let address = address.to_canonical();
        if oracle.pods_at(address).len() > 1 {
            notes.push(format!("{}; judged as the first of them", oracle.address_text(address)));
        } else if let Some(pod) = oracle.host_network_pod_at(address) {
            notes.push(format!("{address} is a node's address; {pod} uses its node's network"));
        }
        return Ok(End { pod: oracle.pod_at(address).cloned(), addresses: vec![address] });
    }
    let pod = ObjectName::parse(text);
    let why = match identity::standing(oracle.snapshot, &pod) {
        Standing::Unknown => {
            let elsewhere = oracle.snapshot.pods.keys().filter(|other| other.name == pod.name).cloned().collect();
            return Err(ExplainError::NoPod { pod, elsewhere });
        }
        Standing::Ended => "it has ended, and its address may be another pod's by now",
        Standing::HostNetwork => {
            let addresses = oracle.snapshot.pods.get(&pod).map(|pod| identity::status_addresses(pod)).unwrap_or_default();
            if !addresses.is_empty() {
                notes.push(format!("{pod} uses its node's network: no policy selects it, and peers see the node's address"));
                return Ok(End { pod: None, addresses });
            }
            "its node has not reported one"
        }
        Standing::Pod => {
            let addresses = oracle.addresses_of(&pod);
            if !addresses.is_empty() {
                return Ok(End { pod: Some(pod), addresses });
            }
            "it has not started yet"
        }
    };
    Err(ExplainError::NoAddress { pod, why })
}

fn shared_family(src: &[IpAddr], dst: &[IpAddr]) -> Option<(IpAddr, IpAddr)> {
    [IpAddr::is_ipv4, IpAddr::is_ipv6].into_iter().find_map(|family: fn(&IpAddr) -> bool| {
        let first = |addresses: &[IpAddr]| addresses.iter().copied().find(family);
        Some((first(src)?, first(dst)?))
    })
}

fn half(pod: &ObjectName, direction: Direction, remote: IpAddr, judgement: Judgement) -> ExplainedHalf {
    ExplainedHalf {
        pod: pod.clone(),
        direction,
        remote,
        allowed: judgement.allowed,
        isolated: judgement.isolated,
        isolating: judgement.isolating,
        rule: judgement.allowed_by.map(|rule| rule.to_string()),
        nearest_miss: judgement.nearest_miss.map(|NearMiss { rule, failed }| (rule.to_string(), failed)),
    }
}

/// The addresses of the node that runs `pod`.
fn hosts(snapshot: &Snapshot, pod: &ObjectName) -> Vec<IpAddr> {
    let Some(status) = snapshot.pods.get(pod).and_then(|pod| pod.status.as_ref()) else { return Vec::new() };
    let several = status.host_ips.iter().flat_map(|hosts| hosts.iter()).map(|host| &*host.ip);
    several.chain(status.host_ip.as_deref()).filter_map(|text| text.parse().ok()).collect()
}

/// The service that has this address.
pub fn service_at(snapshot: &Snapshot, address: IpAddr) -> Option<&ObjectName> {
    let mut services = snapshot.services.iter();
    let (name, _) = services.find(|(_, service)| service_addresses(service).contains(&address))?;
    Some(name)
}

fn end_text(end: &End, address: IpAddr) -> String {
    match &end.pod {
        Some(pod) => format!("{pod} ({address})"),
        None => address.to_string(),
    }
}
