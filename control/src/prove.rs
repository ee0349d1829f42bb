//! Snapshot → image that is proved equal to the oracle, or the reason why it is not.

use sluice_policy::Snapshot;
use sluice_policy::check::{CheckBudget, CheckReport, check};
use sluice_table::Table;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A table that may be published.
#[derive(Debug)]
pub(crate) struct Proved {
    pub(crate) generation: u64,
    pub(crate) image: Vec<u8>,
    pub(crate) table: Arc<Table>,
    pub(crate) report: CheckReport,
    pub(crate) compile: Duration,
    pub(crate) check: Duration,
}

/// Compiles, validates the bytes as the dataplane will, and compares every verdict with the oracle. CPU-bound; run it on
/// the blocking pool.
///
/// # Errors
/// For people: the compiler's refusal, damage found by the validation, or the check's counterexample.
pub(crate) fn prove(snapshot: &Snapshot, generation: u64) -> Result<Proved, String> {
    let started = Instant::now();
    let image = sluice_policy::compile(snapshot, generation).map_err(|e| format!("cannot compile: {e}"))?;
    let table = Table::from_bytes(&image).map_err(|e| format!("the compiled image is damaged: {e}"))?;
    let compiled = Instant::now();
    let report = check(snapshot, &table, CheckBudget::default()).map_err(|e| format!("the table disagrees with the oracle: {e}"))?;
    Ok(Proved { generation, image, table: Arc::new(table), report, compile: compiled - started, check: compiled.elapsed() })
}
