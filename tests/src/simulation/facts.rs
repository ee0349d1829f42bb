//! What is known about a packet at a hook without looking at it: where and when it is, how it came there, what is broken.

use sluice_flow::{Direction, DropReason, Incarnation, PortIndex};

/// What the simulation itself knows about a packet at a hook.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) port: PortIndex,
    pub(super) direction: Direction,
    /// The use of the port that the packet is meant for, `None` where no pod is registered now.
    pub(super) incarnation: Option<Incarnation>,
    /// The one it was asked about, where it waited for a worker.
    pub(super) asked: Option<Incarnation>,
    /// In force at the port's worker, dead or alive; 0: none yet.
    pub(super) generation: u64,
    /// Sent by the node itself.
    pub(super) from_node: bool,
    /// It left its pod deferred, and this is where it departs.
    pub(super) departs: bool,
    /// Made to be refused, under this reason.
    pub(super) forged: Option<Forged>,
    pub(super) now_ns: u64,
    /// Which faults are on, by the reason under which they drop.
    pub(super) faults: Faults,
}

/// A frame that no stack would send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Forged {
    pub(super) reason: DropReason,
    /// Only isolated pods are protected from it: it is not served rather than false.
    pub(super) isolated_only: bool,
}

/// Faults that explain a drop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Faults {
    pub(super) worker_dead: bool,
    pub(super) ring_full: bool,
    pub(super) transmit_full: bool,
    pub(super) cache_full: bool,
    pub(super) quota_full: bool,
}
