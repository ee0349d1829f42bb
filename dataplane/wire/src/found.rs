//! Pods that ran before anybody told the dataplane of them: what it found, and what control knows of it.

use serde::{Deserialize, Serialize};
use sluice_flow::ObjectName;
use std::net::IpAddr;

/// What becomes of a found device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FoundState {
    /// Hooks are on and drop everything, under the name `no_port`.
    Closed,
    /// No hooks: traffic passes as it did before.
    Unmanaged,
}

/// The host's end of a pod's veth that no port owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundDevice {
    /// Its index.
    pub host_ifindex: u32,
    /// Its name.
    pub host_ifname: String,
    /// The pod's, from the node's routes.
    pub addresses: Vec<IpAddr>,
    /// The pod's MAC, where the kernel tells.
    pub mac: Option<String>,
    /// What becomes of its traffic.
    pub state: FoundState,
    /// Why it is so, for people.
    pub reason: String,
    /// Whether an [`Identity`] would make a port of it.
    pub awaits_identity: bool,
}

/// Who is behind a found device, as far as control knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// The device that was asked about,
    pub host_ifindex: u32,
    /// with the addresses that it had then: the answer is for no other.
    pub addresses: Vec<IpAddr>,
    /// The answer.
    pub answer: Identified,
}

/// See [`Identity`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "camelCase")]
pub enum Identified {
    /// Exactly one pod of this node has exactly these addresses.
    Pod {
        /// Its name.
        pod: ObjectName,
        /// Its UID, empty where the object has none.
        uid: String,
    },
    /// No pod, or more than one.
    Nobody {
        /// Which of these, for people.
        reason: String,
    },
}
