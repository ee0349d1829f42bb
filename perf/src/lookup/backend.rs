//! What is measured: anything that can say for a query whether it passes.

use super::query::{Expected, Kind, Query, Trace};
use anyhow::{Result, ensure};

/// A structure that answers queries.
///
/// It takes a trace over once, in the form it works on. Then the harness asks for stretches of it: what a call costs once
/// (the dynamic call, the clock) is spread over the stretch.
pub(super) trait Backend {
    /// As in the report.
    fn name(&self) -> &str;

    /// Whether such a trace can be asked.
    fn takes(&self, kind: Kind) -> bool;

    /// Whether it answers one query after another, and whether many at once.
    fn ways(&self) -> Ways;

    /// Takes the queries over. Not timed.
    fn prepare(&mut self, queries: &[Query]);

    /// Reads so many of them from `first` on: a packet that was just parsed is in the cache even when the table is not.
    fn touch(&self, first: usize, count: usize);

    /// Answers as many queries from `first` on as `passes` is long, 1 for those that pass, each found only when the one
    /// before is answered.
    fn serial(&mut self, first: usize, passes: &mut [u8]);

    /// The same, all at once.
    fn batch(&mut self, first: usize, passes: &mut [u8]);

    /// Checks what goes beyond whether a query passes.
    ///
    /// # Errors
    ///
    /// A wrong answer.
    fn check_rules(&self, _trace: &Trace) -> Result<()> {
        Ok(())
    }

    /// Makes itself anew as after a swap, if it can.
    fn swap(&mut self) -> Result<bool> {
        Ok(false)
    }
}

/// See [`Backend::ways`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ways {
    #[cfg(feature = "dpdk")]
    Serial,
    Batch,
    Both,
    /// Many at once, and so many that what a call costs does not count.
    #[cfg(feature = "bpf")]
    Stretch,
}

impl Ways {
    pub(super) fn serial(self) -> bool {
        match self {
            #[cfg(feature = "dpdk")]
            Self::Serial => true,
            Self::Both => true,
            _ => false,
        }
    }

    pub(super) fn throughput(self) -> bool {
        match self {
            #[cfg(feature = "dpdk")]
            Self::Serial => false,
            _ => true,
        }
    }

    pub(super) fn bursts(self) -> bool {
        matches!(self, Self::Batch | Self::Both)
    }
}

/// Compares every answer to `trace`, which `backend` took over, with the oracle's.
///
/// # Errors
///
/// A wrong answer: then a time would mean nothing.
pub(super) fn check(backend: &mut dyn Backend, trace: &Trace) -> Result<()> {
    let mut passes = vec![0; trace.queries.len()];
    let ways = backend.ways();
    for (way, wanted) in [("serial", ways.serial()), ("batched", ways.throughput())] {
        if !wanted {
            continue;
        }
        passes.fill(2);
        match way {
            "serial" => backend.serial(0, &mut passes),
            _ => backend.batch(0, &mut passes),
        }
        for ((query, expected), &found) in trace.queries.iter().zip(&trace.expected).zip(&passes) {
            let expected = u8::from(*expected != Expected::Deny);
            ensure!(found == expected, "{} ({way}): {query:?}: found {found}, the oracle says {expected}", backend.name());
        }
    }
    backend.check_rules(trace)
}

/// Reads one byte of each query, which brings in its line.
pub(super) fn touch(queries: &[Query]) {
    let sum = queries.iter().fold(0u32, |sum, query| sum + u32::from(query.protocol.0));
    std::hint::black_box(sum);
}
