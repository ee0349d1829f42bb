//! Many lookups at once, by the widest means that the processor has.
//!
//! | file | lookups under way together |
//! |---|---|
//! | scalar | 32, each step of all of them before the next step of any; on every processor |
//! | avx2 | 8 in the lanes of a register, four registers at once |
//! | avx512 | 16 in the lanes of a register, two registers at once |
//! | four, wide | what both have in common |
//!
//! All give the same verdicts: the scalar form is what the others are compared with. Tables with packed profiles are looked
//! up one by one.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod four;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod wide;

use crate::table::{Table, with_arrays};
use sluice_flow::{Addr, Direction, PortIndex, Protocol, Verdict};
use std::fmt;
use std::mem::offset_of;

/// What a lookup is asked, see [`Table::lookup`].
///
/// The fields stand in memory in this order, with nothing between them: the wide forms read it as words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
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

// the words' places
const _: () = assert!(size_of::<Query>() == 22 && offset_of!(Query, remote) == 0 && offset_of!(Query, port) == 16);
const _: () = assert!(offset_of!(Query, dport) == 18 && offset_of!(Query, protocol) == 20 && offset_of!(Query, direction) == 21);
// the wide forms write a verdict as two words
const _: () = assert!(size_of::<Verdict>() == 8);

/// How a batch is looked up. Every form gives the same verdicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SimdLevel {
    /// No lanes.
    Scalar,
    /// 8 lanes.
    Avx2,
    /// 16 lanes: AVX-512 F, BW, DQ and VL.
    Avx512,
}

impl SimdLevel {
    /// All, the narrowest first.
    pub const ALL: [Self; 3] = [Self::Scalar, Self::Avx2, Self::Avx512];

    /// Whether this processor has it.
    pub fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => avx2::is_available(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => avx512::is_available(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => false,
        }
    }

    /// Those that this processor has, the narrowest first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|level| level.is_available())
    }

    /// The one that [`Table::lookup_batch`] takes.
    pub fn best() -> Self {
        Self::available().last().unwrap_or(Self::Scalar)
    }
}

impl fmt::Display for SimdLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "AVX2",
            Self::Avx512 => "AVX-512",
        })
    }
}

impl Table {
    /// [`Table::lookup`] for each query, in order, in the form that suits this processor best.
    ///
    /// Panics where the lengths differ.
    pub fn lookup_batch(&self, queries: &[Query], verdicts: &mut [Verdict]) {
        self.at_level(self.level, queries, verdicts);
    }

    /// The same in a form of the caller's choice, for tests and measurements.
    ///
    /// Panics where the lengths differ, or this processor has no such level.
    pub fn lookup_batch_with(&self, level: SimdLevel, queries: &[Query], verdicts: &mut [Verdict]) {
        assert!(level.is_available(), "this processor has no {level}");
        self.at_level(level, queries, verdicts);
    }

    /// This processor has `level`.
    #[inline]
    fn at_level(&self, level: SimdLevel, queries: &[Query], verdicts: &mut [Verdict]) {
        assert_eq!(queries.len(), verdicts.len(), "a verdict for each query");
        with_arrays!(&self.body, arrays => match level {
            SimdLevel::Scalar => scalar::lookup(arrays, queries, verdicts),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the caller asked the processor.
            SimdLevel::Avx2 => unsafe { wide::lookup_avx2(arrays, queries, verdicts) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the caller asked the processor.
            SimdLevel::Avx512 => unsafe { wide::lookup_avx512(arrays, queries, verdicts) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => scalar::lookup(arrays, queries, verdicts),
        }, packed arrays => arrays.lookup_batch(queries, verdicts));
    }
}
