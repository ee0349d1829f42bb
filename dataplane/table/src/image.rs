//! Parts → bytes. Deterministic: the same parts and generation give the same image.

use crate::format::{
    ALIGNMENT, EndpointEntry, FORMAT_VERSION, Header, LEAF, MAGIC, NOT_ISOLATED, PORT_CLASS_ENTRIES, Section, V6Slot, checksum, v6_slot,
};
use crate::parts::TableParts;
use bytemuck::Zeroable;

/// Writes an image. Cost: linear in the parts, plus 650 kB of fixed-size sections.
///
/// Panics where the parts contradict their documentation: that is the compiler's own mistake.
pub fn build_image(parts: &TableParts, generation: u64) -> Vec<u8> {
    let (v4_l1, v4_l2, v4_l3) = v4_trie(&parts.v4_intervals);
    let (v6_starts, v6_classes): (Vec<[u8; 16]>, Vec<u16>) =
        parts.v6_intervals.iter().map(|&(start, class)| (start.to_be_bytes(), class)).unzip();
    let (endpoints, row_of_class) = endpoints(parts);
    let actions: Vec<u32> = parts
        .rows
        .iter()
        .inspect(|row| assert_eq!(row.len(), parts.port_classes, "one action for each port class"))
        .flat_map(|row| row.iter().map(|action| action.encode()))
        .collect();
    let services: Vec<[u8; 16]> = parts.services.iter().map(|address| address.to_be_bytes()).collect();
    let names = serde_json::to_vec(&parts.names).expect("names are plain data");

    let mut writer = Writer::new();
    writer.section(Section::V4L1, bytemuck::cast_slice(&v4_l1));
    writer.section(Section::V4L2, bytemuck::cast_slice(&v4_l2));
    writer.section(Section::V4L3, bytemuck::cast_slice(&v4_l3));
    writer.section(Section::V6Exact, bytemuck::cast_slice(&v6_exact(&parts.v6_exact)));
    writer.section(Section::V6Starts, bytemuck::cast_slice(&v6_starts));
    writer.section(Section::V6Classes, bytemuck::cast_slice(&v6_classes));
    writer.section(Section::PortClasses, bytemuck::cast_slice(&port_classes(parts)));
    writer.section(Section::Endpoints, bytemuck::cast_slice(&endpoints));
    writer.section(Section::RowOfClass, bytemuck::cast_slice(&row_of_class));
    writer.section(Section::Actions, bytemuck::cast_slice(&actions));
    writer.section(Section::Services, bytemuck::cast_slice(&services));
    writer.section(Section::Names, &names);
    writer.finish(generation, parts)
}

struct Writer {
    bytes: Vec<u8>,
    sections: [[u64; 2]; Section::ALL.len()],
}

impl Writer {
    fn new() -> Self {
        Self { bytes: vec![0; size_of::<Header>().next_multiple_of(ALIGNMENT)], sections: Zeroable::zeroed() }
    }

    fn section(&mut self, section: Section, bytes: &[u8]) {
        self.sections[section as usize] = [self.bytes.len() as u64, bytes.len() as u64];
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }

    fn finish(mut self, generation: u64, parts: &TableParts) -> Vec<u8> {
        let mut header = Header {
            magic: MAGIC,
            format: FORMAT_VERSION,
            header_bytes: size_of::<Header>() as u32,
            generation,
            image_bytes: self.bytes.len() as u64,
            checksum: 0,
            port_classes: parts.port_classes as u32,
            classes: parts.classes as u32,
            sections: self.sections,
        };
        self.bytes[..size_of::<Header>()].copy_from_slice(bytemuck::bytes_of(&header));
        header.checksum = checksum(&self.bytes);
        self.bytes[..size_of::<Header>()].copy_from_slice(bytemuck::bytes_of(&header));
        self.bytes
    }
}

/// Each interval fills whole leaves where it covers them and opens a block where it does not.
fn v4_trie(intervals: &[(u32, u16)]) -> (Vec<u32>, Vec<u32>, Vec<u16>) {
    assert!(intervals.first().is_some_and(|first| first.0 == 0), "intervals start at 0.0.0.0");
    assert!(intervals.is_sorted_by(|a, b| a.0 < b.0), "intervals ascend");
    let (mut l1, mut l2, mut l3) = (vec![0u32; 65536], Vec::new(), Vec::new());
    for (index, &(start, class)) in intervals.iter().enumerate() {
        let end = intervals.get(index + 1).map_or(1u64 << 32, |next| u64::from(next.0));
        let mut at = u64::from(start);
        while at < end {
            let l1_at = (at >> 16) as usize;
            if at & 0xffff == 0 && end - at >= 1 << 16 {
                l1[l1_at] = LEAF | u32::from(class);
                at += 1 << 16;
                continue;
            }
            if at & 0xffff == 0 {
                l1[l1_at] = (l2.len() / 256) as u32;
                l2.resize(l2.len() + 256, 0);
            }
            let l2_at = l1[l1_at] as usize * 256 + (at >> 8 & 0xff) as usize;
            if at & 0xff == 0 && end - at >= 256 {
                l2[l2_at] = LEAF | u32::from(class);
                at += 256;
                continue;
            }
            if at & 0xff == 0 {
                l2[l2_at] = (l3.len() / 256) as u32;
                l3.resize(l3.len() + 256, 0);
            }
            let block = l2[l2_at] as usize * 256;
            let stop = end.min((at | 0xff) + 1);
            l3[block + (at & 0xff) as usize..block + (stop - (at & !0xff)) as usize].fill(class);
            at = stop;
        }
    }
    (l1, l2, l3)
}

fn v6_exact(addresses: &[(u128, u16)]) -> Vec<V6Slot> {
    // at most half full, so that a miss ends soon
    let slots = (addresses.len() * 2).next_power_of_two().max(16);
    let mut table = vec![V6Slot::zeroed(); slots];
    for &(address, class) in addresses {
        let mut at = v6_slot(address, slots);
        while table[at].class_plus_one != 0 {
            at = (at + 1) & (slots - 1);
        }
        table[at] = V6Slot { address: address.to_be_bytes(), class_plus_one: u32::from(class) + 1 };
    }
    table
}

fn port_classes(parts: &TableParts) -> Vec<u16> {
    let mut classes = Vec::with_capacity(PORT_CLASS_ENTRIES);
    for intervals in &parts.port_intervals {
        assert!(intervals.first().is_some_and(|first| first.0 == 0), "port intervals start at 0");
        assert!(intervals.is_sorted_by(|a, b| a.0 < b.0), "port intervals ascend");
        for (index, &(start, class)) in intervals.iter().enumerate() {
            let end = intervals.get(index + 1).map_or(65536, |next| usize::from(next.0));
            classes.resize(classes.len() + end - usize::from(start), class);
        }
    }
    classes.push(parts.other_protocols);
    classes
}

fn endpoints(parts: &TableParts) -> (Vec<EndpointEntry>, Vec<u16>) {
    let len = parts.endpoints.iter().map(|endpoint| usize::from(endpoint.port.0) + 1).max().unwrap_or(0);
    let absent = EndpointEntry { present: 0, incarnation: 0, rows: [NOT_ISOLATED; 2] };
    let (mut entries, mut row_of_class) = (vec![absent; len], Vec::new());
    for endpoint in &parts.endpoints {
        let rows = endpoint.rows_of_class.each_ref().map(|rows| match rows {
            None => NOT_ISOLATED,
            Some(rows) => {
                assert_eq!(rows.len(), parts.classes, "one row for each class");
                let at = row_of_class.len() as u32;
                row_of_class.extend_from_slice(rows);
                at
            }
        });
        entries[usize::from(endpoint.port.0)] = EndpointEntry { present: 1, incarnation: endpoint.incarnation.0, rows };
    }
    (entries, row_of_class)
}
