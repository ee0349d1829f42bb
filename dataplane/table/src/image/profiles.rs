//! Rows of classes → the sections that say what each profile allows.
//!
//! Classes are numbered by what they allow, so neighbours mostly share their rows: 32 of them are a *segment*, and few of
//! those differ. Rows and port classes are numbered within each profile, because what one pod's policies tell apart fits a
//! byte where all pods' together would not.

use crate::format::{Half, SEGMENT};
use crate::parts::{Action, TableParts};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

/// Everything before it is written in some width.
#[derive(Debug, Default)]
pub(super) struct Profiles {
    pub(super) directory: Runs<u32>,
    pub(super) segments: Runs<u16>,
    pub(super) local_ports: Runs<u16>,
    pub(super) actions: Runs<u32>,
    /// Where each profile is.
    pub(super) halves: Vec<Half>,
    /// The most rows, and the most port classes, of one profile.
    pub(super) rows_max: usize,
    pub(super) ports_max: usize,
}

impl Profiles {
    pub(super) fn of(parts: &TableParts) -> Self {
        let mut profiles = Self::default();
        let encoded: Vec<Vec<u32>> = parts.rows.iter().map(|row| row.iter().map(|action| Action::encode(*action)).collect()).collect();
        assert!(encoded.iter().all(|row| row.len() == parts.port_classes), "one action for each port class");
        let mut local_rows = vec![u16::MAX; encoded.len()];
        for rows_of_classes in &parts.profiles {
            assert_eq!(rows_of_classes.len(), parts.classes, "one row for each class");
            let mut rows: Vec<u32> = rows_of_classes.clone();
            rows.sort_unstable();
            rows.dedup();
            rows.iter().enumerate().for_each(|(local, &row)| local_rows[row as usize] = local as u16);
            let segments = rows_of_classes.chunks(SEGMENT).map(|classes| {
                let mut segment = [0; SEGMENT];
                segment.iter_mut().zip(classes).for_each(|(local, &row)| *local = local_rows[row as usize]);
                (profiles.segments.place(&segment) as usize / SEGMENT) as u32
            });
            let directory: Vec<u32> = segments.collect();
            let (local_ports, representatives) = ports(&encoded, &rows, parts.port_classes);
            let actions: Vec<u32> = rows
                .iter()
                .flat_map(|&row| representatives.iter().map(move |&port| (row, port)))
                .map(|(row, port)| encoded[row as usize][port])
                .collect();
            profiles.rows_max = profiles.rows_max.max(rows.len());
            profiles.ports_max = profiles.ports_max.max(representatives.len());
            profiles.halves.push(Half {
                directory: profiles.directory.place(&directory),
                ports: profiles.local_ports.place(&local_ports),
                actions: profiles.actions.place(&actions),
                stride: representatives.len() as u32,
            });
        }
        profiles
    }
}

/// Port classes that all these rows treat alike share a number: of each port class its number, and of each number one of
/// its port classes.
fn ports(encoded: &[Vec<u32>], rows: &[u32], port_classes: usize) -> (Vec<u16>, Vec<usize>) {
    let mut numbers = vec![0u32; port_classes];
    let mut ids: HashMap<(u32, u32), u32> = HashMap::new();
    for &row in rows {
        ids.clear();
        for (number, &action) in numbers.iter_mut().zip(&encoded[row as usize]) {
            let next = ids.len() as u32;
            *number = *ids.entry((*number, action)).or_insert(next);
        }
    }
    let mut representatives = Vec::new();
    for (port, &number) in numbers.iter().enumerate() {
        // numbers are given in the order of their first port class
        if number as usize == representatives.len() {
            representatives.push(port);
        }
    }
    (numbers.into_iter().map(|number| number as u16).collect(), representatives)
}

/// Runs of numbers one after the other, each distinct one once.
#[derive(Debug)]
pub(super) struct Runs<T> {
    pub(super) all: Vec<T>,
    places: HashMap<Vec<T>, u32>,
}

impl<T> Default for Runs<T> {
    fn default() -> Self {
        Self { all: Vec::new(), places: HashMap::new() }
    }
}

impl<T: Copy + Eq + Hash> Runs<T> {
    /// Where such a run begins.
    fn place(&mut self, run: &[T]) -> u32 {
        match self.places.entry(run.to_vec()) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let place = self.all.len() as u32;
                self.all.extend_from_slice(run);
                *new.insert(place)
            }
        }
    }
}
