//! Paths and methods: what a request is about.

use crate::faults::Verb;
use crate::query::Query;
use crate::resource::{Registry, ResourceId};
use crate::store::Part;

/// A request's verb and target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) verb: Verb,
    pub(super) target: Target,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Collection {
        resource: ResourceId,
        namespace: Option<String>,
    },
    Object {
        resource: ResourceId,
        namespace: Option<String>,
        name: String,
        part: Part,
    },
    Discovery(Page),
    Health,
    /// The group and version exist, the resource does not.
    UnknownResource,
    UnknownPath,
}

/// Pages of discovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Page {
    Version,
    CoreVersions,
    Groups,
    Group(String),
    Resources { group: String, version: String },
}

impl Target {
    pub(super) fn resource(&self) -> Option<ResourceId> {
        match self {
            Self::Collection { resource, .. } | Self::Object { resource, .. } => Some(*resource),
            _ => None,
        }
    }
}

impl Route {
    pub(super) fn parse(registry: &Registry, method: &str, segments: &[String], query: &Query) -> Self {
        let target = target(registry, segments);
        let collection = matches!(target, Target::Collection { .. });
        let verb = match method {
            "POST" => Verb::Create,
            "PUT" => Verb::Update,
            "PATCH" => Verb::Patch,
            "DELETE" => Verb::Delete,
            _ if collection && query.is_true("watch") => Verb::Watch,
            _ if collection => Verb::List,
            _ => Verb::Get,
        };
        Self { verb, target }
    }
}

fn target(registry: &Registry, segments: &[String]) -> Target {
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match segments[..] {
        ["version"] => Target::Discovery(Page::Version),
        ["livez" | "readyz" | "healthz", ..] => Target::Health,
        ["api"] => Target::Discovery(Page::CoreVersions),
        ["apis"] => Target::Discovery(Page::Groups),
        ["api", version, ref rest @ ..] => versioned(registry, "", version, rest),
        ["apis", group] if registry.groups().iter().any(|(known, _)| *known == group) => Target::Discovery(Page::Group(group.to_owned())),
        ["apis", group, version, ref rest @ ..] => versioned(registry, group, version, rest),
        _ => Target::UnknownPath,
    }
}

fn versioned(registry: &Registry, group: &str, version: &str, rest: &[&str]) -> Target {
    if !registry.has_group_version(group, version) {
        return Target::UnknownPath;
    }
    let find = |plural: &str| registry.by_path(group, version, plural);
    let collection = |plural: &str, namespace: Option<&str>| match find(plural) {
        Some(resource) if registry.get(resource).namespaced || namespace.is_none() => {
            Target::Collection { resource, namespace: namespace.map(str::to_owned) }
        }
        _ => Target::UnknownResource,
    };
    let object = |plural: &str, namespace: Option<&str>, name: &str, part: Part| match find(plural) {
        Some(resource) if registry.get(resource).namespaced == namespace.is_some() => {
            Target::Object { resource, namespace: namespace.map(str::to_owned), name: name.to_owned(), part }
        }
        _ => Target::UnknownResource,
    };
    match *rest {
        [] => Target::Discovery(Page::Resources { group: group.to_owned(), version: version.to_owned() }),
        [plural] => collection(plural, None),
        // `/namespaces/x/status` is the namespace's own subresource, not a collection.
        ["namespaces", name, "status"] => object("namespaces", None, name, Part::Status),
        ["namespaces", namespace, plural] => collection(plural, Some(namespace)),
        ["namespaces", namespace, plural, name] => object(plural, Some(namespace), name, Part::Main),
        ["namespaces", namespace, plural, name, "status"] if has_status(registry, find(plural)) => {
            object(plural, Some(namespace), name, Part::Status)
        }
        [plural, name] => object(plural, None, name, Part::Main),
        [plural, name, "status"] if has_status(registry, find(plural)) => object(plural, None, name, Part::Status),
        _ => Target::UnknownResource,
    }
}

fn has_status(registry: &Registry, resource: Option<ResourceId>) -> bool {
    resource.is_some_and(|id| registry.get(id).has_status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::split_target;

    #[test]
    fn paths_lead_to_their_targets() {
        let registry = Registry::default();
        let pods = registry.by_name("pods").unwrap();
        let namespaces = registry.by_name("namespaces").unwrap();
        let route = |method: &str, target: &str| {
            let (segments, query) = split_target(target);
            Route::parse(&registry, method, &segments, &query)
        };
        let collection = |namespace: Option<&str>| Target::Collection { resource: pods, namespace: namespace.map(str::to_owned) };
        assert_eq!(route("GET", "/api/v1/pods"), Route { verb: Verb::List, target: collection(None) });
        assert_eq!(route("GET", "/api/v1/namespaces/x/pods?watch=true"), Route { verb: Verb::Watch, target: collection(Some("x")) });
        let object = route("PATCH", "/api/v1/namespaces/x/pods/a/status");
        assert_eq!(object.target, Target::Object { resource: pods, namespace: Some("x".into()), name: "a".into(), part: Part::Status });
        let namespace = route("PUT", "/api/v1/namespaces/x/status").target;
        assert_eq!(namespace, Target::Object { resource: namespaces, namespace: None, name: "x".into(), part: Part::Status });
        assert_eq!(route("GET", "/apis/networking.k8s.io/v1/nosuch").target, Target::UnknownResource);
        assert_eq!(route("GET", "/api/v1/namespaces/x/nodes").target, Target::UnknownResource);
        assert_eq!(route("GET", "/apis/nosuch.io/v1/things").target, Target::UnknownPath);
        assert_eq!(route("GET", "/apis/networking.k8s.io/v1/namespaces/x/networkpolicies/a/status").target, Target::UnknownResource);
        assert_eq!(route("GET", "/readyz/ping").target, Target::Health);
    }
}
