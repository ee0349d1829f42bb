//! NetworkPolicy.
//!
//! Source: k8s.io/kubernetes `pkg/apis/networking/validation/validation.go`, `ValidateNetworkPolicySpec`.

use super::super::error::Problems;
use super::super::node::Path;
use super::{address, protocol, selector, syntax};
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

pub(super) fn policy(policy: &NetworkPolicy, problems: &mut Problems) {
    let Some(spec) = &policy.spec else { return };
    let path = Path::of("spec");
    if let Some(pod_selector) = &spec.pod_selector {
        selector::selector(pod_selector, &path.key("podSelector"), problems);
    }
    for (index, rule) in spec.ingress.iter().flatten().enumerate() {
        let path = path.key("ingress").index(index);
        ports(rule.ports.as_deref(), &path, problems);
        peers(rule.from.as_deref(), &path.key("from"), problems);
    }
    for (index, rule) in spec.egress.iter().flatten().enumerate() {
        let path = path.key("egress").index(index);
        ports(rule.ports.as_deref(), &path, problems);
        peers(rule.to.as_deref(), &path.key("to"), problems);
    }
    policy_types(spec.policy_types.as_deref().unwrap_or_default(), &path.key("policyTypes"), problems);
}

fn policy_types(types: &[String], path: &Path, problems: &mut Problems) {
    if types.len() > 2 {
        let list = types.iter().map(|one| format!("{one:?}")).collect::<Vec<_>>().join(",");
        problems.add(path, format!("Invalid value: [{list}]: may not specify more than two policyTypes"));
        return;
    }
    for (index, one) in types.iter().enumerate() {
        if !matches!(one.as_str(), "Ingress" | "Egress") {
            let problem = problems.unsupported(&path.index(index), one, &["Ingress", "Egress"]);
            if one.contains([',', ' ']) {
                problem.hint("give each an item of its own\n    - Ingress\n    - Egress");
            }
        }
    }
}

fn peers(peers: Option<&[NetworkPolicyPeer]>, path: &Path, problems: &mut Problems) {
    for (index, one) in peers.unwrap_or_default().iter().enumerate() {
        peer(one, &path.index(index), problems);
    }
}

fn peer(peer: &NetworkPolicyPeer, path: &Path, problems: &mut Problems) {
    if let Some(pod_selector) = &peer.pod_selector {
        selector::selector(pod_selector, &path.key("podSelector"), problems);
    }
    if let Some(namespace_selector) = &peer.namespace_selector {
        selector::selector(namespace_selector, &path.key("namespaceSelector"), problems);
    }
    if let Some(block) = &peer.ip_block {
        ip_block(block, &path.key("ipBlock"), problems);
    }
    let selects = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
    match (selects, &peer.ip_block) {
        (false, None) => {
            problems.required(path, "must specify a peer").hint(
                "`podSelector: {}` means all pods of this namespace, `namespaceSelector: {}` all pods; to allow every \
                 peer leave the whole list out",
            );
        }
        (true, Some(_)) => {
            problems
                .add(path, "Forbidden: may not specify both ipBlock and another peer")
                .hint("make two peers of it, each with its own `- `; either one then allows");
        }
        _ => {}
    }
}

fn ip_block(block: &IPBlock, path: &Path, problems: &mut Problems) {
    if block.cidr.is_empty() {
        problems.required(&path.key("cidr"), "");
        return;
    }
    let outer = cidr(&block.cidr, &path.key("cidr"), problems);
    for (index, text) in block.except.iter().flatten().enumerate() {
        let path = path.key("except").index(index);
        let (Some(inner), Some(outer)) = (cidr(text, &path, problems), outer) else { continue };
        // Strictly: an exception of everything is refused, and so is one of the other family.
        if !outer.contains(&inner) || outer.prefix_len() >= inner.prefix_len() {
            problems.invalid(&path, text, "must be a strict subset of `cidr`");
        }
    }
}

fn cidr(text: &str, path: &Path, problems: &mut Problems) -> Option<ipnet::IpNet> {
    match address::cidr(text) {
        Ok(network) => Some(network),
        Err(refusal) => {
            let problem = problems.invalid(path, text, refusal.why);
            problem.hint = refusal.right_form.map(|right| format!("write `{right}`"));
            None
        }
    }
}

fn ports(ports: Option<&[NetworkPolicyPort]>, rule: &Path, problems: &mut Problems) {
    for (index, one) in ports.unwrap_or_default().iter().enumerate() {
        port(one, &rule.key("ports").index(index), problems);
    }
}

fn port(port: &NetworkPolicyPort, path: &Path, problems: &mut Problems) {
    protocol(port.protocol.as_deref(), &path.key("protocol"), problems);
    let (port_path, end_path) = (path.key("port"), path.key("endPort"));
    match (&port.port, port.end_port) {
        (None, None) => {}
        (None, Some(end)) => {
            problems
                .invalid(&end_path, end, "may not be specified when `port` is not specified")
                .hint("give the first port of the range as `port`");
        }
        (Some(IntOrString::String(name)), end) => {
            if let Some(end) = end {
                problems
                    .invalid(&end_path, end, "may not be specified when `port` is non-numeric")
                    .hint(format!("a range needs numbers at both ends; `{name}` is a name"));
            }
            for why in syntax::port_name(name) {
                let problem = problems.invalid(&port_path, name, &why);
                if let Some(hint) = numbers(name) {
                    problem.hint(hint);
                }
            }
        }
        (Some(IntOrString::Int(first)), end) => {
            if let Some(why) = syntax::port_number(*first) {
                problems.invalid(&port_path, first, why);
            }
            let Some(end) = end else { return };
            if end < *first {
                // The server names `port` as the value, with the field of `endPort`.
                problems
                    .invalid(&end_path, first, "must be greater than or equal to `port`")
                    .hint(format!("the range runs from `port` to `endPort`: {end} to {first}?"));
            }
            if let Some(why) = syntax::port_number(end) {
                problems.invalid(&end_path, end, why);
            }
        }
    }
}

/// What was meant by a name that is made of numbers: `"80"`, `80-90`, `80,443`.
fn numbers(name: &str) -> Option<String> {
    let number = |text: &str| text.trim().parse::<u16>().ok();
    if number(name).is_some() {
        return Some(format!("a number stands without quotes: `port: {name}`"));
    }
    if let Some((Some(first), Some(last))) = name.split_once(['-', ':']).map(|(first, last)| (number(first), number(last))) {
        return Some(format!("a range has two fields\n    - port: {first}\n      endPort: {last}"));
    }
    if let Some((port, protocol)) = name.split_once('/')
        && let (Some(port), "TCP" | "UDP" | "SCTP") = (number(port), protocol.to_uppercase().as_str())
    {
        return Some(format!("the protocol is a field of its own\n    - port: {port}\n      protocol: {}", protocol.to_uppercase()));
    }
    let several = name.split(',').map(number).collect::<Option<Vec<u16>>>()?;
    let entries: String = several.iter().map(|port| format!("\n    - port: {port}")).collect();
    Some(format!("give each port an entry of its own{entries}"))
}
