//! Who may reach whom on which port, from objects alone: every pair of ends, every port, exactly.
//!
//! ```text
//!   snapshots ──survey──▶ ends: pods that no policy can tell apart, and regions of addresses that are no pod's
//!                          │
//!                oracle ───┴──judge──▶ halves: for one end's policies and the other end, the allowed ports with their rules
//!                                       │
//!                                       └──▶ Reach: each pair's two halves       Comparison: two of them, side by side
//! ```
//!
//! No verdict is computed here. The oracle is asked, and this module only chooses questions such that the answers hold
//! for every connection that is not asked about. Why they do:
//!
//! * **Pods.** A selector sees a label only through the keys and values that it mentions. Two pods of one namespace whose
//!   labels agree on every mention (with "some other value" as one value), which give the same numbers to every port
//!   name that policies use, and whose addresses lie in the same region, satisfy the same selectors, peers and ports. So
//!   one pod answers for its class. Pods that share an address with others are not merged with anything.
//! * **Addresses.** CIDRs are nested or disjoint, so the innermost one that holds an address says which others do. An
//!   address that is no pod's is seen through blocks only: one address answers for its region.
//! * **Ports.** Along the ports of a protocol a verdict can change only at the bounds of a rule's entries, where a name
//!   stands for the numbers that the destination gives it. One port answers for each stretch between bounds. Protocols
//!   without ports are one class, because rules cannot name them.
//!
//! Too fine a class costs time and never an answer, so the survey may look at mentions without understanding them.
//!
//! Pods without an address (templates have none) get one for the questions, chosen so that as few blocks as possible
//! hold it: see [`Assumption`].
//!
//! Not judged here, as in the oracle: a pod's traffic to itself (always allowed), and traffic between a pod and its own
//! node (always allowed).

mod answer;
mod assume;
mod blocks;
mod compare;
mod ends;
mod explain;
mod judge;
mod mentions;
mod merge;
mod naming;
mod ports;

pub use answer::{Cell, Families, Half, Isolation, Pair, Reach, Span, Way};
pub use assume::{Assumption, with_addresses};
pub use compare::{Change, Comparison, PairChange, Reason, Sort, Standing, compare};
pub use ends::{DeclaredPort, End, EndKind, Survey};
pub use explain::Explainer;
pub use judge::reach;
pub use ports::{PortRange, Ports};

use crate::load::{ClusterManifests, Workload};
use crate::{ObjectName, Snapshot};
use ipnet::IpNet;
use std::collections::BTreeMap;

/// Pairs that one question may be about: rows of two thousand groups. They take some twenty seconds.
pub const PAIRS_MAX: u64 = 4_000_000;

/// Peers of rules that may have to be looked at for all pairs: some minutes of work.
pub const PEERS_MAX: u64 = 1_000_000_000;

/// Ends up to which [`Grouping::Auto`] shows each workload by itself.
const WORKLOADS_SHOWN_MAX: usize = 60;

/// A state to be judged.
#[derive(Debug, Clone, Copy)]
pub struct State<'a> {
    /// The objects.
    pub snapshot: &'a Snapshot,
    /// Which pods stand for a workload.
    pub workloads: &'a BTreeMap<ObjectName, Workload>,
}

impl<'a> State<'a> {
    /// What manifests say.
    pub fn of(manifests: &'a ClusterManifests) -> Self {
        Self { snapshot: &manifests.loaded.snapshot, workloads: &manifests.workloads }
    }
}

/// Which pods share a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Grouping {
    /// By workload while there are few, then by class.
    #[default]
    Auto,
    /// Pods of one workload that no policy can tell apart.
    Workload,
    /// All pods of a namespace that no policy can tell apart.
    Class,
}

/// What to compute.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Which pods share a row.
    pub grouping: Grouping,
    /// Where pods without an address are assumed to live; empty: nowhere in particular.
    pub pod_cidrs: Vec<IpNet>,
    /// Only pairs with an end in one of these namespaces, or in `pods`; both empty: all pairs.
    pub namespaces: Vec<String>,
    /// Only pairs with an end that holds one of these pods or workloads, or in `namespaces`.
    pub pods: Vec<ObjectName>,
    /// Leaves out pods that are not chosen.
    pub inside: bool,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReachError {
    /// The work is bounded.
    #[error("{ends} rows make {pairs} pairs, and at most {max} are judged at once; choose some with --namespace or --pod")]
    TooManyPairs {
        /// Rows.
        ends: usize,
        /// Pairs that would be judged.
        pairs: u64,
        /// The limit.
        max: u64,
    },
    /// The work is bounded, however long the rules are.
    #[error("the rules of all pairs have {peers} peers, and at most {max} are looked at; choose some with --namespace or --pod")]
    TooManyPeers {
        /// Peers of the rules at both ends of each pair.
        peers: u64,
        /// The limit.
        max: u64,
    },
    /// A selection that selects nothing.
    #[error("there is no pod in the namespace {0:?}")]
    NoNamespace(String),
    /// A selection that selects nothing.
    #[error("there is no pod or workload {0}")]
    NoPod(ObjectName),
    /// Nowhere to put pods without an address.
    #[error("{0} has no room for the pods without an address")]
    NoRoom(String),
}
