//! Four entries of an array at four indexes, what the processor's own gathers would do.
//!
//! Each entry is loaded by itself: of AMD's processors a gather is many small steps, of Intel's it became that when it was
//! made safe against spying. Loaded so, an entry has its own width, and nothing behind it is read.

use crate::arrays::read;
use crate::width::Width;
use std::arch::x86_64::*;

/// The entries at these indexes.
///
/// # Safety
/// Each is below the length.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) unsafe fn gather_four<T: Width>(entries: &[T], at: __m128i) -> __m128i {
    // two indexes in each half: by way of memory they would wait for what was stored
    let (low, high) = (_mm_cvtsi128_si64(at).cast_unsigned(), _mm_extract_epi64::<1>(at).cast_unsigned());
    let entry = |at: u64| {
        // SAFETY: the caller's promise.
        unsafe { read(entries, at as usize) }.read() as i32
    };
    let first = entry(low & 0xffff_ffff);
    let (second, third, fourth) = (entry(low >> 32), entry(high & 0xffff_ffff), entry(high >> 32));
    let words = _mm_setzero_si128();
    // so that an entry goes straight from memory to its place
    match size_of::<T>() {
        1 => {
            let words = _mm_insert_epi8::<4>(_mm_insert_epi8::<0>(words, first), second);
            _mm_insert_epi8::<12>(_mm_insert_epi8::<8>(words, third), fourth)
        }
        2 => {
            let words = _mm_insert_epi16::<2>(_mm_insert_epi16::<0>(words, first), second);
            _mm_insert_epi16::<6>(_mm_insert_epi16::<4>(words, third), fourth)
        }
        _ => {
            let words = _mm_insert_epi32::<1>(_mm_insert_epi32::<0>(words, first), second);
            _mm_insert_epi32::<3>(_mm_insert_epi32::<2>(words, third), fourth)
        }
    }
}
