//! The states that are compared.

use serde::Serialize;

/// One state of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Arm {
    /// Plain kernel routing: no hooks, no rules but those of services.
    Off,
    /// Sluice enforces all policies.
    On,
    /// Sluice enforces ten.
    Few,
    /// Sluice enforces a thousand.
    Some,
    /// Sluice enforces all policies, and a worker sees every packet.
    Every,
    /// Hooks off; nftables with maps and sets.
    Sets,
    /// Hooks off; nftables, a rule for each port and block.
    Linear,
    /// Hooks off; one rule refuses what floods where it would be forwarded.
    Refused,
    /// Hooks off; one rule stops what floods before connection tracking.
    Silenced,
    /// As `Few`, while ten tables a second are published: a directory of thousands of policies is not read that often.
    Swapped,
}

impl Arm {
    /// Sluice's hooks are on.
    pub(crate) fn enforces(self) -> bool {
        matches!(self, Self::On | Self::Few | Self::Some | Self::Every | Self::Swapped)
    }

    /// nftables has rules of ours.
    pub(crate) fn is_peer(self) -> bool {
        matches!(self, Self::Sets | Self::Linear | Self::Refused | Self::Silenced)
    }

    /// What no policy allows does not connect.
    pub(crate) fn refuses(self) -> bool {
        self.enforces() || matches!(self, Self::Sets | Self::Linear)
    }

    /// Policies in force, of so many.
    pub(crate) fn policies(self, all: usize) -> usize {
        match self {
            Self::Few | Self::Swapped => all.min(10),
            Self::Some => all.min(1000),
            _ => all,
        }
    }

    /// For people, with the number of policies.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Off => "no policy",
            Self::On => "Sluice",
            Self::Few => "Sluice, 10 policies",
            Self::Some => "Sluice, 1000 policies",
            Self::Every => "Sluice, offload off",
            Self::Sets => "nft, maps and sets",
            Self::Linear => "nft, rule by rule",
            Self::Refused => "nft drop rule",
            Self::Silenced => "nft raw drop",
            Self::Swapped => "Sluice, 10 tables/s",
        }
    }
}
