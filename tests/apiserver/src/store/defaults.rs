//! What the server fills in: the defaults that a policy engine's input depends on.

use crate::resource::Resource;
use serde_json::{Value, json};

/// Completes an object that a client wrote. Idempotent.
pub(super) fn apply(resource: &Resource, object: &mut Value) {
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "namespaces") => namespace(object),
        ("", "pods") => pod(object),
        ("", "services") => protocols(object.pointer_mut("/spec/ports")),
        ("networking.k8s.io", "networkpolicies") => network_policy(object),
        ("discovery.k8s.io", "endpointslices") => protocols(object.pointer_mut("/ports")),
        _ => {}
    }
}

/// Status of an object that a client creates: it begins anew, whatever the client wrote.
pub(super) fn reset_status(resource: &Resource, object: &mut Value) {
    if let ("", "pods") = (resource.group.as_str(), resource.plural.as_str()) {
        object["status"] = json!({"phase": "Pending"});
    }
}

/// The name label comes back whoever takes it away.
fn namespace(object: &mut Value) {
    let name = object["metadata"]["name"].clone();
    let labels = &mut object["metadata"]["labels"];
    if !labels.is_object() {
        *labels = json!({});
    }
    labels["kubernetes.io/metadata.name"] = name;
    if object.pointer("/status/phase").is_none() {
        object["status"]["phase"] = "Active".into();
    }
}

fn pod(object: &mut Value) {
    for containers in ["/spec/containers", "/spec/initContainers"] {
        let containers = object.pointer_mut(containers).and_then(Value::as_array_mut);
        containers.into_iter().flatten().for_each(|container| protocols(container.get_mut("ports")));
    }
    if object.pointer("/status/phase").is_none() {
        object["status"]["phase"] = "Pending".into();
    }
    if object.pointer("/status/qosClass").is_none() {
        object["status"]["qosClass"] = "BestEffort".into();
    }
}

/// Source: Kubernetes API reference, `NetworkPolicySpec.policyTypes` and `NetworkPolicyPort.protocol`.
fn network_policy(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else { return };
    if spec["policyTypes"].as_array().is_none_or(Vec::is_empty) {
        let egress = spec["egress"].as_array().is_some_and(|rules| !rules.is_empty());
        spec["policyTypes"] = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
    }
    for direction in ["ingress", "egress"] {
        let rules = spec.get_mut(direction).and_then(Value::as_array_mut);
        rules.into_iter().flatten().for_each(|rule| protocols(rule.get_mut("ports")));
    }
}

fn protocols(ports: Option<&mut Value>) {
    for port in ports.and_then(Value::as_array_mut).into_iter().flatten() {
        if port.is_object() && port.get("protocol").is_none() {
            port["protocol"] = "TCP".into();
        }
    }
}
