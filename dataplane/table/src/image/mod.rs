//! Parts → bytes. Deterministic: the same parts and generation give the same image.
//!
//! ```text
//!  v4, v6      which addresses have a place of their own, each with a *column* ─┐
//!  classes     column ─▶ class ──────────────────────────────────────────────────┼─▶ sections ─▶ image
//!  ports, profiles, endpoints, services, names ──────────────────────────────────┘
//! ```
//!
//! An [`ImageWriter`] keeps the sections of its last image, and makes anew only those whose parts were handed over since:
//! a pod that comes or goes costs the sections with its addresses.

mod ports;
mod profiles;
mod v4;
mod v6;

pub use v4::V4Change;
pub use v6::V6Change;

use crate::format::{ALIGNMENT, EndpointEntry, FORMAT_VERSION, Half, Header, LARGE_WIDE, MAGIC, SMALL_WIDE, Section, checksum};
use crate::names::Names;
use crate::parts::{EndpointRow, PortParts, ProfileParts, TableParts};
use crate::width::{Large, Small, Wide16};
use bytemuck::{Pod, Zeroable};
use profiles::Profiles;
use v4::V4;
use v6::V6;

/// Writes an image. Cost: linear in the parts, plus 130 kB of fixed-size sections.
///
/// Panics where the parts contradict their documentation: that is the compiler's own mistake.
pub fn build_image(parts: &TableParts, generation: u64) -> Vec<u8> {
    let mut writer = ImageWriter::default();
    writer.v4(parts.v4_intervals.iter().copied());
    writer.v6(&parts.v6_intervals, parts.v6_exact.iter().copied());
    writer.classes((0..parts.classes as u32).collect(), parts.classes);
    writer.ports(&parts.ports);
    writer.profiles(&parts.profiles);
    writer.endpoints(&parts.endpoints);
    writer.services(&parts.services);
    writer.names(&parts.names);
    writer.write(generation)
}

/// Sections by what they are made of.
const V4_FLAT: [Section; 1] = [Section::V4Flat];
const V4_TRIE: [Section; 3] = [Section::V4L1, Section::V4L2, Section::V4L3];
const V6_BLOCKS: [Section; 2] = [Section::V6BlockSlots, Section::V6Blocks];
const V6_EXACT: [Section; 1] = [Section::V6Exact];
const V6_INTERVALS: [Section; 2] = [Section::V6Starts, Section::V6Classes];
const PORTS: [Section; 2] = [Section::PortPages, Section::PortClasses];
const PROFILES: [Section; 4] = [Section::Directory, Section::Segments, Section::LocalPorts, Section::Actions];

/// See the module. Everything must have been handed over once before the first image; each method but
/// [`Self::write`] replaces what it was given before.
#[derive(Debug, Default)]
pub struct ImageWriter {
    v4: V4,
    v6: V6,
    class_of: Vec<u32>,
    classes: usize,
    page_of: Vec<u16>,
    pages: Vec<u16>,
    port_classes: usize,
    profiles: Profiles,
    endpoints: Vec<EndpointRow>,
    services: Vec<[u8; 16]>,
    names: Vec<u8>,
    written: [Option<Vec<u8>>; Section::ALL.len()],
    widths: u32,
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
        self.forget(&V4_FLAT);
        self.v4.change(changes)
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
        self.forget(&V6_BLOCKS);
        self.forget(&V6_EXACT);
        self.v6.change(changes)
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
        (self.page_of, self.pages) = ports::pages(ports);
        self.port_classes = ports.classes;
        self.forget(&PORTS);
    }

    /// What endpoints refer to.
    pub fn profiles<'p>(&mut self, profiles: impl IntoIterator<Item = &'p ProfileParts>) {
        self.profiles = Profiles::of(profiles);
        self.forget(&PROFILES);
        self.forget(&[Section::Endpoints]);
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
        self.names = serde_json::to_vec(names).expect("names are plain data");
        self.forget(&[Section::Names]);
    }

    /// The image of all that was handed over last.
    pub fn write(&mut self, generation: u64) -> Vec<u8> {
        let (large, small) = (self.large_max() > usize::from(u16::MAX), self.small_max() > usize::from(u8::MAX));
        let widths = if large { LARGE_WIDE } else { 0 } | if small { SMALL_WIDE } else { 0 };
        if widths != self.widths {
            self.written = Default::default();
            self.widths = widths;
        }
        match (large, small) {
            (false, false) => self.make::<u16, u8>(),
            (false, true) => self.make::<u16, Wide16>(),
            (true, false) => self.make::<u32, u8>(),
            (true, true) => self.make::<u32, Wide16>(),
        }
        self.joined(generation)
    }

    fn forget(&mut self, sections: &[Section]) {
        sections.iter().for_each(|&section| self.written[section as usize] = None);
    }

    /// The highest number among those of width `L`.
    fn large_max(&self) -> usize {
        self.v4.max(self.classes).max(self.profiles.large_max())
    }

    /// The highest number among those of width `S`.
    fn small_max(&self) -> usize {
        self.profiles.rows_max.max(self.profiles.ports_max).saturating_sub(1)
    }

    /// Makes the sections that are missing.
    fn make<L: Large, S: Small>(&mut self) {
        let class = |column: u32| L::write(self.class_of[column as usize] as usize);
        let large = |numbers: &[u32]| -> Vec<L> { numbers.iter().map(|&number| L::write(number as usize)).collect() };
        let small = |numbers: &[u16]| -> Vec<S> { numbers.iter().map(|&number| S::write(usize::from(number))).collect() };
        let v6_slots = |entries: &[(u128, u32)], value: &dyn Fn(u32) -> u32| v6::hashed(entries.iter().map(|&(key, of)| (key, value(of))));
        for (section, _) in Section::ALL {
            if self.written[section as usize].is_some() {
                continue;
            }
            let bytes = match section {
                Section::V4Flat => bytes(&self.v4.flat.iter().map(|&column| class(column)).collect::<Vec<L>>()),
                Section::V4L1 => bytes(&self.v4.level_1(class)),
                Section::V4L2 => bytes(&self.v4.level_2(class)),
                Section::V4L3 => bytes(&self.v4.level_3(class)),
                Section::V6BlockSlots => bytes(&v6_slots(&self.v6.block_keys, &|block| block)),
                Section::V6Blocks => bytes(&self.v6.blocks.iter().map(|&column| class(column)).collect::<Vec<L>>()),
                Section::V6Exact => bytes(&v6_slots(&self.v6.apart, &|column| self.class_of[column as usize])),
                Section::V6Starts => bytes(&self.v6.intervals.iter().map(|interval| interval.0.to_be_bytes()).collect::<Vec<_>>()),
                Section::V6Classes => bytes(&self.v6.intervals.iter().map(|interval| class(interval.1)).collect::<Vec<L>>()),
                Section::PortPages => bytes(&self.page_of),
                Section::PortClasses => bytes(&self.pages),
                Section::Endpoints => bytes(&self.entries()),
                Section::Directory => bytes(&large(&self.profiles.directory.all)),
                Section::Segments => bytes(&small(&self.profiles.segments.all)),
                Section::LocalPorts => bytes(&small(&self.profiles.local_ports.all)),
                Section::Actions => bytes(&large(&self.profiles.actions.all)),
                Section::Services => bytes(&self.services),
                Section::Names => self.names.clone(),
            };
            self.written[section as usize] = Some(bytes);
        }
    }

    fn entries(&self) -> Vec<EndpointEntry> {
        let len = self.endpoints.iter().map(|endpoint| usize::from(endpoint.port.0) + 1).max().unwrap_or(0);
        let absent = EndpointEntry { present: 0, incarnation: 0, halves: [Half::OPEN; 2], reserved: [0; 6] };
        let mut entries = vec![absent; len];
        for endpoint in &self.endpoints {
            let halves = endpoint.profiles.map(|profile| profile.map_or(Half::OPEN, |profile| self.profiles.halves[profile as usize]));
            entries[usize::from(endpoint.port.0)] = EndpointEntry { present: 1, incarnation: endpoint.incarnation.0, halves, ..absent };
        }
        entries
    }

    fn joined(&self, generation: u64) -> Vec<u8> {
        let header_bytes = size_of::<Header>();
        let padded = |section: &Option<Vec<u8>>| section.as_ref().map_or(0, |bytes| bytes.len().next_multiple_of(ALIGNMENT));
        let len = header_bytes.next_multiple_of(ALIGNMENT) + self.written.iter().map(padded).sum::<usize>();
        let mut image = Vec::with_capacity(len);
        image.resize(header_bytes.next_multiple_of(ALIGNMENT), 0);
        let mut header = Header {
            magic: MAGIC,
            format: FORMAT_VERSION,
            header_bytes: header_bytes as u32,
            generation,
            image_bytes: len as u64,
            checksum: 0,
            classes: self.classes as u32,
            port_classes: self.port_classes as u32,
            flat_first: self.v4.flat_first,
            widths: self.widths,
            reserved: 0,
            sections: Zeroable::zeroed(),
        };
        for (place, bytes) in header.sections.iter_mut().zip(self.written.iter().flatten()) {
            *place = [image.len() as u64, bytes.len() as u64];
            image.extend_from_slice(bytes);
            image.resize(image.len().next_multiple_of(ALIGNMENT), 0);
        }
        image[..header_bytes].copy_from_slice(bytemuck::bytes_of(&header));
        header.checksum = checksum(&image);
        image[..header_bytes].copy_from_slice(bytemuck::bytes_of(&header));
        image
    }
}

fn bytes<T: Pod>(content: &[T]) -> Vec<u8> {
    bytemuck::cast_slice(content).to_vec()
}
