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

/// What the policies of one direction of some endpoints allow. Rows and ports are numbered within it, because what one
/// pod's policies tell apart fits a byte where all pods' together would not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProfileParts {
    /// The row of each class.
    pub rows: Vec<u16>,
    /// Of each port class its number here.
    pub ports: Vec<u16>,
    /// How many such numbers there are: the length of a row.
    pub stride: usize,
    /// Row by row: one action for each port number.
    pub actions: Vec<Action>,
}

/// Port classes: what no row of any profile tells apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortParts {
    /// How many.
    pub classes: usize,
    /// TCP, UDP, SCTP: first port of each interval and its port class, the first at 0.
    pub intervals: [Vec<(u16, u16)>; 3],
    /// The port class of every other protocol.
    pub others: u16,
}

impl Default for PortParts {
    /// All ports are alike.
    fn default() -> Self {
        Self { classes: 1, intervals: [(); 3].map(|()| vec![(0, 0)]), others: 0 }
    }
}

/// A table, ready to be written. Every class is below [`TableParts::classes`]; an interval list starts at the family's
/// lowest address and is strictly ascending. Which addresses begin an interval decides about the layout, so neighbours of
/// the same class are not the same as one interval.
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
    pub ports: PortParts,
    /// What endpoints refer to.
    pub profiles: Vec<ProfileParts>,
    /// Endpoints, by port.
    pub endpoints: Vec<EndpointRow>,
    /// Service addresses, sorted.
    pub services: Vec<u128>,
    /// The cold section.
    pub names: Names,
}
