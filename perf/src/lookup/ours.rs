//! Sluice's table, as a worker asks it.

use super::backend::{Backend, Ways, touch};
use super::clock::after;
use super::query::{Expected, Kind, Query, Trace};
use anyhow::{Context, Result, ensure};
use sluice_flow::Verdict;
use sluice_table::{SimdLevel, Table};

/// Which of its entrances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entrance {
    /// [`Table::ask`].
    OneByOne,
    /// [`Table::lookup_batch_with`].
    Batch(SimdLevel),
}

impl Entrance {
    fn name(self) -> String {
        match self {
            Self::OneByOne => ONE_BY_ONE.to_owned(),
            Self::Batch(level) => format!("table, batch {level}"),
        }
    }
}

/// The backend that looks one packet up after the other.
pub(super) const ONE_BY_ONE: &str = "table, one by one";

/// The backend that takes batches as [`Table::lookup_batch`] does on this processor.
pub(super) fn batch_name() -> String {
    Entrance::Batch(SimdLevel::best()).name()
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
    let batches = SimdLevel::available().map(Entrance::Batch);
    [Entrance::OneByOne].into_iter().chain(batches).map(|entrance| Ours::of(image, entrance)).collect()
}

/// The one that [`batch_name`] names.
///
/// # Errors
///
/// The image is none.
pub(super) fn batch(image: &[u8]) -> Result<Ours<'_>> {
    Ours::of(image, Entrance::Batch(SimdLevel::best()))
}

impl<'i> Ours<'i> {
    fn of(image: &'i [u8], entrance: Entrance) -> Result<Self> {
        let table = Table::from_bytes(image).context("loading the image")?;
        Ok(Self { name: entrance.name(), entrance, image, table, queries: Vec::new(), verdicts: Vec::new() })
    }

    #[inline(always)]
    fn answer(&self, query: &Query) -> Verdict {
        self.table.ask(query)
    }
}

/// The verdict as a number that carries the rule, made without a branch: a bare yes or no would be predicted, and the next
/// query with it, before the table has said anything.
#[inline(always)]
fn number(verdict: Verdict) -> u32 {
    let rule = if let Verdict::Allow(id) = verdict { id.0 + 1 } else { 0 };
    u32::from(verdict.is_allow()) + rule
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
            Entrance::Batch(_) => Ways::Batch,
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
        for (query, passes) in queries.iter().zip(passes) {
            last = number(self.answer(after(query, last)));
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
            Entrance::Batch(level) => {
                let verdicts = &mut self.verdicts[..passes.len()];
                self.table.lookup_batch_with(level, queries, verdicts);
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
            Entrance::Batch(level) => self.table.lookup_batch_with(level, &trace.queries, &mut verdicts),
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
