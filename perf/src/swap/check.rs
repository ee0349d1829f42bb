//! Whether lookups that belong together were answered by one table: each answer against what the table would say that the
//! worker had when it began.

use super::marker::{BITS, FLIPPING, Marker};
use anyhow::{Result, ensure};
use serde::Serialize;
use sluice_flow::Verdict;
use sluice_table::{Query, Table};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Lookups between two chances to adopt a table.
pub(super) const BURST: usize = 32;
/// Where in a burst bits of the marker are asked that are others in each generation, and where drawn ones: whichever part
/// of a burst another table answered, some of these lie in it or at its border.
const FLIPPING_AT: [usize; 4] = [0, 11, 21, 31];
const DRAWN_AT: [usize; 3] = [5, 16, 26];

/// What is asked, again and again.
#[derive(Debug)]
pub(super) struct Questions {
    /// [`BURST`] after [`BURST`].
    pub(super) bursts: Vec<Query>,
    /// One by one.
    pub(super) singles: Vec<Query>,
}

impl Questions {
    /// Puts the marker's questions into bursts of packets, in the place of some.
    pub(super) fn new(mut bursts: Vec<Query>, singles: Vec<Query>, marker: &Marker) -> Self {
        bursts.truncate(bursts.len() / BURST * BURST);
        for (number, burst) in bursts.chunks_mut(BURST).enumerate() {
            for (index, at) in FLIPPING_AT.into_iter().enumerate() {
                burst[at] = marker.query((number + index) % FLIPPING);
            }
            for (index, at) in DRAWN_AT.into_iter().enumerate() {
                burst[at] = marker.query(FLIPPING + (number * DRAWN_AT.len() + index) % (BITS - FLIPPING));
            }
        }
        Self { bursts, singles }
    }
}

/// What one table answers.
#[derive(Debug, Default)]
pub(super) struct Answers {
    bursts: Vec<u32>,
    singles: Vec<bool>,
}

impl Answers {
    /// Asks a table that nobody swaps.
    pub(super) fn of(table: &Table, questions: &Questions) -> Self {
        let passes = |query: &Query| is_pass(table.lookup(query.port, query.direction, query.remote, query.protocol, query.dport));
        let burst = |burst: &[Query]| burst.iter().enumerate().map(|(at, query)| u32::from(passes(query)) << at).sum();
        Self { bursts: questions.bursts.chunks(BURST).map(burst).collect(), singles: questions.singles.iter().map(passes).collect() }
    }
}

fn is_pass(verdict: Verdict) -> bool {
    verdict != Verdict::Deny
}

/// The answers of all tables that may come, by generation.
#[derive(Debug, Default, Clone)]
pub(super) struct Known(Arc<Mutex<HashMap<u64, Arc<Answers>>>>);

impl Known {
    /// Before the table is handed over.
    pub(super) fn add(&self, generation: u64, answers: Arc<Answers>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(generation, answers);
    }

    /// # Errors
    ///
    /// Nobody said that such a table would come.
    pub(super) fn of(&self, generation: u64) -> Result<Arc<Answers>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&generation).cloned();
        known.ok_or_else(|| anyhow::anyhow!("generation {generation} was adopted and never announced"))
    }
}

/// What was checked, and what came of it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Counts {
    /// Lookups whose answer was compared.
    pub(super) lookups: u64,
    /// Bursts, each with all its lookups.
    pub(super) bursts: u64,
    /// Bursts and single lookups with an answer that the table they were judged with does not give.
    pub(super) mixed: u64,
}

impl Counts {
    pub(super) fn add(&mut self, other: Self) {
        self.lookups += other.lookups;
        self.bursts += other.bursts;
        self.mixed += other.mixed;
    }

    /// Compares the verdicts of the burst of that number.
    #[inline]
    pub(super) fn burst(&mut self, answers: &Answers, number: usize, verdicts: &[Verdict; BURST]) {
        let found: u32 = verdicts.iter().enumerate().map(|(at, verdict)| u32::from(is_pass(*verdict)) << at).sum();
        self.lookups += BURST as u64;
        self.bursts += 1;
        self.mixed += u64::from(found != answers.bursts[number]);
    }

    /// Compares the verdict of one question.
    #[inline]
    pub(super) fn single(&mut self, answers: &Answers, number: usize, verdict: Verdict) {
        self.lookups += 1;
        self.mixed += u64::from(is_pass(verdict) != answers.singles[number]);
    }
}

/// That two tables in a row can be told apart by every burst, or the check would show nothing.
///
/// # Errors
///
/// They cannot.
pub(super) fn ensure_distinct(one: &Answers, other: &Answers) -> Result<()> {
    for (number, (one, other)) in one.bursts.iter().zip(&other.bursts).enumerate() {
        let alike = FLIPPING_AT.iter().any(|at| (one ^ other) >> at & 1 == 0);
        ensure!(!alike, "burst {number} does not tell two tables in a row apart");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Workload;
    use sluice_policy::compile;

    /// Two generations of one cluster, and what they are asked.
    fn tables() -> ([Table; 2], Questions) {
        let mut snapshot = Workload::S1.generate(1).unwrap();
        let marker = Marker::find(&snapshot, &Table::from_bytes(&compile(&snapshot, 1).unwrap()).unwrap()).unwrap();
        let mut table = |generation| {
            let (name, policy) = marker.policy(generation);
            snapshot.policies.insert(name, policy);
            Table::from_bytes(&compile(&snapshot, generation).unwrap()).unwrap()
        };
        let tables = [table(1), table(2)];
        // what else is asked is the same in both
        let filler = Query { remote: marker.query(0).remote, dport: 1, ..marker.query(0) };
        (tables, Questions::new(vec![filler; BURST * 64], vec![filler], &marker))
    }

    /// Reads a burst with a table chosen for each lookup.
    fn read<'t>(questions: &Questions, number: usize, table: impl Fn(usize) -> &'t Table) -> [Verdict; BURST] {
        std::array::from_fn(|at| {
            let query = &questions.bursts[number * BURST + at];
            table(at).lookup(query.port, query.direction, query.remote, query.protocol, query.dport)
        })
    }

    #[test]
    fn a_reader_that_keeps_to_one_table_mixes_nothing() {
        let (tables, questions) = tables();
        let answers = [Answers::of(&tables[0], &questions), Answers::of(&tables[1], &questions)];
        ensure_distinct(&answers[0], &answers[1]).unwrap();
        let mut counts = Counts::default();
        for number in 0..64 {
            for (table, answers) in tables.iter().zip(&answers) {
                counts.burst(answers, number, &read(&questions, number, |_| table));
            }
        }
        assert_eq!(counts, Counts { lookups: 128 * BURST as u64, bursts: 128, mixed: 0 });
    }

    #[test]
    fn a_reader_that_takes_the_new_table_in_mid_burst_is_found_wherever_it_does() {
        let (tables, questions) = tables();
        let answers = Answers::of(&tables[0], &questions);
        for from in 1..BURST {
            let mut counts = Counts::default();
            (0..64).for_each(|number| counts.burst(&answers, number, &read(&questions, number, |at| &tables[usize::from(at >= from)])));
            assert_eq!(counts.mixed, 64, "from lookup {from} on");
        }
    }

    #[test]
    fn a_reader_that_claims_the_new_table_and_reads_the_old_one_is_found() {
        let (tables, questions) = tables();
        let mut counts = Counts::default();
        counts.burst(&Answers::of(&tables[1], &questions), 0, &read(&questions, 0, |_| &tables[0]));
        assert_eq!(counts.mixed, 1);
    }

    #[test]
    fn tables_that_no_burst_tells_apart_are_refused() {
        let (tables, questions) = tables();
        let answers = Answers::of(&tables[0], &questions);
        assert!(ensure_distinct(&answers, &answers).is_err());
    }

    #[test]
    fn a_table_that_nobody_announced_is_an_error() {
        assert!(Known::default().of(3).is_err());
    }
}
