//! Image → table: every byte is read once, every index checked once.

use crate::arrays::{Arrays, Node};
use crate::batch::SimdLevel;
use crate::format::{
    ALIGNMENT, BLOCK, BOTH_WIDE, FORMAT_VERSION, Half, Header, IMAGE_BYTES_MAX, ImageError, LARGE_WIDE, MAGIC, PAGE, PORT_CLASSES_MAX,
    PORT_PAGES, SEGMENT, SMALL_WIDE, Section, V6Slot, checksum,
};
use crate::names::Names;
use crate::sections::Sections;
use crate::table::{Body, Table};
use crate::width::{Large, Small};
use bytemuck::Pod;
use sluice_flow::limits::PORTS_MAX;
use std::collections::HashMap;

pub(crate) fn load(image: &[u8]) -> Result<Table, ImageError> {
    let header: Header = match image.get(..size_of::<Header>()) {
        Some(bytes) if bytes[..8] == MAGIC => bytemuck::pod_read_unaligned(bytes),
        _ => return Err(ImageError::Magic),
    };
    if header.format != FORMAT_VERSION || header.header_bytes as usize != size_of::<Header>() {
        return Err(ImageError::Version { expected: FORMAT_VERSION, found: header.format });
    }
    if header.image_bytes != image.len() as u64 {
        return Err(ImageError::Length { expected: header.image_bytes, found: image.len() as u64 });
    }
    let found = checksum(image);
    if found != header.checksum {
        return Err(ImageError::Checksum { expected: header.checksum, found });
    }
    let mut reader = Reader { image, header: &header, rules: 0 };
    let cold = reader.bytes(Section::Names)?;
    let names: Names = serde_json::from_slice(cold).map_err(|error| ImageError::Names { reason: error.to_string() })?;
    let cold_bytes = cold.len() as u64;
    reader.rules = names.rules.len() as u64;
    let body = match header.widths {
        0 => Body::Narrow(reader.arrays()?),
        SMALL_WIDE => Body::SmallWide(reader.arrays()?),
        LARGE_WIDE => Body::LargeWide(reader.arrays()?),
        BOTH_WIDE => Body::Wide(reader.arrays()?),
        widths => return Err(claim("widths", u64::from(widths), u64::from(BOTH_WIDE) + 1)),
    };
    let services: Vec<u128> = reader.numbers(Section::Services)?;
    sorted(&services, Section::Services)?;
    let table = Table {
        generation: header.generation,
        image_bytes: header.image_bytes,
        cold_bytes,
        classes: header.classes as usize,
        port_classes: header.port_classes as usize,
        level: SimdLevel::best(),
        body,
        services: services.into(),
        names,
    };
    if let Some(ghost) = table.names.endpoints.iter().find(|name| table.endpoint(name.port) != Some(name.incarnation)) {
        return Err(ImageError::Names { reason: format!("{} has no row at port {}", ghost.pod, ghost.port.0) });
    }
    Ok(table)
}

struct Reader<'a> {
    image: &'a [u8],
    header: &'a Header,
    /// That an action may name.
    rules: u64,
}

impl<'a> Reader<'a> {
    fn bytes(&self, section: Section) -> Result<&'a [u8], ImageError> {
        let refused = ImageError::Section { section: section.name() };
        let [offset, len] = self.header.sections[section as usize];
        let (Ok(offset), Ok(len)) = (usize::try_from(offset), usize::try_from(len)) else { return Err(refused) };
        let bytes = offset.checked_add(len).and_then(|end| self.image.get(offset..end));
        bytes.filter(|_| offset.is_multiple_of(ALIGNMENT)).ok_or(refused)
    }

    fn section<T: Pod>(&self, section: Section) -> Result<Box<[T]>, ImageError> {
        let bytes = self.bytes(section)?;
        if !bytes.len().is_multiple_of(size_of::<T>()) {
            return Err(ImageError::Section { section: section.name() });
        }
        Ok(bytemuck::pod_collect_to_vec(bytes).into())
    }

    /// Numbers in network order.
    fn numbers(&self, section: Section) -> Result<Vec<u128>, ImageError> {
        Ok(self.section::<[u8; 16]>(section)?.iter().copied().map(u128::from_be_bytes).collect())
    }

    fn arrays<L: Large, S: Small>(&self) -> Result<Arrays<L, S>, ImageError> {
        let arrays = Sections {
            flat_first: self.header.flat_first.wrapping_mul(BLOCK as u32),
            v4_flat: self.section(Section::V4Flat)?,
            v4_l1: self.section(Section::V4L1)?,
            v4_l2: self.section(Section::V4L2)?,
            v4_l3: self.section(Section::V4L3)?,
            v6_block_slots: self.section(Section::V6BlockSlots)?,
            v6_blocks: self.section(Section::V6Blocks)?,
            v6_exact: self.section(Section::V6Exact)?,
            v6_starts: self.numbers(Section::V6Starts)?.into(),
            v6_classes: self.section(Section::V6Classes)?,
            port_pages: self.section(Section::PortPages)?,
            port_class: self.section(Section::PortClasses)?,
            endpoints: self.section(Section::Endpoints)?,
            directory: self.section(Section::Directory)?,
            segments: self.section(Section::Segments)?,
            local_ports: self.section(Section::LocalPorts)?,
            actions: self.section(Section::Actions)?,
        };
        self.check_sizes(&arrays)?;
        self.check_addresses(&arrays)?;
        self.check_ports(&arrays)?;
        self.check_profiles(&arrays)?;
        Ok(Arrays::of(arrays, self.header.classes as usize, self.header.port_classes as usize))
    }

    fn check_sizes<L: Large, S: Small>(&self, arrays: &Sections<L, S>) -> Result<(), ImageError> {
        let sized = |ok: bool, section: Section| if ok { Ok(()) } else { Err(ImageError::Section { section: section.name() }) };
        // no more than could be told apart: whoever makes a list of them makes it of that length
        let (classes, port_classes) = (u64::from(self.header.classes), u64::from(self.header.port_classes));
        if classes > self.header.image_bytes {
            return Err(claim("address classes", classes, self.header.image_bytes + 1));
        }
        if port_classes > PORT_CLASSES_MAX {
            return Err(claim("port classes", port_classes, PORT_CLASSES_MAX + 1));
        }
        if self.header.image_bytes > IMAGE_BYTES_MAX {
            return Err(claim("image bytes", self.header.image_bytes, IMAGE_BYTES_MAX + 1));
        }
        let flat = arrays.v4_flat.len();
        let flat_end = u64::from(self.header.flat_first) * BLOCK as u64 + flat as u64;
        sized(flat.is_multiple_of(BLOCK) && flat_end <= 1 << 32, Section::V4Flat)?;
        sized(arrays.v4_l1.len() == 65536, Section::V4L1)?;
        sized(arrays.v4_l2.len().is_multiple_of(BLOCK), Section::V4L2)?;
        sized(arrays.v4_l3.len().is_multiple_of(BLOCK), Section::V4L3)?;
        sized(arrays.v6_blocks.len().is_multiple_of(BLOCK), Section::V6Blocks)?;
        for (slots, section) in [(&arrays.v6_block_slots, Section::V6BlockSlots), (&arrays.v6_exact, Section::V6Exact)] {
            // a search must meet an empty slot
            sized(slots.len().is_power_of_two() && slots.iter().any(|slot| slot.value_plus_one == 0), section)?;
        }
        sized(arrays.v6_starts.first() == Some(&0), Section::V6Starts)?;
        sized(arrays.v6_starts.len() == arrays.v6_classes.len(), Section::V6Classes)?;
        sized(arrays.port_pages.len() == PORT_PAGES, Section::PortPages)?;
        sized(arrays.port_class.len().is_multiple_of(PAGE), Section::PortClasses)?;
        sized(arrays.endpoints.len() <= PORTS_MAX, Section::Endpoints)?;
        sized(arrays.segments.len().is_multiple_of(SEGMENT), Section::Segments)?;
        sorted(&arrays.v6_starts, Section::V6Starts)
    }

    fn check_addresses<L: Large, S: Small>(&self, arrays: &Sections<L, S>) -> Result<(), ImageError> {
        let classes = u64::from(self.header.classes);
        let all = |entries: &[L], section| entries.iter().try_for_each(|class| below(class.read() as u64, classes, section));
        let nodes = |entries: &[L], blocks: usize, section| {
            entries.iter().try_for_each(|&node| match Arrays::<L, S>::node(node, blocks) {
                Node::Block(_) => Ok(()),
                Node::Class(class) => below(class as u64, classes, section),
            })
        };
        all(&arrays.v4_flat, Section::V4Flat)?;
        nodes(&arrays.v4_l1, arrays.v4_l2.len() / BLOCK, Section::V4L1)?;
        nodes(&arrays.v4_l2, arrays.v4_l3.len() / BLOCK, Section::V4L2)?;
        all(&arrays.v4_l3, Section::V4L3)?;
        all(&arrays.v6_blocks, Section::V6Blocks)?;
        all(&arrays.v6_classes, Section::V6Classes)?;
        let values = |slots: &[V6Slot], len: u64, section| {
            let used = slots.iter().filter(|slot| slot.value_plus_one != 0);
            used.into_iter().try_for_each(|slot| below(u64::from(slot.value_plus_one - 1), len, section))
        };
        values(&arrays.v6_block_slots, (arrays.v6_blocks.len() / BLOCK) as u64, Section::V6BlockSlots)?;
        values(&arrays.v6_exact, classes, Section::V6Exact)
    }

    fn check_ports<L: Large, S: Small>(&self, arrays: &Sections<L, S>) -> Result<(), ImageError> {
        let pages = (arrays.port_class.len() / PAGE) as u64;
        arrays.port_pages.iter().try_for_each(|&page| below(u64::from(page), pages, Section::PortPages))?;
        let port_classes = u64::from(self.header.port_classes);
        arrays.port_class.iter().try_for_each(|&class| below(u64::from(class), port_classes, Section::PortClasses))
    }

    /// That what a half names is there, for each profile once.
    fn check_profiles<L: Large, S: Small>(&self, arrays: &Sections<L, S>) -> Result<(), ImageError> {
        arrays.actions.iter().try_for_each(|action| below(action.read() as u64, self.rules + 1, Section::Actions))?;
        let segments = arrays.segments.len() / SEGMENT;
        arrays.directory.iter().try_for_each(|segment| below(segment.read() as u64, segments as u64, Section::Directory))?;
        let highest_row: Vec<usize> = highest(arrays.segments.chunks(SEGMENT));
        let (of_classes, of_ports) = ((self.header.classes as usize).div_ceil(SEGMENT), self.header.port_classes as usize);
        let mut known: HashMap<Half, ()> = HashMap::new();
        for half in arrays.endpoints.iter().flat_map(|entry| entry.halves).filter(Half::is_isolated) {
            if known.insert(half, ()).is_some() {
                continue;
            }
            let directory = run(&arrays.directory, half.directory, of_classes, Section::Endpoints)?;
            let ports = run(&arrays.local_ports, half.ports, of_ports, Section::Endpoints)?;
            let port = ports.iter().map(|port| port.read()).max().unwrap_or(0);
            below(port as u64, u64::from(half.stride), Section::LocalPorts)?;
            let row = directory.iter().map(|segment| highest_row[segment.read()]).max().unwrap_or(0);
            run(&arrays.actions, half.actions, (row + 1) * half.stride as usize, Section::Segments)?;
        }
        Ok(())
    }
}

/// The highest number of each.
fn highest<'a, S: Small>(parts: impl Iterator<Item = &'a [S]>) -> Vec<usize> {
    parts.map(|part| part.iter().map(|number| number.read()).max().unwrap_or(0)).collect()
}

fn run<T>(entries: &[T], first: u32, len: usize, section: Section) -> Result<&[T], ImageError> {
    let first = first as usize;
    let outside = || ImageError::Index { section: section.name(), index: (first + len) as u64, len: entries.len() as u64 + 1 };
    entries.get(first..).and_then(|rest| rest.get(..len)).ok_or_else(outside)
}

/// A number in the header that cannot be.
fn claim(what: &'static str, number: u64, limit: u64) -> ImageError {
    ImageError::Index { section: what, index: number, len: limit }
}

fn below(index: u64, len: u64, section: Section) -> Result<(), ImageError> {
    if index < len { Ok(()) } else { Err(ImageError::Index { section: section.name(), index, len }) }
}

fn sorted(values: &[u128], section: Section) -> Result<(), ImageError> {
    if values.is_sorted_by(|a, b| a < b) { Ok(()) } else { Err(ImageError::Order { section: section.name() }) }
}
