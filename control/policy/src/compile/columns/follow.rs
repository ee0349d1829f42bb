//! Columns follow the model: what still holds is kept, and no more is remembered than is likely to be of use.

use super::{AtHand, Columns, Group, Signature, Slot};
use crate::compile::blocks::Recut;
use crate::compile::model::Model;
use crate::compile::pods::KindId;
use crate::compile::rulebook::{Entry, RuleHandle, Turnover};
use crate::compile::sides::{NO_NAMES, NO_RULES, RuleSet, RuleSetId};
use sluice_flow::Direction;
use std::collections::BTreeSet;

/// How many times more of one sort may be remembered than there was after everything was made.
const REMEMBERED_FACTOR: usize = 2;
const REMEMBERED_MIN: usize = 1 << 13;
/// Above so many profiles with other rules all columns are made anew.
const PATCHED_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct State {
    /// Of the pods.
    numbering: u64,
    /// Of the model's rules.
    edition: Option<u64>,
    /// How much was remembered when everything had just been made; `None` until then.
    weights: Option<[usize; 6]>,
    /// Whether a rule that allows every peer asks for the remote's named ports.
    pub(super) open_asks_remote: bool,
}

/// What may be another column than before.
#[derive(Debug, Default)]
pub(in crate::compile) struct Renewed {
    /// Every one.
    pub(in crate::compile) all: bool,
    /// Those of IPv4 and IPv6 addresses whose intervals are others.
    pub(in crate::compile) families: [Recut; 2],
    /// Those of these groups, by number; empty for none.
    pub(in crate::compile) groups: Vec<bool>,
}

impl Columns {
    /// Brings everything up to date with `model`.
    pub(in crate::compile) fn update(&mut self, model: &Model) -> Renewed {
        let is_worn = |(now, then): (usize, usize)| now > REMEMBERED_MIN.max(then * REMEMBERED_FACTOR);
        let worn = self.state.weights.is_none_or(|weights| self.weights().into_iter().zip(weights).any(is_worn));
        if worn || self.state.numbering != model.pods.numbering {
            *self = Self { epoch: self.epoch + 1, ..Self::default() };
            self.state.numbering = model.pods.numbering;
        }
        self.patched.clear();
        let fresh = self.state.weights.is_none();
        let mut dirty = BTreeSet::new();
        self.matching.update(model, &mut dirty);
        self.groups.resize(model.pods.groups.len(), Group::default());
        let (mut turnover, mut forgot) = (Turnover::default(), fresh);
        if self.state.edition.replace(model.rules_edition) != Some(model.rules_edition) {
            turnover = self.turn_over(model, (!fresh).then_some(&mut dirty));
            forgot |= self.renew_slots(model, &turnover.reopened);
        }
        let mut families = <[Recut; 2]>::default();
        for (family_v6, recut) in [false, true].into_iter().zip(&mut families) {
            if forgot {
                self.cut(family_v6);
            } else if turnover.concerns_blocks(family_v6) {
                *recut = Recut::of(&self.cut(family_v6), self.intervals(family_v6));
            }
        }
        let groups = if fresh { Vec::new() } else { self.clear_groups(model, &dirty) };
        Renewed { all: forgot, families, groups }
    }

    /// After everything was asked: from now on, what comes on top may be worth forgetting.
    pub(in crate::compile) fn settle(&mut self) {
        let weights = self.weights();
        self.state.weights.get_or_insert(weights);
    }

    /// How much is remembered, of each sort.
    pub(in crate::compile) fn weights(&self) -> [usize; 6] {
        let Self { book, matching, rows, sets, names, signatures, .. } = self;
        [book.entries.len(), matching.weight(), rows.len(), sets.all.len(), names.len(), signatures.len()]
    }

    fn turn_over(&mut self, model: &Model, mut dirty: Option<&mut BTreeSet<KindId>>) -> Turnover {
        let turnover = self.book.update(model);
        for (handle, rule) in &turnover.left {
            self.matching.leave(*handle, rule, dirty.as_deref_mut());
        }
        for (handle, rule) in &turnover.entered {
            self.matching.enter(*handle, rule, dirty.as_deref_mut());
        }
        for edited in &turnover.readdressed {
            self.matching.readdress(edited, dirty.as_deref_mut());
        }
        let count = self.book.entries.len();
        self.at_hand = AtHand::default();
        self.matched.resize(count, 0);
        self.uses.resize(count, Vec::new());
        turnover
    }

    /// Makes slots of profiles; `reopened` are rules whose ports are others. Returns whether all columns were forgotten.
    fn renew_slots(&mut self, model: &Model, reopened: &[RuleHandle]) -> bool {
        let mut slots = Vec::with_capacity(model.profiles.len());
        for profile in &model.profiles {
            let rules = profile.rules.iter().map(|&rule| self.book.handles[rule as usize]).collect();
            slots.push(Slot { direction: profile.direction, rules, named: self.names.number(&profile.named_ports) });
        }
        let is_other =
            |&slot: &usize| self.slots.get(slot) != Some(&slots[slot]) || reopened.iter().any(|rule| slots[slot].rules.contains(rule));
        let changed: Vec<usize> = (0..slots.len()).filter(is_other).collect();
        let same_count = slots.len() == self.slots.len();
        if same_count && changed.is_empty() {
            return false;
        }
        let open_asks_remote = self.book.iter().any(|(handle, _)| {
            let Entry { is_open, asks_remote, .. } = self.book.entries[handle as usize];
            is_open && asks_remote
        });
        let is_reopened = |&slot: &usize| self.slots.get(slot) == Some(&slots[slot]);
        let (same, others): (Vec<usize>, Vec<usize>) = changed.iter().copied().partition(is_reopened);
        let keeps = same_count && others.len() <= PATCHED_MAX && open_asks_remote == self.state.open_asks_remote;
        self.state.open_asks_remote = open_asks_remote;
        self.slots = slots;
        self.touched = vec![0; self.slots.len()];
        self.question = 1;
        self.matched.fill(0);
        self.uses.iter_mut().for_each(Vec::clear);
        for (index, slot) in (0u32..).zip(&self.slots) {
            slot.rules.iter().for_each(|&rule| self.uses[rule as usize].push(index));
        }
        if keeps {
            self.reopen(&same, reopened);
            self.patch(&others);
            self.patched = changed;
        } else {
            self.epoch += 1;
            self.signatures.clear();
            self.column_ids.clear();
            self.cells.clear();
            self.groups.iter_mut().for_each(|group| group.columns.clear());
        }
        !keeps
    }

    /// Makes all columns anew at these slots.
    fn patch(&mut self, changed: &[usize]) {
        if changed.is_empty() {
            return;
        }
        let mut knows = vec![0u64; self.book.entries.len()];
        for (bit, &slot) in changed.iter().enumerate() {
            self.slots[slot].rules.iter().for_each(|&rule| knows[rule as usize] |= 1 << bit);
        }
        let of_set = |set: &RuleSet| set.rules.iter().fold(0, |bits, &rule| bits | knows[rule as usize]);
        let of_sets: Vec<u64> = self.sets.all.iter().map(of_set).collect();
        let asking: Vec<bool> = changed
            .iter()
            .map(|&slot| {
                let Slot { direction, rules, .. } = &self.slots[slot];
                *direction == Direction::Egress && rules.iter().any(|&rule| self.book.entries[rule as usize].asks_remote)
            })
            .collect();
        let idle: Vec<u32> = changed.iter().map(|&slot| self.row_of(slot, NO_RULES, NO_RULES, NO_NAMES)).collect();
        let width = self.slots.len();
        for column in 0..self.signatures.len() {
            let (Signature { by_pods, by_block, named }, outside) = self.signatures[column];
            let is_outside = outside as usize == column;
            let known = of_sets[if is_outside { by_block } else { by_pods } as usize];
            for (bit, &slot) in changed.iter().enumerate() {
                self.cells[column * width + slot] = if known >> bit & 1 == 1 || asking[bit] && named != NO_NAMES {
                    self.row_of(slot, by_pods, by_block, named)
                } else if is_outside {
                    idle[bit]
                } else {
                    self.cells[outside as usize * width + slot]
                };
            }
        }
    }

    /// Makes all columns anew at these slots, which know the same rules as before, some of them with other ports.
    fn reopen(&mut self, slots: &[usize], reopened: &[RuleHandle]) {
        let is_named = |&rule: &RuleHandle| self.book.entries[rule as usize].has_named_ports;
        // no row tells of a rule whose named ports nobody has
        let all = reopened.iter().any(is_named);
        let tells = |row: u32| self.rows.openings(row).iter().any(|opening| reopened.contains(&opening.rule));
        let concerned: Vec<bool> = (0..self.rows.count() as u32).map(|row| all || tells(row)).collect();
        let width = self.slots.len();
        for column in 0..self.signatures.len() {
            let (Signature { by_pods, by_block, named }, _) = self.signatures[column];
            for &slot in slots {
                let at = column * width + slot;
                if concerned[self.cells[at] as usize] {
                    self.cells[at] = self.row_of(slot, by_pods, by_block, named);
                }
            }
        }
    }

    /// The row of a slot, whatever is at hand.
    fn row_of(&mut self, slot: usize, by_pods: RuleSetId, by_block: RuleSetId, named: u32) -> u32 {
        let Self { book, sets, slots, rows, names, .. } = self;
        let allows = |&rule: &RuleHandle| book.entries[rule as usize].is_open || sets.holds(by_pods, rule) || sets.holds(by_block, rule);
        let Slot { direction, rules, named: own } = &slots[slot];
        let destination = if *direction == Direction::Ingress { *own } else { named };
        rows.row(&book.entries, rules.iter().copied().filter(allows), destination, names)
    }

    /// Forgets what was found of groups whose kinds may match other rules.
    fn clear_groups(&mut self, model: &Model, dirty: &BTreeSet<KindId>) -> Vec<bool> {
        if dirty.is_empty() {
            return Vec::new();
        }
        let mut kinds = vec![false; model.pods.kinds.len()];
        dirty.iter().for_each(|&kind| kinds[kind as usize] = true);
        let is_dirty = |group: &Vec<KindId>| group.iter().any(|&kind| kinds[kind as usize]);
        let groups: Vec<bool> = model.pods.groups.iter().map(is_dirty).collect();
        for (group, _) in self.groups.iter_mut().zip(&groups).filter(|(_, dirty)| **dirty) {
            *group = Group::default();
        }
        groups
    }
}
