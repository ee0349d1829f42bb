//! A sorted list in pieces: read in order like a slice, changed in one place without moving the rest.

use std::iter::Flatten;
use std::slice::Iter;

/// A piece that grows beyond twice this is cut.
const PIECE: usize = 512;

/// Numbers by key, ascending; no piece is empty.
#[derive(Debug, Clone)]
pub(super) struct Sorted<K> {
    pieces: Vec<Vec<(K, u32)>>,
}

impl<K> Default for Sorted<K> {
    fn default() -> Self {
        Self { pieces: Vec::new() }
    }
}

impl<K: Ord + Copy> Sorted<K> {
    /// `entries`: strictly ascending.
    pub(super) fn from_ascending(entries: &[(K, u32)]) -> Self {
        debug_assert!(entries.is_sorted_by(|one, other| one.0 < other.0));
        Self { pieces: entries.chunks(PIECE).map(<[_]>::to_vec).collect() }
    }

    pub(super) fn len(&self) -> usize {
        self.pieces.iter().map(Vec::len).sum()
    }

    pub(super) fn iter(&self) -> Flatten<Iter<'_, Vec<(K, u32)>>> {
        self.pieces.iter().flatten()
    }

    /// The piece that holds `key`, or would.
    fn piece(&self, key: K) -> usize {
        self.pieces.partition_point(|piece| piece[0].0 <= key).saturating_sub(1)
    }

    pub(super) fn get(&self, key: K) -> Option<u32> {
        let piece = self.pieces.get(self.piece(key))?;
        piece.binary_search_by_key(&key, |entry| entry.0).ok().map(|at| piece[at].1)
    }

    /// The entries from `first` to `last`.
    pub(super) fn between(&self, first: K, last: K) -> impl Iterator<Item = &(K, u32)> {
        let pieces = self.pieces[self.piece(first).min(self.pieces.len())..].iter().flatten();
        pieces.skip_while(move |entry| entry.0 < first).take_while(move |entry| entry.0 <= last)
    }

    /// The last entry up to `key`.
    pub(super) fn floor(&self, key: K) -> Option<(K, u32)> {
        let piece = self.pieces.get(self.piece(key))?;
        piece[..piece.partition_point(|entry| entry.0 <= key)].last().copied()
    }

    /// The first entry behind `key`.
    pub(super) fn after(&self, key: K) -> Option<(K, u32)> {
        let index = self.piece(key);
        let piece = self.pieces.get(index)?;
        let own = piece.get(piece.partition_point(|entry| entry.0 <= key));
        own.or_else(|| self.pieces.get(index + 1)?.first()).copied()
    }

    /// Puts a number, or takes it away. Returns the one before.
    pub(super) fn set(&mut self, key: K, value: Option<u32>) -> Option<u32> {
        let index = self.piece(key);
        let Some(piece) = self.pieces.get_mut(index) else {
            self.pieces.extend(value.map(|value| vec![(key, value)]));
            return None;
        };
        let found = piece.binary_search_by_key(&key, |entry| entry.0);
        let before = found.ok().map(|at| piece[at].1);
        match (found, value) {
            (Ok(at), Some(value)) => piece[at].1 = value,
            (Ok(at), None) => drop(piece.remove(at)),
            (Err(at), Some(value)) => piece.insert(at, (key, value)),
            (Err(_), None) => {}
        }
        if piece.is_empty() {
            self.pieces.remove(index);
        } else if piece.len() > 2 * PIECE {
            let rest = piece.split_off(PIECE);
            self.pieces.insert(index + 1, rest);
        }
        before
    }
}

impl<'a, K> IntoIterator for &'a Sorted<K> {
    type Item = &'a (K, u32);
    type IntoIter = Flatten<Iter<'a, Vec<(K, u32)>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.pieces.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn it_says_what_a_map_says() {
        let (mut sorted, mut map, mut seed) = (Sorted::default(), BTreeMap::new(), 1u64);
        for round in 0..30_000u32 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let key = (seed >> 33) % 5000;
            // it grows at first, and dwindles at last
            let value = ((seed >> 20) % 30_000 > u64::from(round)).then_some(round);
            let before = match value {
                Some(value) => map.insert(key, value),
                None => map.remove(&key),
            };
            assert_eq!(sorted.set(key, value), before);
            assert_eq!(sorted.get(key), map.get(&key).copied());
            let of = |entry: (&u64, &u32)| (*entry.0, *entry.1);
            assert_eq!(sorted.floor(key + 1), map.range(..=key + 1).next_back().map(of));
            assert_eq!(sorted.after(key), map.range(key + 1..).next().map(of));
            if round % 997 == 0 {
                assert!(sorted.iter().copied().eq(map.iter().map(|(&key, &value)| (key, value))));
                assert_eq!(sorted.len(), map.len());
                let between = map.range(key..=key + 700).map(|(&key, &value)| (key, value));
                assert!(sorted.between(key, key + 700).copied().eq(between));
            }
        }
        let entries: Vec<(u64, u32)> = map.into_iter().collect();
        assert!(Sorted::from_ascending(&entries).iter().eq(&sorted));
    }
}
