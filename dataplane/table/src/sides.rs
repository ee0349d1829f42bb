//! What each direction of each endpoint is judged by, in the form that lookups read.
//!
//! Whoever is not isolated, and who does not stand here at all, has a profile too, of one row and one port: `OPEN` and
//! `CLOSED`. So every lookup takes the same steps, and none of them is a branch that nobody can predict.

use crate::format::{EndpointEntry, Half};
use bytemuck::{Pod, Zeroable};
use sluice_flow::{Direction, PortIndex};

/// A direction of an endpoint, one load of 16 bytes.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(16))]
pub(crate) struct Side(pub(crate) Half);

/// See the module.
#[derive(Debug)]
pub(crate) struct Sides {
    /// Two for each port index, then two for all that lie beyond.
    pub(crate) all: Box<[Side]>,
    /// Port indexes from here on have no entry.
    pub(crate) beyond: u32,
    /// The place in the actions that says: not isolated.
    pub(crate) open_at: u32,
}

impl Sides {
    /// `closed` leads to an action that denies, whatever is asked, `open` to the one at `open_at`.
    pub(crate) fn of(endpoints: &[EndpointEntry], closed: Half, open: Half) -> Self {
        let side = |half: Half| Side(if half.is_isolated() { half } else { open });
        let sides = |entry: &EndpointEntry| if entry.present == 0 { [Side(closed); 2] } else { entry.halves.map(side) };
        let all = endpoints.iter().map(sides).chain([[Side(closed); 2]]).flatten();
        Self { all: all.collect(), beyond: endpoints.len() as u32, open_at: open.actions }
    }

    /// Where a direction of an endpoint stands.
    #[inline(always)]
    pub(crate) fn index(&self, port: PortIndex, direction: Direction) -> usize {
        u32::from(port.0).min(self.beyond) as usize * 2 + direction as usize
    }
}
