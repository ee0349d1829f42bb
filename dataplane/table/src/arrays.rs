//! Plain profiles in memory, in one width of each kind, and the lookup over them.

use crate::addresses::Addresses;
use crate::batch::Query;
use crate::format::{EndpointEntry, Half, SEGMENT, TRIE_BITS};
use crate::memory::{Array, Memory, room};
use crate::sections::{Profiles, Spaces};
use crate::sides::{Side, Sides};
use crate::width::{Large, Small};
use sluice_flow::{Addr, Direction, PortIndex, Verdict};

/// See the module. What [`super::load`] checked is what the `SAFETY` comments of the lookup rest on.
#[derive(Debug)]
pub(crate) struct Arrays<L, S> {
    pub(crate) addresses: Addresses<L, TRIE_BITS>,
    pub(crate) endpoints: Box<[EndpointEntry]>,
    pub(crate) sides: Sides,
    pub(crate) directory: Array<L>,
    pub(crate) segments: Array<S>,
    pub(crate) local_ports: Array<S>,
    pub(crate) actions: Array<L>,
    /// All of the above but the endpoints.
    pub(crate) whole: Array<u8>,
}

impl<L: Large, S: Small> Arrays<L, S> {
    /// The sections in the form that lookups read, all checked.
    pub(crate) fn of(spaces: &Spaces<'_, L>, endpoints: Box<[EndpointEntry]>, profiles: &Profiles<'_, L, S>, sizes: [usize; 2]) -> Self {
        let [classes, port_classes] = sizes;
        let Profiles { directory, segments, local_ports, actions } = profiles;
        // one profile for all that need none: its only row has two actions, and no step away from the first
        let closed =
            Half { directory: directory.len() as u32, ports: local_ports.len() as u32, actions: actions.len() as u32, ..Half::OPEN };
        let open = Half { actions: closed.actions + 1, ..closed };
        let directory: [&[L]; 2] = [directory, &vec![L::write(0); classes.div_ceil(SEGMENT)]];
        let local_ports: [&[S]; 2] = [local_ports, &vec![S::write(0); port_classes]];
        let actions: [&[L]; 2] = [actions, &[L::write(0); 2]];
        let segments: [&[S]; 2] = [segments, if segments.is_empty() { &[S::ZERO; SEGMENT] } else { &[] }];
        let own = room(&directory) + room(&segments) + room(&local_ports) + room(&actions);
        let memory = &mut Memory::of(own + Addresses::<L, TRIE_BITS>::room(spaces) + Sides::room(&endpoints));
        Self {
            addresses: Addresses::of(spaces, memory),
            sides: Sides::of(&endpoints, closed, open, false, memory),
            endpoints,
            directory: memory.place(&directory),
            segments: memory.place(&segments),
            local_ports: memory.place(&local_ports),
            actions: memory.place(&actions),
            whole: memory.whole(),
        }
    }

    /// See [`crate::Table::lookup`].
    #[inline(always)]
    pub(crate) fn lookup(&self, query: &Query) -> Verdict {
        let side = self.side(query.port, query.direction);
        let class = self.addresses.class_of(query.remote);
        let port_class = self.addresses.port_class_of(query.protocol, query.dport);
        // Each load waits for the one before it, so that every step between them counts: what is known earlier is added
        // to the place where an array begins, not to the index that comes late.
        // SAFETY: each side has a directory entry for every 32 classes, and classes are below their number.
        let segment = unsafe { read_from(&self.directory, side.directory as usize, class / SEGMENT) }.read();
        // SAFETY: every directory entry is a segment, and a segment has a row for each of its classes.
        let row = unsafe { read_from(&self.segments, class % SEGMENT, segment * SEGMENT) }.read();
        // SAFETY: each side has a local port for every port class.
        let local_port = unsafe { read(&self.local_ports, side.ports as usize + port_class) }.read();
        let first_row = side.actions as usize + local_port;
        // SAFETY: each row that a side's segments name has `stride` actions, and its local ports are below that.
        let action = unsafe { read_from(&self.actions, first_row, row * side.stride as usize) }.read();
        // the place for who is not isolated is in the first row, which is the only one there: known before the row is
        self.sides.verdict(first_row, action)
    }

    /// See [`crate::Table::denies_all`].
    pub(crate) fn denies_all(&self, port: PortIndex, direction: Direction, remote: Addr) -> bool {
        let (side, class) = (self.side(port, direction), self.addresses.class_of(remote));
        let segment = self.directory[side.directory as usize + class / SEGMENT].read();
        let row = self.segments[class % SEGMENT + segment * SEGMENT].read();
        let first = action_at(side, row, 0);
        side.actions != self.sides.open_at && self.actions[first..][..(side.stride as usize).max(1)].iter().all(|action| action.read() == 0)
    }

    #[inline(always)]
    pub(crate) fn side(&self, port: PortIndex, direction: Direction) -> &Side {
        // SAFETY: the index is at most that of the last two sides.
        unsafe { self.sides.all.get_unchecked(self.sides.index(port, direction)) }
    }
}

/// Where an action stands.
#[inline(always)]
pub(crate) fn action_at(side: &Side, row: usize, local_port: usize) -> usize {
    side.actions as usize + row * side.stride as usize + local_port
}

/// # Safety
/// `at` is below the length.
#[inline(always)]
pub(crate) unsafe fn read<T: Copy>(entries: &[T], at: usize) -> T {
    debug_assert!(at < entries.len(), "{at} of {}", entries.len());
    // SAFETY: the caller's promise.
    *unsafe { entries.get_unchecked(at) }
}

/// The entry that stands `at` behind the one at `first`.
///
/// # Safety
/// Their sum is below the length.
#[inline(always)]
pub(crate) unsafe fn read_from<T: Copy>(entries: &[T], first: usize, at: usize) -> T {
    debug_assert!(first + at < entries.len(), "{first} + {at} of {}", entries.len());
    // SAFETY: the caller's promise.
    let rest = unsafe { entries.get_unchecked(first..) };
    // SAFETY: the caller's promise.
    *unsafe { rest.get_unchecked(at) }
}
