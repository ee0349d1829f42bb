//! What changes between two states, and which rule or policy is responsible.
//!
//! A pair is compared port by port. The ports that changed are cut where a reason changes, so that each reported set has
//! one reason: for each end whose answer changed, what it said before and what it says now.

use super::answer::{Families, Half, Pair, Reach, Way};
use super::ends::{Survey, survey};
use super::judge::{count_pairs, judge};
use super::merge::merge_blocks;
use super::ports::Ports;
use super::{Options, ReachError, State};
use crate::ObjectName;
use crate::oracle::RuleRef;
use sluice_flow::Direction;
use std::collections::{BTreeMap, BTreeSet};

/// Two states side by side.
#[derive(Debug)]
pub struct Comparison {
    /// The ends of both; state 0 is before, 1 is after.
    pub survey: Survey,
    /// Each pair of ends that are in both states and whose verdict differs on some port, by source and destination.
    pub pairs: Vec<PairChange>,
    /// Pairs of ends that are in both states.
    pub compared: usize,
}

/// A pair whose verdict differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairChange {
    /// Index of the end that opens the connection.
    pub from: usize,
    /// Index of the end that accepts it.
    pub to: usize,
    /// What kind of change it is as a whole.
    pub sort: Sort,
    /// The changes, allowed ones first; there is at least one.
    pub changes: Vec<Change>,
}

/// A pair's change as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sort {
    /// Nothing was allowed before.
    NewlyAllowed,
    /// Nothing is allowed now.
    NewlyDenied,
    /// Something is, and something was.
    OtherPorts,
}

/// Ports that changed for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Whether they are allowed now; before they were not, or the other way round.
    pub allowed: bool,
    /// In which families; both if the ends share one only.
    pub families: Families,
    /// Which ports.
    pub ports: Ports,
    /// The ends whose answer changed: at least one, unless an address family came or went.
    pub reasons: Vec<Reason>,
}

/// An end whose answer changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reason {
    /// Egress: the source; ingress: the destination.
    pub direction: Direction,
    /// What it said.
    pub before: Standing,
    /// What it says.
    pub after: Standing,
}

/// What an end says about some ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// No policy isolates it.
    NotIsolated,
    /// This rule is the first that allows them.
    Allowed(RuleRef),
    /// These policies isolate it, and no rule allows them.
    Denied(Vec<ObjectName>),
}

impl Standing {
    fn allows(&self) -> bool {
        !matches!(self, Self::Denied(_))
    }
}

/// Compares two states. `progress` is told how many of how many pairs are judged, now and then.
///
/// # Errors
/// As [`super::reach`].
pub fn compare(
    before: State<'_>,
    after: State<'_>,
    options: &Options,
    mut progress: impl FnMut(u64, u64),
) -> Result<Comparison, ReachError> {
    let mut survey = survey(&[before, after], options)?;
    let pairs = count_pairs(&survey)?;
    let mut reaches =
        [judge(&survey, 0, &mut |done| progress(done, 2 * pairs))?, judge(&survey, 1, &mut |done| progress(pairs + done, 2 * pairs))?];
    merge_blocks(&mut survey, &mut reaches);
    let [old, new] = reaches;
    let mut comparison = Comparison { survey, pairs: Vec::new(), compared: 0 };
    let both = Both { old: &old, new: &new };
    for &pair in &old.pairs {
        let Some(other) = new.pair(pair.from as usize, pair.to as usize) else { continue };
        comparison.compared += 1;
        comparison.pairs.extend(both.pair(pair, other));
    }
    Ok(comparison)
}

impl Comparison {
    /// Indices of the ends that only the state of this index has.
    pub fn only_in(&self, state: usize) -> impl Iterator<Item = usize> + '_ {
        let ends = self.survey.ends.iter().enumerate();
        ends.filter(move |(_, end)| end.is_in(state) && !end.is_in(1 - state)).map(|(index, _)| index)
    }

    /// Whether nothing differs.
    pub fn is_equal(&self) -> bool {
        self.pairs.is_empty() && self.only_in(0).next().is_none() && self.only_in(1).next().is_none()
    }
}

struct Both<'a> {
    old: &'a Reach,
    new: &'a Reach,
}

impl Both<'_> {
    fn pair(&self, old: Pair, new: Pair) -> Option<PairChange> {
        let (before, after) = (self.old.cell(old), self.new.cell(new));
        let way =
            |ways: &[Way], family: Families| ways.iter().find(|way| way.families == family || way.families == Families::Both).cloned();
        let of = |family| self.way(family, way(&before.ways, family).as_ref(), way(&after.ways, family).as_ref());
        let (v4, v6) = (of(Families::V4), of(Families::V6));
        let same = |a: &Change, b: &Change| (a.allowed, &a.ports, &a.reasons) == (b.allowed, &b.ports, &b.reasons);
        // Where the ends share one family only, there is nothing to tell apart.
        let is_one = |ways: &[Way]| ways.len() == 1 && ways[0].families != Families::Both;
        let one_family = is_one(&before.ways) && is_one(&after.ways) && before.ways[0].families == after.ways[0].families;
        let alike = one_family || (v4.len() == v6.len() && v4.iter().zip(&v6).all(|(a, b)| same(a, b)));
        let v4 = if one_family { [v4, v6.clone()].concat() } else { v4 };
        let mut changes =
            if alike { v4.into_iter().map(|change| Change { families: Families::Both, ..change }).collect() } else { [v4, v6].concat() };
        changes.sort_by_key(|change| !change.allowed);
        let is_closed = |ways: &[Way]| ways.iter().all(|way| way.allowed.is_empty());
        let sort = match (is_closed(&before.ways), is_closed(&after.ways)) {
            (true, _) => Sort::NewlyAllowed,
            (_, true) => Sort::NewlyDenied,
            _ => Sort::OtherPorts,
        };
        let (from, to) = (old.from as usize, old.to as usize);
        (!changes.is_empty()).then_some(PairChange { from, to, sort, changes })
    }

    fn way(&self, families: Families, before: Option<&Way>, after: Option<&Way>) -> Vec<Change> {
        let allowed = |way: Option<&Way>| way.map_or_else(Ports::default, |way| way.allowed.clone());
        let (was, is) = (allowed(before), allowed(after));
        let mut changes = Vec::new();
        for (allowed, changed) in [(true, is.without(&was)), (false, was.without(&is))] {
            for (reasons, ports) in self.by_reason(&changed, before, after) {
                changes.push(Change { allowed, families, ports, reasons });
            }
        }
        changes
    }

    /// Cuts `changed` where some half's answer changes, and puts together again what has the same reasons.
    fn by_reason(&self, changed: &Ports, before: Option<&Way>, after: Option<&Way>) -> BTreeMap<Vec<Reason>, Ports> {
        let mut ends: Vec<(Direction, &Half, &Half)> = Vec::new();
        for direction in [Direction::Egress, Direction::Ingress] {
            let old = before.and_then(|way| self.old.half(way, direction));
            let new = after.and_then(|way| self.new.half(way, direction));
            ends.extend(old.zip(new).map(|(old, new)| (direction, old, new)));
        }
        let spans = ends.iter().flat_map(|(_, old, new)| old.spans.iter().chain(&new.spans));
        let cuts: BTreeSet<u32> = spans.flat_map(|span| [span.first, span.last + 1]).collect();
        let mut found: BTreeMap<Vec<Reason>, Vec<(u32, u32)>> = BTreeMap::new();
        for (first, last) in changed.runs() {
            let inner = cuts.range(first..=last).copied().filter(|cut| *cut != first);
            let starts: Vec<u32> = std::iter::once(first).chain(inner).collect();
            for (index, &start) in starts.iter().enumerate() {
                let end = starts.get(index + 1).map_or(last, |next| next - 1);
                found.entry(self.reasons(&ends, start)).or_default().push((start, end));
            }
        }
        found.into_iter().map(|(reasons, runs)| (reasons, Ports::from_runs(runs))).collect()
    }

    fn reasons(&self, ends: &[(Direction, &Half, &Half)], place: u32) -> Vec<Reason> {
        let reason = |&(direction, old, new): &(Direction, &Half, &Half)| {
            let (before, after) = (standing(self.old, old, place), standing(self.new, new, place));
            (before.allows() != after.allows()).then_some(Reason { direction, before, after })
        };
        ends.iter().filter_map(reason).collect()
    }
}

fn standing(reach: &Reach, half: &Half, place: u32) -> Standing {
    let isolation = reach.isolation(half);
    match half.span_at(place).map(|span| span.rule) {
        None => Standing::Denied(isolation.isolating.clone()),
        Some(None) => Standing::NotIsolated,
        Some(Some(rule)) => Standing::Allowed(isolation.rules[rule as usize].clone()),
    }
}
