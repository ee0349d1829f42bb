//! Many lookups at once: each step of all of them before the next step of any, and what a step will read is asked for one
//! step earlier, so that the loads of a batch wait for memory together.

use crate::arrays::{Arrays, port_index, read, verdict_of};
use crate::format::{Half, PAGE, SEGMENT};
use crate::table::{Table, with_arrays};
use crate::width::{Large, Small};
use sluice_flow::{Addr, Direction, PortIndex, Protocol, Verdict};

/// What a lookup is asked, see [`Table::lookup`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Query {
    /// The other end.
    pub remote: Addr,
    /// Whose policy.
    pub port: PortIndex,
    /// Destination port; 0 for protocols without.
    pub dport: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// Which of its policies.
    pub direction: Direction,
}

/// Lookups that are under way together.
const TOGETHER: usize = 32;

impl Table {
    /// [`Table::lookup`] for each query, in order.
    ///
    /// Cost: about that of single lookups while the table is in the nearest caches, less where it is not; see
    /// `make bench-lookup`. Panics where the lengths differ.
    pub fn lookup_batch(&self, queries: &[Query], verdicts: &mut [Verdict]) {
        assert_eq!(queries.len(), verdicts.len(), "a verdict for each query");
        with_arrays!(&self.body, arrays => {
            for (queries, verdicts) in queries.chunks(TOGETHER).zip(verdicts.chunks_mut(TOGETHER)) {
                together(arrays, queries, verdicts);
            }
        });
    }
}

/// A lookup under way.
#[derive(Clone, Copy)]
struct Step<'t> {
    half: &'t Half,
    /// First where its port class is, then its local port.
    port: u32,
    /// First its class, then its segment's row, then its action.
    address: u32,
    /// What is said whatever the action is.
    fixed: Option<Verdict>,
}

#[inline(always)]
fn together<L: Large, S: Small>(arrays: &Arrays<L, S>, queries: &[Query], verdicts: &mut [Verdict]) {
    // Whoever is not isolated, or unknown, takes the same steps with somebody else's profile, and what comes out is not
    // used: a step that some lookups leave out is a branch that nobody can predict.
    let Some(anybody) = &arrays.anybody else {
        return verdicts.iter_mut().zip(queries).for_each(|(verdict, query)| *verdict = arrays.lookup(query));
    };
    let mut steps = [Step { half: anybody, port: 0, address: 0, fixed: None }; TOGETHER];
    let steps = &mut steps[..queries.len()];
    for (step, query) in steps.iter_mut().zip(queries) {
        if let Some(half) = arrays.half(query.port, query.direction) {
            step.fixed = if half.is_isolated() { None } else { Some(Verdict::NotIsolated) };
            step.half = if half.is_isolated() { half } else { anybody };
        } else {
            step.fixed = Some(Verdict::Deny);
        }
        // SAFETY: as in `Arrays::port_class_of`.
        let page = unsafe { read(&arrays.port_pages, port_index(query.protocol, query.dport) / PAGE) };
        step.port = u32::from(page) * PAGE as u32 + u32::from(query.dport) % PAGE as u32;
        prefetch(&arrays.port_class, step.port as usize);
        arrays.prefetch_class(query.remote);
    }
    for (step, query) in steps.iter_mut().zip(queries) {
        let class = arrays.class_of(query.remote);
        step.address = class as u32;
        prefetch(&arrays.directory, step.half.directory as usize + class / SEGMENT);
        // SAFETY: validation: a page has 256 classes.
        let port_class = usize::from(unsafe { read(&arrays.port_class, step.port as usize) });
        step.port = step.half.ports + port_class as u32;
        prefetch(&arrays.local_ports, step.port as usize);
    }
    for step in steps.iter_mut() {
        let class = step.address as usize;
        // SAFETY: as in `Arrays::action`.
        let segment = unsafe { read(&arrays.directory, step.half.directory as usize + class / SEGMENT) }.read();
        step.address = (segment * SEGMENT + class % SEGMENT) as u32;
        prefetch(&arrays.segments, step.address as usize);
    }
    for step in steps.iter_mut() {
        // SAFETY: as in `Arrays::action`.
        let row = unsafe { read(&arrays.segments, step.address as usize) }.read();
        // SAFETY: as in `Arrays::action`.
        let local_port = unsafe { read(&arrays.local_ports, step.port as usize) }.read();
        step.address = step.half.actions + row as u32 * step.half.stride + local_port as u32;
        prefetch(&arrays.actions, step.address as usize);
    }
    for (step, verdict) in steps.iter().zip(verdicts) {
        // SAFETY: as in `Arrays::action`.
        let action = unsafe { read(&arrays.actions, step.address as usize) }.read();
        *verdict = step.fixed.unwrap_or_else(|| verdict_of(action));
    }
}

impl<L: Large, S: Small> Arrays<L, S> {
    /// Asks for the first thing that [`Arrays::class_of`] reads.
    #[inline(always)]
    fn prefetch_class(&self, remote: Addr) {
        match remote.to_v4() {
            Some(v4) => {
                prefetch(&self.v4_flat, v4.wrapping_sub(self.flat_first) as usize);
                prefetch(&self.v4_l1, (v4 >> 16) as usize);
            }
            None => prefetch(&self.v6_block_slots, crate::format::v6_slot(remote.to_u128() >> 8, self.v6_block_slots.len())),
        }
    }
}

/// Asks for an entry to be brought near. Any index will do: nothing is read.
#[inline(always)]
fn prefetch<T>(entries: &[T], at: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(entries.as_ptr().wrapping_add(at).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (entries, at);
}
