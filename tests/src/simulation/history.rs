//! Every generation that was ever handed over, as objects, and the oracle's answers about them.

use sluice_flow::{Direction, Incarnation, LocalEndpoint, PortIndex, Protocol};
use sluice_policy::{Oracle, Snapshot};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// One connection at one port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Question {
    pub(super) port: PortIndex,
    pub(super) direction: Direction,
    pub(super) remote: IpAddr,
    pub(super) protocol: Protocol,
    pub(super) dport: u16,
}

#[derive(Default)]
pub(super) struct History {
    snapshots: BTreeMap<u64, Snapshot>,
    /// The oracle is slow; it is asked each question once.
    allowed: HashMap<(u64, Question), bool>,
    isolated: HashMap<(u64, PortIndex, Direction), bool>,
}

impl History {
    pub(super) fn add(&mut self, generation: u64, snapshot: Snapshot) {
        self.snapshots.insert(generation, snapshot);
    }

    fn endpoint(&self, generation: u64, port: PortIndex) -> Option<(&Snapshot, &LocalEndpoint)> {
        let snapshot = self.snapshots.get(&generation)?;
        snapshot.endpoints.iter().find(|endpoint| endpoint.port == port).map(|endpoint| (snapshot, endpoint))
    }

    /// Whether a generation knows this use of a port.
    pub(super) fn knows(&self, generation: u64, port: PortIndex, incarnation: Incarnation) -> bool {
        self.endpoint(generation, port)
            .is_some_and(|(snapshot, endpoint)| endpoint.incarnation == incarnation && Oracle::new(snapshot).knows(endpoint))
    }

    /// Whether a policy isolates the pod; one that is not known counts as isolated.
    pub(super) fn isolated(&mut self, generation: u64, port: PortIndex, direction: Direction) -> bool {
        if let Some(&known) = self.isolated.get(&(generation, port, direction)) {
            return known;
        }
        let isolated = self
            .endpoint(generation, port)
            .is_none_or(|(snapshot, endpoint)| Oracle::new(snapshot).side(&endpoint.pod, direction).isolated());
        self.isolated.insert((generation, port, direction), isolated);
        isolated
    }

    /// What the oracle says of a connection under a generation.
    pub(super) fn allows(&mut self, generation: u64, question: Question) -> bool {
        if let Some(&known) = self.allowed.get(&(generation, question)) {
            return known;
        }
        let Question { port, direction, remote, protocol, dport } = question;
        let allowed = self
            .endpoint(generation, port)
            .is_some_and(|(snapshot, endpoint)| Oracle::new(snapshot).judge(&endpoint.pod, direction, remote, protocol, dport).allowed);
        self.allowed.insert((generation, question), allowed);
        allowed
    }
}
