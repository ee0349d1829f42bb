//! The table as data: for those who must see all of it at once, a proof or a report. Workers use [`Table::lookup`] alone.

use crate::addresses::{Addresses, find};
use crate::format::{BLOCK, Half, PACKED_SEGMENT, SEGMENT};
use crate::parts::Action;
use crate::table::{Table, with_arrays};
use crate::v4::Node;
use crate::width::{Large, Width};
use sluice_flow::{Direction, PortIndex, RuleId};
use std::borrow::Cow;

/// A part of the IPv4 space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum V4Stretch<'c> {
    /// One class for all its addresses.
    Same {
        /// Its first address.
        first: u32,
        /// Its last address.
        last: u32,
        /// The class.
        class: usize,
    },
    /// A /24.
    Each {
        /// Its first address.
        first: u32,
        /// The classes of its 256 addresses.
        classes: &'c [u32],
    },
}

impl Table {
    /// Address classes; each class index is below it.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Port classes; each port class index is below it.
    pub fn port_classes(&self) -> usize {
        self.port_classes
    }

    /// Walks the whole IPv4 space, ascending, so that the visits say everything that [`Table::class_of`] can say of IPv4.
    /// Neighbouring stretches of one class are one.
    pub fn v4_stretches(&self, visit: impl FnMut(V4Stretch<'_>)) {
        with_arrays!(&self.body, arrays => walk(&arrays.addresses, Stretches { visit, from: 0, class: None }));
    }

    /// Walks the /120s of IPv6 whose addresses have a class each, ascending: their first address and 256 classes. What
    /// else the table says of these addresses is never asked.
    pub fn v6_blocks(&self, mut visit: impl FnMut(u128, &[u32])) {
        with_arrays!(&self.body, arrays => {
            let arrays = &arrays.addresses;
            let used = arrays.v6_block_slots.iter().filter(|slot| slot.value_plus_one != 0);
            let mut keys: Vec<u128> = used.map(|slot| slot.key()).collect();
            keys.sort_unstable();
            keys.dedup();
            let mut classes = [0; BLOCK];
            for key in keys.into_iter().filter(|key| key >> 120 == 0) {
                let Some(block) = find(&arrays.v6_block_slots, key) else { continue };
                read_all(&arrays.v6_blocks[block * BLOCK..][..BLOCK], &mut classes);
                visit(key << 8, &classes);
            }
        });
    }

    /// The first address and the class of each IPv6 interval, ascending; single addresses and blocks go before them.
    pub fn v6_intervals(&self) -> Vec<(u128, usize)> {
        with_arrays!(&self.body, arrays => {
            let arrays = &arrays.addresses;
            arrays.v6_starts.iter().zip(&arrays.v6_classes[..]).map(|(&start, class)| (start, widened(class))).collect()
        })
    }

    /// The single IPv6 addresses, in no order, those in blocks among them.
    pub fn v6_singles(&self) -> impl Iterator<Item = u128> {
        let slots = with_arrays!(&self.body, arrays => &arrays.addresses.v6_exact);
        slots.iter().filter(|slot| slot.value_plus_one != 0).map(|slot| slot.key())
    }

    /// The class that an address has as a single one, whether or not a block goes before it.
    pub fn v6_single(&self, v6: u128) -> Option<usize> {
        with_arrays!(&self.body, arrays => find(&arrays.addresses.v6_exact, v6))
    }

    /// The class of an IPv6 address as a number in host order.
    pub fn v6_class(&self, v6: u128) -> usize {
        with_arrays!(&self.body, arrays => arrays.addresses.v6_class(v6))
    }

    /// The port class of every TCP port, then of UDP's, of SCTP's, and the one of all other protocols.
    pub fn port_class_entries(&self) -> Vec<u16> {
        with_arrays!(&self.body, arrays => arrays.addresses.port_class.to_vec())
    }

    /// What an isolated endpoint's direction allows; `None` where nothing isolates it, or where no endpoint stands.
    pub fn profile(&self, port: PortIndex, direction: Direction) -> Option<Profile<'_>> {
        let half = self.entry(port)?.halves[direction as usize];
        half.is_isolated().then_some(Profile { table: self, half })
    }

    /// Service addresses, ascending.
    pub fn services(&self) -> &[u128] {
        &self.services
    }
}

/// What all endpoints allow that share it.
#[derive(Debug, Clone, Copy)]
pub struct Profile<'t> {
    table: &'t Table,
    half: Half,
}

impl<'t> Profile<'t> {
    /// Whether both are the same bytes of one table.
    pub fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self.table, other.table) && self.half == other.half
    }

    /// The row of each class.
    pub fn rows_of_classes(&self) -> Vec<u16> {
        let (width, bytes) = self.row_bytes();
        match width {
            1 => bytes.into_iter().map(u16::from).collect(),
            _ => bytes.chunks_exact(2).map(|row| u16::from_le_bytes([row[0], row[1]])).collect(),
        }
    }

    /// The same as little-endian numbers of so many bytes, 1 or 2, one after the other.
    pub fn row_bytes(&self) -> (usize, Vec<u8>) {
        let (half, classes) = (&self.half, self.table.classes);
        with_arrays!(&self.table.body, arrays => {
            let directory = &arrays.directory[half.directory as usize..][..classes.div_ceil(SEGMENT)];
            let mut rows = Vec::with_capacity(directory.len() * SEGMENT * size_of_val(&arrays.segments[0]));
            for segment in directory {
                rows.extend_from_slice(bytemuck::cast_slice(&arrays.segments[segment.read() * SEGMENT..][..SEGMENT]));
            }
            let width = size_of_val(&arrays.segments[0]);
            rows.truncate(classes * width);
            (width, rows)
        }, packed arrays => {
            let entries = half.directory as usize..half.directory as usize + classes.div_ceil(PACKED_SEGMENT);
            let mut rows: Vec<u16> = Vec::with_capacity(entries.len() * PACKED_SEGMENT);
            for (segment, base) in arrays.directory[entries.clone()].iter().zip(&arrays.row_bases[entries]) {
                rows.extend(arrays.segments[segment.read() * PACKED_SEGMENT..][..PACKED_SEGMENT].iter().map(|row| row + base));
            }
            rows.truncate(classes);
            (size_of::<u16>(), bytemuck::cast_slice(&rows).to_vec())
        })
    }

    /// What a row says about a port class. Panics where the profile has no such row or the table no such port class.
    pub fn action(&self, row: u16, port_class: usize) -> Action {
        let half = &self.half;
        let action = with_arrays!(&self.table.body, arrays => {
            let local = widened(&arrays.local_ports[half.ports as usize..][port_class]);
            widened(&arrays.actions[half.actions as usize + usize::from(row) * half.stride as usize + local])
        }, packed arrays => arrays.action(half, usize::from(row), port_class));
        match action {
            0 => Action::Deny,
            action => Action::Allow(RuleId(action as u32 - 1)),
        }
    }

    /// What the rows below `rows` mean. Packed profiles are unpacked for it.
    pub fn meaning(&self, rows: usize) -> Meant<'t> {
        let (half, port_classes) = (&self.half, self.table.port_classes);
        with_arrays!(&self.table.body, arrays => {
            let ports = &arrays.local_ports[half.ports as usize..][..port_classes];
            let actions = &arrays.actions[half.actions as usize..][..rows * half.stride as usize];
            Meant {
                form: [width_of(&arrays.local_ports), width_of(&arrays.actions), half.stride],
                ports: Cow::from(bytemuck::cast_slice(ports)),
                actions: Cow::from(bytemuck::cast_slice(actions)),
            }
        }, packed arrays => {
            let ports: Vec<u32> = (0..port_classes).map(|port_class| arrays.local_port(half, port_class) as u32).collect();
            let stride = ports.iter().copied().max().unwrap_or(0) + 1;
            let action = |row, local_port| arrays.action_of(half, row, local_port) as u32;
            let actions: Vec<u32> = (0..rows).flat_map(|row| (0..stride as usize).map(move |local_port| action(row, local_port))).collect();
            Meant {
                form: [width_of(&ports), width_of(&actions), stride],
                ports: Cow::from(bytemuck::cast_slice(&ports).to_vec()),
                actions: Cow::from(bytemuck::cast_slice(&actions).to_vec()),
            }
        })
    }
}

/// What rows mean, in the table's own bytes where they say it as they are.
#[derive(Debug, Clone)]
pub struct Meant<'t> {
    form: [u32; 3],
    ports: Cow<'t, [u8]>,
    actions: Cow<'t, [u8]>,
}

impl Meant<'_> {
    /// For comparing.
    pub fn meaning(&self) -> Meaning<'_> {
        Meaning { form: self.form, ports: &self.ports, actions: &self.actions }
    }
}

/// The bytes that say what rows mean: equal for two profiles, in whatever tables, only if [`Profile::action`] answers alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meaning<'t> {
    /// How the bytes are to be read: both widths, and actions for each row.
    pub form: [u32; 3],
    /// Of each port class its number here.
    pub ports: &'t [u8],
    /// Of each row and such a number.
    pub actions: &'t [u8],
}

fn width_of<T>(_: &[T]) -> u32 {
    size_of::<T>() as u32
}

fn widened(number: &impl Width) -> usize {
    number.read()
}

fn read_all<L: Large>(classes: &[L], into: &mut [u32; BLOCK]) {
    into.iter_mut().zip(classes).for_each(|(into, class)| *into = class.read() as u32);
}

/// Joins neighbours of one class.
struct Stretches<F> {
    visit: F,
    from: u32,
    class: Option<usize>,
}

impl<F: FnMut(V4Stretch<'_>)> Stretches<F> {
    fn same(&mut self, first: u32, class: usize) {
        if self.class != Some(class) {
            self.end(first);
            (self.from, self.class) = (first, Some(class));
        }
    }

    fn each(&mut self, first: u32, classes: &[u32]) {
        self.end(first);
        self.class = None;
        (self.visit)(V4Stretch::Each { first, classes });
    }

    /// What is open ends before `next`.
    fn end(&mut self, next: u32) {
        if let Some(class) = self.class {
            (self.visit)(V4Stretch::Same { first: self.from, last: next.wrapping_sub(1), class });
        }
    }
}

fn walk<L: Large, const BITS: u32>(addresses: &Addresses<L, BITS>, mut stretches: Stretches<impl FnMut(V4Stretch<'_>)>) {
    let mut classes = [0; BLOCK];
    let v4 = &addresses.v4;
    let window = u64::from(v4.flat_first)..u64::from(v4.flat_first) + u64::from(v4.flat_len);
    for (high, &root) in (0u32..).zip(v4.roots()) {
        let high = high << 16;
        let root = v4.node(root);
        let touches_window = u64::from(high) < window.end && window.start < u64::from(high) + 65536;
        if let (Node::Class(class), false) = (root, touches_window) {
            stretches.same(high, class);
            continue;
        }
        for middle in 0..BLOCK as u32 {
            let first = high | middle << 8;
            if window.contains(&u64::from(first)) {
                read_all(&v4.flat()[(first - v4.flat_first) as usize..][..BLOCK], &mut classes);
                match classes.iter().all(|&class| class == classes[0]) {
                    true => stretches.same(first, classes[0] as usize),
                    false => stretches.each(first, &classes),
                }
                continue;
            }
            let slash_24 = v4.below(root, first, 8..16);
            if let Node::Class(class) = slash_24 {
                stretches.same(first, class);
                continue;
            }
            for (low, class) in (0..).zip(&mut classes) {
                match v4.below(slash_24, first | low, 0..8) {
                    Node::Class(found) => *class = found as u32,
                    Node::Block(_) => unreachable!("no walk is longer, as was checked"),
                }
            }
            stretches.each(first, &classes);
        }
    }
    stretches.end(0);
}

#[cfg(test)]
mod tests {
    use crate::{Table, TableParts, V4Stretch, build_image};
    use sluice_flow::Addr;
    use std::net::IpAddr;

    fn table(v4_intervals: Vec<(u32, u32)>) -> Table {
        let parts = TableParts {
            classes: 4,
            v4_intervals,
            v6_intervals: vec![(0, 0), (1 << 120, 1), (3 << 119, 0)],
            v6_exact: [(5, 3)].into_iter().chain((0..20).map(|low| (1 << 120 | low, 2))).collect(),
            ..TableParts::default()
        };
        Table::from_bytes(&build_image(&parts, 1)).unwrap()
    }

    fn check_stretches(table: &Table, blocks_expected: usize) {
        let mut next = 0u64;
        let mut blocks = 0;
        table.v4_stretches(|stretch| {
            let (first, last, class): (u32, u32, Box<dyn Fn(u32) -> usize>) = match stretch {
                V4Stretch::Same { first, last, class } => (first, last, Box::new(move |_| class)),
                V4Stretch::Each { first, classes } => {
                    blocks += 1;
                    assert_eq!(classes.len(), 256);
                    (first, first + 255, Box::new(move |address| classes[(address - first) as usize] as usize))
                }
            };
            assert_eq!(u64::from(first), next, "nothing is left out");
            next = u64::from(last) + 1;
            for address in (first..=last).step_by(if last - first > 255 { 251 } else { 1 }).chain([last]) {
                assert_eq!(table.class_of(Addr::from(IpAddr::from(address.to_be_bytes()))), class(address), "{address:#x}");
            }
        });
        assert_eq!((next, blocks), (1 << 32, blocks_expected));
    }

    #[test]
    fn stretches_say_what_lookups_find() {
        let apart =
            vec![(0, 0), (0x0a00_0000, 1), (0x0a00_0005, 2), (0x0a00_0006, 1), (0x0a01_0100, 3), (0x0a02_0000, 0), (0xffff_ffff, 2)];
        check_stretches(&table(apart), 2);
        // /24s with more than one class, one after the other, are a flat window
        let pods = (0..6u32)
            .filter(|block| *block != 2)
            .flat_map(|block| [(0x0a00_fd07 + block * 256, 1), (0x0a00_fd09 + block * 256, block % 2 * 2)]);
        check_stretches(&table([(0, 0)].into_iter().chain(pods).collect()), 5);
    }

    #[test]
    fn blocks_and_singles_say_what_lookups_find() {
        let table = table(vec![(0, 0)]);
        assert_eq!(table.v6_singles().collect::<Vec<_>>(), [5]);
        assert_eq!(table.v6_intervals(), [(0, 0), (1 << 120, 1), (3 << 119, 0)]);
        let mut blocks = Vec::new();
        table.v6_blocks(|first, classes| blocks.push((first, classes.to_vec())));
        let expected: Vec<u32> = (0..256).map(|low| if low < 20 { 2 } else { 1 }).collect();
        assert_eq!(blocks, [(1 << 120, expected)]);
        for (address, class) in [(5, 3), (6, 0), (1 << 120, 2), (1 << 120 | 20, 1), (1 << 120 | 256, 1)] {
            assert_eq!(table.v6_class(address), class, "{address:#x}");
        }
    }
}
