//! What a proof would cost that asks the oracle about one packet after another: the baseline, measured on a sample.
//!
//! The sample is also a check of the bench: every answer is compared with the table's.

use crate::random::SplitMix;
use crate::took::Took;
use anyhow::{Result, bail};
use serde::Serialize;
use sluice_flow::{Addr, Direction, Protocol, Verdict};
use sluice_policy::{Oracle, Snapshot};
use sluice_table::Table;
use std::net::IpAddr;

/// See the module.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Naive {
    /// How many were asked.
    questions: usize,
    question_us: f64,
    /// Time for as many questions as the proof has, if all are like those.
    pub(super) extrapolated_s: f64,
}

impl Naive {
    /// Asks `questions`, about pods' addresses and ports of all kinds.
    ///
    /// # Errors
    ///
    /// The table answers one of them differently.
    pub(crate) fn measure(snapshot: &Snapshot, table: &Table, questions: usize, required: u64, seed: u64) -> Result<Self> {
        let mut random = SplitMix::new(seed);
        let oracle = Oracle::new(snapshot);
        let mut remotes: Vec<IpAddr> = oracle.addresses().collect();
        remotes.sort_unstable();
        let sides: Vec<_> = snapshot
            .endpoints
            .iter()
            .flat_map(|endpoint| Direction::BOTH.map(|direction| (endpoint.port, direction, oracle.side(&endpoint.pod, direction))))
            .filter(|(.., side)| side.isolated())
            .collect();
        if sides.is_empty() || remotes.is_empty() {
            bail!("nothing to ask: no isolated pod, or no address");
        }
        let asked: Vec<_> = (0..questions)
            .map(|_| {
                let protocol = *random.pick(&[Protocol::TCP, Protocol::TCP, Protocol::UDP, Protocol::SCTP]);
                let port = if random.chance(50) { *random.pick(&[53, 80, 443, 8080, 9090]) } else { random.below(65_536) as u16 };
                (random.below(sides.len()), *random.pick(&remotes), protocol, port)
            })
            .collect();
        let (answers, took) = Took::of(|| {
            let answer =
                |&(side, remote, protocol, port): &(usize, IpAddr, Protocol, u16)| oracle.allows(&sides[side].2, remote, protocol, port);
            asked.iter().map(answer).collect::<Vec<bool>>()
        });
        for (&(side, remote, protocol, port), expected) in asked.iter().zip(answers) {
            let (endpoint, direction, _) = &sides[side];
            let found = table.lookup(*endpoint, *direction, Addr::from(remote), protocol, port);
            if (found != Verdict::Deny) != expected {
                bail!(
                    "port {} {direction}, {remote} {port}/{protocol}: allowed by the oracle: {expected}, the table: {found:?}",
                    endpoint.0
                );
            }
        }
        let question_us = took.wall_ms * 1e3 / questions as f64;
        Ok(Self { questions, question_us, extrapolated_s: question_us * required as f64 / 1e6 })
    }
}

impl std::fmt::Display for Naive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { questions, question_us, extrapolated_s } = self;
        write!(f, "{extrapolated_s:.0} s, extrapolated from {questions} questions of {question_us:.1} µs")
    }
}
