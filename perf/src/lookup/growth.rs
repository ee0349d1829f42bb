//! What a lookup costs with many policies against few, of the same pods, in interleaved rounds.

use super::backend::Backend;
use super::measure::{Metric, alternate};
use super::ours;
use super::query::Trace;
use crate::stats::Summary;
use anyhow::Result;
use serde::Serialize;

/// A table and what it is asked.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) image: Vec<u8>,
    pub(super) trace: Trace,
}

/// Of batches, as a worker on this processor looks them up.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Growth {
    backend: String,
    many_ns: Summary,
    few_ns: Summary,
    /// Median over the rounds.
    pub(super) ratio: f64,
}

impl Growth {
    /// Both cases, burst of 32 by burst of 32.
    ///
    /// # Errors
    ///
    /// An image is none.
    pub(super) fn measure(many: &Case, few: &Case, rounds: usize) -> Result<Option<Self>> {
        let (mut many_table, mut few_table) = (ours::batch(&many.image)?, ours::batch(&few.image)?);
        many_table.prepare(&many.trace.queries);
        few_table.prepare(&few.trace.queries);
        let count = many.trace.queries.len().min(few.trace.queries.len());
        let [many_ns, few_ns] = alternate([&mut many_table, &mut few_table], Metric::Burst32, count, rounds);
        // the two of a round stand next to each other in time, and so share what others do to this machine
        let ratios: Vec<f64> = many_ns.iter().zip(&few_ns).map(|(many_ns, few_ns)| many_ns / few_ns).collect();
        let [many_ns, few_ns, ratios] = [many_ns, few_ns, ratios].map(|values| Summary::of(&values));
        let (Some(many_ns), Some(few_ns), Some(ratios)) = (many_ns, few_ns, ratios) else { return Ok(None) };
        Ok(Some(Self { backend: ours::batch_name(), many_ns, few_ns, ratio: ratios.median }))
    }

    pub(super) fn print(&self) {
        let Self { backend, many_ns, few_ns, ratio } = self;
        println!(
            "\nthe same pods, isolated ones only, bursts of 32, {backend}: 10k policies {:.1} ns (quartiles {:.1}–{:.1}), \
             50 policies {:.1} ns ({:.1}–{:.1}): {ratio:.2} times",
            many_ns.median, many_ns.q1, many_ns.q3, few_ns.median, few_ns.q1, few_ns.q3
        );
    }
}
