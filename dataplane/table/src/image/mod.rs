//! Parts → bytes. Deterministic: the same parts and generation give the same image.

mod ports;
mod profiles;
mod v4;
mod v6;

use crate::format::{ALIGNMENT, EndpointEntry, FORMAT_VERSION, Half, Header, LARGE_WIDE, MAGIC, SEGMENT, SMALL_WIDE, Section, checksum};
use crate::parts::TableParts;
use crate::width::{Large, Small, Wide16};
use bytemuck::{Pod, Zeroable};
use profiles::Profiles;
use v4::V4;
use v6::V6;

/// Writes an image. Cost: linear in the parts, plus 130 kB of fixed-size sections.
///
/// Panics where the parts contradict their documentation: that is the compiler's own mistake.
pub fn build_image(parts: &TableParts, generation: u64) -> Vec<u8> {
    let sections = Sections {
        v4: V4::of(&parts.v4_intervals),
        v6: V6::of(&parts.v6_intervals, &parts.v6_exact),
        profiles: Profiles::of(parts),
        parts,
        generation,
    };
    match (sections.large_max() > usize::from(u16::MAX), sections.small_max() > usize::from(u8::MAX)) {
        (false, false) => sections.write::<u16, u8>(),
        (false, true) => sections.write::<u16, Wide16>(),
        (true, false) => sections.write::<u32, u8>(),
        (true, true) => sections.write::<u32, Wide16>(),
    }
}

/// What is to be written, its width still open.
struct Sections<'p> {
    v4: V4,
    v6: V6,
    profiles: Profiles,
    parts: &'p TableParts,
    generation: u64,
}

impl Sections<'_> {
    /// The highest number among those of width `L`.
    fn large_max(&self) -> usize {
        let actions = self.profiles.actions.all.iter().copied().max().unwrap_or(0) as usize;
        let segments = self.profiles.segments.all.len() / SEGMENT;
        self.v4.max(self.parts.classes).max(segments).max(actions)
    }

    /// The highest number among those of width `S`.
    fn small_max(&self) -> usize {
        self.profiles.rows_max.max(self.profiles.ports_max).saturating_sub(1)
    }

    fn write<L: Large, S: Small>(&self) -> Vec<u8> {
        let large = |numbers: &[u32]| -> Vec<L> { numbers.iter().map(|&number| L::write(number as usize)).collect() };
        let small = |numbers: &[u16]| -> Vec<S> { numbers.iter().map(|&number| S::write(usize::from(number))).collect() };
        let [flat, l1, l2, l3] = self.v4.written::<L>();
        let (page_of, pages) = ports::pages(self.parts);
        let services: Vec<[u8; 16]> = self.parts.services.iter().map(|address| address.to_be_bytes()).collect();
        let mut writer = Writer::new();
        writer.section(Section::V4Flat, &flat);
        writer.section(Section::V4L1, &l1);
        writer.section(Section::V4L2, &l2);
        writer.section(Section::V4L3, &l3);
        writer.section(Section::V6BlockSlots, &self.v6.block_slots);
        writer.section(Section::V6Blocks, &large(&self.v6.blocks));
        writer.section(Section::V6Exact, &self.v6.exact);
        writer.section(Section::V6Starts, &self.v6.starts);
        writer.section(Section::V6Classes, &large(&self.v6.classes));
        writer.section(Section::PortPages, &page_of);
        writer.section(Section::PortClasses, &pages);
        writer.section(Section::Endpoints, &self.endpoints());
        writer.section(Section::Directory, &large(&self.profiles.directory.all));
        writer.section(Section::Segments, &small(&self.profiles.segments.all));
        writer.section(Section::LocalPorts, &small(&self.profiles.local_ports.all));
        writer.section(Section::Actions, &large(&self.profiles.actions.all));
        writer.section(Section::Services, &services);
        writer.section(Section::Names, &serde_json::to_vec(&self.parts.names).expect("names are plain data"));
        let widths = if L::WIDE { LARGE_WIDE } else { 0 } | if S::WIDE { SMALL_WIDE } else { 0 };
        writer.finish(Header {
            magic: MAGIC,
            format: FORMAT_VERSION,
            header_bytes: size_of::<Header>() as u32,
            generation: self.generation,
            image_bytes: 0,
            checksum: 0,
            classes: self.parts.classes as u32,
            port_classes: self.parts.port_classes as u32,
            flat_first: self.v4.flat_first,
            widths,
            reserved: 0,
            sections: Zeroable::zeroed(),
        })
    }

    fn endpoints(&self) -> Vec<EndpointEntry> {
        let endpoints = &self.parts.endpoints;
        let len = endpoints.iter().map(|endpoint| usize::from(endpoint.port.0) + 1).max().unwrap_or(0);
        let absent = EndpointEntry { present: 0, incarnation: 0, halves: [Half::OPEN; 2], reserved: [0; 6] };
        let mut entries = vec![absent; len];
        for endpoint in endpoints {
            let halves = endpoint.profiles.map(|profile| profile.map_or(Half::OPEN, |profile| self.profiles.halves[profile as usize]));
            entries[usize::from(endpoint.port.0)] = EndpointEntry { present: 1, incarnation: endpoint.incarnation.0, halves, ..absent };
        }
        entries
    }
}

struct Writer {
    bytes: Vec<u8>,
    sections: [[u64; 2]; Section::ALL.len()],
}

impl Writer {
    fn new() -> Self {
        Self { bytes: vec![0; size_of::<Header>().next_multiple_of(ALIGNMENT)], sections: Zeroable::zeroed() }
    }

    fn section<T: Pod>(&mut self, section: Section, content: &[T]) {
        let bytes: &[u8] = bytemuck::cast_slice(content);
        self.sections[section as usize] = [self.bytes.len() as u64, bytes.len() as u64];
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }

    fn finish(mut self, header: Header) -> Vec<u8> {
        let mut header = Header { image_bytes: self.bytes.len() as u64, sections: self.sections, ..header };
        self.bytes[..size_of::<Header>()].copy_from_slice(bytemuck::bytes_of(&header));
        header.checksum = checksum(&self.bytes);
        self.bytes[..size_of::<Header>()].copy_from_slice(bytemuck::bytes_of(&header));
        self.bytes
    }
}
