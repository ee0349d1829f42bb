//! What a compiler hands over: the table as plain vectors, before it becomes bytes.

use crate::names::Names;
use sluice_flow::{Incarnation, PortIndex, RuleId};

/// What a row says about one port class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// No rule allows it.
    Deny,
    /// This rule does.
    Allow(RuleId),
}

impl Action {
    /// 0 denies, n + 1 is rule n.
    pub(crate) fn encode(self) -> u32 {
        match self {
            Action::Deny => 0,
            Action::Allow(RuleId(rule)) => rule + 1,
        }
    }
}

/// One endpoint: for each direction its profile, or `None` where nothing isolates it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointRow {
    /// Where it stands.
    pub port: PortIndex,
    /// Which use of the port.
    pub incarnation: Incarnation,
    /// Ingress, egress: indexes into [`TableParts::profiles`].
    pub profiles: [Option<u32>; 2],
}

/// A table, ready to be written. Every class index is below [`TableParts::classes`]; an interval list starts at the
/// family's lowest address and is strictly ascending.
#[derive(Debug, Clone, Default)]
pub struct TableParts {
    /// Address classes.
    pub classes: usize,
    /// First address of each interval and its class, the first at 0.
    pub v4_intervals: Vec<(u32, u32)>,
    /// The same for IPv6, prefixes only; exact addresses are in `v6_exact`.
    pub v6_intervals: Vec<(u128, u32)>,
    /// Single IPv6 addresses, ascending, which win over intervals.
    pub v6_exact: Vec<(u128, u32)>,
    /// Port classes.
    pub port_classes: usize,
    /// TCP, UDP, SCTP: first port of each interval and its port class, the first at 0.
    pub port_intervals: [Vec<(u16, u16)>; 3],
    /// The port class of every other protocol.
    pub other_protocols: u16,
    /// Distinct rows: one action for each port class.
    pub rows: Vec<Vec<Action>>,
    /// For each profile the row of each class, as indexes into [`TableParts::rows`].
    pub profiles: Vec<Vec<u32>>,
    /// Endpoints, by port.
    pub endpoints: Vec<EndpointRow>,
    /// Service addresses, sorted.
    pub services: Vec<u128>,
    /// The cold section.
    pub names: Names,
}
