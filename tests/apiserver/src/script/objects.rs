//! JSON of new objects.

use serde_json::{Map, Value, json};

pub(super) const APPS: [&str; 4] = ["web", "db", "cache", "batch"];
pub(super) const TIERS: [&str; 3] = ["gold", "silver", "bronze"];
pub(super) const TEAMS: [&str; 3] = ["red", "blue", "green"];

/// What a pod is like, beyond its name.
pub(super) struct PodShape<'a> {
    pub(super) app: &'a str,
    pub(super) tier: &'a str,
    pub(super) host_network: bool,
    pub(super) finalizer: bool,
}

pub(super) fn pod(namespace: &str, name: &str, shape: &PodShape<'_>) -> Value {
    let ports = json!([
        {"name": "http", "containerPort": 8080, "protocol": "TCP"},
        {"name": "dns", "containerPort": 53, "protocol": "UDP"},
    ]);
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": shape.app, "tier": shape.tier}},
        "spec": {"containers": [{"name": "c", "image": "registry.k8s.io/pause:3.10", "ports": ports}], "terminationGracePeriodSeconds": 30},
    });
    if shape.host_network {
        pod["spec"]["hostNetwork"] = true.into();
    }
    if shape.finalizer {
        pod["metadata"]["finalizers"] = json!(["example.com/hold"]);
    }
    pod
}

pub(super) fn running_status(node: &[String; 2], ips: &[String; 2], ready: bool) -> Value {
    let pair = |ips: &[String; 2]| json!([{"ip": ips[0]}, {"ip": ips[1]}]);
    json!({"status": {
        "phase": "Running", "hostIP": node[0], "hostIPs": pair(node), "podIP": ips[0], "podIPs": pair(ips),
        "conditions": ready_condition(ready),
    }})
}

pub(super) fn ready_condition(ready: bool) -> Value {
    json!([{"type": "Ready", "status": if ready { "True" } else { "False" }}])
}

pub(super) fn namespace(name: &str, team: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"team": team}}})
}

pub(super) fn node(name: &str, addresses: &[String; 2], ranges: &[String; 2]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {"podCIDR": ranges[0], "podCIDRs": ranges},
        "status": {"addresses": [
            {"type": "InternalIP", "address": addresses[0]},
            {"type": "InternalIP", "address": addresses[1]},
            {"type": "Hostname", "address": name},
        ]},
    })
}

pub(super) fn service(namespace: &str, name: &str, app: &str, number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"app": app}, "type": "ClusterIP", "clusterIP": format!("10.96.{}.{}", number / 250 % 250, number % 250 + 1),
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": "http"}],
        },
    })
}

/// The slice of one address family of a service, with the given endpoints.
pub(super) fn endpoint_slice(namespace: &str, service: &str, family: usize, endpoints: Vec<Value>) -> Value {
    let (suffix, address_type) = [("v4", "IPv4"), ("v6", "IPv6")][family];
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-{suffix}"), "namespace": namespace,
            "labels": {"kubernetes.io/service-name": service, "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"},
        },
        "addressType": address_type,
        "endpoints": endpoints,
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
    })
}

pub(super) fn endpoint(pod: &Value, family: usize) -> Value {
    let ready = pod["status"]["conditions"][0]["status"] == "True" && pod["metadata"].get("deletionTimestamp").is_none();
    json!({
        "addresses": [pod["status"]["podIPs"][family]["ip"]],
        "conditions": {"ready": ready, "serving": ready, "terminating": pod["metadata"].get("deletionTimestamp").is_some()},
        "nodeName": pod["spec"]["nodeName"],
        "targetRef": {"kind": "Pod", "namespace": pod["metadata"]["namespace"], "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]},
    })
}

pub(super) fn policy(namespace: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    })
}

/// A selector of one label, or of everything.
pub(super) fn selector(label: Option<(&str, &str)>) -> Value {
    let mut selector = Map::new();
    if let Some((key, value)) = label {
        selector.insert("matchLabels".into(), json!({key: value}));
    }
    selector.into()
}
