//! What the last proof compared, so that what is the same again is not compared again.
//!
//! A comparison asks whether, for every run, a class has the rows that a column expects. Its outcome depends on the column,
//! on the rows that the table gives that class, on what those rows mean, and on how rules and port classes are to be read.
//! Expected columns never change, they are only forgotten, and this memory with them. Of all the rest there is a copy here,
//! taken from the table that was compared. Where the bytes of the next table are the same, so is the outcome.
//!
//! Nothing here supposes that two tables have to do with each other: classes may be numbered anew, and each is looked for
//! where its column was found the last time, then compared with it row number by row number, for every run.

use super::cells::CellClass;
use super::expected::ColumnId;
use super::sides::{ProfileId, RuleIndex};
use sluice_table::Meaning;

/// The table's side of a comparison, as far as all classes share it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading<'t> {
    pub(super) cell_classes: &'t [CellClass],
    /// By the table's rule id.
    pub(super) rules: &'t [Option<RuleIndex>],
}

/// One run's side of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<'t> {
    pub(super) profile: ProfileId,
    /// The row of each class, in so many bytes each.
    pub(super) rows: &'t [u8],
    pub(super) width: usize,
    pub(super) meaning: Meaning<'t>,
    /// By row: the expected row that it was found equal to, counted from 1; 0 where it was not asked.
    pub(super) equal: &'t [u32],
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Settled {
    cell_classes: Vec<CellClass>,
    rules: Vec<Option<RuleIndex>>,
    runs: Vec<Kept>,
    /// A class that had a column's rows in every run.
    class_of_column: Vec<u32>,
}

/// A run that was compared.
#[derive(Debug, Default)]
struct Kept {
    profile: ProfileId,
    /// Of each class.
    rows: Vec<u8>,
    width: usize,
    form: [u32; 3],
    ports: Vec<u8>,
    actions: Vec<u8>,
    equal: Vec<u32>,
}

impl Kept {
    fn meaning(&self) -> Meaning<'_> {
        Meaning { form: self.form, ports: &self.ports, actions: &self.actions }
    }
}

/// A column and a class that must be equal, because some address has both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wanted {
    pub(super) class: u32,
    pub(super) column: ColumnId,
}

const NONE: u32 = u32::MAX;

/// What is left to compare, and what of the memory is this table's too.
#[derive(Debug, Default)]
pub(super) struct Same {
    /// In every run.
    pub(super) left: Vec<Wanted>,
    /// Runs in which all that is wanted has to be compared.
    pub(super) runs_left: Vec<usize>,
    reading: bool,
    /// By run.
    runs: Vec<bool>,
}

/// Neighbouring classes whose earlier selves are neighbours too.
struct Segment {
    now: usize,
    before: usize,
    len: usize,
}

impl Settled {
    /// What of `wanted`, which is sorted, has not been compared. The answer is for [`Self::keep`] too.
    pub(super) fn strike(&self, reading: Reading<'_>, runs: &[Seen<'_>], wanted: &[Wanted]) -> Same {
        let reads_alike = self.cell_classes == reading.cell_classes && self.rules == reading.rules;
        if !reads_alike || !self.runs.iter().map(|run| run.profile).eq(runs.iter().map(|run| run.profile)) {
            return Same { left: wanted.to_vec(), reading: reads_alike, ..Same::default() };
        }
        let Some(classes) = runs.first().map(|run| run.rows.len() / run.width) else { return Same { reading: true, ..Same::default() } };
        let mut before = vec![NONE; classes];
        for one in wanted {
            let (slot, known) = (&mut before[one.class as usize], self.class_of(one.column));
            if *slot == NONE {
                *slot = known;
            }
        }
        let segments = segments(&before);
        let in_place = segments.iter().map(|segment| (segment.now, segment.before, segment.len)).eq([(0, 0, classes)]);
        let mut same = Same { reading: true, ..Same::default() };
        for (at, (old, new)) in self.runs.iter().zip(runs).enumerate() {
            let width = new.width;
            let mut run_same = in_place && old.rows.len() == new.rows.len();
            if old.width != width || old.meaning() != new.meaning {
                same.runs_left.push(at);
                same.runs.push(false);
                continue;
            }
            for segment in &segments {
                let old = &old.rows[segment.before * width..][..segment.len * width];
                let new = &new.rows[segment.now * width..][..segment.len * width];
                if old != new {
                    run_same = false;
                    let row = |rows: &'_ [u8], at: usize| [rows[at * width], rows[at * width + width - 1]];
                    let differ = (0..segment.len).filter(|&at| row(old, at) != row(new, at));
                    differ.for_each(|at| before[segment.now + at] = NONE);
                }
            }
            same.runs.push(run_same);
        }
        let settled = |one: &Wanted| before[one.class as usize] != NONE && before[one.class as usize] == self.class_of(one.column);
        same.left.extend(wanted.iter().filter(|one| !settled(one)));
        same
    }

    /// Remembers that everything wanted has been found equal. `columns`: how many there are.
    pub(super) fn keep(&mut self, reading: Reading<'_>, runs: &[Seen<'_>], wanted: &[Wanted], columns: usize, same: Same) {
        if !same.reading {
            self.cell_classes = reading.cell_classes.to_vec();
            self.rules = reading.rules.to_vec();
        }
        self.runs.resize_with(runs.len(), Kept::default);
        for (at, (old, new)) in self.runs.iter_mut().zip(runs).enumerate() {
            old.equal.clear();
            old.equal.extend_from_slice(new.equal);
            if same.runs.get(at) != Some(&true) {
                old.profile = new.profile;
                old.width = new.width;
                old.rows.clear();
                old.rows.extend_from_slice(new.rows);
                old.form = new.meaning.form;
                for (old, new) in [(&mut old.ports, new.meaning.ports), (&mut old.actions, new.meaning.actions)] {
                    old.clear();
                    old.extend_from_slice(new);
                }
            }
        }
        self.class_of_column.clear();
        self.class_of_column.resize(columns, NONE);
        for one in wanted {
            self.class_of_column[one.column as usize] = one.class;
        }
    }

    /// What rows of a run were found equal to, where [`Self::strike`] found that they mean what they meant.
    pub(super) fn equal(&self, run: usize, same: &Same) -> &[u32] {
        let means_the_same = same.reading && same.runs.len() == self.runs.len() && !same.runs_left.contains(&run);
        if means_the_same { &self.runs[run].equal } else { &[] }
    }

    fn class_of(&self, column: ColumnId) -> u32 {
        self.class_of_column.get(column as usize).copied().unwrap_or(NONE)
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

    const MEANING: Meaning<'static> = Meaning { form: [1, 1, 2], ports: &[0, 1], actions: &[0, 1, 0, 2, 1, 1] };

    fn reading() -> Reading<'static> {
        Reading { cell_classes: &[], rules: &[] }
    }

    fn runs<'r>(rows: [&'r [u8]; 2]) -> [Seen<'r>; 2] {
        let run = |profile: ProfileId| Seen { equal: &[], profile, rows: rows[profile as usize], width: 1, meaning: MEANING };
        [run(0), run(1)]
    }

    fn wanted(list: &[(u32, ColumnId)]) -> Vec<Wanted> {
        list.iter().map(|&(class, column)| Wanted { class, column }).collect()
    }

    /// Two runs with three classes, proved for columns 10, 11 and 12.
    fn settled() -> Settled {
        let mut settled = Settled::default();
        let wanted = wanted(&[(0, 10), (1, 11), (2, 12)]);
        settled.keep(reading(), &runs([&[0, 1, 2], &[2, 2, 0]]), &wanted, 13, Same::default());
        settled
    }

    #[test]
    fn only_what_is_the_same_in_every_byte_is_struck() {
        type Case<'c> = (&'c str, [&'c [u8]; 2], &'c [(u32, ColumnId)], &'c [(u32, ColumnId)]);
        let cases: [Case<'_>; 6] = [
            ("nothing changed", [&[0, 1, 2], &[2, 2, 0]], &[(0, 10), (1, 11), (2, 12)], &[]),
            ("a class in between", [&[0, 2, 1, 2], &[2, 0, 2, 0]], &[(0, 10), (1, 13), (2, 11), (3, 12)], &[(1, 13)]),
            ("a row in one run", [&[0, 1, 2], &[2, 1, 0]], &[(0, 10), (1, 11), (2, 12)], &[(1, 11)]),
            ("columns swapped", [&[0, 1, 2], &[2, 2, 0]], &[(0, 11), (1, 10), (2, 12)], &[(0, 11), (1, 10)]),
            ("another column's class too", [&[0, 1, 2], &[2, 2, 0]], &[(0, 10), (1, 11), (1, 12), (2, 12)], &[(1, 12)]),
            ("a class less", [&[0, 2], &[2, 0]], &[(0, 10), (1, 12)], &[]),
        ];
        for (name, rows, asked, left) in cases {
            let (list, mut settled, runs) = (wanted(asked), settled(), runs(rows));
            let same = settled.strike(reading(), &runs, &list);
            assert_eq!(same.left, wanted(left), "{name}");
            assert!(same.runs_left.is_empty(), "{name}");
            settled.keep(reading(), &runs, &list, 14, same);
            for (kept, run) in settled.runs.iter().zip(runs) {
                assert_eq!((kept.profile, kept.rows.as_slice()), (run.profile, run.rows), "{name}");
            }
        }
    }

    #[test]
    fn nothing_is_struck_where_rows_or_profiles_say_something_else() {
        let asked = wanted(&[(0, 10), (1, 11), (2, 12)]);
        let now = runs([&[0, 1, 2], &[2, 2, 0]]);
        let rules = [Some(0)];
        let same = settled().strike(Reading { rules: &rules, ..reading() }, &now, &asked);
        assert_eq!(same.left, asked, "the rules' names");
        let mut other = now;
        other[0].profile = 2;
        assert_eq!(settled().strike(reading(), &other, &asked).left, asked, "a profile");
        for meaning in [
            Meaning { form: [1, 1, 3], ..MEANING },
            Meaning { ports: &[0, 0], ..MEANING },
            Meaning { actions: &[0, 1, 0, 2, 1, 0], ..MEANING },
        ] {
            let mut other = now;
            other[1].meaning = meaning;
            let settled = settled();
            let same = settled.strike(reading(), &other, &asked);
            assert_eq!((same.left.as_slice(), same.runs_left.as_slice()), (&[][..], &[1][..]), "{meaning:?}");
            assert!(settled.equal(1, &same).is_empty(), "what its rows were equal to says nothing");
        }
    }
}
