//! Every unit that some address has, and what is expected of it.

use super::Change;
use super::blocks::Blocks;
use super::cells::Cells;
use super::expected::{Expected, RuleBits, Terms, Unit, UnitId, asking_names};
use super::matches::Matches;
use super::people::{Changed, GroupId, NOBODY, People};
use super::regions::{RegionId, number_of};
use super::settled::Settled;
use super::sides::Sides;
use crate::snapshot::Snapshot;
use ahash::RandomState;
use std::collections::HashMap;
use std::net::IpAddr;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Units {
    matches: Matches,
    pub(super) units: Vec<Unit>,
    ids: HashMap<(RegionId, GroupId), UnitId, RandomState>,
    pub(super) v4: Blocks,
    pub(super) v6: Blocks,
    /// First address of each piece of a region, with the unit of its unclaimed addresses.
    pub(super) v4_pieces: Vec<(u128, UnitId)>,
    pub(super) v6_pieces: Vec<(u128, UnitId)>,
    pub(super) cells: Cells,
    pub(super) expected: Expected,
    /// About these columns; forgotten with them.
    pub(super) settled: Settled,
    /// The rules that ask for a named port.
    asks_names: RuleBits,
}

/// More changed addresses than this are not worth changing one by one.
const CHANGED_MAX: usize = 512;
/// How many units may be remembered for each that is in use before those that left are forgotten.
const REMEMBERED_FACTOR: usize = 4;
const REMEMBERED_MIN: usize = 4096;

impl Units {
    /// Follows people, rules and profiles. Returns how many units are new.
    pub(super) fn update(&mut self, snapshot: &Snapshot, sides: &Sides, people: &mut People, change: &Change) -> u64 {
        let in_use = self.v4.len() + self.v6.len() + self.v4_pieces.len() + self.v6_pieces.len();
        let worn = self.units.len() > REMEMBERED_MIN.max(REMEMBERED_FACTOR * in_use);
        let anew = change.peers || worn || change.people == Changed::All || self.units.is_empty();
        if anew {
            *self = Self { matches: Matches::of(&sides.rules), asks_names: asking_names(&sides.rules), ..Self::default() };
        }
        let (before, environments) = (self.units.len(), self.expected.environments.len());
        if anew {
            let pieces = |v6| self.matches.regions.pieces(v6).to_vec();
            let (v4, v6) = (pieces(false), pieces(true));
            let mut with_units = |pieces: Vec<(u128, RegionId)>| -> Vec<(u128, UnitId)> {
                pieces.into_iter().map(|(first, region)| (first, self.unit(snapshot, sides, people, region, NOBODY))).collect()
            };
            (self.v4_pieces, self.v6_pieces) = (with_units(v4), with_units(v6));
        }
        match &change.people {
            Changed::Addresses(changed) if !anew && changed.len() <= CHANGED_MAX => {
                changed.iter().for_each(|&address| self.place(snapshot, sides, people, address));
            }
            _ => self.place_all(snapshot, sides, people),
        }
        // the cells of the same rules, profiles and environments are the same
        if anew || change.profiles || self.expected.environments.len() != environments {
            let own = sides.profiles.iter().map(|profile| &profile.environment);
            let cells = Cells::of(&sides.rules, self.expected.environments.iter().chain(own));
            if cells != self.cells || change.profiles {
                self.cells = cells;
                self.expected.forget_rows();
                self.settled = Settled::default();
            }
        }
        if change.profiles { self.units.len() as u64 } else { (self.units.len() - before) as u64 }
    }

    /// The column of a unit.
    pub(super) fn column(&mut self, sides: &Sides, unit: UnitId) -> u32 {
        let terms = Terms { rules: &sides.rules, asks_names: &self.asks_names, profiles: &sides.profiles, cells: &self.cells };
        self.expected.column(terms, unit, &self.units[unit as usize])
    }

    fn place(&mut self, snapshot: &Snapshot, sides: &Sides, people: &mut People, address: IpAddr) {
        let (number, v6) = number_of(address);
        let group = people.group_at(address);
        let unit = (group != NOBODY).then(|| {
            let region = self.matches.regions.at(address);
            self.unit(snapshot, sides, people, region, group)
        });
        self.claimed(v6).put(number, unit);
    }

    fn place_all(&mut self, snapshot: &Snapshot, sides: &Sides, people: &mut People) {
        (self.v4, self.v6) = Default::default();
        let addresses: Vec<IpAddr> = people.addresses().collect();
        for address in addresses {
            let (number, v6) = number_of(address);
            let (region, group) = (self.matches.regions.at(address), people.group_at(address));
            let unit = self.unit(snapshot, sides, people, region, group);
            self.claimed(v6).put(number, Some(unit));
        }
    }

    fn claimed(&mut self, v6: bool) -> &mut Blocks {
        if v6 { &mut self.v6 } else { &mut self.v4 }
    }

    fn unit(&mut self, snapshot: &Snapshot, sides: &Sides, people: &People, region: RegionId, group: GroupId) -> UnitId {
        if let Some(&id) = self.ids.get(&(region, group)) {
            return id;
        }
        let id = self.units.len() as UnitId;
        let matched = self.matches.of_unit(snapshot, &sides.rules, people, region, group);
        let environment = self.expected.environment(people.environment(group));
        self.units.push(Unit { matched, environment });
        self.ids.insert((region, group), id);
        id
    }
}
