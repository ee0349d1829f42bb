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
    /// The columns of each class.
    order: Vec<Vec<u32>>,
    /// By column; of one that is not in use, anything below the number of classes.
    pub(super) class_of: Vec<u32>,
    pub(super) ports: PortParts,
    /// By slot.
    pub(super) profiles: Vec<ProfileParts>,
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
        self.order.len()
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
            self.follow(columns, &added, &removed)?;
            Renumbered { classes: true, profiles: true }
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
        self.order.clear();
        self.class_of.clear();
        self.class_of.resize(self.in_use.len(), 0);
        let mut distinct: Vec<usize> = Vec::new();
        for at in content.order() {
            if distinct.last().is_none_or(|&last| content.of_column(last) != content.of_column(at)) {
                distinct.push(at);
                self.order.push(Vec::new());
            }
            let class = self.order.len() - 1;
            self.order[class].push(used[at]);
            self.class_of[used[at] as usize] = class as u32;
        }
        self.profiles.resize_with(profiles, ProfileParts::default);
        content.transpose(&distinct, &mut self.profiles);
        self.number_ports()
    }

    /// Counts the uses of each row.
    fn count(&mut self, columns: &Columns, used: &[u32]) {
        for (first, slots) in (0..).step_by(TOGETHER).zip(self.slots.chunks_mut(TOGETHER)) {
            // neighbours mostly have the same row
            let mut runs = [(u32::MAX, 0u32); TOGETHER];
            for &column in used {
                for ((slot, run), &row) in slots.iter_mut().zip(&mut runs).zip(&columns.column(column)[first..]) {
                    if run.0 != row {
                        slot.add(*run);
                        *run = (row, 0);
                    }
                    run.1 += 1;
                }
            }
            slots.iter_mut().zip(runs).for_each(|(slot, run)| slot.add(run));
        }
    }

    /// Takes columns in and out.
    fn follow(&mut self, columns: &Columns, added: &[u32], removed: &[u32]) -> Result<(), CompileError> {
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
        self.leave(removed);
        added.iter().for_each(|&column| self.enter(columns, column));
        for (class, members) in (0u32..).zip(&self.order) {
            members.iter().for_each(|&column| {
                let at = column as usize;
                if at >= self.class_of.len() {
                    self.class_of.resize(at + 1, 0);
                }
                self.class_of[at] = class;
            });
        }
        for &index in &renewed {
            let (slot, profile) = (&self.slots[index], &mut self.profiles[index]);
            profile.rows.clear();
            profile.rows.extend(self.order.iter().map(|members| slot.sheet.numbers[&columns.column(members[0])[index]]));
        }
        if renewed.is_empty() { Ok(()) } else { self.number_ports() }
    }

    fn leave(&mut self, removed: &[u32]) {
        let mut emptied = false;
        for &column in removed {
            self.order[self.class_of[column as usize] as usize].retain(|&member| member != column);
            self.class_of[column as usize] = 0;
        }
        emptied |= self.order.iter().any(Vec::is_empty);
        if emptied {
            for profile in &mut self.profiles {
                let mut members = self.order.iter();
                profile.rows.retain(|_| members.next().is_some_and(|members| !members.is_empty()));
            }
            self.order.retain(|members| !members.is_empty());
        }
    }

    fn enter(&mut self, columns: &Columns, column: u32) {
        let rows = columns.column(column);
        let place = self.order.binary_search_by(|members| {
            let others = columns.column(members[0]);
            let of_slots = self.slots.iter().zip(others.iter().zip(rows)).filter(|(_, (other, own))| other != own);
            of_slots
                .map(|(slot, (other, own))| slot.sheet.numbers[other].cmp(&slot.sheet.numbers[own]))
                .find(|order| order.is_ne())
                .unwrap_or(Ordering::Equal)
        });
        match place {
            Ok(class) => self.order[class].push(column),
            Err(at) => {
                self.order.insert(at, vec![column]);
                for ((profile, slot), row) in self.profiles.iter_mut().zip(&self.slots).zip(rows) {
                    profile.rows.insert(at, slot.sheet.numbers[row]);
                }
            }
        }
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

impl Slot {
    fn add(&mut self, (row, uses): (u32, u32)) {
        if uses > 0 {
            *self.uses.entry(row).or_insert(0) += uses;
        }
    }
}

/// Slots that are gone through together, so that what is read of a column is a whole line of the cache.
const TOGETHER: usize = 16;
const NUMBER: usize = size_of::<u16>();

/// What each column in use says: the number of its row at each profile, in network order, so that bytes compare as they do.
struct Content {
    bytes: Vec<u8>,
    width: usize,
    columns: usize,
}

impl Content {
    fn of(columns: &Columns, used: &[u32], slots: &[Slot]) -> Self {
        let width = slots.len() * NUMBER;
        let mut bytes = vec![0; used.len() * width];
        for (first, slots) in (0..).step_by(TOGETHER).zip(slots.chunks(TOGETHER)) {
            let mut last = [(u32::MAX, [0; NUMBER]); TOGETHER];
            for (&column, bytes) in used.iter().zip(bytes.chunks_mut(width)) {
                let rows = &columns.column(column)[first..];
                let numbers = bytes[first * NUMBER..].chunks_mut(NUMBER);
                for (((slot, last), &row), number) in slots.iter().zip(&mut last).zip(rows).zip(numbers) {
                    if last.0 != row {
                        *last = (row, slot.sheet.numbers[&row].to_be_bytes());
                    }
                    number.copy_from_slice(&last.1);
                }
            }
        }
        Self { bytes, width, columns: used.len() }
    }

    fn of_column(&self, at: usize) -> &[u8] {
        &self.bytes[at * self.width..][..self.width]
    }

    /// Columns by what they say.
    fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.columns).collect();
        order.sort_unstable_by(|&a, &b| self.of_column(a).cmp(self.of_column(b)).then(a.cmp(&b)));
        order
    }

    /// For each profile the row of each of these columns.
    fn transpose(&self, columns: &[usize], profiles: &mut [ProfileParts]) {
        for (first, profiles) in (0..).step_by(TOGETHER).zip(profiles.chunks_mut(TOGETHER)) {
            for profile in profiles.iter_mut() {
                profile.rows.clear();
                profile.rows.reserve(columns.len());
            }
            for &column in columns {
                let numbers = self.of_column(column)[first * NUMBER..].chunks(NUMBER);
                profiles
                    .iter_mut()
                    .zip(numbers)
                    .for_each(|(profile, number)| profile.rows.push(u16::from_be_bytes([number[0], number[1]])));
            }
        }
    }
}

/// Refuses what the format cannot hold.
pub(super) fn capacity(what: &'static str, count: usize, max: usize) -> Result<(), CompileError> {
    if count > max { Err(CompileError::Capacity { what, count, max }) } else { Ok(()) }
}
