//! What a lookup costs with many policies against few, of the same pods, in interleaved rounds. Where in memory a table comes to
//! lie decides a tenth of its cost and more, so both are loaded anew again and again.

use super::backend::Backend;
use super::measure::{Metric, alternate};
use super::ours;
use super::query::Trace;
use crate::progress::progress;
use crate::stats::Summary;
use anyhow::Result;
use serde::Serialize;

/// How often both tables are loaded.
const PLACES: usize = 16;

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
    /// Both cases, burst of 32 by burst of 32, so many rounds each time they are loaded.
    ///
    /// # Errors
    ///
    /// An image is none.
    pub(super) fn measure(many: &Case, few: &Case, rounds: usize) -> Result<Option<Self>> {
        let count = many.trace.queries.len().min(few.trace.queries.len());
        let (mut many_ns, mut few_ns) = (Vec::new(), Vec::new());
        // kept, or the next would lie where the one before did
        let mut kept = Vec::new();
        for place in 0..PLACES {
            progress(&format!("10k policies beside 50: place {} of {PLACES}", place + 1));
            let (mut many_table, mut few_table) = (ours::batch(&many.image)?, ours::batch(&few.image)?);
            many_table.prepare(&many.trace.queries);
            few_table.prepare(&few.trace.queries);
            let [many, few] = alternate([&mut many_table, &mut few_table], Metric::Burst32, count, rounds);
            many_ns.extend(many);
            few_ns.extend(few);
            kept.push([many_table, few_table]);
        }
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
