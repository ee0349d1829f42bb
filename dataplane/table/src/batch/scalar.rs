//! Each step of all lookups before the next step of any, and what a step will read is asked for one step earlier, so that
//! the loads of a batch wait for memory together.

use super::Query;
use crate::addresses::{Addresses, port_index};
use crate::arrays::{Arrays, action_at, read};
use crate::format::SEGMENT;
use crate::sides::Side;
use crate::width::{Large, Small};
use sluice_flow::{Addr, Verdict};

/// Lookups that are under way together.
const TOGETHER: usize = 32;

/// See [`super::Table::lookup_batch`]; as many verdicts as queries.
pub(super) fn lookup<L: Large, S: Small>(arrays: &Arrays<L, S>, queries: &[Query], verdicts: &mut [Verdict]) {
    for (queries, verdicts) in queries.chunks(TOGETHER).zip(verdicts.chunks_mut(TOGETHER)) {
        together(arrays, queries, verdicts);
    }
}

/// A lookup under way.
#[derive(Clone, Copy)]
struct Step<'t> {
    side: &'t Side,
    /// First where its port class is, then its local port.
    port: u32,
    /// First its class, then its segment's row, then its action.
    address: u32,
}

#[inline(always)]
fn together<L: Large, S: Small>(arrays: &Arrays<L, S>, queries: &[Query], verdicts: &mut [Verdict]) {
    let mut steps = [Step { side: &arrays.sides.all[0], port: 0, address: 0 }; TOGETHER];
    let steps = &mut steps[..queries.len()];
    for (step, query) in steps.iter_mut().zip(queries) {
        step.side = arrays.side(query.port, query.direction);
        step.port = port_index(query.protocol, query.dport) as u32;
        prefetch(&arrays.addresses.port_class, step.port as usize);
        arrays.addresses.prefetch_class(query.remote);
    }
    for (step, query) in steps.iter_mut().zip(queries) {
        let class = arrays.addresses.class_of(query.remote);
        step.address = class as u32;
        prefetch(&arrays.directory, step.side.directory as usize + class / SEGMENT);
        // SAFETY: as in `Addresses::port_class_of`.
        let port_class = usize::from(unsafe { read(&arrays.addresses.port_class, step.port as usize) });
        step.port = step.side.ports + port_class as u32;
        prefetch(&arrays.local_ports, step.port as usize);
    }
    for step in steps.iter_mut() {
        let class = step.address as usize;
        // SAFETY: as in `Arrays::lookup`.
        let segment = unsafe { read(&arrays.directory, step.side.directory as usize + class / SEGMENT) }.read();
        step.address = (segment * SEGMENT + class % SEGMENT) as u32;
        prefetch(&arrays.segments, step.address as usize);
    }
    for step in steps.iter_mut() {
        // SAFETY: as in `Arrays::lookup`.
        let row = unsafe { read(&arrays.segments, step.address as usize) }.read();
        // SAFETY: as in `Arrays::lookup`.
        let local_port = unsafe { read(&arrays.local_ports, step.port as usize) }.read();
        step.address = action_at(step.side, row, local_port) as u32;
        prefetch(&arrays.actions, step.address as usize);
    }
    for (step, verdict) in steps.iter().zip(verdicts) {
        // SAFETY: as in `Arrays::lookup`.
        let action = unsafe { read(&arrays.actions, step.address as usize) }.read();
        *verdict = arrays.sides.verdict(step.address as usize, action);
    }
}

impl<L: Large, const BITS: u32> Addresses<L, BITS> {
    /// Asks for the first thing that [`Addresses::class_of`] reads.
    #[inline(always)]
    fn prefetch_class(&self, remote: Addr) {
        match remote.to_v4() {
            Some(v4) => prefetch(&self.v4.entries, self.v4.first(v4).0),
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
