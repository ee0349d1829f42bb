//! Which resources the server knows: names, scope and the few traits that show on the wire.

use serde_json::Value;

/// Index of a resource in its [`Registry`]; stable for the life of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceId(pub(crate) usize);

/// One kind of object, as discovery describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: String,
    /// API version, such as `v1`.
    pub version: String,
    /// Lower-case plural, as in paths.
    pub plural: String,
    /// Kind, as in objects.
    pub kind: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Whether `/status` exists, which also keeps plain updates away from `status`.
    pub has_status: bool,
    /// Whether the server counts `metadata.generation`.
    pub has_generation: bool,
    /// Custom resources carry kind and apiVersion in the items of lists, built-in ones do not.
    pub custom: bool,
    /// What stands behind the metadata in a bookmark's object: the zero value of the Go type, without braces.
    pub bookmark_body: &'static str,
}

impl Resource {
    /// A namespaced resource as a CustomResourceDefinition would define it, with a status subresource.
    pub fn custom(group: &str, version: &str, plural: &str, kind: &str) -> Self {
        Self { has_generation: true, custom: true, ..Self::builtin(group, version, plural, kind) }
    }

    /// The same resource, cluster-scoped.
    pub fn cluster_scoped(self) -> Self {
        Self { namespaced: false, ..self }
    }

    /// Reads the stored version of a `CustomResourceDefinition`.
    ///
    /// Returns `None` when the names, the group or a stored version are missing.
    pub fn from_crd(crd: &Value) -> Option<Self> {
        let spec = crd.get("spec")?;
        let versions = spec.get("versions")?.as_array()?;
        let version = versions.iter().find(|version| version["storage"] == true)?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let named = Self::custom(
            &text(&spec["group"])?,
            &text(&version["name"])?,
            &text(&spec["names"]["plural"])?,
            &text(&spec["names"]["kind"])?,
        );
        Some(Self { namespaced: spec["scope"] == "Namespaced", has_status: version.pointer("/subresources/status").is_some(), ..named })
    }

    fn builtin(group: &str, version: &str, plural: &str, kind: &str) -> Self {
        Self {
            group: group.to_owned(),
            version: version.to_owned(),
            plural: plural.to_owned(),
            kind: kind.to_owned(),
            namespaced: true,
            has_status: true,
            has_generation: false,
            custom: false,
            bookmark_body: "",
        }
    }

    /// `apiVersion` of its objects.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `plural.group`, or the plural alone for the core group: how error messages name a resource.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Path of the collection of all namespaces, such as `/apis/networking.k8s.io/v1/networkpolicies`.
    pub fn path(&self) -> String {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        format!("{root}/{}/{}", self.api_version(), self.plural)
    }
}

/// All resources of a server.
#[derive(Debug, Clone)]
pub struct Registry {
    resources: Vec<Resource>,
}

impl Default for Registry {
    /// The built-in resources that a policy engine reads or writes.
    fn default() -> Self {
        let generation = |resource: Resource| Resource { has_generation: true, ..resource };
        let no_status = |resource: Resource| Resource { has_status: false, ..resource };
        let bookmark = |resource: Resource, bookmark_body| Resource { bookmark_body, ..resource };
        let core = |plural, kind| Resource::builtin("", "v1", plural, kind);
        Self {
            resources: vec![
                bookmark(core("namespaces", "Namespace").cluster_scoped(), r#""spec":{},"status":{}"#),
                bookmark(generation(core("pods", "Pod")), r#""spec":{"containers":null},"status":{}"#),
                bookmark(core("services", "Service"), r#""spec":{},"status":{"loadBalancer":{}}"#),
                bookmark(core("nodes", "Node").cluster_scoped(), NODE_BOOKMARK),
                bookmark(no_status(core("events", "Event")), EVENT_BOOKMARK),
                bookmark(
                    generation(no_status(Resource::builtin("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy"))),
                    r#""spec":{"podSelector":{}}"#,
                ),
                bookmark(
                    generation(no_status(Resource::builtin("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice"))),
                    r#""addressType":"","endpoints":null,"ports":null"#,
                ),
                bookmark(no_status(Resource::builtin("events.k8s.io", "v1", "events", "Event")), r#""eventTime":null"#),
            ],
        }
    }
}

const NODE_BOOKMARK: &str = r#""spec":{},"status":{"daemonEndpoints":{"kubeletEndpoint":{"Port":0}},"nodeInfo":{"machineID":"","systemUUID":"","bootID":"","kernelVersion":"","osImage":"","containerRuntimeVersion":"","kubeletVersion":"","kubeProxyVersion":"","operatingSystem":"","architecture":""}}"#;
const EVENT_BOOKMARK: &str = r#""involvedObject":{},"source":{},"firstTimestamp":null,"lastTimestamp":null,"eventTime":null,"reportingComponent":"","reportingInstance":"""#;

impl Registry {
    /// Adds a resource, or replaces the one of the same group, version and plural.
    pub fn add(&mut self, resource: Resource) {
        let same =
            |known: &&mut Resource| (&known.group, &known.version, &known.plural) == (&resource.group, &resource.version, &resource.plural);
        match self.resources.iter_mut().find(same) {
            Some(known) => *known = resource,
            None => self.resources.push(resource),
        }
    }

    /// The resource behind an id of this registry.
    pub fn get(&self, id: ResourceId) -> &Resource {
        &self.resources[id.0]
    }

    /// All resources with their ids, in order of registration.
    pub fn iter(&self) -> impl Iterator<Item = (ResourceId, &Resource)> {
        self.resources.iter().enumerate().map(|(index, resource)| (ResourceId(index), resource))
    }

    /// Finds by `plural` or `plural.group`; a bare plural prefers the resource that was registered first.
    pub fn by_name(&self, name: &str) -> Option<ResourceId> {
        let (plural, group) = name.split_once('.').unwrap_or((name, ""));
        let exact = self.iter().find(|(_, resource)| resource.plural == plural && resource.group == group);
        exact.or_else(|| self.iter().find(|(_, resource)| resource.plural == name)).map(|(id, _)| id)
    }

    /// Finds by the type that an object names.
    pub fn by_kind(&self, api_version: &str, kind: &str) -> Option<ResourceId> {
        self.iter().find(|(_, resource)| resource.kind == kind && resource.api_version() == api_version).map(|(id, _)| id)
    }

    /// Finds by the parts of a path.
    pub fn by_path(&self, group: &str, version: &str, plural: &str) -> Option<ResourceId> {
        self.iter().find(|(_, known)| (&*known.group, &*known.version, &*known.plural) == (group, version, plural)).map(|(id, _)| id)
    }

    /// Whether any resource belongs to this group and version.
    pub fn has_group_version(&self, group: &str, version: &str) -> bool {
        self.resources.iter().any(|known| known.group == group && known.version == version)
    }

    /// Groups and their versions except the core group, in order of registration.
    pub fn groups(&self) -> Vec<(&str, Vec<&str>)> {
        let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
        for resource in self.resources.iter().filter(|resource| !resource.group.is_empty()) {
            let at = groups.iter().position(|(group, _)| *group == resource.group).unwrap_or_else(|| {
                groups.push((&resource.group, Vec::new()));
                groups.len() - 1
            });
            if !groups[at].1.contains(&&*resource.version) {
                groups[at].1.push(&resource.version);
            }
        }
        groups
    }

    pub(crate) fn len(&self) -> usize {
        self.resources.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_bare_plural_means_the_core_group_first() {
        let registry = Registry::default();
        let name = |name: &str| registry.by_name(name).map(|id| registry.get(id).api_version());
        assert_eq!(name("events").as_deref(), Some("v1"));
        assert_eq!(name("events.events.k8s.io").as_deref(), Some("events.k8s.io/v1"));
        assert_eq!(name("networkpolicies").as_deref(), Some("networking.k8s.io/v1"));
        assert_eq!(name("nosuch"), None);
    }

    #[test]
    fn a_crd_becomes_a_resource() {
        let crd = json!({"spec": {
            "group": "policy.networking.k8s.io", "scope": "Cluster",
            "names": {"plural": "clusternetworkpolicies", "kind": "ClusterNetworkPolicy"},
            "versions": [{"name": "v1alpha1", "storage": false}, {"name": "v1alpha2", "storage": true, "subresources": {"status": {}}}],
        }});
        let resource = Resource::from_crd(&crd).unwrap();
        assert_eq!(resource.path(), "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies");
        assert!(!resource.namespaced && resource.has_status && resource.custom);
        assert_eq!(Resource::from_crd(&json!({"spec": {}})), None);
    }
}
