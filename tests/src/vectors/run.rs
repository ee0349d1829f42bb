//! A whole file over all cores.

use super::compare::{Difference, StepResult, compare};
use super::engine::Engine;
use super::schema::{Case, VectorFile, VectorsError};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Differences that are put into words; the rest are counted.
pub const DIFFERENCES_SHOWN_MAX: usize = 20;

/// What came of a file. A probe is one source, destination and port on one engine; it passes if both halves and
/// their combination agree with the truth wherever that is decided.
#[derive(Debug, Default)]
pub struct Tally {
    /// Cases read.
    pub cases: u64,
    /// Their steps.
    pub steps: u64,
    /// Probes that agree.
    pub passed: u64,
    /// Probes that do not.
    pub failed: u64,
    /// The first [`DIFFERENCES_SHOWN_MAX`], in file order.
    pub differences: Vec<Difference>,
}

impl Tally {
    fn add(&mut self, step: StepResult) {
        self.steps += 1;
        self.passed += step.passed;
        self.failed += step.failed;
        self.differences.extend(step.differences);
        self.differences.truncate(DIFFERENCES_SHOWN_MAX);
    }
}

/// Puts every probe of `file` to each of `engines`. Cases are handed out one by one to as many threads as there are
/// cores; what they find is put together in file order, so two runs print the same.
///
/// # Errors
/// When a case does not fit the schema or an engine refuses its state; the first such case in file order.
pub fn run(file: &VectorFile, engines: &[Engine]) -> Result<Tally, VectorsError> {
    // Relaxed: the counter only hands out distinct numbers; results cross threads by joining.
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        while let Some((index, case)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            file.cases.get(index).map(|case| (index, case))
        } {
            done.push((index, run_case(case, engines)));
        }
        done
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut done: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker thread never panics")).collect()
    });
    done.sort_by_key(|(index, _)| *index);
    let mut tally = Tally::default();
    for (_, steps) in done {
        tally.cases += 1;
        for step in steps? {
            tally.add(step);
        }
    }
    Ok(tally)
}

fn run_case(case: &Case, engines: &[Engine]) -> Result<Vec<StepResult>, VectorsError> {
    let steps = case.steps.iter().enumerate();
    let compared = steps.map(|(index, step)| {
        compare(&case.id, index, step, engines, DIFFERENCES_SHOWN_MAX).map_err(|problem| VectorsError::Case {
            case: case.id.clone(),
            step: index,
            problem,
        })
    });
    compared.collect()
}
