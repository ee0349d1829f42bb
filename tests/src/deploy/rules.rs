//! What an API server refuses although the schema allows it, as far as these pods come near it.
//!
//! Source: Kubernetes, pkg/apis/core/validation/validation.go (`validateMountPropagation`, `ValidateSecurityContext`,
//! `validateContainerPorts`, `ValidateVolumeMounts`).

use super::text;
use serde_json::Value;
use std::collections::BTreeSet;

/// The rules that a pod breaks, each with the container.
pub fn broken_rules(pod: &Value) -> Vec<String> {
    let mut broken = Vec::new();
    let containers: Vec<&Value> = ["initContainers", "containers"].iter().filter_map(|list| pod[*list].as_array()).flatten().collect();
    let volumes: Vec<&str> = list(&pod["volumes"]).map(|volume| text(&volume["name"])).collect();
    let mut used = BTreeSet::new();
    if containers.iter().map(|container| text(&container["name"])).collect::<BTreeSet<_>>().len() != containers.len() {
        broken.push("two containers have one name".to_owned());
    }
    if volumes.iter().collect::<BTreeSet<_>>().len() != volumes.len() {
        broken.push("two volumes have one name".to_owned());
    }
    for container in containers {
        let mut places = BTreeSet::new();
        for mount in list(&container["volumeMounts"]) {
            used.insert(text(&mount["name"]));
            if !places.insert(text(&mount["mountPath"])) {
                broken.push(format!("{}: two mounts at {}", text(&container["name"]), mount["mountPath"]));
            }
            if !volumes.contains(&text(&mount["name"])) {
                broken.push(format!("{}: no volume {}", text(&container["name"]), mount["name"]));
            }
            if mount["mountPropagation"] == "Bidirectional" && container["securityContext"]["privileged"] != true {
                broken.push(format!("{}: Bidirectional mount propagation is for privileged containers", text(&container["name"])));
            }
        }
        broken.extend(security(container).map(|rule| format!("{}: {rule}", text(&container["name"]))));
        for port in list(&container["ports"]).filter(|port| pod["hostNetwork"] == true && port["hostPort"] != port["containerPort"]) {
            broken.push(format!("{}: with hostNetwork, hostPort must match containerPort: {port}", text(&container["name"])));
        }
    }
    broken.extend(volumes.iter().filter(|volume| !used.contains(*volume)).map(|volume| format!("nobody mounts the volume {volume}")));
    broken
}

fn security(container: &Value) -> impl Iterator<Item = &'static str> {
    let context = &container["securityContext"];
    let added = |name: &str| list(&context["capabilities"]["add"]).any(|capability| capability == name);
    [
        (context["privileged"] == true && context["allowPrivilegeEscalation"] == false, "privileged without privilege escalation"),
        (added("SYS_ADMIN") && context["allowPrivilegeEscalation"] == false, "SYS_ADMIN is privilege escalation"),
        (list(&context["capabilities"]["add"]).any(|name| text(name).starts_with("CAP_")), "capabilities are named without CAP_"),
        (context["runAsNonRoot"] == true && context["runAsUser"] == 0, "runAsNonRoot as user 0"),
    ]
    .into_iter()
    .filter_map(|(breaks, rule)| breaks.then_some(rule))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
