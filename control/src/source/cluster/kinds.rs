//! What is watched at an API server.

use kube::core::{ApiResource, GroupVersionKind};

/// A kind of object. All are needed before anything is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Namespaces,
    Pods,
    Services,
    NetworkPolicies,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Namespaces, Self::Pods, Self::Services, Self::NetworkPolicies];

    /// As in a URL.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Pods => "pods",
            Self::Services => "services",
            Self::NetworkPolicies => "networkpolicies",
        }
    }

    /// As in an object.
    pub(crate) fn singular(self) -> &'static str {
        match self {
            Self::Namespaces => "Namespace",
            Self::Pods => "Pod",
            Self::Services => "Service",
            Self::NetworkPolicies => "NetworkPolicy",
        }
    }

    pub(crate) fn resource(self) -> ApiResource {
        let group = if self == Self::NetworkPolicies { "networking.k8s.io" } else { "" };
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", self.singular()), self.plural())
    }
}
