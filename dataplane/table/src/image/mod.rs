//! Parts → bytes. Deterministic: the same parts and generation give the same image.
//!
//! ```text
//!  v4, v6      which addresses have a place of their own, each with a *column* ─┐
//!  classes     column ─▶ class ──────────────────────────────────────────────────┼─▶ sections ─▶ image
//!  ports, profiles, endpoints, services, names ──────────────────────────────────┘
//! ```
//!
//! An [`ImageWriter`] keeps its last image, and makes anew only those sections whose parts were handed over since; where
//! only columns of pods' addresses are others, it changes these.

mod assembly;
mod packed;
mod ports;
mod profiles;
mod rows;
mod runs;
mod v4;
mod v6;

pub use assembly::Image;
pub use v4::V4Change;
pub use v6::V6Change;

use crate::format::{
    CHUNK, EndpointEntry, FORMAT_VERSION, Half, Header, LARGE_WIDE, MAGIC, PACKED, PACKED_TRIE_BITS, PortStart, SMALL_WIDE, Section,
    TRIE_BITS,
};
use crate::names::Names;
use crate::parts::{EndpointRow, PortParts, ProfileParts, TableParts};
use crate::width::{Large, Small, Wide16};
use assembly::Assembly;
use bytemuck::Zeroable;
use profiles::{Form, Profiles};
use std::ops::Range;
use v4::V4;
use v6::V6;

/// Bytes that plain profiles may take: beyond, they would leave the near caches, and packed ones are looked up sooner.
const PLAIN_MAX: usize = 1 << 20;

/// Writes an image. Cost: linear in the parts, plus 130 kB of fixed-size sections.
///
/// Panics where the parts contradict their documentation: that is the compiler's own mistake.
pub fn build_image(parts: &TableParts, generation: u64) -> Image {
    written(ImageWriter::default(), parts, generation)
}

/// The same with packed profiles, whatever their size.
pub fn build_packed_image(parts: &TableParts, generation: u64) -> Image {
    written(ImageWriter { packs_all: true, ..ImageWriter::default() }, parts, generation)
}

fn written(mut writer: ImageWriter, parts: &TableParts, generation: u64) -> Image {
    writer.v4(parts.v4_intervals.iter().copied());
    writer.v6(&parts.v6_intervals, parts.v6_exact.iter().copied());
    writer.classes((0..parts.classes as u32).collect(), parts.classes);
    writer.ports(&parts.ports);
    let _ = writer.actions(&parts.profiles);
    writer.rows(parts.profiles.iter().map(|profile| (profile, 0..parts.classes)));
    writer.endpoints(&parts.endpoints);
    writer.services(&parts.services);
    writer.names(&parts.names);
    writer.write(generation)
}

/// Sections by what they are made of.
const V4_FLAT: [Section; 1] = [Section::V4Flat];
const V4_TRIE: [Section; 1] = [Section::V4Trie];
const V6_BLOCKS: [Section; 2] = [Section::V6BlockSlots, Section::V6Blocks];
const V6_EXACT: [Section; 1] = [Section::V6Exact];
const V6_INTERVALS: [Section; 2] = [Section::V6Starts, Section::V6Classes];
const PORTS: [Section; 1] = [Section::PortStarts];
const ROWS: [Section; 4] = [Section::Directory, Section::RowBases, Section::Segments, Section::Endpoints];
const ACTIONS: [Section; 7] = [
    Section::PortChunks,
    Section::LocalPorts,
    Section::Variants,
    Section::VariantBases,
    Section::Actions,
    Section::Palettes,
    Section::Endpoints,
];

/// See the module. Everything must have been handed over once before the first image; each method but
/// [`Self::write`] replaces what it was given before.
#[derive(Debug, Default)]
pub struct ImageWriter {
    v4: V4,
    v6: V6,
    class_of: Vec<u32>,
    classes: usize,
    port_starts: Vec<PortStart>,
    port_classes: usize,
    profiles: Profiles,
    endpoints: Vec<EndpointRow>,
    services: Vec<[u8; 16]>,
    names: Vec<u8>,
    last: Assembly,
    widths: u32,
    /// Entries of the last image's blocks, flat or of IPv6, whose columns are others now.
    patches: Vec<(Section, Range<usize>)>,
    /// Whether profiles are packed whatever their size.
    packs_all: bool,
}

impl ImageWriter {
    /// First address of each interval and its column, ascending, the first at 0.
    pub fn v4(&mut self, intervals: impl Iterator<Item = (u32, u32)>) {
        self.v4 = V4::of(&intervals.collect::<Vec<_>>());
        self.forget(&V4_FLAT);
        self.forget(&V4_TRIE);
    }

    /// Follows changes to what [`Self::v4`] was told. `false`: they change the layout, which is as before; hand over all.
    #[must_use]
    pub fn change_v4(&mut self, changes: &[V4Change]) -> bool {
        let patched = self.v4.change(changes);
        self.patches.extend(patched.iter().flatten().map(|range| (Section::V4Flat, range.clone())));
        patched.is_some()
    }

    /// First address of each interval and its column, ascending, the first at 0; then single addresses, ascending.
    pub fn v6(&mut self, intervals: &[(u128, u32)], exact: impl Iterator<Item = (u128, u32)>) {
        self.v6 = V6::of(intervals, exact);
        self.forget(&V6_BLOCKS);
        self.forget(&V6_EXACT);
        self.forget(&V6_INTERVALS);
    }

    /// Follows changes to the single addresses that [`Self::v6`] was told. `false`: they change the layout, which may be
    /// half changed; hand over all.
    #[must_use]
    pub fn change_v6(&mut self, changes: &[V6Change]) -> bool {
        let Some((patched, apart)) = self.v6.change(changes) else { return false };
        self.patches.extend(patched.into_iter().map(|at| (Section::V6Blocks, at..at + 1)));
        if apart {
            self.forget(&V6_EXACT);
        }
        true
    }

    /// The class of each column, below `classes`; what a column that nobody has says does not matter.
    pub fn classes(&mut self, of_columns: Vec<u32>, classes: usize) {
        (self.class_of, self.classes) = (of_columns, classes);
        for sections in [&V4_FLAT[..], &V4_TRIE, &V6_BLOCKS, &V6_EXACT, &V6_INTERVALS] {
            self.forget(sections);
        }
    }

    /// Port classes.
    pub fn ports(&mut self, ports: &PortParts) {
        self.port_starts = ports::starts(ports);
        self.port_classes = ports.classes;
        self.forget(&PORTS);
    }

    /// The rows of each profile that endpoints refer to, and which classes' may be others: all behind them are what they
    /// were where there are as many classes as before, and all before them in any case.
    pub fn rows<'p>(&mut self, profiles: impl ExactSizeIterator<Item = (&'p ProfileParts, Range<usize>)>) {
        self.profiles.rows(profiles);
        self.forget(&ROWS);
    }

    /// What they say of ports. `true`: the rows must be handed over once more, none of them the same.
    #[must_use]
    pub fn actions(&mut self, profiles: &[ProfileParts]) -> bool {
        self.forget(&ACTIONS);
        self.profiles.actions(profiles, if self.packs_all { 0 } else { PLAIN_MAX })
    }

    /// By port.
    pub fn endpoints(&mut self, endpoints: &[EndpointRow]) {
        self.endpoints = endpoints.to_vec();
        self.forget(&[Section::Endpoints]);
    }

    /// Sorted.
    pub fn services(&mut self, services: &[u128]) {
        self.services = services.iter().map(|address| address.to_be_bytes()).collect();
        self.forget(&[Section::Services]);
    }

    /// The cold section.
    pub fn names(&mut self, names: &Names) {
        self.names = names.to_bytes();
        self.forget(&[Section::Names]);
    }

    /// The image of all that was handed over last.
    pub fn write(&mut self, generation: u64) -> Image {
        if self.v4.shape(if self.profiles.is_packed() { PACKED_TRIE_BITS } else { TRIE_BITS }) {
            self.forget(&V4_TRIE);
        }
        let large = self.v4.max(self.classes).max(self.profiles.large_max()) > usize::from(u16::MAX);
        let small = self.profiles.small_max() > usize::from(u8::MAX);
        let flag = |set, flag| if set { flag } else { 0 };
        let widths = flag(large, LARGE_WIDE) | flag(small, SMALL_WIDE) | flag(self.profiles.is_packed(), PACKED);
        if widths != self.widths {
            self.last = Assembly::default();
            self.widths = widths;
        }
        match (large, small) {
            (false, false) => self.make::<u16, u8>(),
            (false, true) => self.make::<u16, Wide16>(),
            (true, false) => self.make::<u32, u8>(),
            (true, true) => self.make::<u32, Wide16>(),
        }
        let header = Header {
            magic: MAGIC,
            format: FORMAT_VERSION,
            header_bytes: size_of::<Header>() as u32,
            generation,
            image_bytes: 0,
            checksum: 0,
            classes: self.classes as u32,
            port_classes: self.port_classes as u32,
            flat_first: self.v4.flat_first,
            widths: self.widths,
            reserved: 0,
            sections: Zeroable::zeroed(),
        };
        self.last.image(header)
    }

    fn forget(&mut self, sections: &[Section]) {
        self.last.forget(sections);
    }

    /// Makes the sections that are missing, or changes those that are there.
    fn make<L: Large, S: Small>(&mut self) {
        let class = |column: u32| L::write(self.class_of[column as usize] as usize);
        let patches = std::mem::take(&mut self.patches);
        if self.last.is_whole() {
            for (section, range) in patches {
                let columns = if section == Section::V4Flat { &self.v4.flat } else { &self.v6.blocks };
                self.last.patch(section, range.start, columns[range].iter().map(|&column| class(column)));
            }
            return;
        }
        let mut next = std::mem::take(&mut self.last).next();
        for (section, _) in Section::ALL {
            if patches.iter().any(|patch| patch.0 == section) {
                next.forget(&[section]);
            }
            if next.keep(section) {
                continue;
            }
            match section {
                Section::V4Flat => next.put(section, self.v4.flat.iter().map(|&column| class(column))),
                Section::V4Trie => next.put(section, self.v4.trie(class)),
                Section::V6BlockSlots => next.put(section, v6::hashed(self.v6.block_keys.iter().copied()).into_iter()),
                Section::V6Blocks => next.put(section, self.v6.blocks.iter().map(|&column| class(column))),
                Section::V6Exact => {
                    let entries = self.v6.apart.iter().map(|&(address, column)| (address, self.class_of[column as usize]));
                    next.put(section, v6::hashed(entries).into_iter());
                }
                Section::V6Starts => next.put(section, self.v6.intervals.iter().map(|interval| interval.0.to_be_bytes())),
                Section::V6Classes => next.put(section, self.v6.intervals.iter().map(|interval| class(interval.1))),
                Section::PortStarts => next.put(section, self.port_starts.iter().copied()),
                Section::Endpoints => next.put(section, bytemuck::cast_slice::<EndpointEntry, u8>(&self.entries()).iter().copied()),
                Section::Services => next.put(section, self.services.iter().copied()),
                Section::Names => next.put(section, self.names.iter().copied()),
                Section::Directory => {
                    next.put(section, self.profiles.rows.directory.all.iter().map(|&entry| L::write(entry as u32 as usize)))
                }
                _ => self.put_profiles::<L, S>(&mut next, section),
            }
        }
        self.last = next;
    }

    /// Makes one of the sections that plain and packed profiles have in different forms.
    fn put_profiles<L: Large, S: Small>(&self, next: &mut Assembly, section: Section) {
        let large = |number: &u32| L::write(*number as usize);
        let small = |number: &u16| S::write(usize::from(*number));
        let rows = &self.profiles.rows;
        let chunks = |chunks| bytemuck::cast_slice::<[u16; CHUNK], u16>(chunks);
        match (section, &self.profiles.form) {
            (Section::Segments, Form::Plain(_)) => next.put(section, rows.segments.iter().map(small)),
            (Section::LocalPorts, Form::Plain(plain)) => next.put(section, plain.local_ports.all.iter().map(small)),
            (Section::Actions, Form::Plain(plain)) => next.put(section, plain.actions.all.iter().map(large)),
            (Section::RowBases, Form::Packed(_)) => next.put(section, rows.directory.all.iter().map(|entry| (entry >> 32) as u16)),
            (Section::Segments, Form::Packed(_)) => next.put(section, rows.segments.iter().copied()),
            (Section::PortChunks, Form::Packed(packed)) => next.put(section, packed.port_chunks.all.iter().map(large)),
            (Section::LocalPorts, Form::Packed(packed)) => next.put(section, chunks(&packed.local_ports.all).iter().map(small)),
            (Section::Variants, Form::Packed(packed)) => next.put(section, packed.variants.all.iter().map(small)),
            (Section::VariantBases, Form::Packed(packed)) => next.put(section, packed.bases.all.iter().copied()),
            (Section::Actions, Form::Packed(packed)) => next.put(section, chunks(&packed.ranks.all).iter().map(small)),
            (Section::Palettes, Form::Packed(packed)) => next.put(section, packed.palettes.all.iter().map(large)),
            _ => next.put(section, std::iter::empty::<u8>()),
        }
    }

    fn entries(&self) -> Vec<EndpointEntry> {
        let len = self.endpoints.iter().map(|endpoint| usize::from(endpoint.port.0) + 1).max().unwrap_or(0);
        let absent = EndpointEntry { present: 0, incarnation: 0, halves: [Half::OPEN; 2], reserved: [0; 2] };
        let mut entries = vec![absent; len];
        for endpoint in &self.endpoints {
            let halves = endpoint.profiles.map(|profile| profile.map_or(Half::OPEN, |profile| self.profiles.half(profile as usize)));
            entries[usize::from(endpoint.port.0)] = EndpointEntry { present: 1, incarnation: endpoint.incarnation.0, halves, ..absent };
        }
        entries
    }
}
