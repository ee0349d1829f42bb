//! The cold section: whom the numbers of a table stand for. Written by the compiler, read by people's tools and by the
//! keeper, never by a worker.

use serde::{Deserialize, Serialize};
use sluice_flow::{Direction, Incarnation, ObjectName, PortIndex};
use std::fmt;
use std::net::IpAddr;

/// A rule of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RuleName {
    /// The policy.
    pub policy: ObjectName,
    /// Which list of it.
    pub direction: Direction,
    /// Position in that list, from 0.
    pub index: u32,
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}[{}]", self.policy, self.direction, self.index)
    }
}

/// An endpoint of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointName {
    /// Its row.
    pub port: PortIndex,
    /// Which use of the port.
    pub incarnation: Incarnation,
    /// The pod.
    pub pod: ObjectName,
    /// Its UID, where known.
    pub uid: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The policies that isolate it for ingress.
    pub isolating_ingress: Vec<ObjectName>,
    /// The policies that isolate it for egress.
    pub isolating_egress: Vec<ObjectName>,
}

impl EndpointName {
    /// The policies that isolate it in `direction`.
    pub fn isolating(&self, direction: Direction) -> &[ObjectName] {
        match direction {
            Direction::Ingress => &self.isolating_ingress,
            Direction::Egress => &self.isolating_egress,
        }
    }
}

/// A pod's address anywhere in the cluster, for printing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodName {
    /// One of its addresses.
    pub address: IpAddr,
    /// The pod.
    pub pod: ObjectName,
}

/// All names of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// By port.
    pub endpoints: Vec<EndpointName>,
    /// By rule id.
    pub rules: Vec<RuleName>,
    /// By address; empty in clusters too large to carry them.
    pub pods: Vec<PodName>,
}

impl Names {
    /// The endpoint that stands on a port.
    pub fn endpoint(&self, port: PortIndex) -> Option<&EndpointName> {
        self.endpoints.iter().find(|endpoint| endpoint.port == port)
    }

    /// The pod behind an address, where the table carries it.
    pub fn pod_at(&self, address: IpAddr) -> Option<&ObjectName> {
        let found = self.pods.binary_search_by_key(&address, |pod| pod.address).ok()?;
        Some(&self.pods[found].pod)
    }
}
