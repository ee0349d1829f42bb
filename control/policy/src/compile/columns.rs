//! What each kind of remote gets from each profile: signature → column of rows.
//!
//! ```text
//!   group of an address ──▶ rules matched by pod peer ─┐
//!                      └──▶ named ports ───────────────┼─▶ signature ──▶ column: one row for each profile
//!   interval it lies in ──▶ rules matched by block ────┘
//! ```
//!
//! Most profiles do not know most rules, so a column is that of the interval outside of all pods, made anew only at those
//! profiles that know a rule which matches the pods. Columns are remembered as long as profiles stay, and follow when few
//! of them change (`follow`); their numbers are those of first use and mean nothing outside of here.

mod follow;

pub(super) use follow::Renewed;

use super::blocks::sweep;
use super::matching::Matching;
use super::model::Model;
use super::pods::GroupId;
use super::ports::Rows;
use super::rulebook::{RuleBook, RuleHandle};
use super::sides::{NO_NAMES, NO_RULES, NamedId, Names, RuleSetId, RuleSets, intersection};
use ahash::RandomState;
use sluice_flow::Direction;
use std::collections::HashMap;
use std::sync::Arc;

type ColumnId = u32;

/// Everything that a row may depend on, at the remote's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Signature {
    by_pods: RuleSetId,
    by_block: RuleSetId,
    /// [`NO_NAMES`] where no rule that matches asks for them.
    named: NamedId,
}

/// A profile by handles.
#[derive(Debug, PartialEq, Eq)]
struct Slot {
    direction: Direction,
    /// In deciding order.
    rules: Vec<RuleHandle>,
    named: NamedId,
}

/// How many columns a group lists; they are searched one by one.
const KNOWN_MAX: usize = 32;

#[derive(Debug, Clone, Default)]
struct Group {
    /// Rules and named ports, once somebody asked.
    sides: Option<(RuleSetId, NamedId)>,
    columns: Vec<(RuleSetId, ColumnId)>,
}

/// The block at hand: columns are asked for one interval after another.
#[derive(Debug, Default)]
struct AtHand {
    set: Option<RuleSetId>,
    /// By handle.
    holds: Vec<bool>,
    /// Slots where the named ports of the remote matter even if no pod peer matches it.
    asking: Vec<u32>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Columns {
    book: RuleBook,
    matching: Matching,
    pub(super) rows: Rows,
    sets: RuleSets,
    names: Names,
    slots: Vec<Slot>,
    /// Slots that know a rule, by handle.
    uses: Vec<Vec<u32>>,
    groups: Vec<Group>,
    /// First address of each interval of IPv4 and IPv6, and the rules whose blocks cover it.
    intervals: [Vec<(u128, RuleSetId)>; 2],
    at_hand: AtHand,
    /// Of each column, and the column outside of all pods under the same block, which has a lower number or is the same.
    signatures: Vec<(Signature, ColumnId)>,
    column_ids: HashMap<Signature, ColumnId, RandomState>,
    /// Columns one after another.
    cells: Vec<u32>,
    /// By handle: the last question that it was a match in, and that question's number.
    matched: Vec<u32>,
    /// By slot, likewise.
    touched: Vec<u32>,
    question: u32,
    /// Raised whenever a column that was there may be another, unless only at `patched`.
    pub(super) epoch: u64,
    /// Slots, ascending, at which the last update made all columns anew.
    pub(super) patched: Vec<usize>,
    /// See `follow`.
    state: follow::State,
}

impl Columns {
    pub(super) fn column(&self, id: ColumnId) -> &[u32] {
        let width = self.slots.len();
        &self.cells[id as usize * width..][..width]
    }

    /// How many rows a column has.
    pub(super) fn profiles(&self) -> usize {
        self.slots.len()
    }

    /// A profile's rules in deciding order.
    pub(super) fn rules(&self, profile: usize) -> &[RuleHandle] {
        &self.slots[profile].rules
    }

    /// First address of each interval, the first at 0, and what [`Self::of`] wants to know of it.
    pub(super) fn intervals(&self, family_v6: bool) -> &[(u128, RuleSetId)] {
        &self.intervals[usize::from(family_v6)]
    }

    /// The column of an address that a group claims. Where several pods do, it matches a selector, and offers a
    /// named port, only as all of them do.
    pub(super) fn of(&mut self, model: &Model, group: GroupId, by_block: RuleSetId) -> ColumnId {
        if let Some(known) = self.groups[group as usize].columns.iter().find(|known| known.0 == by_block) {
            return known.1;
        }
        let (by_pods, named) = self.sides(model, group);
        let asks = [by_pods, by_block].iter().any(|&set| self.sets.all[set as usize].asks_remote) || self.state.open_asks_remote;
        let signature = Signature { by_pods, by_block, named: if asks { named } else { NO_NAMES } };
        let column = self.of_signature(signature);
        let known = &mut self.groups[group as usize].columns;
        if known.len() < KNOWN_MAX {
            known.push((by_block, column));
        }
        column
    }

    fn sides(&mut self, model: &Model, group: GroupId) -> (RuleSetId, NamedId) {
        if let Some(sides) = self.groups[group as usize].sides {
            return sides;
        }
        let kinds = &model.pods.groups[group as usize];
        let rules = self.matching.rules_of(kinds);
        let mut ports = kinds.iter().map(|&kind| &model.pods.kinds[kind as usize].named_ports);
        let first = ports.next().map(Arc::clone).unwrap_or_default();
        let named = ports.fold(first, |common, other| if common == *other { common } else { Arc::new(intersection(&common, other)) });
        let sides = (self.sets.number(&rules, &self.book.entries), self.names.number(&named));
        self.groups[group as usize].sides = Some(sides);
        sides
    }

    fn of_signature(&mut self, signature: Signature) -> ColumnId {
        if let Some(&column) = self.column_ids.get(&signature) {
            return column;
        }
        let Signature { by_pods, by_block, named } = signature;
        self.take_up(by_block);
        self.question += 1;
        if by_pods == NO_RULES && named == NO_NAMES {
            let rows: Vec<u32> = (0..self.slots.len()).map(|slot| self.row(slot, NO_NAMES)).collect();
            self.cells.extend_from_slice(&rows);
            return self.register(signature, None);
        }
        let outside = self.of_signature(Signature { by_pods: NO_RULES, by_block, named: NO_NAMES });
        self.question += 1;
        let rules = Arc::clone(&self.sets.all[by_pods as usize].rules);
        rules.iter().for_each(|&rule| self.matched[rule as usize] = self.question);
        let asking = if named == NO_NAMES { Vec::new() } else { self.at_hand.asking.clone() };
        self.copy_with(outside, &rules, &asking, named);
        self.register(signature, Some(outside))
    }

    /// The column outside of all pods where it differs from that of another such interval by some rules.
    fn of_neighbour(&mut self, by_block: RuleSetId, neighbour: ColumnId, differing: &[RuleHandle]) {
        let signature = Signature { by_pods: NO_RULES, by_block, named: NO_NAMES };
        if !self.column_ids.contains_key(&signature) {
            self.take_up(by_block);
            self.question += 1;
            self.copy_with(neighbour, differing, &[], NO_NAMES);
            self.register(signature, None);
        }
    }

    /// Adds a copy of a column, made anew where slots know one of `rules`, and at `others`.
    fn copy_with(&mut self, column: ColumnId, rules: &[RuleHandle], others: &[u32], named: NamedId) {
        let (width, start) = (self.slots.len(), self.cells.len());
        self.cells.extend_from_within(column as usize * width..(column as usize + 1) * width);
        for index in 0..rules.len() + 1 {
            let slots = match rules.get(index) {
                Some(&rule) => std::mem::take(&mut self.uses[rule as usize]),
                None => others.to_vec(),
            };
            for &slot in &slots {
                if self.touched[slot as usize] != self.question {
                    self.touched[slot as usize] = self.question;
                    self.cells[start + slot as usize] = self.row(slot as usize, named);
                }
            }
            if let Some(&rule) = rules.get(index) {
                self.uses[rule as usize] = slots;
            }
        }
    }

    fn register(&mut self, signature: Signature, outside: Option<ColumnId>) -> ColumnId {
        let id = self.signatures.len() as ColumnId;
        self.signatures.push((signature, outside.unwrap_or(id)));
        self.column_ids.insert(signature, id);
        id
    }

    /// Makes a block the one at hand.
    fn take_up(&mut self, by_block: RuleSetId) {
        if self.at_hand.set == Some(by_block) {
            return;
        }
        let AtHand { set, mut holds, mut asking } = std::mem::take(&mut self.at_hand);
        for &rule in set.iter().flat_map(|&set| self.sets.all[set as usize].rules.iter()) {
            holds[rule as usize] = false;
        }
        holds.resize(self.book.entries.len(), false);
        self.sets.all[by_block as usize].rules.iter().for_each(|&rule| holds[rule as usize] = true);
        asking.clear();
        let asks = |&rule: &RuleHandle| {
            let entry = &self.book.entries[rule as usize];
            entry.asks_remote && (entry.is_open || holds[rule as usize])
        };
        let slots = (0u32..).zip(&self.slots).filter(|(_, slot)| slot.direction == Direction::Egress && slot.rules.iter().any(asks));
        asking.extend(slots.map(|(index, _)| index));
        self.at_hand = AtHand { set: Some(by_block), holds, asking };
    }

    /// The row of the question at hand.
    fn row(&mut self, slot: usize, named: NamedId) -> u32 {
        let Self { book, slots, at_hand, matched, question, rows, names, .. } = self;
        let allows =
            |&rule: &RuleHandle| book.entries[rule as usize].is_open || at_hand.holds[rule as usize] || matched[rule as usize] == *question;
        let Slot { direction, rules, named: own } = &slots[slot];
        let destination = if *direction == Direction::Ingress { *own } else { named };
        rows.row(&book.entries, rules.iter().copied().filter(allows), destination, names)
    }

    /// Cuts a family's addresses into intervals, each with its column outside of all pods. Returns the intervals before.
    fn cut(&mut self, family_v6: bool) -> Vec<(u128, RuleSetId)> {
        let book = std::mem::take(&mut self.book);
        let mut cuts: Vec<(u128, RuleSetId)> = Vec::new();
        let (mut differing, mut ends): (Vec<RuleHandle>, Vec<usize>) = (Vec::new(), Vec::new());
        sweep(&book, family_v6, |start, rules, toggled| {
            cuts.push((start, self.sets.number(rules, &book.entries)));
            differing.extend_from_slice(toggled);
            ends.push(differing.len());
        });
        self.book = book;
        let (mut neighbour, mut from) = (None, 0);
        for (&(_, set), end) in cuts.iter().zip(ends) {
            if let Some(neighbour) = neighbour {
                self.of_neighbour(set, neighbour, &differing[from..end]);
            }
            (neighbour, from) = (Some(self.outside(set)), end);
        }
        std::mem::replace(&mut self.intervals[usize::from(family_v6)], cuts)
    }

    /// The column outside of all pods.
    pub(super) fn outside(&mut self, by_block: RuleSetId) -> ColumnId {
        self.of_signature(Signature { by_pods: NO_RULES, by_block, named: NO_NAMES })
    }
}
