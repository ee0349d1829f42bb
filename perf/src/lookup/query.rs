//! Questions to a table, and traces of them with the answers they must get.

use crate::random::SplitMix;
use clap::ValueEnum;
use serde::Serialize;
use sluice_policy::oracle::RuleRef;
pub(crate) use sluice_table::Query;

/// How packets come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Kind {
    /// IPv4, few of 64k flows carry most packets (Zipf, s = 1.05).
    Zipf,
    /// IPv4, every packet another flow.
    Uniform,
    /// The packets of zipf as a worker meets them: 64 of one pod and direction in a row.
    Bursts,
    /// IPv4, pods that policies isolate, mostly what they deny.
    Deny,
    /// IPv4, isolated pods, random addresses and ports.
    Attack,
    /// As zipf, in IPv6.
    V6,
    /// As zipf, half IPv4 and half IPv6.
    Dual,
    /// As bursts, of pods that are isolated only.
    Isolated,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Zipf => "zipf",
            Self::Uniform => "uniform",
            Self::Bursts => "zipf bursts",
            Self::Deny => "deny-heavy",
            Self::Attack => "attack",
            Self::V6 => "IPv6",
            Self::Dual => "dual-stack",
            Self::Isolated => "isolated bursts",
        }
    }

    /// Whether all addresses are IPv4: all that the peers are filled with.
    pub(crate) fn is_v4(self) -> bool {
        !matches!(self, Self::V6 | Self::Dual)
    }
}

/// What the oracle says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    Deny,
    NotIsolated,
    /// The rule at that place of [`Trace::rules`].
    Allow(u32),
}

/// Queries in the order they come.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) kind: Kind,
    pub(crate) queries: Vec<Query>,
    pub(crate) expected: Vec<Expected>,
    /// Those that allow something.
    pub(crate) rules: Vec<RuleRef>,
    /// Different queries.
    pub(crate) distinct: usize,
}

impl Trace {
    /// How many of 100 packets pass.
    pub(crate) fn allowed_percent(&self) -> f64 {
        let allowed = self.expected.iter().filter(|expected| **expected != Expected::Deny).count();
        100.0 * allowed as f64 / self.expected.len().max(1) as f64
    }
}

/// `count` draws from `flows`, the first flow most often: Zipf with s = 1.05.
pub(crate) fn zipf<T: Copy>(flows: &[T], count: usize, random: &mut SplitMix) -> Vec<T> {
    let mut sums = Vec::with_capacity(flows.len());
    let mut sum = 0.0;
    for rank in 1..=flows.len() {
        sum += 1.0 / (rank as f64).powf(1.05);
        sums.push(sum);
    }
    let draw = |_| {
        let at = (random.next() >> 11) as f64 / (1u64 << 53) as f64 * sum;
        flows[sums.partition_point(|&below| below <= at).min(flows.len() - 1)]
    };
    (0..count).map(draw).collect()
}

/// Puts the packets of one pod and direction together, `length` in a row, each pod's in their order. What does not fill a
/// row is left out.
pub(crate) fn grouped(queries: &[Query], length: usize) -> Vec<Query> {
    let mut waiting: Vec<Vec<Query>> = Vec::new();
    let mut rows = Vec::with_capacity(queries.len());
    for query in queries {
        let side = super::resolved::side_index(query.port, query.direction);
        waiting.resize_with(waiting.len().max(side + 1), Vec::new);
        waiting[side].push(*query);
        if waiting[side].len() == length {
            rows.append(&mut waiting[side]);
        }
    }
    rows
}
