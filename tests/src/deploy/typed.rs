//! Objects against what their kind allows: the recorded schemas where they reach, Kubernetes' typed API for the rest.

use super::Schemas;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Fields of a ServiceMonitor that the chart may use. Its schema was not recorded. Source: the Prometheus operator's API
/// reference, `ServiceMonitorSpec` and `Endpoint` of monitoring.coreos.com/v1.
const SERVICE_MONITOR: [&[&str]; 2] = [&["selector", "endpoints"], &["port", "path", "interval", "relabelings"]];

/// Everything that is wrong with an object, each with its place. A kind that nobody can check is wrong too.
pub fn violations(schemas: &Schemas, object: &Value) -> Vec<String> {
    let version = object["apiVersion"].as_str().unwrap_or_default();
    match (version, object["kind"].as_str().unwrap_or_default()) {
        ("v1", kind) => schemas.violations(&format!("io.k8s.api.core.v1.{kind}"), object),
        ("apps/v1", kind @ ("DaemonSet" | "Deployment")) => {
            let mut found = if kind == "DaemonSet" { unknown_fields::<DaemonSet>(object) } else { unknown_fields::<Deployment>(object) };
            found.extend(schemas.violations("io.k8s.api.core.v1.PodTemplateSpec", &object["spec"]["template"]));
            found
        }
        ("rbac.authorization.k8s.io/v1", "ClusterRole") => unknown_fields::<ClusterRole>(object),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => unknown_fields::<ClusterRoleBinding>(object),
        ("rbac.authorization.k8s.io/v1", "Role") => unknown_fields::<Role>(object),
        ("rbac.authorization.k8s.io/v1", "RoleBinding") => unknown_fields::<RoleBinding>(object),
        ("monitoring.coreos.com/v1", "ServiceMonitor") => service_monitor(&object["spec"]),
        (version, kind) => vec![format!("{version} {kind}: no schema to check it by")],
    }
}

/// Why the typed API does not take an object, and which of its fields that API does not know.
pub fn unknown_fields<T: DeserializeOwned>(object: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    let read: Result<T, _> = serde_ignored::deserialize(object, |path| unknown.push(format!(".{path}: no such field")));
    unknown.extend(read.err().map(|error| error.to_string()));
    unknown
}

fn service_monitor(spec: &Value) -> Vec<String> {
    let unknown = |value: &Value, known: &[&str]| -> Vec<String> {
        let fields = value.as_object().into_iter().flatten();
        fields.filter(|(name, _)| !known.contains(&name.as_str())).map(|(name, _)| format!("{name}: no such field")).collect()
    };
    let endpoints = spec["endpoints"].as_array().into_iter().flatten();
    unknown(spec, SERVICE_MONITOR[0]).into_iter().chain(endpoints.flat_map(|endpoint| unknown(endpoint, SERVICE_MONITOR[1]))).collect()
}
