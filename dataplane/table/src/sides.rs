//! What each direction of each endpoint is judged by, in the form that lookups read.
//!
//! Whoever is not isolated, and who does not stand here at all, has a profile too, of one row and one port: `OPEN` and
//! `CLOSED`. So every lookup takes the same steps, and none of them is a branch that nobody can predict.

use crate::format::{EndpointEntry, Half};
use crate::memory::{Array, Memory};
use bytemuck::{Pod, Zeroable};
use sluice_flow::{Direction, PortIndex, Verdict};
use std::hint::select_unpredictable;
use std::mem::transmute;

/// A direction of an endpoint, one load of 16 bytes; see [`Half`].
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(16))]
pub(crate) struct Side {
    pub(crate) directory: u32,
    pub(crate) ports: u32,
    pub(crate) actions: u32,
    pub(crate) stride: u32,
}

/// What a packed profile has besides, see [`Half`].
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Tail {
    pub(crate) bases: u32,
    pub(crate) palette: u32,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Sides {
    /// Two for each port index, then two for all that lie beyond.
    pub(crate) all: Array<Side>,
    /// One for each of them; none where profiles are plain.
    pub(crate) tails: Array<Tail>,
    /// Port indexes from here on have no entry.
    pub(crate) beyond: u32,
    /// The place in the actions, or variants, that says: not isolated.
    pub(crate) open_at: u32,
}

impl Sides {
    /// Bytes that [`Self::of`] places at most.
    pub(crate) fn room(endpoints: &[EndpointEntry]) -> usize {
        (2 * (endpoints.len() + 1) * (size_of::<Side>() + size_of::<Tail>())).next_multiple_of(64) + 64
    }

    /// `closed` leads to an action that denies, whatever is asked, `open` to the one at `open.actions`.
    pub(crate) fn of(endpoints: &[EndpointEntry], closed: Half, open: Half, packed: bool, memory: &mut Memory) -> Self {
        let half = |half: Half| if half.is_isolated() { half } else { open };
        let halves = |entry: &EndpointEntry| if entry.present == 0 { [closed; 2] } else { entry.halves.map(half) };
        let all: Vec<Half> = endpoints.iter().map(halves).chain([[closed; 2]]).flatten().collect();
        let tail = |&Half { bases, palette, .. }: &Half| Tail { bases, palette };
        let side = |&Half { directory, ports, actions, stride, .. }: &Half| Side { directory, ports, actions, stride };
        let tails: Vec<Tail> = if packed { all.iter().map(tail).collect() } else { Vec::new() };
        Self {
            all: memory.place(&[&all.iter().map(side).collect::<Vec<Side>>()]),
            tails: memory.place(&[&tails]),
            beyond: endpoints.len() as u32,
            open_at: open.actions,
        }
    }

    /// Where a direction of an endpoint stands.
    #[inline(always)]
    pub(crate) fn index(&self, port: PortIndex, direction: Direction) -> usize {
        u32::from(port.0).min(self.beyond) as usize * 2 + direction as usize
    }

    /// What the action at a place says.
    /// Without a branch: no two packets need have the same verdict.
    #[inline(always)]
    pub(crate) fn verdict(&self, at: usize, action: usize) -> Verdict {
        let nothing = select_unpredictable(at == self.open_at as usize, 0, 2);
        let which: u32 = select_unpredictable(action == 0, nothing, 1);
        // SAFETY: `Verdict` promises this form: its variants are 0, 1 and 2, and after 1 comes the rule.
        unsafe { transmute::<[u32; 2], Verdict>([which, (action as u32).wrapping_sub(1)]) }
    }
}
