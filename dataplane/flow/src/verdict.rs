//! The words of judging: direction, rule, verdict.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Seen from the pod: `Ingress` is traffic entering it, `Egress` traffic leaving it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Direction {
    /// Entering the pod.
    Ingress = 0,
    /// Leaving the pod.
    Egress = 1,
}

impl Direction {
    /// Both, in table order.
    pub const BOTH: [Direction; 2] = [Direction::Ingress, Direction::Egress];

    /// The other one.
    #[inline]
    pub fn reversed(self) -> Self {
        match self {
            Direction::Ingress => Direction::Egress,
            Direction::Egress => Direction::Ingress,
        }
    }

    /// From the number used in tables and on the trunk.
    #[inline]
    pub fn from_index(index: u8) -> Option<Self> {
        match index {
            0 => Some(Direction::Ingress),
            1 => Some(Direction::Egress),
            _ => None,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        })
    }
}

/// A rule of one table generation: an index into its rules section.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(transparent)]
pub struct RuleId(pub u32);

/// What the policy says about a connection in one direction.
///
/// Its form in memory is fixed: a word that says which, then the rule's. The table writes many at once as plain words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Verdict {
    /// No policy isolates the pod in this direction.
    NotIsolated = 0,
    /// This rule allows it.
    Allow(RuleId) = 1,
    /// The pod is isolated and no rule allows it.
    Deny = 2,
}

impl Verdict {
    /// Whether the packet may pass.
    #[inline]
    pub fn is_allow(self) -> bool {
        !matches!(self, Verdict::Deny)
    }
}
