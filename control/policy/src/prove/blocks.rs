//! The addresses of one family that pods claim, and its sweep, 256 addresses at a time.
//!
//! What a sweep of such a block finds depends on the units of its addresses, which only this side changes, and on the
//! classes that the table gives them. Of those there is a copy here, taken from the table that was swept: where the next
//! table's are the same in every byte, so is what was found.

use super::expected::UnitId;
use super::regions::address_of;
use super::sweep::Found;
use sluice_table::{Table, V4Stretch};
use std::collections::BTreeMap;

const BLOCK: usize = 256;

/// See the module. Addresses are numbers of the family.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// By all but the last byte.
    blocks: BTreeMap<u128, Block>,
    len: usize,
}

#[derive(Debug, Default)]
struct Block {
    /// The lowest byte of each claimed address, ascending, with its unit.
    claimed: Vec<(u8, UnitId)>,
    swept: Option<Swept>,
}

/// What a sweep found in a block.
#[derive(Debug)]
struct Swept {
    classes: Box<[u32]>,
    /// Each change along the addresses: the lowest byte of the first one, and what it has.
    found: Vec<(u8, UnitId, u32)>,
}

impl Blocks {
    /// How many addresses are claimed.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The unit of an address from now on; `None` where no pod claims it.
    pub(super) fn put(&mut self, address: u128, unit: Option<UnitId>) {
        let block = self.blocks.entry(address >> 8).or_default();
        block.swept = None;
        self.len -= block.claimed.len();
        match (block.position(address), unit) {
            (Ok(at), Some(unit)) => block.claimed[at].1 = unit,
            (Ok(at), None) => drop(block.claimed.remove(at)),
            (Err(at), Some(unit)) => block.claimed.insert(at, (address as u8, unit)),
            (Err(_), None) => {}
        }
        self.len += block.claimed.len();
        if block.claimed.is_empty() {
            self.blocks.remove(&(address >> 8));
        }
    }

    fn claims(&self, address: u128) -> bool {
        let block = self.blocks.get(&(address >> 8));
        block.is_some_and(|block| block.position(address).is_ok())
    }

    /// Meets every unit of IPv4 with every class that the table gives an address of it. `pieces`: where the regions' pieces
    /// begin, ascending from 0, and the units of their unclaimed addresses, the same at every call.
    pub(super) fn sweep_v4(&mut self, table: &Table, pieces: &[(u128, UnitId)], found: &mut Found) {
        let mut pieces = Pieces { pieces, at: 0 };
        let mut blocks = self.blocks.iter_mut().peekable();
        table.v4_stretches(|stretch| match stretch {
            V4Stretch::Same { first, last, class } => {
                let mut inside: Vec<(u128, &Block)> = Vec::new();
                while let Some((&number, block)) = blocks.next_if(|(number, _)| **number <= u128::from(last >> 8)) {
                    inside.push((number, block));
                }
                sweep_one_class(first.into(), last.into(), class, &inside, &mut pieces, found);
            }
            V4Stretch::Each { first, classes } => {
                let block = blocks.next_if(|(number, _)| **number == u128::from(first >> 8)).map(|(_, block)| block);
                block.unwrap_or(&mut Block::default()).meet(false, first.into(), classes, &mut pieces, found);
            }
        });
    }

    /// The same of IPv6 for all addresses that the table does not find by intervals.
    pub(super) fn sweep_v6(&mut self, table: &Table, pieces: &[(u128, UnitId)], found: &mut Found) {
        let mut walk = Pieces { pieces, at: 0 };
        let (mut apart, mut in_blocks) = (Vec::new(), Vec::new());
        let mut blocks = self.blocks.iter_mut().peekable();
        table.v6_blocks(|first, classes| {
            while let Some((&number, block)) = blocks.next_if(|(number, _)| **number < first >> 8) {
                apart.extend(block.claimed(number));
            }
            let block = blocks.next_if(|(number, _)| **number == first >> 8).map(|(_, block)| block);
            block.unwrap_or(&mut Block::default()).meet(true, first, classes, &mut walk, found);
            in_blocks.push(first >> 8);
        });
        blocks.for_each(|(&number, block)| apart.extend(block.claimed(number)));
        let mut met = 0;
        for (address, unit) in apart {
            let single = table.v6_single(address);
            met += usize::from(single.is_some());
            found.add(unit, single.unwrap_or_else(|| table.v6_class(address)), || address_of(address, true));
        }
        // each was met in an entry of its own, so as many as there are leave none unmet
        if met < table.v6_singles().count() {
            let unmet = |address: &u128| !self.claims(*address) && in_blocks.binary_search(&(address >> 8)).is_err();
            for address in table.v6_singles().filter(unmet) {
                let unit = pieces[pieces.partition_point(|(first, _)| *first <= address) - 1].1;
                found.add(unit, table.v6_class(address), || address_of(address, true));
            }
        }
    }
}

/// Meets what has an IPv4 address between the two with the class that all of them have. `blocks`: those that lie there, by
/// number.
fn sweep_one_class(first: u128, last: u128, class: usize, blocks: &[(u128, &Block)], pieces: &mut Pieces<'_>, found: &mut Found) {
    let claimed = || blocks.iter().flat_map(|&(number, block)| block.claimed(number));
    for (address, unit) in claimed() {
        found.add(unit, class, || address_of(address, false));
    }
    pieces.within(first, last, |first, last, unit| {
        // a piece counts where an address of it is left, be it one
        let mut free = first;
        for (address, _) in claimed().skip_while(|claimed| claimed.0 < first) {
            if free != address {
                break;
            }
            free = address + 1;
        }
        if free <= last {
            found.add(unit, class, || address_of(free, false));
        }
    });
}

impl Block {
    /// Where a claimed address is, or would be.
    fn position(&self, address: u128) -> Result<usize, usize> {
        self.claimed.binary_search_by_key(&(address as u8), |claimed| claimed.0)
    }

    /// The claimed addresses of the block of that number, ascending, with their units.
    fn claimed(&self, number: u128) -> impl Iterator<Item = (u128, UnitId)> {
        self.claimed.iter().map(move |&(low, unit)| (number << 8 | u128::from(low), unit))
    }

    /// Meets the unit of each address with its class, from memory where these are the classes that were swept.
    fn meet(&mut self, v6: bool, first: u128, classes: &[u32], pieces: &mut Pieces<'_>, found: &mut Found) {
        let swept = match self.swept.take() {
            Some(swept) if *swept.classes == *classes => swept,
            other => self.sweep(first, classes, pieces, other.map(|swept| swept.found)),
        };
        for &(low, unit, class) in &swept.found {
            found.add(unit, class as usize, || address_of(first | u128::from(low), v6));
        }
        self.swept = Some(swept);
    }

    /// `room`: a list that is not needed any more.
    fn sweep(&mut self, first: u128, classes: &[u32], pieces: &mut Pieces<'_>, room: Option<Vec<(u8, UnitId, u32)>>) -> Swept {
        let mut units = [0; BLOCK];
        pieces.within(first, first | 0xff, |from, to, unit| units[(from - first) as usize..=(to - first) as usize].fill(unit));
        for &(low, unit) in &self.claimed {
            units[usize::from(low)] = unit;
        }
        let mut found = room.unwrap_or_default();
        found.clear();
        let (mut last_unit, mut last_class) = (!units[0], 0);
        for (low, (&unit, &class)) in (0u8..=u8::MAX).zip(units.iter().zip(classes)) {
            if (unit ^ last_unit) | (class ^ last_class) != 0 {
                (last_unit, last_class) = (unit, class);
                found.push((low, unit, class));
            }
        }
        found.shrink_to_fit();
        Swept { classes: classes.into(), found }
    }
}

/// A walk along the regions' pieces.
struct Pieces<'p> {
    pieces: &'p [(u128, UnitId)],
    at: usize,
}

impl Pieces<'_> {
    /// The parts of pieces from `first` to `last`, no lower than those of the call before.
    fn within(&mut self, first: u128, last: u128, mut visit: impl FnMut(u128, u128, UnitId)) {
        while self.pieces.get(self.at + 1).is_some_and(|next| next.0 <= first) {
            self.at += 1;
        }
        let mut from = first;
        loop {
            let next = self.pieces.get(self.at + 1).map(|piece| piece.0).filter(|&next| next <= last);
            visit(from, next.map_or(last, |next| next - 1), self.pieces[self.at].1);
            let Some(next) = next else { return };
            (from, self.at) = (next, self.at + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_table::{TableParts, build_image};
    use std::collections::{BTreeSet, HashMap};

    fn table(v4_intervals: &[(u32, u32)]) -> Table {
        let parts = TableParts { classes: 8, v4_intervals: v4_intervals.to_vec(), v6_intervals: vec![(0, 0)], ..TableParts::default() };
        Table::from_bytes(&build_image(&parts, 1)).unwrap()
    }

    /// All combinations, address by address where something begins or ends, which is where they change.
    fn slowly(table: &Table, pieces: &[(u128, UnitId)], claimed: &HashMap<u32, UnitId>, edges: &[u32]) -> BTreeSet<(UnitId, usize)> {
        let around = edges.iter().flat_map(|edge| (0..600).map(move |step| edge.saturating_sub(300).saturating_add(step)));
        let mut asked: BTreeSet<u32> = around.collect();
        asked.extend([0, u32::MAX]);
        let of_piece = |address: u32| pieces[pieces.partition_point(|piece| piece.0 <= address.into()) - 1].1;
        let unit = |address: &u32| claimed.get(address).copied().unwrap_or_else(|| of_piece(*address));
        asked.iter().map(|address| (unit(address), table.class_of(std::net::IpAddr::from(address.to_be_bytes()).into()))).collect()
    }

    #[test]
    fn a_sweep_finds_what_asking_every_address_finds_whatever_was_swept_before() {
        let at = |third: u32, low: u32| 0x0a00_0000 | third << 8 | low;
        // a /32 with a pod on it, one without, a /24 full of pods, and pieces that end in the middle of a block
        let pieces: [(u32, UnitId); 10] = [
            (0, 1),
            (at(1, 0), 2),
            (at(1, 7), 3),
            (at(1, 8), 2),
            (at(1, 9), 4),
            (at(1, 10), 2),
            (at(3, 0), 5),
            (at(4, 0), 1),
            (at(9, 128), 6),
            (u32::MAX, 7),
        ];
        let pieces = pieces.map(|(first, unit)| (u128::from(first), unit));
        let edges: Vec<u32> = pieces.iter().map(|piece| piece.0 as u32).chain([at(200, 0), at(0, 77)]).collect();
        let tables = [
            table(&[(0, 0)]),
            table(&[(0, 0), (at(1, 5), 1), (at(1, 8), 2), (at(3, 0), 3), (at(4, 0), 0)]),
            table(&[(0, 0), (at(1, 5), 1), (at(1, 9), 2), (at(3, 9), 3), (at(4, 0), 0), (u32::MAX, 5)]),
            table(&[(0, 4), (at(9, 128), 1)]),
        ];
        let (mut blocks, mut claimed) = (Blocks::default(), HashMap::new());
        let put = |blocks: &mut Blocks, claimed: &mut HashMap<u32, UnitId>, address, unit: Option<UnitId>| {
            blocks.put(u128::from(address), unit);
            match unit {
                Some(unit) => drop(claimed.insert(address, unit)),
                None => drop(claimed.remove(&address)),
            }
            assert_eq!(blocks.len(), claimed.len());
        };
        (0..256).for_each(|low| put(&mut blocks, &mut claimed, at(3, low), Some(20 + low % 3)));
        put(&mut blocks, &mut claimed, at(1, 7), Some(30));
        put(&mut blocks, &mut claimed, 0, Some(31));
        let edits = [
            (at(1, 9), Some(40)),
            (at(3, 255), None),
            (at(200, 3), Some(41)),
            (u32::MAX, Some(42)),
            (at(1, 7), None),
            (at(200, 3), None),
            (at(3, 0), Some(43)),
            (at(1, 9), Some(44)),
        ];
        for (step, table) in tables.iter().cycle().take(24).enumerate() {
            // each table is met twice: with the blocks as they were, and after an edit
            for edit in [None, edits.get(step / 3).copied()].into_iter().skip(usize::from(step % 3 != 0)) {
                edit.into_iter().for_each(|(address, unit)| put(&mut blocks, &mut claimed, address, unit));
                let mut found = Found::new(100);
                blocks.sweep_v4(table, &pieces, &mut found);
                let pairs: BTreeSet<(UnitId, usize)> = found.pairs.iter().map(|pair| (pair.unit, pair.class)).collect();
                assert_eq!(pairs, slowly(table, &pieces, &claimed, &edges), "{step} {edit:?}");
                for pair in &found.pairs {
                    assert_eq!(table.class_of(pair.address.into()), pair.class, "an address to show");
                }
            }
        }
    }
}
