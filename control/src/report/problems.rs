//! Objects that cannot be represented, as warnings on them.

use super::events::Warning;
use k8s_openapi::api::core::v1::ObjectReference;
use sluice_flow::ObjectName;
use sluice_policy::Snapshot;
use sluice_wire::ManifestProblem;

/// Of each problem whose object is known.
pub(super) fn warnings(problems: &[ManifestProblem], snapshot: &Snapshot) -> Vec<Warning> {
    let warning = |problem| {
        Some(Warning { regarding: reference(problem, snapshot)?, reason: "NotRepresented", note: note(problem), action: "Compile" })
    };
    problems.iter().filter_map(warning).collect()
}

fn note(problem: &ManifestProblem) -> String {
    let place = if problem.field.is_empty() { String::new() } else { format!("{}: ", problem.field) };
    let hint = problem.hint.as_ref().map_or_else(String::new, |hint| format!(" ({hint})"));
    format!("{place}{}{hint}; in force: {}", problem.message, problem.in_force)
}

/// The object that it is about; with its UID where a state of it is in force.
fn reference(problem: &ManifestProblem, snapshot: &Snapshot) -> Option<ObjectReference> {
    let (kind, name) = problem.object.as_deref()?.split_once(' ')?;
    let (namespace, name) = name.split_once('/').map_or((None, name), |(namespace, name)| (Some(namespace), name));
    let key = ObjectName::new(namespace.unwrap_or_default(), name);
    let (api_version, uid) = match kind {
        "NetworkPolicy" => ("networking.k8s.io/v1", snapshot.policies.get(&key).and_then(|policy| policy.metadata.uid.clone())),
        "Pod" => ("v1", snapshot.pods.get(&key).and_then(|pod| pod.metadata.uid.as_deref().map(str::to_owned))),
        "Service" => ("v1", snapshot.services.get(&key).and_then(|service| service.metadata.uid.clone())),
        "Namespace" => ("v1", snapshot.namespaces.get(name).and_then(|namespace| namespace.metadata.uid.clone())),
        _ => return None,
    };
    Some(ObjectReference {
        api_version: Some(api_version.into()),
        kind: Some(kind.into()),
        name: Some(name.into()),
        namespace: namespace.map(str::to_owned),
        uid,
        ..ObjectReference::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_policy::pod::Pod;
    use std::sync::Arc;

    fn problem(object: &str) -> ManifestProblem {
        ManifestProblem {
            file: "server".into(),
            line: 0,
            column: 0,
            object: Some(object.into()),
            field: "spec.x".into(),
            message: "is odd".into(),
            hint: Some("make it even".into()),
            in_force: "nothing".into(),
        }
    }

    #[test]
    fn each_kind_of_object_is_found() {
        let mut snapshot = Snapshot::default();
        let mut pod = Pod::default();
        pod.metadata.uid = Some("1".into());
        snapshot.pods.insert(ObjectName::new("x", "web"), Arc::new(pod));
        let problems = ["Pod x/web", "NetworkPolicy x/p", "Service x/s", "Namespace x", "Cabbage x/y"].map(problem);
        let found = warnings(&problems, &snapshot);
        let name = |warning: &Warning| {
            let ObjectReference { api_version, kind, namespace, name, uid, .. } = warning.regarding.clone();
            [api_version, kind, namespace, name, uid].map(Option::unwrap_or_default).join(" ")
        };
        let names: Vec<String> = found.iter().map(name).collect();
        assert_eq!(names, ["v1 Pod x web 1", "networking.k8s.io/v1 NetworkPolicy x p ", "v1 Service x s ", "v1 Namespace  x "]);
        assert_eq!(found[0].note, "spec.x: is odd (make it even); in force: nothing");
    }
}
