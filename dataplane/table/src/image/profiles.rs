//! What each profile allows → sections, plain or packed.

use super::packed::Packed;
use super::rows::Rows;
use super::runs::Runs;
use crate::format::Half;
use crate::parts::ProfileParts;
use std::ops::Range;

/// Everything before it is written in some width.
#[derive(Debug, Default)]
pub(super) struct Profiles {
    pub(super) rows: Rows,
    pub(super) form: Form,
}

/// What profiles say of ports.
#[derive(Debug)]
pub(super) enum Form {
    Plain(Plain),
    Packed(Packed),
}

impl Default for Form {
    fn default() -> Self {
        Self::Plain(Plain::default())
    }
}

/// The fewest loads.
#[derive(Debug, Default)]
pub(super) struct Plain {
    pub(super) local_ports: Runs<u16>,
    pub(super) actions: Runs<u32>,
    /// The most rows, and the most port numbers, of one profile.
    rows_max: usize,
    ports_max: usize,
    /// Of each profile, where its local ports and its actions begin, and its stride.
    tails: Vec<[u32; 3]>,
}

impl Profiles {
    pub(super) fn is_packed(&self) -> bool {
        matches!(self.form, Form::Packed(_))
    }

    /// See [`super::ImageWriter::rows`].
    pub(super) fn rows<'p>(&mut self, profiles: impl ExactSizeIterator<Item = (&'p ProfileParts, Range<usize>)>) {
        self.rows.update(self.is_packed(), profiles);
    }

    /// What each profile says of ports: packed, where this would take more than `plain_max` bytes. Returns whether the
    /// form is another.
    pub(super) fn actions(&mut self, profiles: &[ProfileParts], plain_max: usize) -> bool {
        for ProfileParts { stride, actions, .. } in profiles {
            assert!(*stride > 0 && actions.len().is_multiple_of(*stride), "one action for each port number of each row");
        }
        let was_packed = self.is_packed();
        let plain_bytes: usize = profiles.iter().map(|profile| profile.ports.len() + profile.actions.len() * size_of::<u16>()).sum();
        let packed = (plain_bytes > plain_max).then(|| Packed::of(profiles)).flatten();
        self.form = packed.map_or_else(|| Form::Plain(Plain::of(profiles)), Form::Packed);
        self.is_packed() != was_packed
    }

    /// Where a profile is.
    pub(super) fn half(&self, profile: usize) -> Half {
        let directory = self.rows.places[profile];
        match &self.form {
            Form::Plain(plain) => {
                let [ports, actions, stride] = plain.tails[profile];
                Half { directory, ports, actions, stride, ..Half::OPEN }
            }
            Form::Packed(packed) => {
                let tail = packed.tails[profile];
                let (bases, palette) = (tail.bases, tail.palette);
                Half { directory, ports: tail.ports, actions: tail.variants, stride: tail.groups, bases, palette }
            }
        }
    }

    /// The highest number that needs a large place.
    pub(super) fn large_max(&self) -> usize {
        let highest = |numbers: &[u32]| numbers.iter().copied().max().unwrap_or(0) as usize;
        let of_form = match &self.form {
            Form::Plain(plain) => highest(&plain.actions.all),
            // a reader adds one chunk
            Form::Packed(packed) => highest(&packed.palettes.all).max(packed.local_ports.all.len()),
        };
        of_form.max(self.rows.count())
    }

    /// The highest number that needs a small place.
    pub(super) fn small_max(&self) -> usize {
        match &self.form {
            Form::Plain(plain) => plain.rows_max.max(plain.ports_max).saturating_sub(1),
            Form::Packed(packed) => packed.small_max,
        }
    }
}

impl Plain {
    fn of(profiles: &[ProfileParts]) -> Self {
        let mut plain = Self::default();
        let mut encoded = Vec::new();
        for ProfileParts { ports, stride, actions, .. } in profiles {
            encoded.clear();
            encoded.extend(actions.iter().map(|action| action.encode()));
            plain.rows_max = plain.rows_max.max(actions.len() / stride);
            plain.ports_max = plain.ports_max.max(*stride);
            plain.tails.push([plain.local_ports.place(ports), plain.actions.place(&encoded), *stride as u32]);
        }
        plain
    }
}
