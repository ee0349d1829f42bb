//! The last stage: rows, ports and classes get their final numbers, by content and among those in use, so that the bytes
//! depend on the snapshot alone and never on what the compiler remembers.
//!
//! Columns that say the same are a class, and classes stand in the order of what they say. Which number a row has does not
//! change that order, so a class that comes or goes is put in its place among the others, and only those profiles are
//! made anew for which it brings a row or takes the last use of one.

use super::CompileError;
use super::columns::Columns;
use super::model::Model;
use super::ports::{OTHERS, PORTS};
use super::sheet::{Sheet, SheetMaker, sweep};
use ahash::RandomState;
use sluice_flow::RuleId;
use sluice_table::{Action, PortParts, ProfileParts};
use std::cmp::Ordering;
use std::collections::HashMap;

/// Above so many columns that come or go everything is made anew.
const FOLLOWED_MAX: usize = 32;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    maker: SheetMaker,
    /// Of the columns, and of the model's rules, as of the last update.
    epoch: Option<u64>,
    edition: u64,
    /// By column, as of the last update.
    in_use: Vec<bool>,
    slots: Vec<Slot>,
    /// In order.
    classes: Vec<Class>,
    /// By column; [`NO_CLASS`] for those not in use.
    pub(super) class_of: Vec<u32>,
    pub(super) ports: PortParts,
    /// By slot.
    pub(super) profiles: Vec<ProfileParts>,
    /// By slot: below how many classes the rows are what they were before the last update.
    pub(super) same: Vec<usize>,
}

/// Of a column that is not in use.
const NO_CLASS: u32 = u32::MAX;

/// Columns that say the same.
#[derive(Debug, Clone, Copy)]
struct Class {
    /// One of them.
    column: u32,
    /// How many.
    size: u32,
}

/// One profile.
#[derive(Debug, Default)]
struct Slot {
    /// Columns in use that have a row, by the row's id.
    uses: HashMap<u32, u32, RandomState>,
    sheet: Sheet,
}

/// What is another than before.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Renumbered {
    /// Classes of columns, or how many there are.
    pub(super) classes: bool,
    /// Port classes, or what profiles say.
    pub(super) profiles: bool,
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
        let was_in_use = |column: usize| self.in_use.get(column).copied().unwrap_or(false);
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        for column in 0..uses.len().max(self.in_use.len()) {
            let is_in_use = uses.get(column).is_some_and(|&uses| uses > 0);
            match (was_in_use(column), is_in_use) {
                (false, true) => added.push(column as u32),
                (true, false) => removed.push(column as u32),
                _ => {}
            }
        }
        let same_columns = self.epoch.replace(columns.epoch) == Some(columns.epoch);
        let same_rules = std::mem::replace(&mut self.edition, model.rules_edition) == model.rules_edition;
        self.in_use.clear();
        self.in_use.extend(uses.iter().map(|&uses| uses > 0));
        let renumbered = if !same_columns || added.len() + removed.len() > FOLLOWED_MAX {
            self.make(columns)?;
            Renumbered { classes: true, profiles: true }
        } else if added.is_empty() && removed.is_empty() {
            Renumbered { classes: false, profiles: !same_rules }
        } else {
            let profiles = self.follow(columns, &added, &removed)?;
            Renumbered { classes: true, profiles: profiles || !same_rules }
        };
        if renumbered.profiles {
            self.name_rules(model);
        }
        Ok(renumbered)
    }

    /// Makes everything anew.
    fn make(&mut self, columns: &Columns) -> Result<(), CompileError> {
        let used: Vec<u32> = (0..).zip(&self.in_use).filter(|(_, in_use)| **in_use).map(|(column, _)| column).collect();
        let profiles = columns.profiles();
        self.slots.clear();
        self.slots.resize_with(profiles, Slot::default);
        self.count(columns, &used);
        for (index, slot) in self.slots.iter_mut().enumerate() {
            slot.sheet = self.maker.sheet(slot.uses.keys().copied(), columns.rules(index), &columns.rows)?;
        }
        let content = Content::of(columns, &used, &self.slots);
        self.classes.clear();
        self.class_of.clear();
        self.class_of.resize(self.in_use.len(), NO_CLASS);
        let mut distinct: Vec<usize> = Vec::new();
        for at in content.order() {
            match self.classes.last_mut() {
                Some(class) if distinct.last().is_some_and(|&last| content.of_column(last) == content.of_column(at)) => class.size += 1,
                _ => {
                    distinct.push(at);
                    self.classes.push(Class { column: used[at], size: 1 });
                }
            }
            self.class_of[used[at] as usize] = self.classes.len() as u32 - 1;
        }
        self.profiles.resize_with(profiles, ProfileParts::default);
        content.select(&distinct, &mut self.profiles);
        self.same = vec![0; profiles];
        self.number_ports()
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
                    slot.uses.insert(row, std::mem::take(uses));
                }
            }
        }
    }

    /// Takes columns in and out. Returns whether a profile says something else of its rows or ports.
    fn follow(&mut self, columns: &Columns, added: &[u32], removed: &[u32]) -> Result<bool, CompileError> {
        let mut renewed = Vec::new();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let mut other = false;
            for &column in added {
                let uses = slot.uses.entry(columns.column(column)[index]).or_insert(0);
                other |= *uses == 0;
                *uses += 1;
            }
            for &column in removed {
                let row = columns.column(column)[index];
                let uses = slot.uses.get_mut(&row).expect("a column in use was counted");
                *uses -= 1;
                if *uses == 0 {
                    slot.uses.remove(&row);
                    other = true;
                }
            }
            if other {
                slot.sheet = self.maker.sheet(slot.uses.keys().copied(), columns.rules(index), &columns.rows)?;
                renewed.push(index);
            }
        }
        let mut same = self.classes.len();
        for &column in removed {
            same = same.min(self.leave(column));
        }
        for &column in added {
            same = same.min(self.enter(columns, column));
        }
        self.same.fill(same);
        for &index in &renewed {
            self.same[index] = 0;
            let (slot, profile) = (&self.slots[index], &mut self.profiles[index]);
            let mut last = (u32::MAX, 0);
            profile.rows.clear();
            profile.rows.extend(self.classes.iter().map(|class| {
                let row = columns.column(class.column)[index];
                if row != last.0 {
                    last = (row, slot.sheet.number(row));
                }
                last.1
            }));
        }
        if !renewed.is_empty() {
            self.number_ports()?;
        }
        Ok(!renewed.is_empty())
    }

    /// Takes a column out. Returns the class whose place others may have taken.
    fn leave(&mut self, column: u32) -> usize {
        let at = std::mem::replace(&mut self.class_of[column as usize], NO_CLASS);
        let class = &mut self.classes[at as usize];
        class.size -= 1;
        if class.size == 0 {
            self.classes.remove(at as usize);
            self.class_of.iter_mut().for_each(|class| *class -= u32::from(*class > at && *class != NO_CLASS));
            for profile in &mut self.profiles {
                profile.rows.remove(at as usize);
            }
        } else if class.column == column {
            let member = self.class_of.iter().position(|&class| class == at);
            class.column = member.expect("a class has as many columns as it counts") as u32;
        }
        at as usize
    }

    /// Takes a column in. Returns its class.
    fn enter(&mut self, columns: &Columns, column: u32) -> usize {
        if self.class_of.len() <= column as usize {
            self.class_of.resize(column as usize + 1, NO_CLASS);
        }
        let rows = columns.column(column);
        let place = self.classes.binary_search_by(|class| {
            let others = columns.column(class.column);
            let of_slots = self.slots.iter().zip(others.iter().zip(rows)).filter(|(_, (other, own))| other != own);
            of_slots
                .map(|(slot, (other, own))| slot.sheet.number(*other).cmp(&slot.sheet.number(*own)))
                .find(|order| order.is_ne())
                .unwrap_or(Ordering::Equal)
        });
        let at = match place {
            Ok(class) => {
                self.classes[class].size += 1;
                class
            }
            Err(at) => {
                self.classes.insert(at, Class { column, size: 1 });
                self.class_of.iter_mut().for_each(|class| *class += u32::from(*class as usize >= at && *class != NO_CLASS));
                for ((profile, slot), row) in self.profiles.iter_mut().zip(&self.slots).zip(rows) {
                    profile.rows.insert(at, slot.sheet.number(*row));
                }
                at
            }
        };
        self.class_of[column as usize] = at as u32;
        at
    }

    /// Port classes, and what each profile calls them.
    fn number_ports(&mut self) -> Result<(), CompileError> {
        let mut known: HashMap<Vec<u16>, u16, RandomState> = HashMap::default();
        let mut intervals: Vec<(u32, u16)> = Vec::new();
        let mut beyond = 0;
        sweep(self.slots.iter().map(|slot| &slot.sheet), |start, numbers| {
            let next = known.len();
            let class = match known.get(numbers) {
                Some(&class) => class,
                None => {
                    beyond = next + 1;
                    known.insert(numbers.to_vec(), next as u16);
                    next as u16
                }
            };
            intervals.push((start, class));
        });
        capacity("port classes", beyond, usize::from(u16::MAX))?;
        let at = |place: u32| intervals[intervals.partition_point(|interval| interval.0 <= place) - 1].1;
        self.ports = PortParts { classes: known.len(), intervals: Default::default(), others: at(OTHERS) };
        for (protocol, list) in (0u32..).zip(&mut self.ports.intervals) {
            let (first, end) = (protocol * PORTS, (protocol + 1) * PORTS);
            list.push((0, at(first)));
            for &(start, class) in intervals.iter().filter(|interval| interval.0 > first && interval.0 < end) {
                if list.last().is_none_or(|&(_, last)| last != class) {
                    list.push(((start - first) as u16, class));
                }
            }
        }
        for (profile, slot) in self.profiles.iter_mut().zip(&self.slots) {
            profile.stride = slot.sheet.stride;
            profile.ports.clear();
            profile.ports.resize(known.len(), 0);
        }
        for (numbers, class) in &known {
            self.profiles.iter_mut().zip(numbers).for_each(|(profile, &number)| profile.ports[usize::from(*class)] = number);
        }
        Ok(())
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

/// Slots that are gone through together, so that what is read of a column is a whole line of the cache.
const TOGETHER: usize = 16;

/// What each column in use says, for comparing: the number of its row at each profile, in as many bits as that profile's
/// numbers need, the first profile's in the highest bits.
struct Content {
    words: Vec<u64>,
    width: usize,
    /// By profile, the row of each column in use.
    rows: Vec<Vec<u16>>,
    columns: usize,
}

impl Content {
    fn of(columns: &Columns, used: &[u32], slots: &[Slot]) -> Self {
        let bits: Vec<u32> = slots.iter().map(|slot| u16::BITS - slot.sheet.rows().saturating_sub(1).leading_zeros()).collect();
        // a number that would cross the end of a word begins in the next one
        let mut at = 0;
        let place = |&bits: &u32| {
            if at % 64 + bits > 64 {
                at = at.next_multiple_of(64);
            }
            at += bits;
            ((at - bits) / 64, (64 - bits - (at - bits) % 64) % 64)
        };
        let places: Vec<(u32, u32)> = bits.iter().map(place).collect();
        let width = at.div_ceil(64).max(1) as usize;
        let mut words = vec![0u64; used.len() * width];
        let mut all_rows = Vec::with_capacity(slots.len());
        let mut numbers = Numbering::default();
        let mut tiles = vec![[0u32; TOGETHER]; used.len()];
        for (first, slots) in (0..).step_by(TOGETHER).zip(slots.chunks(TOGETHER)) {
            let mut rows_of: Vec<Vec<u16>> = slots.iter().map(|_| Vec::with_capacity(used.len())).collect();
            numbers.learn(slots);
            // brought together first, by a loop so short that it waits for many columns at a time
            for (&column, tile) in used.iter().zip(&mut tiles) {
                let rows = &columns.column(column)[first..][..slots.len()];
                tile[..rows.len()].copy_from_slice(rows);
            }
            for (tile, words) in tiles.iter().zip(words.chunks_mut(width)) {
                let of_slots = (0..).zip(tile).zip(&mut rows_of).zip(&places[first..]);
                for (((slot, &row), rows_of), &(word, shift)) in of_slots {
                    let number = numbers.number(slot, row);
                    rows_of.push(number);
                    // a number of no bits is 0, and its place may be behind the last word
                    if number > 0 {
                        words[word as usize] |= u64::from(number) << shift;
                    }
                }
            }
            all_rows.append(&mut rows_of);
        }
        Self { words, width, rows: all_rows, columns: used.len() }
    }

    fn of_column(&self, at: usize) -> &[u64] {
        &self.words[at * self.width..][..self.width]
    }

    /// Columns by what they say.
    fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.columns).collect();
        order.sort_unstable_by(|&a, &b| self.of_column(a).cmp(self.of_column(b)).then(a.cmp(&b)));
        order
    }

    /// For each profile the row of each of these columns.
    fn select(&self, columns: &[usize], profiles: &mut [ProfileParts]) {
        for (profile, rows) in profiles.iter_mut().zip(&self.rows) {
            profile.rows.clear();
            profile.rows.extend(columns.iter().map(|&column| rows[column]));
        }
    }
}

/// Numbers of rows by id, for some slots at a time.
#[derive(Default)]
struct Numbering {
    /// By id and slot; what is not in use says nothing.
    numbers: Vec<[u16; TOGETHER]>,
}

impl Numbering {
    fn learn(&mut self, slots: &[Slot]) {
        for (slot, Slot { sheet, .. }) in slots.iter().enumerate() {
            let ids = sheet.ids.last().map_or(0, |&last| last as usize + 1);
            if self.numbers.len() < ids {
                self.numbers.resize(ids, [0; TOGETHER]);
            }
            for (&row, &number) in sheet.ids.iter().zip(&sheet.numbers) {
                self.numbers[row as usize][slot] = number;
            }
        }
    }

    #[inline(always)]
    fn number(&self, slot: usize, row: u32) -> u16 {
        self.numbers[row as usize][slot]
    }
}

/// Refuses what the format cannot hold.
pub(super) fn capacity(what: &'static str, count: usize, max: usize) -> Result<(), CompileError> {
    if count > max { Err(CompileError::Capacity { what, count, max }) } else { Ok(()) }
}
