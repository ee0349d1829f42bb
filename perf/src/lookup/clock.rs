//! The clock and the caches: what a bench of nanoseconds needs of the machine itself.
//!
//! Ticks are those of the processor's time stamp counter, with a fence on each side so that nothing timed leaks out of its
//! bracket; elsewhere than on x86-64 they are nanoseconds of the monotonic clock.

use std::hint::black_box;
use std::time::{Duration, Instant};

const LINE_BYTES: usize = 64;

/// Ticks when everything before has ended.
#[inline(always)]
#[cfg(target_arch = "x86_64")]
pub(crate) fn begin() -> u64 {
    fence();
    // SAFETY: every x86-64 processor has the counter, and Linux lets processes read it.
    let now = unsafe { std::arch::x86_64::_rdtsc() };
    fence();
    now
}

/// Ticks when everything before has ended, and nothing after has begun.
#[inline(always)]
#[cfg(target_arch = "x86_64")]
pub(crate) fn end() -> u64 {
    let mut cpu = 0;
    // SAFETY: as for the counter; `cpu` is a valid place for its second result.
    let now = unsafe { std::arch::x86_64::__rdtscp(&raw mut cpu) };
    fence();
    now
}

/// Waits until every instruction before it has ended.
#[inline(always)]
#[cfg(target_arch = "x86_64")]
fn fence() {
    // SAFETY: needs SSE2, which every x86-64 processor has.
    unsafe { std::arch::x86_64::_mm_lfence() };
}

/// Ticks.
#[inline(always)]
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn begin() -> u64 {
    use std::sync::OnceLock;
    static START: OnceLock<Instant> = OnceLock::new();
    black_box(START.get_or_init(Instant::now).elapsed().as_nanos() as u64)
}

/// Ticks.
#[inline(always)]
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn end() -> u64 {
    begin()
}

/// Always 0, but only the processor knows, and not before it has `value`: whatever is found through it waits for it.
#[inline(always)]
pub(crate) fn zero_after(value: u32) -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        let mut zero = value;
        // SAFETY: changes this register and the flags, nothing else.
        unsafe { std::arch::asm!("and {0:e}, 0", inout(reg) zero, options(nomem, nostack, pure)) };
        zero as usize
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        (black_box(value) & black_box(0)) as usize
    }
}

/// The same query, but nobody can know where it is before the processor has `value`.
#[inline(always)]
pub(super) fn after<T>(query: &T, value: u32) -> &T {
    let at = std::ptr::from_ref(query).wrapping_byte_add(zero_after(value));
    // SAFETY: as far as it was, by no byte.
    unsafe { &*at }
}

/// Nanoseconds of a tick.
pub(crate) fn tick_ns() -> f64 {
    let (start, first) = (Instant::now(), begin());
    while start.elapsed() < Duration::from_millis(50) {
        std::hint::spin_loop();
    }
    let last = end();
    start.elapsed().as_nanos() as f64 / (last - first) as f64
}

/// Memory whose only use is to push other things out of the caches.
#[derive(Debug)]
pub(crate) struct Sweep(Vec<u8>);

impl Sweep {
    pub(crate) fn of(bytes: usize) -> Self {
        Self(vec![1; bytes])
    }

    /// Reads a byte of every cache line.
    pub(crate) fn run(&self) {
        black_box(self.0.iter().step_by(LINE_BYTES).fold(0u64, |sum, &byte| sum + u64::from(byte)));
    }
}
