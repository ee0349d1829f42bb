//! The table as data: for those who must see all of it at once, a proof or a report. Workers use [`Table::lookup`] alone.

use crate::format::{LEAF, NOT_ISOLATED};
use crate::parts::Action;
use crate::table::Table;
use sluice_flow::{Direction, PortIndex, RuleId};

/// A part of the IPv4 space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum V4Stretch<'t> {
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
        classes: &'t [u16],
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
    pub fn v4_stretches<'t>(&'t self, mut visit: impl FnMut(V4Stretch<'t>)) {
        let (mut from, mut class) = (0, None);
        for (high, &l1) in (0u32..).zip(&self.v4_l1) {
            let high = high << 16;
            if l1 & LEAF != 0 {
                let next = Some(l1 & !LEAF);
                if next != class {
                    same(&mut visit, from, high, class);
                    (from, class) = (high, next);
                }
                continue;
            }
            let l2 = &self.v4_l2[l1 as usize * 256..][..256];
            for (middle, &l2) in (0u32..).zip(l2) {
                let first = high | middle << 8;
                let next = (l2 & LEAF != 0).then_some(l2 & !LEAF);
                if next.is_some() && next == class {
                    continue;
                }
                same(&mut visit, from, first, class);
                (from, class) = (first, next);
                if next.is_none() {
                    visit(V4Stretch::Each { first, classes: &self.v4_l3[l2 as usize * 256..][..256] });
                    from = first.wrapping_add(256);
                }
            }
        }
        same(&mut visit, from, 0, class);
    }

    /// The first address and the class of each IPv6 interval, ascending; single addresses go before them.
    pub fn v6_intervals(&self) -> impl Iterator<Item = (u128, usize)> {
        self.v6_starts.iter().zip(&self.v6_classes).map(|(&start, &class)| (start, usize::from(class)))
    }

    /// The single IPv6 addresses, in no order.
    pub fn v6_singles(&self) -> impl Iterator<Item = u128> {
        self.v6_exact.iter().filter(|slot| slot.class_plus_one != 0).map(|slot| u128::from_be_bytes(slot.address))
    }

    /// The port class of every TCP port, then of UDP's, of SCTP's, and the one of all other protocols.
    pub fn port_class_entries(&self) -> &[u16] {
        &self.port_class
    }

    /// The row of each class for an isolated endpoint's direction; `None` where nothing isolates it, or where no endpoint
    /// stands.
    pub fn rows_of_classes(&self, port: PortIndex, direction: Direction) -> Option<&[u16]> {
        let entry = self.endpoints.get(usize::from(port.0)).filter(|entry| entry.present != 0)?;
        let first = entry.rows[direction as usize];
        (first != NOT_ISOLATED).then(|| &self.row_of_class[first as usize..][..self.classes])
    }

    /// What a row says about a port class.
    pub fn action(&self, row: u16, port_class: usize) -> Action {
        match self.actions[usize::from(row) * self.port_classes + port_class] {
            0 => Action::Deny,
            action => Action::Allow(RuleId(action - 1)),
        }
    }

    /// What all rows say, one after the other, [`Table::port_classes`] words for each: equal words, equal actions.
    pub fn action_words(&self) -> &[u32] {
        &self.actions
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.actions.len() / self.port_classes
    }

    /// Service addresses, ascending.
    pub fn services(&self) -> &[u128] {
        &self.services
    }
}

/// The stretch that ends before `next`, if there is one.
fn same<'t>(visit: &mut impl FnMut(V4Stretch<'t>), first: u32, next: u32, class: Option<u32>) {
    if let Some(class) = class {
        visit(V4Stretch::Same { first, last: next.wrapping_sub(1), class: class as usize });
    }
}

#[cfg(test)]
mod tests {
    use crate::{Table, TableParts, V4Stretch, build_image};
    use sluice_flow::Addr;
    use std::net::IpAddr;

    #[test]
    fn stretches_say_what_lookups_find() {
        let v4_intervals =
            vec![(0, 0), (0x0a00_0000, 1), (0x0a00_0005, 2), (0x0a00_0006, 1), (0x0a01_0100, 3), (0x0a02_0000, 0), (0xffff_ffff, 2)];
        let v6_intervals = vec![(0, 0), (1 << 120, 1), (3 << 119, 0)];
        let parts = TableParts {
            classes: 4,
            v4_intervals,
            v6_intervals,
            v6_exact: vec![(5, 3), (1 << 120, 2)],
            port_classes: 1,
            port_intervals: [vec![(0, 0)], vec![(0, 0)], vec![(0, 0)]],
            rows: vec![vec![crate::Action::Deny]],
            ..TableParts::default()
        };
        let table = Table::from_bytes(&build_image(&parts, 1)).unwrap();
        let mut next = 0u64;
        let mut blocks = 0;
        table.v4_stretches(|stretch| {
            let (first, last, class): (u32, u32, Box<dyn Fn(u32) -> usize>) = match stretch {
                V4Stretch::Same { first, last, class } => (first, last, Box::new(move |_| class)),
                V4Stretch::Each { first, classes } => {
                    blocks += 1;
                    assert_eq!(classes.len(), 256);
                    (first, first + 255, Box::new(move |address| usize::from(classes[(address - first) as usize])))
                }
            };
            assert_eq!(u64::from(first), next, "nothing is left out");
            next = u64::from(last) + 1;
            for address in (first..=last).step_by(if last - first > 255 { 251 } else { 1 }).chain([last]) {
                assert_eq!(table.class_of(Addr::from(IpAddr::from(address.to_be_bytes()))), class(address), "{address:#x}");
            }
        });
        assert_eq!((next, blocks), (1 << 32, 2));
        let mut singles: Vec<u128> = table.v6_singles().collect();
        singles.sort_unstable();
        assert_eq!(singles, [5, 1 << 120]);
        assert_eq!(table.v6_intervals().collect::<Vec<_>>(), [(0, 0), (1 << 120, 1), (3 << 119, 0)]);
    }
}
