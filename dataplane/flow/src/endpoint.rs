//! A pod's attachment, as all processes speak of it.

use crate::{Incarnation, PortIndex};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

/// `namespace/name`, ordered by both.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectName {
    /// The namespace.
    pub namespace: String,
    /// The name inside it.
    pub name: String,
}

impl ObjectName {
    /// Both parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// From `ns/name`; a bare name means the namespace `default`.
    pub fn parse(text: &str) -> Self {
        match text.split_once('/') {
            Some((namespace, name)) => Self::new(namespace, name),
            None => Self::new("default", text),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A pod attached to this node, as the dataplane reports it. Its addresses count before the pod's status shows them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LocalEndpoint {
    /// Which attachment; rows of the table are found by it.
    pub port: PortIndex,
    /// Which use of that index.
    pub incarnation: Incarnation,
    /// The pod.
    pub pod: ObjectName,
    /// The pod's UID where the runtime told it; empty means unknown and matches any.
    pub uid: String,
    /// Addresses of the interface, at most one of each family.
    pub addresses: Vec<IpAddr>,
}
