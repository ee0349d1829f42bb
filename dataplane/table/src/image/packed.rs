//! Actions of profiles → variants of groups of ports.

use super::runs::Runs;
use crate::format::CHUNK;
use crate::parts::ProfileParts;
use ahash::RandomState;
use std::collections::HashMap;

type Chunk = [u16; CHUNK];

/// Everything before it is written in some width.
#[derive(Debug, Default)]
pub(super) struct Packed {
    pub(super) port_chunks: Runs<u32>,
    pub(super) local_ports: Runs<Chunk>,
    pub(super) variants: Runs<u16>,
    pub(super) bases: Runs<u32>,
    pub(super) ranks: Runs<Chunk>,
    pub(super) palettes: Runs<u32>,
    /// The highest local port, variant or rank.
    pub(super) small_max: usize,
    /// Of each profile where its parts begin.
    pub(super) tails: Vec<PackedTail>,
    /// By action its rank in the palette at hand, [`UNRANKED`] for others.
    rank_of: Vec<u16>,
}

/// Where a profile's parts begin, see [`crate::format::Half`].
#[derive(Debug, Clone, Copy)]
pub(super) struct PackedTail {
    pub(super) ports: u32,
    pub(super) variants: u32,
    pub(super) groups: u32,
    pub(super) bases: u32,
    pub(super) palette: u32,
}

const UNRANKED: u16 = u16::MAX;

impl Packed {
    /// `None` where a profile has more actions than ranks can number.
    pub(super) fn of(profiles: &[ProfileParts]) -> Option<Self> {
        let mut packed = Self::default();
        profiles.iter().try_for_each(|profile| packed.add(profile))?;
        Some(packed)
    }

    fn add(&mut self, ProfileParts { ports, stride, actions, .. }: &ProfileParts) -> Option<()> {
        let chunks: Vec<u32> = ports.chunks(CHUNK).map(|ports| self.local_ports.place(&[chunk(ports.iter().copied())])).collect();
        let mut palette: Vec<u32> = Vec::new();
        for action in actions {
            let action = action.encode();
            if self.rank_of.len() <= action as usize {
                self.rank_of.resize(action as usize + 1, UNRANKED);
            }
            let rank = &mut self.rank_of[action as usize];
            if *rank == UNRANKED {
                *rank = 0;
                palette.push(action);
            }
        }
        if palette.len() >= usize::from(UNRANKED) {
            return None;
        }
        palette.sort_unstable();
        (0..).zip(&palette).for_each(|(rank, &action)| self.rank_of[action as usize] = rank);

        let groups = stride.div_ceil(CHUNK);
        let mut known: Vec<HashMap<Chunk, u16, RandomState>> = Vec::new();
        known.resize_with(groups, HashMap::default);
        let mut lists: Vec<Vec<Chunk>> = vec![Vec::new(); groups];
        let mut variants: Vec<u16> = Vec::with_capacity(actions.len() / stride * groups);
        for row in actions.chunks(*stride) {
            for ((group, known), list) in row.chunks(CHUNK).zip(&mut known).zip(&mut lists) {
                let ranks = chunk(group.iter().map(|action| self.rank_of[action.encode() as usize]));
                let variant = *known.entry(ranks).or_insert_with(|| {
                    list.push(ranks);
                    list.len() as u16 - 1
                });
                variants.push(variant);
                self.small_max = self.small_max.max(usize::from(variant));
            }
        }
        self.small_max = self.small_max.max(stride - 1).max(palette.len().saturating_sub(1));
        let bases: Vec<u32> = lists.iter().map(|list| self.ranks.place(list)).collect();
        palette.iter().for_each(|&action| self.rank_of[action as usize] = UNRANKED);
        let tail = PackedTail {
            ports: self.port_chunks.place(&chunks),
            variants: self.variants.place(&variants),
            groups: groups as u32,
            bases: self.bases.place(&bases),
            palette: self.palettes.place(&palette),
        };
        self.tails.push(tail);
        Some(())
    }
}

/// Filled up with zeros.
fn chunk(numbers: impl Iterator<Item = u16>) -> Chunk {
    let mut chunk = [0; CHUNK];
    chunk.iter_mut().zip(numbers).for_each(|(slot, number)| *slot = number);
    chunk
}
