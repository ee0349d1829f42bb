//! The cold section: whom the numbers of a table stand for. Written by the compiler, read by people's tools and by the
//! keeper, never by a worker.
//!
//! Written as JSON in which each policy stands once and is meant by its number: hundreds of policies on each pod would
//! otherwise be most of an image.

use crate::format::ImageError;
use ahash::RandomState;
use serde::{Deserialize, Serialize};
use sluice_flow::{Direction, Incarnation, ObjectName, PortIndex};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

/// A rule of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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

/// What stands in an image.
#[derive(Serialize, Deserialize)]
struct Written<'n> {
    /// Namespace and name, ascending.
    #[serde(borrow)]
    policies: Vec<(Cow<'n, str>, Cow<'n, str>)>,
    /// Number of the policy, of the direction, and the position.
    rules: Vec<(usize, u8, u32)>,
    endpoints: Vec<WrittenEndpoint<'n>>,
    pods: Cow<'n, [PodName]>,
}

#[derive(Serialize, Deserialize)]
struct WrittenEndpoint<'n> {
    port: PortIndex,
    incarnation: Incarnation,
    pod: Cow<'n, ObjectName>,
    uid: Cow<'n, str>,
    addresses: Cow<'n, [IpAddr]>,
    /// For ingress and egress, each isolating policy's number less that of the one before it.
    isolating: [Vec<i64>; 2],
}

impl Names {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let of_endpoints = self.endpoints.iter().flat_map(|endpoint| endpoint.isolating_ingress.iter().chain(&endpoint.isolating_egress));
        let mut numbers: HashMap<&ObjectName, usize, RandomState> = HashMap::default();
        for policy in self.rules.iter().map(|rule| &rule.policy).chain(of_endpoints) {
            numbers.insert(policy, 0);
        }
        let mut policies: Vec<&ObjectName> = numbers.keys().copied().collect();
        policies.sort_unstable();
        policies.iter().enumerate().for_each(|(number, policy)| *numbers.get_mut(policy).expect("just listed") = number);
        let steps = |isolating: &[ObjectName]| {
            let mut before = 0;
            let step = |policy: &ObjectName| {
                let number = numbers[policy] as i64;
                number - std::mem::replace(&mut before, number)
            };
            isolating.iter().map(step).collect()
        };
        let endpoint = |endpoint: &'_ EndpointName| WrittenEndpoint {
            port: endpoint.port,
            incarnation: endpoint.incarnation,
            pod: Cow::Owned(endpoint.pod.clone()),
            uid: Cow::Owned(endpoint.uid.clone()),
            addresses: Cow::Owned(endpoint.addresses.clone()),
            isolating: [steps(&endpoint.isolating_ingress), steps(&endpoint.isolating_egress)],
        };
        let written = Written {
            policies: policies.iter().map(|policy| (Cow::from(&policy.namespace), Cow::from(&policy.name))).collect(),
            rules: self.rules.iter().map(|rule| (numbers[&rule.policy], rule.direction as u8, rule.index)).collect(),
            endpoints: self.endpoints.iter().map(endpoint).collect(),
            pods: Cow::from(&self.pods),
        };
        serde_json::to_vec(&written).expect("names are plain data")
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, ImageError> {
        let refused = |reason: String| ImageError::Names { reason };
        let Written { policies, rules, endpoints, pods } = serde_json::from_slice(bytes).map_err(|error| refused(error.to_string()))?;
        let policies: Vec<ObjectName> = policies.iter().map(|(namespace, name)| ObjectName::new(&**namespace, &**name)).collect();
        let policy = |number: usize| {
            let found = policies.get(number).cloned();
            found.ok_or_else(|| refused(format!("there are {} policies, none of them is number {number}", policies.len())))
        };
        let rule = |(number, direction, index): (usize, u8, u32)| {
            let direction = Direction::BOTH.into_iter().find(|&known| known as u8 == direction);
            let direction = direction.ok_or_else(|| refused("a rule has an unknown direction".to_owned()))?;
            Ok(RuleName { policy: policy(number)?, direction, index })
        };
        let isolating = |steps: Vec<i64>| {
            let mut number = 0i64;
            let next = |step| {
                number = number.saturating_add(step);
                policy(usize::try_from(number).unwrap_or(usize::MAX))
            };
            steps.into_iter().map(next).collect::<Result<Vec<ObjectName>, ImageError>>()
        };
        let endpoint = |written: WrittenEndpoint<'_>| {
            let [ingress, egress] = written.isolating;
            Ok(EndpointName {
                port: written.port,
                incarnation: written.incarnation,
                pod: written.pod.into_owned(),
                uid: written.uid.into_owned(),
                addresses: written.addresses.into_owned(),
                isolating_ingress: isolating(ingress)?,
                isolating_egress: isolating(egress)?,
            })
        };
        Ok(Self {
            endpoints: endpoints.into_iter().map(endpoint).collect::<Result<_, ImageError>>()?,
            rules: rules.into_iter().map(rule).collect::<Result<_, ImageError>>()?,
            pods: pods.into_owned(),
        })
    }
}
