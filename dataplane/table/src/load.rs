//! Image → table: every byte is read once, every index checked once.

use crate::addresses::PORTS;
use crate::arrays::Arrays;
use crate::batch::SimdLevel;
use crate::format::{
    ALIGNMENT, BLOCK, CHUNK, EndpointEntry, FORMAT_VERSION, Half, Header, ImageError, LARGE_WIDE, MAGIC, PACKED, PACKED_SEGMENT,
    PACKED_TRIE_BITS, PORT_CLASSES_MAX, PortStart, ROOTS, SEGMENT, SMALL_WIDE, Section, TRIE_BITS, V6Slot, checksum,
};
use crate::names::Names;
use crate::packed::PackedArrays;
use crate::sections::{Entries, PackedProfiles, Profiles, Spaces};
use crate::table::{Body, Table};
use crate::v4::{Node, node};
use crate::width::{Large, Small, Width};
use bytemuck::Pod;
use sluice_flow::limits::{IMAGE_BYTES_MAX, PORTS_MAX};
use std::collections::HashSet;

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
    Section::ALL.into_iter().try_for_each(|(section, _)| reader.bytes(section).map(|_| ()))?;
    let cold = reader.bytes(Section::Names)?;
    let names = Names::from_bytes(cold)?;
    let cold_bytes = cold.len() as u64;
    reader.rules = names.rules.len() as u64;
    const BOTH_WIDE: u32 = LARGE_WIDE | SMALL_WIDE;
    let body = match (header.widths & !PACKED, header.widths & PACKED != 0) {
        (0, false) => Body::Narrow(reader.plain()?),
        (SMALL_WIDE, false) => Body::SmallWide(reader.plain()?),
        (LARGE_WIDE, false) => Body::LargeWide(reader.plain()?),
        (BOTH_WIDE, false) => Body::Wide(reader.plain()?),
        (0, true) => Body::PackedNarrow(reader.packed()?),
        (SMALL_WIDE, true) => Body::PackedSmallWide(reader.packed()?),
        (LARGE_WIDE, true) => Body::PackedLargeWide(reader.packed()?),
        (BOTH_WIDE, true) => Body::PackedWide(reader.packed()?),
        (widths, _) => return Err(claim("widths", u64::from(widths), u64::from(BOTH_WIDE) + 1)),
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
        port_runs: Default::default(),
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

    fn section<T: Pod>(&self, section: Section) -> Result<Entries<'a, T>, ImageError> {
        let bytes = self.bytes(section)?;
        if !bytes.len().is_multiple_of(size_of::<T>()) {
            return Err(ImageError::Section { section: section.name() });
        }
        Ok(match bytemuck::try_cast_slice(bytes) {
            Ok(entries) => Entries::Borrowed(entries),
            Err(_) => Entries::Owned(bytemuck::pod_collect_to_vec(bytes)),
        })
    }

    /// Numbers in network order.
    fn numbers(&self, section: Section) -> Result<Vec<u128>, ImageError> {
        Ok(self.section::<[u8; 16]>(section)?.iter().copied().map(u128::from_be_bytes).collect())
    }

    /// Address classes and port classes.
    fn sizes(&self) -> [usize; 2] {
        [self.header.classes as usize, self.header.port_classes as usize]
    }

    fn plain<L: Large, S: Small>(&self) -> Result<Arrays<L, S>, ImageError> {
        let spaces = self.spaces(TRIE_BITS)?;
        let endpoints = self.endpoints()?;
        let profiles = Profiles {
            directory: self.section(Section::Directory)?,
            segments: self.section(Section::Segments)?,
            local_ports: self.section(Section::LocalPorts)?,
            actions: self.section(Section::Actions)?,
        };
        self.check_plain(&profiles, &endpoints)?;
        Ok(Arrays::of(&spaces, endpoints, &profiles, self.sizes()))
    }

    fn packed<L: Large, S: Small>(&self) -> Result<PackedArrays<L, S>, ImageError> {
        let spaces = self.spaces(PACKED_TRIE_BITS)?;
        let endpoints = self.endpoints()?;
        let profiles = PackedProfiles {
            directory: self.section(Section::Directory)?,
            row_bases: self.section(Section::RowBases)?,
            segments: self.section(Section::Segments)?,
            port_chunks: self.section(Section::PortChunks)?,
            local_ports: self.section(Section::LocalPorts)?,
            variants: self.section(Section::Variants)?,
            variant_bases: self.section(Section::VariantBases)?,
            ranks: self.section(Section::Actions)?,
            palettes: self.section(Section::Palettes)?,
        };
        self.check_packed(&profiles, &endpoints)?;
        Ok(PackedArrays::of(&spaces, endpoints, &profiles, self.sizes()))
    }

    fn endpoints(&self) -> Result<Box<[EndpointEntry]>, ImageError> {
        let endpoints = self.section(Section::Endpoints)?;
        sized(endpoints.len() <= PORTS_MAX, Section::Endpoints)?;
        Ok(endpoints.into())
    }

    fn spaces<L: Large>(&self, trie_bits: u32) -> Result<Spaces<'a, L>, ImageError> {
        // no more than could be told apart: whoever makes a list of them makes it of that length
        let (classes, port_classes) = (u64::from(self.header.classes), u64::from(self.header.port_classes));
        if classes > self.header.image_bytes {
            return Err(claim("address classes", classes, self.header.image_bytes + 1));
        }
        if port_classes > PORT_CLASSES_MAX {
            return Err(claim("port classes", port_classes, PORT_CLASSES_MAX + 1));
        }
        // so any index fits 31 bits, also where sections are one array in memory
        if self.header.image_bytes > IMAGE_BYTES_MAX as u64 {
            return Err(claim("image bytes", self.header.image_bytes, IMAGE_BYTES_MAX as u64 + 1));
        }
        let spaces = Spaces {
            flat_first: self.header.flat_first.wrapping_mul(BLOCK as u32),
            v4_flat: self.section(Section::V4Flat)?,
            v4_trie: self.section(Section::V4Trie)?,
            v6_block_slots: self.section(Section::V6BlockSlots)?,
            v6_blocks: self.section(Section::V6Blocks)?,
            v6_exact: self.section(Section::V6Exact)?,
            v6_starts: self.numbers(Section::V6Starts)?.into(),
            v6_classes: self.section(Section::V6Classes)?,
            port_class: self.port_classes()?,
        };
        self.check_sizes(&spaces)?;
        self.check_classes(&spaces)?;
        self.check_trie(&spaces.v4_trie, trie_bits)?;
        Ok(spaces)
    }

    /// The class of every port, of the starts of each protocol's classes.
    fn port_classes(&self) -> Result<Box<[u16]>, ImageError> {
        let starts = self.section::<PortStart>(Section::PortStarts)?;
        starts.iter().try_for_each(|start| below(u64::from(start.class), u64::from(self.header.port_classes), Section::PortStarts))?;
        let mut classes: Vec<u16> = Vec::with_capacity(PORTS);
        let mut protocols = 0;
        for protocol in starts.chunk_by(|_, next| next.port != 0) {
            protocols += 1;
            // all protocols without ports are one
            let ports = if protocols == 4 { 1 } else { 65536 };
            let ends = protocol.iter().skip(1).map(|next| usize::from(next.port)).chain([ports]);
            let mut from = 0;
            for (start, end) in protocol.iter().zip(ends) {
                let ascends = usize::from(start.port) == from && end > from;
                if !ascends || protocols > 4 {
                    return Err(ImageError::Order { section: Section::PortStarts.name() });
                }
                classes.resize(classes.len() + end - from, start.class);
                from = end;
            }
        }
        sized(classes.len() == PORTS, Section::PortStarts)?;
        Ok(classes.into())
    }

    fn check_sizes<L: Large>(&self, spaces: &Spaces<'_, L>) -> Result<(), ImageError> {
        let flat = spaces.v4_flat.len();
        let flat_end = u64::from(self.header.flat_first) * BLOCK as u64 + flat as u64;
        sized(flat.is_multiple_of(BLOCK) && flat_end <= 1 << 32, Section::V4Flat)?;
        sized(spaces.v6_blocks.len().is_multiple_of(BLOCK), Section::V6Blocks)?;
        for (slots, section) in [(&spaces.v6_block_slots, Section::V6BlockSlots), (&spaces.v6_exact, Section::V6Exact)] {
            // a search must meet an empty slot
            sized(slots.len().is_power_of_two() && slots.iter().any(|slot| slot.value_plus_one == 0), section)?;
        }
        sized(spaces.v6_starts.first() == Some(&0), Section::V6Starts)?;
        sized(spaces.v6_starts.len() == spaces.v6_classes.len(), Section::V6Classes)?;
        sorted(&spaces.v6_starts, Section::V6Starts)
    }

    fn check_classes<L: Large>(&self, spaces: &Spaces<'_, L>) -> Result<(), ImageError> {
        let classes = u64::from(self.header.classes);
        let all = |entries: &[L], section| below_all(entries, classes, section);
        all(&spaces.v4_flat, Section::V4Flat)?;
        all(&spaces.v6_blocks, Section::V6Blocks)?;
        all(&spaces.v6_classes, Section::V6Classes)?;
        let values = |slots: &[V6Slot], len: u64, section| {
            let used = slots.iter().filter(|slot| slot.value_plus_one != 0);
            used.into_iter().try_for_each(|slot| below(u64::from(slot.value_plus_one - 1), len, section))
        };
        values(&spaces.v6_block_slots, (spaces.v6_blocks.len() / BLOCK) as u64, Section::V6BlockSlots)?;
        values(&spaces.v6_exact, classes, Section::V6Exact)
    }

    /// That every walk ends at a class when the address ends. A block leads only to later ones, as it is written.
    fn check_trie<L: Large>(&self, trie: &[L], bits: u32) -> Result<(), ImageError> {
        let nodes_of_block = 1 << bits;
        sized(trie.len() >= ROOTS && trie.len().is_multiple_of(nodes_of_block), Section::V4Trie)?;
        let (roots, blocks) = trie.split_at(ROOTS);
        let count = blocks.len() / nodes_of_block;
        let mut heights = vec![0u8; count];
        let height = |number: L, heights: &[u8]| match node(number, count) {
            Node::Class(class) => below(class as u64, u64::from(self.header.classes), Section::V4Trie).map(|()| 0),
            Node::Block(block) => Ok(1 + heights[block]),
        };
        for (index, nodes) in blocks.chunks(nodes_of_block).enumerate().rev() {
            for &number in nodes {
                if let Node::Block(block) = node(number, count) {
                    sized(block > index, Section::V4Trie)?;
                }
                heights[index] = heights[index].max(height(number, &heights)?);
            }
            below(u64::from(heights[index]), u64::from(16 / bits), Section::V4Trie)?;
        }
        roots.iter().try_for_each(|&root| height(root, &heights).map(|_| ()))
    }

    /// Rules that actions name.
    fn check_actions<L: Large>(&self, actions: &[L], section: Section) -> Result<(), ImageError> {
        below_all(actions, self.rules + 1, section)
    }

    /// That what a half names is there, for each profile once.
    fn check_plain<L: Large, S: Small>(&self, profiles: &Profiles<'_, L, S>, endpoints: &[EndpointEntry]) -> Result<(), ImageError> {
        self.check_actions(&profiles.actions, Section::Actions)?;
        let rows_of_segments = rows_of_segments(&profiles.directory, &profiles.segments, SEGMENT)?;
        let (of_classes, of_ports) = ((self.header.classes as usize).div_ceil(SEGMENT), self.header.port_classes as usize);
        each_profile(endpoints, |half| {
            let directory = run(&profiles.directory, half.directory, of_classes, Section::Endpoints)?;
            let ports = run(&profiles.local_ports, half.ports, of_ports, Section::Endpoints)?;
            below(highest(ports) as u64, u64::from(half.stride), Section::LocalPorts)?;
            let row = directory.iter().map(|segment| rows_of_segments[segment.read()]).max().unwrap_or(0);
            run(&profiles.actions, half.actions, (row + 1) * half.stride as usize, Section::Segments).map(|_| ())
        })
    }

    /// The same for packed profiles.
    fn check_packed<L: Large, S: Small>(&self, profiles: &PackedProfiles<'_, L, S>, endpoints: &[EndpointEntry]) -> Result<(), ImageError> {
        self.check_actions(&profiles.palettes, Section::Palettes)?;
        let rows_of_segments = rows_of_segments(&profiles.directory, &profiles.segments, PACKED_SEGMENT)?;
        sized(profiles.row_bases.len() == profiles.directory.len(), Section::RowBases)?;
        sized(profiles.local_ports.len().is_multiple_of(CHUNK), Section::LocalPorts)?;
        sized(profiles.ranks.len().is_multiple_of(CHUNK), Section::Actions)?;
        let chunks = (profiles.local_ports.len() / CHUNK) as u64;
        // one is added when the table is loaded
        below(chunks, L::LIMIT as u64, Section::LocalPorts)?;
        below_all(&profiles.port_chunks, chunks, Section::PortChunks)?;
        let ports_of_chunks: Vec<usize> = profiles.local_ports.chunks(CHUNK).map(highest).collect();
        let ranks_of_chunks: Vec<usize> = profiles.ranks.chunks(CHUNK).map(highest).collect();
        let [classes, port_classes] = self.sizes();
        each_profile(endpoints, |half| {
            let directory = run(&profiles.directory, half.directory, classes.div_ceil(PACKED_SEGMENT), Section::Endpoints)?;
            let bases = &profiles.row_bases[half.directory as usize..][..directory.len()];
            let rows = directory.iter().zip(bases).map(|(segment, &base)| usize::from(base) + rows_of_segments[segment.read()]);
            let rows = rows.max().unwrap_or(0) + 1;
            below(rows as u64, ROWS_LIMIT, Section::RowBases)?;
            let chunks = run(&profiles.port_chunks, half.ports, port_classes.div_ceil(CHUNK), Section::Endpoints)?;
            let port = chunks.iter().map(|chunk| ports_of_chunks[chunk.read()]).max().unwrap_or(0);
            let stride = half.stride as usize;
            below((port / CHUNK) as u64, stride as u64, Section::LocalPorts)?;
            let variants = run(&profiles.variants, half.actions, rows.saturating_mul(stride), Section::Segments)?;
            let firsts = run(&profiles.variant_bases, half.bases, stride, Section::Endpoints)?;
            let mut last = vec![0; stride];
            for row in variants.chunks(stride) {
                row.iter().zip(&mut last).for_each(|(variant, last)| *last = variant.read().max(*last));
            }
            for (&first, last) in firsts.iter().zip(last) {
                let ranks = run(&ranks_of_chunks, first, last + 1, Section::VariantBases)?;
                let ranks = ranks.iter().copied().max().unwrap_or(0);
                run(&profiles.palettes, half.palette, ranks + 1, Section::Actions)?;
            }
            Ok(())
        })
    }
}

/// Rows of a profile are fewer: two bytes number them.
const ROWS_LIMIT: u64 = 1 << 16;

/// Calls `check` for each isolated direction, once for all that are alike.
fn each_profile(endpoints: &[EndpointEntry], mut check: impl FnMut(&Half) -> Result<(), ImageError>) -> Result<(), ImageError> {
    let mut known: HashSet<Half> = HashSet::new();
    let halves = endpoints.iter().flat_map(|entry| entry.halves).filter(Half::is_isolated);
    halves.into_iter().filter(|half| known.insert(*half)).try_for_each(|half| check(&half))
}

/// The highest row of each segment, all of which the directory may name.
fn rows_of_segments<L: Large, R: Width>(directory: &[L], segments: &[R], classes: usize) -> Result<Vec<usize>, ImageError> {
    sized(segments.len().is_multiple_of(classes), Section::Segments)?;
    let rows: Vec<usize> = segments.chunks(classes).map(highest).collect();
    below_all(directory, rows.len() as u64, Section::Directory)?;
    Ok(rows)
}

/// In the numbers' own width, which processors compare many at a time.
fn highest<W: Width>(numbers: &[W]) -> usize {
    numbers.iter().fold(W::ZERO, |highest, number| highest.max(*number)).read()
}

fn sized(ok: bool, section: Section) -> Result<(), ImageError> {
    if ok { Ok(()) } else { Err(ImageError::Section { section: section.name() }) }
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

/// The highest of them says it for all: most of an image are such numbers, and an end at the first wrong one would mean to
/// look at them one by one.
fn below_all<W: Width>(indices: &[W], len: u64, section: Section) -> Result<(), ImageError> {
    if indices.is_empty() { Ok(()) } else { below(highest(indices) as u64, len, section) }
}

fn sorted(values: &[u128], section: Section) -> Result<(), ImageError> {
    if values.is_sorted_by(|a, b| a < b) { Ok(()) } else { Err(ImageError::Order { section: section.name() }) }
}
