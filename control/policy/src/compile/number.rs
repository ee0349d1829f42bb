//! The last stage: rows, ports and classes get their final numbers, by content and among those in use, so that the bytes
//! depend on the snapshot alone and never on what the compiler remembers.
//!
//! Columns that say the same are a class, and classes stand in the order of what they say. Which number a row has does not
//! change that order, so columns that come or go are put in their places among the others. Where profiles say something
//! else, because a policy opens other ports, only those columns move that no longer stand in order; and only those
//! profiles are made anew whose rows or rules are others.
//!
//! One class in some hundred, whichever by what it says begins a *stretch*, has a number that is a multiple of a segment.
//! The numbers that this leaves out are nobody's, and say what the class before them says. So a class that comes or goes
//! moves those of its own stretch, and mostly no others.

use super::CompileError;
use super::columns::Columns;
use super::content::{Content, TOGETHER};
use super::model::Model;
use super::order::{Difference, merge, settle};
use super::port_classes::port_classes;
use super::sheet::{Sheet, SheetMaker};
use super::slot::Slot;
use sluice_flow::RuleId;
use sluice_table::{Action, PortParts, ProfileParts, SEGMENT};
use std::mem;
use std::ops::Range;

/// Above so many profiles that say something else everything is made anew.
const PATCHED_MAX: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    maker: SheetMaker,
    /// Of the columns, and of the model's naming, as of the last update.
    epoch: Option<u64>,
    naming: u64,
    /// By column, as of the last update.
    in_use: Vec<bool>,
    slots: Vec<Slot>,
    content: Content,
    /// Columns in use by what they say.
    order: Vec<u32>,
    /// One column of each class; where a number is nobody's, that of the class before.
    classes: Vec<u32>,
    /// By column; [`NO_CLASS`] for those not in use.
    pub(super) class_of: Vec<u32>,
    pub(super) ports: PortParts,
    /// By slot.
    pub(super) profiles: Vec<ProfileParts>,
    /// By slot: the classes outside of it have the rows that they had before the last update.
    pub(super) others: Vec<Range<usize>>,
}

/// Of a column that is not in use, or was not.
pub(super) const NO_CLASS: u32 = u32::MAX;

/// What is another than before.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Renumbered {
    /// Classes of columns, or how many there are.
    pub(super) classes: bool,
    /// Rows of classes.
    pub(super) rows: bool,
    /// Port classes, or what profiles say.
    pub(super) profiles: bool,
}

/// Columns by whether they are in use and were; each ascending.
#[derive(Debug, Default)]
struct Turnover {
    added: Vec<u32>,
    removed: Vec<u32>,
    staying: Vec<u32>,
}

impl Numbers {
    pub(super) fn classes(&self) -> usize {
        self.classes.len()
    }

    /// Brings everything up to date; `uses` says for each column how many addresses and intervals have it.
    ///
    /// # Errors
    /// Beyond the format's limits. Nothing that was told before holds any longer.
    pub(super) fn update(&mut self, model: &Model, columns: &Columns, uses: &[u32]) -> Result<Renumbered, CompileError> {
        let turnover = self.turn_over(uses);
        let same_columns = self.epoch.replace(columns.epoch) == Some(columns.epoch);
        let same_naming = mem::replace(&mut self.naming, model.naming) == model.naming;
        // more at once are quicker made anew
        let follows = same_columns && turnover.added.len() <= turnover.staying.len() && columns.patched.len() <= PATCHED_MAX;
        let renumbered = match if follows { self.follow(columns, &turnover)? } else { None } {
            Some(followed) => Renumbered { profiles: followed.profiles || !same_naming, ..followed },
            None => {
                self.make(columns)?;
                Renumbered { classes: true, rows: true, profiles: true }
            }
        };
        if renumbered.profiles {
            self.name_rules(model);
        }
        Ok(renumbered)
    }

    fn turn_over(&mut self, uses: &[u32]) -> Turnover {
        let mut turnover = Turnover::default();
        let was_in_use = |column: usize| self.in_use.get(column).copied().unwrap_or(false);
        for column in 0..uses.len().max(self.in_use.len()) {
            let is_in_use = uses.get(column).is_some_and(|&uses| uses > 0);
            match (was_in_use(column), is_in_use) {
                (false, true) => turnover.added.push(column as u32),
                (true, false) => turnover.removed.push(column as u32),
                (true, true) => turnover.staying.push(column as u32),
                (false, false) => {}
            }
        }
        self.in_use.clear();
        self.in_use.extend(uses.iter().map(|&uses| uses > 0));
        turnover
    }

    /// Makes everything anew.
    fn make(&mut self, columns: &Columns) -> Result<(), CompileError> {
        let mut used: Vec<u32> = (0..).zip(&self.in_use).filter(|(_, in_use)| **in_use).map(|(column, _)| column).collect();
        let profiles = columns.profiles();
        self.slots.clear();
        self.slots.resize_with(profiles, Slot::default);
        self.count(columns, &used);
        for (index, slot) in self.slots.iter_mut().enumerate() {
            slot.renew_sheet(&mut self.maker, columns.rules(index), &columns.rows)?;
        }
        self.content = Content::of(columns, &used, &self.slots);
        used.sort_unstable_by(|&one, &other| self.content.cmp(one, other).then(one.cmp(&other)));
        self.class_of.clear();
        self.classify(used, false);
        self.profiles.resize_with(profiles, ProfileParts::default);
        self.select(&(0..profiles).collect::<Vec<_>>());
        self.others = vec![0..self.classes.len(); profiles];
        self.ports = port_classes(&self.slots, &mut self.profiles)?;
        Ok(())
    }

    /// Counts the uses of each row.
    fn count(&mut self, columns: &Columns, used: &[u32]) {
        let mut counts: Vec<[u32; TOGETHER]> = vec![[0; TOGETHER]; columns.rows.count()];
        for (first, slots) in (0..).step_by(TOGETHER).zip(self.slots.chunks_mut(TOGETHER)) {
            for &column in used {
                let rows = &columns.column(column)[first..];
                rows.iter().take(slots.len()).enumerate().for_each(|(slot, &row)| counts[row as usize][slot] += 1);
            }
            for (row, counts) in (0..).zip(&mut counts) {
                for (slot, uses) in slots.iter_mut().zip(counts.iter_mut()).filter(|(_, uses)| **uses > 0) {
                    slot.push(row, mem::take(uses));
                }
            }
        }
    }

    /// Follows the columns. `None` where too much is another: then it is half done, and all is to be made anew.
    fn follow(&mut self, columns: &Columns, turnover: &Turnover) -> Result<Option<Renumbered>, CompileError> {
        let Turnover { added, removed, staying } = turnover;
        let renewed = self.recount(columns, turnover);
        let mut before = Vec::with_capacity(renewed.len());
        for &slot in &renewed {
            before.push(self.slots[slot].renew_sheet(&mut self.maker, columns.rules(slot), &columns.rows)?);
        }
        if !renewed.iter().all(|&slot| self.content.holds(slot, self.slots[slot].sheet.rows())) {
            return Ok(None);
        }
        // by slot: whether numbers of its rows are others than before
        let mut renumbered = vec![false; self.slots.len()];
        for (&slot, before) in renewed.iter().zip(&before) {
            renumbered[slot] = self.renumber(columns, slot, before, staying);
        }
        self.content.grow(self.in_use.len());
        for &column in added {
            for (index, (slot, &row)) in self.slots.iter_mut().zip(columns.column(column)).enumerate() {
                self.content.put(column, index, slot.number(row));
            }
        }
        let disordered = columns.patched.iter().any(|&slot| renumbered[slot]);
        let classes = disordered || !added.is_empty() || !removed.is_empty();
        let difference = if classes { self.reorder(added, disordered) } else { Difference::none(self.classes.len()) };
        let rows = self.renew_rows(&difference, &renumbered);
        if !renewed.is_empty() {
            self.ports = port_classes(&self.slots, &mut self.profiles)?;
        }
        Ok(Some(Renumbered { classes, rows, profiles: !renewed.is_empty() }))
    }

    /// Puts the numbers of a slot's rows into the columns that stay, after its sheet was renewed. Returns whether some are
    /// others.
    fn renumber(&mut self, columns: &Columns, index: usize, before: &Sheet, staying: &[u32]) -> bool {
        let (slot, content) = (&mut self.slots[index], &mut self.content);
        if columns.patched.binary_search(&index).is_ok() {
            let numbers = staying.iter().map(|&column| (column, slot.number(columns.column(column)[index])));
            return numbers.fold(false, |is_other, (column, number)| content.put(column, index, number) | is_other);
        }
        let Some(numbers) = slot.sheet.renumbered(before) else { return false };
        for &column in staying {
            content.put(column, index, numbers[usize::from(content.number(column, index))]);
        }
        true
    }

    /// Counts columns in and out. Returns the slots, ascending, that have other rows than before.
    fn recount(&mut self, columns: &Columns, turnover: &Turnover) -> Vec<usize> {
        let Turnover { added, removed, staying } = turnover;
        let others: Vec<usize> = (0..self.slots.len()).filter(|slot| columns.patched.binary_search(slot).is_err()).collect();
        for &column in added {
            let rows = columns.column(column);
            others.iter().for_each(|&slot| *self.slots[slot].uses(rows[slot]) += 1);
        }
        for &column in removed {
            let rows = columns.column(column);
            others.iter().for_each(|&slot| *self.slots[slot].uses(rows[slot]) -= 1);
        }
        let mut counts = vec![0; columns.rows.count()];
        for &slot in &columns.patched {
            staying.iter().chain(added).for_each(|&column| counts[columns.column(column)[slot] as usize] += 1);
            self.slots[slot].clear();
            for (row, uses) in (0..).zip(&mut counts).filter(|(_, uses)| **uses > 0) {
                self.slots[slot].push(row, mem::take(uses));
            }
        }
        let has_others =
            |(index, slot): (usize, &mut Slot)| (slot.drop_unused() || columns.patched.binary_search(&index).is_ok()).then_some(index);
        self.slots.iter_mut().enumerate().filter_map(has_others).collect()
    }

    /// Puts columns in order: those that came, and where `disordered`, those that others stand before now.
    fn reorder(&mut self, added: &[u32], disordered: bool) -> Difference {
        let staying = self.order.iter().copied().filter(|&column| self.in_use.get(column as usize).is_some_and(|&in_use| in_use));
        let (settled, mut moving) = match disordered {
            true => settle(staying, |one, other| self.content.cmp(one, other)),
            false => (staying.collect(), Vec::new()),
        };
        moving.extend_from_slice(added);
        moving.sort_unstable_by(|&one, &other| self.content.cmp(one, other));
        let order = merge(&settled, &moving, |one, other| self.content.cmp(one, other));
        let count = self.classes.len();
        Difference::of(&self.classify(order, !disordered), count)
    }

    /// Makes classes of columns in order; `holds`: columns that were a class still are. Returns what each class
    /// was, or [`NO_CLASS`].
    fn classify(&mut self, order: Vec<u32>, holds: bool) -> Vec<u32> {
        let before = mem::replace(&mut self.class_of, vec![NO_CLASS; self.in_use.len()]);
        let class_before = |column: u32| before.get(column as usize).copied().unwrap_or(NO_CLASS);
        let mut were: Vec<u32> = Vec::with_capacity(order.len());
        let classes_before = mem::take(&mut self.classes);
        let is_nobodys = |class: usize| class > 0 && classes_before.get(class).is_some_and(|&one| one == classes_before[class - 1]);
        let mut last = None;
        for &column in &order {
            let was = class_before(column);
            let is_same = |last: u32| match class_before(last) {
                known if holds && known != NO_CLASS && was != NO_CLASS => known == was,
                _ => self.content.is_same(last, column),
            };
            if !last.is_some_and(is_same) {
                if self.content.begins(column) {
                    while let Some(&nobodys) = self.classes.last().filter(|_| !self.classes.len().is_multiple_of(SEGMENT)) {
                        let next = were.last().filter(|&&was| was != NO_CLASS && is_nobodys(was as usize + 1));
                        were.push(next.map_or(NO_CLASS, |was| was + 1));
                        self.classes.push(nobodys);
                    }
                }
                self.classes.push(column);
                were.push(NO_CLASS);
            }
            if let Some(unknown) = were.last_mut().filter(|were| **were == NO_CLASS) {
                *unknown = was;
            }
            self.class_of[column as usize] = self.classes.len() as u32 - 1;
            last = Some(column);
        }
        self.order = order;
        were
    }

    /// Renews rows where classes differ, and at `renumbered` slots. Returns whether some are others.
    fn renew_rows(&mut self, difference: &Difference, renumbered: &[bool]) -> bool {
        let is_all = difference.is_large();
        let (anew, shifted): (Vec<usize>, Vec<usize>) = (0..renumbered.len()).partition(|&slot| is_all || renumbered[slot]);
        self.others.fill(difference.range());
        for &slot in shifted.iter().filter(|_| !difference.is_none()) {
            difference.shift(&mut self.profiles[slot].rows, |class| self.content.number(self.classes[class], slot));
        }
        anew.iter().for_each(|&slot| self.others[slot] = 0..self.classes.len());
        self.select(&anew);
        !difference.is_none() || !anew.is_empty()
    }

    /// Makes the rows of all classes at some slots.
    fn select(&mut self, slots: &[usize]) {
        self.content.select(&self.classes, slots, &mut self.profiles);
    }

    /// Says actions by the ids that rules have now.
    fn name_rules(&mut self, model: &Model) {
        for ((profile, slot), own) in self.profiles.iter_mut().zip(&self.slots).zip(&model.profiles) {
            let action = |&action: &u32| if action == 0 { Action::Deny } else { Action::Allow(RuleId(own.rules[action as usize - 1])) };
            profile.actions.clear();
            profile.actions.extend(slot.sheet.actions.iter().map(action));
        }
    }
}

/// Refuses what the format cannot hold.
pub(super) fn capacity(what: &'static str, count: usize, max: usize) -> Result<(), CompileError> {
    if count > max { Err(CompileError::Capacity { what, count, max }) } else { Ok(()) }
}
