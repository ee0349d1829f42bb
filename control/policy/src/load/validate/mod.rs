//! The API server's validation (1.36, strict IP and CIDR syntax), in every field that a verdict may depend on.
//!
//! Messages are the server's own, word for word where recordings of it exist: `tests/load_recorded.rs` holds the
//! NetworkPolicy part to 71 of them. Objects are validated after defaulting, like in the server.

mod address;
mod pod;
mod policy;
mod selector;
mod service;
mod syntax;

use super::error::Problems;
use super::node::Path;
use super::object::Object;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Adds everything that the server would refuse this object for.
pub(super) fn object(object: &Object, problems: &mut Problems) {
    let check_name: fn(&str) -> Vec<String> = match object {
        Object::Namespace(_) | Object::Service(_) => syntax::dns_label,
        Object::Pod(_) | Object::NetworkPolicy(_) => syntax::dns_subdomain,
    };
    metadata(object.metadata(), object.kind().is_namespaced(), check_name, problems);
    match object {
        Object::Namespace(_) => {}
        Object::Pod(object) => pod::pod(object, problems),
        Object::Service(object) => service::service(object, problems),
        Object::NetworkPolicy(object) => policy::policy(object, problems),
    }
}

fn metadata(metadata: &ObjectMeta, namespaced: bool, check_name: fn(&str) -> Vec<String>, problems: &mut Problems) {
    let path = Path::of("metadata");
    let name = metadata.name.as_deref().unwrap_or_default();
    for why in check_name(name) {
        let problem = problems.invalid(&path.key("name"), name, &why);
        let lower = name.to_lowercase().replace('_', "-");
        if lower != name && check_name(&lower).is_empty() {
            problem.hint(format!("for instance `{lower}`"));
        }
    }
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    if namespaced {
        for why in syntax::dns_label(namespace) {
            problems.invalid(&path.key("namespace"), namespace, &why);
        }
    } else if !namespace.is_empty() {
        problems.add(&path.key("namespace"), "Forbidden: not allowed on this type").hint("remove it");
    }
    if let Some(labels) = &metadata.labels {
        selector::labels(labels, &path.key("labels"), problems);
    }
    for key in metadata.annotations.iter().flat_map(|annotations| annotations.keys()) {
        // Unlike labels, annotations may have upper case in the prefix.
        for why in syntax::qualified_name(&key.to_lowercase()) {
            let path = path.key("annotations");
            problems.invalid(&path, key, &why).at(path.key(key)).on_key();
        }
    }
}

/// One of TCP, UDP, SCTP; missing has been defaulted before.
fn protocol(protocol: Option<&str>, path: &Path, problems: &mut Problems) {
    const SUPPORTED: [&str; 3] = ["TCP", "UDP", "SCTP"];
    let Some(protocol) = protocol.filter(|protocol| !SUPPORTED.contains(protocol)) else { return };
    let problem = problems.unsupported(path, protocol, &SUPPORTED);
    match protocol.to_ascii_uppercase().as_str() {
        icmp if icmp.starts_with("ICMP") => {
            problem.hint("ICMP cannot be named; a rule without `ports` allows it, along with every other protocol");
        }
        "ALL" | "ANY" | "*" => {
            problem.hint("a rule without `ports` allows every protocol; otherwise give each protocol an entry of its own");
        }
        several if several.contains(['/', ',']) => {
            problem.hint("give each protocol an entry of its own, with its own `port`");
        }
        _ => {}
    }
}
