//! Discovery: versions, groups and resources, as clients look them up before anything else.

use super::route::Page;
use crate::resource::{Registry, Resource};
use serde_json::{Value, json};

pub(super) fn page(registry: &Registry, page: &Page) -> Value {
    match page {
        Page::Version => json!({
            "major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36", "minCompatibilityMajor": "1",
            "minCompatibilityMinor": "35", "gitVersion": "v1.36.2", "gitCommit": "", "gitTreeState": "clean",
            "buildDate": "2026-07-22T00:00:00Z", "goVersion": "go1.26.4", "compiler": "gc", "platform": "linux/amd64",
        }),
        Page::CoreVersions => json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1"}],
        }),
        Page::Groups => {
            let groups: Vec<Value> = registry.groups().into_iter().map(|(group, versions)| group_of(group, &versions)).collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        Page::Group(name) => {
            let groups = registry.groups();
            let versions = groups.iter().find(|(group, _)| group == name).map(|(_, versions)| versions.as_slice());
            let mut group = json!({"kind": "APIGroup", "apiVersion": "v1"});
            for (field, value) in group_of(name, versions.unwrap_or_default()).as_object().into_iter().flatten() {
                group[field] = value.clone();
            }
            group
        }
        Page::Resources { group, version } => {
            let listed = registry.iter().filter(|(_, known)| known.group == *group && known.version == *version);
            let resources: Vec<Value> = listed.flat_map(|(_, known)| entries(known)).collect();
            let group_version = if group.is_empty() { version.clone() } else { format!("{group}/{version}") };
            match group.as_str() {
                "" => json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": resources}),
                _ => json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}),
            }
        }
    }
}

fn group_of(name: &str, versions: &[&str]) -> Value {
    let entry = |version: &&str| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    let entries: Vec<Value> = versions.iter().map(entry).collect();
    json!({"name": name, "versions": entries, "preferredVersion": entries.first()})
}

fn entries(resource: &Resource) -> Vec<Value> {
    let Resource { plural, kind, namespaced, .. } = resource;
    let mut entries = vec![json!({
        "name": plural, "singularName": kind.to_lowercase(), "namespaced": namespaced, "kind": kind,
        "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
    })];
    if resource.has_status {
        entries.push(json!({
            "name": format!("{plural}/status"), "singularName": "", "namespaced": namespaced, "kind": kind,
            "verbs": ["get", "patch", "update"],
        }));
    }
    entries
}
