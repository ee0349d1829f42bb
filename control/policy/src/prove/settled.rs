//! What the last proof compared, so that what is the same again is not compared again.
//!
//! A comparison asks whether, for every run, a class has the rows that a column expects. Its outcome depends on the column,
//! on the rows that the table gives that class, on what those rows say, and on how rules and port classes are to be read.
//! Expected columns never change, they are only forgotten, and this memory with them. Of all the rest there is a copy here,
//! taken from the table that was compared. Where the bytes of the next table are the same, so is the outcome.
//!
//! Nothing here supposes that two tables have to do with each other: classes may be numbered anew, and each is looked for
//! where its column was found the last time, then compared with it row number by row number, for every run.

use super::cells::CellClass;
use super::expected::ColumnId;
use super::sides::{ProfileId, RuleIndex};

/// The table's side of a comparison, as far as all classes share it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading<'t> {
    pub(super) cell_classes: &'t [CellClass],
    /// By the table's rule id.
    pub(super) rules: &'t [Option<RuleIndex>],
    /// What each row says, one row after the other.
    pub(super) actions: &'t [u32],
    pub(super) port_classes: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Settled {
    cell_classes: Vec<CellClass>,
    rules: Vec<Option<RuleIndex>>,
    actions: Vec<u32>,
    port_classes: usize,
    /// The profile of each run, and its row of each class.
    runs: Vec<(ProfileId, Vec<u16>)>,
    /// A class that had a column's rows in every run.
    class_of_column: Vec<u32>,
}

/// A column and a class that must be equal, because some address has both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wanted {
    pub(super) class: u32,
    pub(super) column: ColumnId,
}

const NONE: u32 = u32::MAX;

/// What of the memory is the next table's too.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Same {
    reading: bool,
    runs: bool,
}

/// Neighbouring classes whose earlier selves are neighbours too.
struct Segment {
    now: usize,
    before: usize,
    len: usize,
}

impl Settled {
    /// Takes out of `wanted`, which is sorted, what has been compared. What it returns is for [`Self::keep`].
    pub(super) fn strike(&self, reading: Reading<'_>, runs: &[(ProfileId, &[u16])], wanted: &mut Vec<Wanted>) -> Same {
        if !self.reads_alike(reading) {
            return Same::default();
        }
        if !self.runs.iter().map(|run| run.0).eq(runs.iter().map(|run| run.0)) {
            return Same { reading: true, runs: false };
        }
        let Some(classes) = runs.first().map(|run| run.1.len()) else {
            wanted.clear();
            return Same { reading: true, runs: true };
        };
        let mut before = vec![NONE; classes];
        for one in wanted.iter() {
            let (slot, known) = (&mut before[one.class as usize], self.class_of(one.column));
            if *slot == NONE {
                *slot = known;
            }
        }
        let segments = segments(&before);
        let mut runs_same = segments.iter().map(|segment| (segment.now, segment.before, segment.len)).eq([(0, 0, classes)])
            && self.runs.iter().all(|run| run.1.len() == classes);
        for segment in segments {
            for ((_, old), (_, new)) in self.runs.iter().zip(runs) {
                let old = &old[segment.before..][..segment.len];
                let new = &new[segment.now..][..segment.len];
                if old != new {
                    runs_same = false;
                    let differ = (0..segment.len).filter(|&at| old[at] != new[at]);
                    differ.for_each(|at| before[segment.now + at] = NONE);
                }
            }
        }
        wanted.retain(|one| before[one.class as usize] == NONE || before[one.class as usize] != self.class_of(one.column));
        Same { reading: true, runs: runs_same }
    }

    /// Remembers that everything wanted has been found equal. `columns`: how many there are.
    pub(super) fn keep(&mut self, reading: Reading<'_>, runs: &[(ProfileId, &[u16])], wanted: &[Wanted], columns: usize, same: Same) {
        if !same.reading {
            self.cell_classes = reading.cell_classes.to_vec();
            self.rules = reading.rules.to_vec();
            self.actions = reading.actions.to_vec();
            self.port_classes = reading.port_classes;
        }
        if !same.runs {
            self.runs.resize_with(runs.len(), Default::default);
            for (old, &(profile, rows)) in self.runs.iter_mut().zip(runs) {
                old.0 = profile;
                old.1.clear();
                old.1.extend_from_slice(rows);
            }
        }
        self.class_of_column.clear();
        self.class_of_column.resize(columns, NONE);
        for one in wanted {
            self.class_of_column[one.column as usize] = one.class;
        }
    }

    fn class_of(&self, column: ColumnId) -> u32 {
        self.class_of_column.get(column as usize).copied().unwrap_or(NONE)
    }

    fn reads_alike(&self, reading: Reading<'_>) -> bool {
        self.port_classes == reading.port_classes
            && self.cell_classes == reading.cell_classes
            && self.rules == reading.rules
            && self.actions == reading.actions
    }
}

fn segments(before: &[u32]) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    for (now, &before) in before.iter().enumerate().filter(|(_, before)| **before != NONE) {
        let before = before as usize;
        match segments.last_mut() {
            Some(last) if last.now + last.len == now && last.before + last.len == before => last.len += 1,
            _ => segments.push(Segment { now, before, len: 1 }),
        }
    }
    segments
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACTIONS: [u32; 6] = [0, 1, 0, 2, 1, 1];

    fn reading(actions: &[u32]) -> Reading<'_> {
        Reading { cell_classes: &[], rules: &[], actions, port_classes: 2 }
    }

    fn wanted(list: &[(u32, ColumnId)]) -> Vec<Wanted> {
        list.iter().map(|&(class, column)| Wanted { class, column }).collect()
    }

    /// Two runs with three classes, proved for columns 10, 11 and 12.
    fn settled() -> Settled {
        let mut settled = Settled::default();
        settled.keep(reading(&ACTIONS), &[(0, &[0, 1, 2]), (1, &[2, 2, 0])], &wanted(&[(0, 10), (1, 11), (2, 12)]), 13, Same::default());
        settled
    }

    #[test]
    fn only_what_is_the_same_in_every_byte_is_struck() {
        type Case<'c> = (&'c str, [&'c [u16]; 2], &'c [(u32, ColumnId)], &'c [(u32, ColumnId)]);
        let cases: [Case<'_>; 6] = [
            ("nothing changed", [&[0, 1, 2], &[2, 2, 0]], &[(0, 10), (1, 11), (2, 12)], &[]),
            ("a class in between", [&[0, 2, 1, 2], &[2, 0, 2, 0]], &[(0, 10), (1, 13), (2, 11), (3, 12)], &[(1, 13)]),
            ("a row in one run", [&[0, 1, 2], &[2, 1, 0]], &[(0, 10), (1, 11), (2, 12)], &[(1, 11)]),
            ("columns swapped", [&[0, 1, 2], &[2, 2, 0]], &[(0, 11), (1, 10), (2, 12)], &[(0, 11), (1, 10)]),
            ("another column's class too", [&[0, 1, 2], &[2, 2, 0]], &[(0, 10), (1, 11), (1, 12), (2, 12)], &[(1, 12)]),
            ("a class less", [&[0, 2], &[2, 0]], &[(0, 10), (1, 12)], &[]),
        ];
        for (name, rows, asked, left) in cases {
            let (mut list, mut settled, runs) = (wanted(asked), settled(), [(0, rows[0]), (1, rows[1])]);
            let same = settled.strike(reading(&ACTIONS), &runs, &mut list);
            assert_eq!(list, wanted(left), "{name}");
            settled.keep(reading(&ACTIONS), &runs, &wanted(asked), 14, same);
            let kept: Vec<(ProfileId, &[u16])> = settled.runs.iter().map(|run| (run.0, run.1.as_slice())).collect();
            assert_eq!(kept, runs, "{name}");
        }
    }

    #[test]
    fn nothing_is_struck_where_rows_or_profiles_say_something_else() {
        let asked = wanted(&[(0, 10), (1, 11), (2, 12)]);
        let rows: [&[u16]; 2] = [&[0, 1, 2], &[2, 2, 0]];
        let rules = [Some(0)];
        for (name, reading, profiles) in [
            ("an action", reading(&[0, 1, 0, 2, 1, 0]), [0, 1]),
            ("port classes", Reading { port_classes: 3, ..reading(&ACTIONS) }, [0, 1]),
            ("the rules' names", Reading { rules: &rules, ..reading(&ACTIONS) }, [0, 1]),
            ("a profile", reading(&ACTIONS), [0, 2]),
        ] {
            let mut list = asked.clone();
            settled().strike(reading, &[(profiles[0], rows[0]), (profiles[1], rows[1])], &mut list);
            assert_eq!(list, asked, "{name}");
        }
    }
}
