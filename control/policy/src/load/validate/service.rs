//! Services: ports, selector and addresses.
//!
//! Source: k8s.io/kubernetes `pkg/apis/core/validation/validation.go`, `ValidateService`.

use super::super::error::Problems;
use super::super::node::Path;
use super::{address, protocol, selector, syntax};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::HashSet;

/// `clusterIP` of a headless service.
const HEADLESS: &str = "None";

pub(super) fn service(service: &Service, problems: &mut Problems) {
    let path = Path::of("spec");
    let spec = service.spec.clone().unwrap_or_default();
    let kind = spec.type_.as_deref().unwrap_or("ClusterIP");
    if !matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer" | "ExternalName") {
        let supported = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
        problems.unsupported(&path.key("type"), kind, &supported);
    }
    let ports = spec.ports.as_deref().unwrap_or_default();
    let headless = spec.cluster_ip.as_deref() == Some(HEADLESS);
    if ports.is_empty() && !headless && kind != "ExternalName" {
        problems.required(&path.key("ports"), "");
    }
    let mut names = HashSet::new();
    for (index, one) in ports.iter().enumerate() {
        let path = path.key("ports").index(index);
        port(one, ports.len() > 1, &path, problems);
        if !names.insert(one.name.as_deref().unwrap_or_default()) && one.name.is_some() {
            problems.add(&path.key("name"), format!("Duplicate value: {:?}", one.name.as_deref().unwrap_or_default()));
        }
    }
    if let Some(labels) = &spec.selector {
        selector::labels(labels, &path.key("selector"), problems);
    }
    addresses(&spec, &path, problems);
}

fn port(port: &ServicePort, name_required: bool, path: &Path, problems: &mut Problems) {
    match &port.name {
        None if name_required => {
            problems.required(&path.key("name"), "").hint("a service with several ports names each of them");
        }
        None => {}
        Some(name) => {
            for why in syntax::dns_label(name) {
                problems.invalid(&path.key("name"), name, &why);
            }
        }
    }
    if let Some(why) = syntax::port_number(port.port) {
        problems.invalid(&path.key("port"), port.port, why);
    }
    protocol(port.protocol.as_deref(), &path.key("protocol"), problems);
    match &port.target_port {
        // The default repeats `port`, which has been judged.
        Some(IntOrString::Int(number)) if *number != port.port => {
            if let Some(why) = syntax::port_number(*number) {
                problems.invalid(&path.key("targetPort"), number, why);
            }
        }
        Some(IntOrString::String(name)) => {
            for why in syntax::port_name(name) {
                problems.invalid(&path.key("targetPort"), name, &why);
            }
        }
        _ => {}
    }
}

fn addresses(spec: &ServiceSpec, path: &Path, problems: &mut Problems) {
    let cluster_ip = spec.cluster_ip.iter().map(|text| (path.key("clusterIP"), text));
    let list = |field: &'static str, values: &'_ Option<Vec<String>>| {
        let path = path.key(field);
        values.clone().unwrap_or_default().into_iter().enumerate().map(move |(i, text)| (path.index(i), text))
    };
    let others = list("clusterIPs", &spec.cluster_ips).chain(list("externalIPs", &spec.external_ips));
    for (path, text) in cluster_ip.map(|(path, text)| (path, text.clone())).chain(others) {
        if text == HEADLESS && path.to_string().starts_with("spec.clusterIP") {
            continue;
        }
        if let Err(refusal) = address::ip(&text) {
            let problem = problems.invalid(&path, &text, refusal.why);
            problem.hint = refusal.right_form.map(|right| format!("write `{right}`"));
        }
    }
}
