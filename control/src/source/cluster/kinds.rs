//! What is watched at an API server.

use kube::core::{ApiResource, GroupVersionKind};

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Namespaces,
    Pods,
    Services,
    NetworkPolicies,
    EndpointSlices,
    Nodes,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] =
        [Self::Namespaces, Self::Pods, Self::Services, Self::NetworkPolicies, Self::EndpointSlices, Self::Nodes];

    /// Whether a verdict depends on it. All of these are needed before anything is published; the others only explain.
    pub(crate) fn is_needed(self) -> bool {
        !matches!(self, Self::EndpointSlices | Self::Nodes)
    }

    /// As in a URL.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Pods => "pods",
            Self::Services => "services",
            Self::NetworkPolicies => "networkpolicies",
            Self::EndpointSlices => "endpointslices",
            Self::Nodes => "nodes",
        }
    }

    /// As in an object.
    pub(crate) fn singular(self) -> &'static str {
        match self {
            Self::Namespaces => "Namespace",
            Self::Pods => "Pod",
            Self::Services => "Service",
            Self::NetworkPolicies => "NetworkPolicy",
            Self::EndpointSlices => "EndpointSlice",
            Self::Nodes => "Node",
        }
    }

    pub(crate) fn resource(self) -> ApiResource {
        let group = match self {
            Self::NetworkPolicies => "networking.k8s.io",
            Self::EndpointSlices => "discovery.k8s.io",
            _ => "",
        };
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", self.singular()), self.plural())
    }
}
