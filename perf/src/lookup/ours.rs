//! Sluice's table, as a worker asks it.

use super::backend::{Backend, Ways, touch};
use super::clock::zero_after;
use super::query::{Expected, Kind, Query, Trace};
use anyhow::{Context, Result, ensure};
use sluice_flow::Verdict;
use sluice_table::Table;

/// Which of its entrances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entrance {
    /// [`Table::lookup`].
    OneByOne,
    /// [`Table::lookup_batch`].
    Batch,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Ours<'i> {
    name: String,
    entrance: Entrance,
    image: &'i [u8],
    table: Table,
    queries: Vec<Query>,
    /// Room for a call's answers.
    verdicts: Vec<Verdict>,
}

/// Every entrance that this processor has.
///
/// # Errors
///
/// The image is none.
pub(super) fn all(image: &[u8]) -> Result<Vec<Ours<'_>>> {
    let load = |(name, entrance): (&str, Entrance)| {
        let table = Table::from_bytes(image).context("loading the image")?;
        Ok(Ours { name: name.to_owned(), entrance, image, table, queries: Vec::new(), verdicts: Vec::new() })
    };
    [("table, one by one", Entrance::OneByOne), ("table, batch", Entrance::Batch)].into_iter().map(load).collect()
}

impl Ours<'_> {
    #[inline(always)]
    fn answer(&self, query: &Query) -> Verdict {
        self.table.lookup(query.port, query.direction, query.remote, query.protocol, query.dport)
    }
}

/// The verdict as a number that carries the rule: a bare yes or no would be predicted, and the next query with it, before the
/// table has said anything. Where the lookup itself ends in a branch, it is predicted all the same, as it is for a worker.
#[inline(always)]
fn number(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Deny => 0,
        Verdict::NotIsolated => 1,
        Verdict::Allow(id) => id.0 + 2,
    }
}

impl Backend for Ours<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn takes(&self, _: Kind) -> bool {
        true
    }

    fn ways(&self) -> Ways {
        match self.entrance {
            Entrance::OneByOne => Ways::Both,
            Entrance::Batch => Ways::Batch,
        }
    }

    fn prepare(&mut self, queries: &[Query]) {
        self.queries = queries.to_vec();
        self.verdicts = vec![Verdict::Deny; queries.len()];
    }

    fn touch(&self, first: usize, count: usize) {
        touch(&self.queries[first..first + count]);
    }

    fn serial(&mut self, first: usize, passes: &mut [u8]) {
        let queries = &self.queries[first..first + passes.len()];
        let mut last = 0;
        for (index, passes) in passes.iter_mut().enumerate() {
            last = number(self.answer(&queries[index + zero_after(last)]));
            *passes = u8::from(last != 0);
        }
    }

    fn batch(&mut self, first: usize, passes: &mut [u8]) {
        let queries = &self.queries[first..first + passes.len()];
        match self.entrance {
            Entrance::OneByOne => {
                for (query, passes) in queries.iter().zip(passes) {
                    *passes = u8::from(self.answer(query).is_allow());
                }
            }
            Entrance::Batch => {
                let verdicts = &mut self.verdicts[..passes.len()];
                self.table.lookup_batch(queries, verdicts);
                for (verdict, passes) in verdicts.iter().zip(passes) {
                    *passes = u8::from(verdict.is_allow());
                }
            }
        }
    }

    fn check_rules(&self, trace: &Trace) -> Result<()> {
        let mut verdicts = vec![Verdict::Deny; trace.queries.len()];
        match self.entrance {
            Entrance::OneByOne => verdicts.iter_mut().zip(&trace.queries).for_each(|(verdict, query)| *verdict = self.answer(query)),
            Entrance::Batch => self.table.lookup_batch(&trace.queries, &mut verdicts),
        }
        for ((query, expected), &verdict) in trace.queries.iter().zip(&trace.expected).zip(&verdicts) {
            let agrees = match (verdict, *expected) {
                (Verdict::Deny, Expected::Deny) | (Verdict::NotIsolated, Expected::NotIsolated) => true,
                (Verdict::Allow(id), Expected::Allow(rule)) => {
                    let (found, wanted) =
                        (self.table.rule(id).context("a rule that the table does not name")?, &trace.rules[rule as usize]);
                    found.policy == wanted.policy && found.direction == wanted.direction && found.index as usize == wanted.index
                }
                _ => false,
            };
            ensure!(agrees, "{}: {query:?}: found {verdict:?}, the oracle says {expected:?}", self.name);
        }
        Ok(())
    }

    fn swap(&mut self) -> Result<bool> {
        self.table = Table::from_bytes(self.image).context("loading the image")?;
        Ok(true)
    }
}
