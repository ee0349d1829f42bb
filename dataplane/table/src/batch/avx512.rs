//! Sixteen lookups in the lanes of a register, and two such groups at once, so that one's loads are under way while the
//! other's are waited for.
//!
//! ```text
//!  queries ─transpose─▶ v4 · port · dport · protocol · direction
//!  port, direction ─16 bytes each, transpose─▶ directory · ports · actions · stride
//!  v4 ─gather─▶ class            IPv6 lanes: the class is looked up one by one and put in
//!  protocol, dport ─gather─▶ port class ─gather─▶ local port
//!  class ─gather─▶ segment ─gather─▶ row ─▶ place ─gather─▶ action ─▶ two words of a verdict
//! ```

use super::Query;
use super::four::gather_four;
use crate::arrays::Arrays;
use crate::format::{SEGMENT, TRIE_BITS};
use crate::v4::V4;
use crate::width::{Large, Small, Width};
use sluice_flow::{Protocol, Verdict};
use std::arch::x86_64::*;

/// Of a group.
pub(super) const LANES: usize = 16;

pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
}

/// `G` groups of lookups. As many verdicts as queries.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
pub(super) fn groups<L: Large, S: Small, const G: usize>(
    arrays: &Arrays<L, S>,
    queries: &[[Query; LANES]; G],
    verdicts: &mut [[Verdict; LANES]; G],
) {
    // loops, not `array::from_fn`: a closure that it calls would be a real call, with all registers spilled
    let zero = _mm512_setzero_si512();
    let mut asked = [Asked { v4: zero, port: zero, dport: zero, protocol: zero, direction: zero, v6: 0 }; G];
    let (mut sides_of, mut classes, mut ports, mut rows) = ([[zero; 4]; G], [zero; G], [zero; G], [zero; G]);
    for g in 0..G {
        asked[g] = Asked::of(&queries[g]);
    }
    for g in 0..G {
        sides_of[g] = sides(arrays, &asked[g]);
    }
    // who is not isolated, or not here, has one action: packets of one pod often come together
    if !isolated(&sides_of) {
        for g in 0..G {
            let open = _mm512_cmpeq_epi32_mask(sides_of[g][2], splat(arrays.sides.open_at));
            write(zero, open, &mut verdicts[g]);
        }
        return;
    }
    for g in 0..G {
        ports[g] = port_class(arrays, &asked[g]);
        if asked[g].v6 != u16::MAX {
            classes[g] = v4_class(&arrays.addresses.v4, asked[g].v4);
        }
    }
    for g in 0..G {
        if asked[g].v6 != 0 {
            classes[g] = with_v6(arrays, classes[g], asked[g].v6, &queries[g]);
        }
    }
    for g in 0..G {
        let at = _mm512_add_epi32(sides_of[g][0], _mm512_srli_epi32::<5>(classes[g]));
        // SAFETY: each side has a directory entry for every 32 classes, and classes are below their number.
        rows[g] = unsafe { gather(&arrays.directory, at) };
    }
    for g in 0..G {
        let at = _mm512_add_epi32(sides_of[g][1], ports[g]);
        // SAFETY: each side has a local port for every port class.
        ports[g] = unsafe { gather(&arrays.local_ports, at) };
        let low = _mm512_and_si512(classes[g], splat(SEGMENT as u32 - 1));
        let at = _mm512_add_epi32(_mm512_slli_epi32::<5>(rows[g]), low);
        // SAFETY: every directory entry is a segment, and a segment has a row for each of its classes.
        rows[g] = unsafe { gather(&arrays.segments, at) };
    }
    for g in 0..G {
        let of_row = _mm512_add_epi32(sides_of[g][2], _mm512_mullo_epi32(rows[g], sides_of[g][3]));
        let at = _mm512_add_epi32(of_row, ports[g]);
        // SAFETY: each row that a side's segments name has `stride` actions, and its local ports are below that.
        let action = unsafe { gather(&arrays.actions, at) };
        write(action, _mm512_cmpeq_epi32_mask(at, splat(arrays.sides.open_at)), &mut verdicts[g]);
    }
}

/// The words of queries, a lane for each.
#[derive(Clone, Copy)]
struct Asked {
    /// In host order; of IPv6 lanes it means nothing.
    v4: __m512i,
    port: __m512i,
    dport: __m512i,
    protocol: __m512i,
    direction: __m512i,
    /// Lanes with an IPv6 address.
    v6: __mmask16,
}

impl Asked {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    fn of(queries: &[Query; LANES]) -> Self {
        let bytes: *const u8 = queries.as_ptr().cast();
        // SAFETY: the first 16 of a query's 22 bytes, see `Query`.
        let [high, middle, low, v4] = unsafe { transposed(|lane| bytes.wrapping_add(lane * size_of::<Query>())) };
        // SAFETY: the last 16 of a query's 22 bytes.
        let [_, _, port, rest] = unsafe { transposed(|lane| bytes.wrapping_add(lane * size_of::<Query>() + 6)) };
        // ::ffff:0:0/96, as a little-endian machine reads it
        let mapped = _mm512_xor_si512(low, splat(0xffff_0000));
        let other = _mm512_or_si512(_mm512_or_si512(high, middle), mapped);
        Self {
            v4: swapped(v4),
            port: _mm512_srli_epi32::<16>(port),
            dport: _mm512_and_si512(rest, splat(0xffff)),
            protocol: _mm512_and_si512(_mm512_srli_epi32::<16>(rest), splat(0xff)),
            direction: _mm512_srli_epi32::<24>(rest),
            v6: _mm512_test_epi32_mask(other, other),
        }
    }
}

/// Four words of each lane.
type Columns = [__m512i; 4];

/// Directory, ports, actions and stride of each lane's side.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn sides<L: Large, S: Small>(arrays: &Arrays<L, S>, asked: &Asked) -> Columns {
    let port = _mm512_min_epu32(asked.port, splat(arrays.sides.beyond));
    let at = _mm512_add_epi32(_mm512_slli_epi32::<1>(port), asked.direction);
    let first = _mm_cvtsi128_si32(_mm512_castsi512_si128(at)).cast_unsigned();
    if _mm512_cmpneq_epi32_mask(at, splat(first)) == 0 {
        // packets of one pod often come together
        let side = &arrays.sides.all[first as usize];
        return [splat(side.directory), splat(side.ports), splat(side.actions), splat(side.stride)];
    }
    let places = lanes(at);
    // SAFETY: a side has 16 bytes, and there are two for each port up to `beyond`.
    unsafe { transposed(|lane| arrays.sides.all.as_ptr().wrapping_add(places[lane] as usize).cast()) }
}

/// Whether any lane's side is isolated.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn isolated(sides: &[Columns]) -> bool {
    let mut strides = _mm512_setzero_si512();
    for side in sides {
        // an isolated side has a port in each row, at least
        strides = _mm512_or_si512(strides, side[3]);
    }
    _mm512_test_epi32_mask(strides, strides) != 0
}

/// The class of each lane's port.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn port_class<L: Large, S: Small>(arrays: &Arrays<L, S>, asked: &Asked) -> __m512i {
    let mut at = splat(3 << 16);
    for (index, protocol) in Protocol::WITH_PORTS.into_iter().enumerate() {
        let is = _mm512_cmpeq_epi32_mask(asked.protocol, splat(u32::from(protocol.0)));
        at = _mm512_mask_or_epi32(at, is, asked.dport, splat((index as u32) << 16));
    }
    // SAFETY: there are 65536 ports for each of three protocols, and one for all others.
    unsafe { gather(&arrays.addresses.port_class, at) }
}

/// The class of each lane's IPv4 address.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn v4_class<L: Large>(trie: &V4<L, TRIE_BITS>, v4: __m512i) -> __m512i {
    let blocks = splat(trie.blocks);
    let in_window = _mm512_sub_epi32(v4, splat(trie.flat_first));
    let in_flat = _mm512_cmplt_epu32_mask(in_window, splat(trie.flat_len));
    let root = _mm512_add_epi32(_mm512_srli_epi32::<16>(v4), splat(trie.flat_len));
    let at = _mm512_mask_mov_epi32(root, in_flat, in_window);
    // SAFETY: below the window's length, or one of the 65536 roots, which stand behind it.
    let first = unsafe { gather(&trie.entries, at) };
    // a class of the window as a root would say it
    let mut node = _mm512_mask_add_epi32(first, in_flat, first, blocks);
    for level in (0..V4::<L, TRIE_BITS>::LEVELS).rev() {
        let goes_on = _mm512_cmplt_epu32_mask(node, blocks);
        if goes_on == 0 {
            break;
        }
        let bits =
            _mm512_and_si512(_mm512_srl_epi32(v4, _mm_cvtsi32_si128((level * TRIE_BITS).cast_signed())), splat((1 << TRIE_BITS) - 1));
        let at = _mm512_add_epi32(_mm512_add_epi32(_mm512_slli_epi32::<{ TRIE_BITS as _ }>(node), bits), splat(trie.blocks_at));
        let at = _mm512_maskz_mov_epi32(goes_on, at);
        // SAFETY: in a block, or the first entry of all.
        let next = unsafe { gather(&trie.entries, at) };
        node = _mm512_mask_mov_epi32(node, goes_on, next);
    }
    _mm512_sub_epi32(node, blocks)
}

/// The classes, those of the lanes `v6` looked up one by one.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn with_v6<L: Large, S: Small>(arrays: &Arrays<L, S>, classes: __m512i, v6: __mmask16, queries: &[Query; LANES]) -> __m512i {
    let mut classes = lanes(classes);
    arrays.put_v6_classes(u32::from(v6), queries, &mut classes);
    // SAFETY: 16 words.
    unsafe { _mm512_loadu_si512(classes.as_ptr().cast()) }
}

/// Writes verdicts: 0 denies, n + 1 is rule n, and the lanes `open` are not isolated.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn write(action: __m512i, open: __mmask16, verdicts: &mut [Verdict; LANES]) {
    // `Verdict` numbers its variants: not isolated 0, allow 1, deny 2; the second word is the rule, if it is 1
    let which = _mm512_mask_mov_epi32(splat(1), _mm512_testn_epi32_mask(action, action), splat(2));
    let which = _mm512_mask_mov_epi32(which, open, splat(0));
    let rule = _mm512_sub_epi32(action, splat(1));
    let first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    let second = _mm512_add_epi32(first, splat(8));
    let (first, second) = (_mm512_permutex2var_epi32(which, first, rule), _mm512_permutex2var_epi32(which, second, rule));
    let to: *mut __m512i = verdicts.as_mut_ptr().cast();
    // SAFETY: eight verdicts of two words each, of a form that `Verdict` promises.
    unsafe { _mm512_storeu_si512(to, first) };
    // SAFETY: the other eight.
    unsafe { _mm512_storeu_si512(to.wrapping_add(1), second) };
}

#[target_feature(enable = "avx512f")]
#[inline]
fn splat(word: u32) -> __m512i {
    _mm512_set1_epi32(word.cast_signed())
}

/// Each word's bytes in the other order.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn swapped(words: __m512i) -> __m512i {
    let order = _mm_setr_epi8(3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12);
    _mm512_shuffle_epi8(words, _mm512_broadcast_i32x4(order))
}

#[target_feature(enable = "avx512f")]
#[inline]
fn lanes(words: __m512i) -> [u32; LANES] {
    let mut lanes = [0; LANES];
    // SAFETY: 16 words.
    unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), words) };
    lanes
}

/// Four words from each of 16 places: their first words in lane order, then their second ones, and so on.
///
/// # Safety
/// 16 bytes can be read at each place.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
unsafe fn transposed(place: impl Fn(usize) -> *const u8) -> Columns {
    let mut rows = [_mm512_setzero_si512(); 4];
    for (row, words) in rows.iter_mut().enumerate() {
        // the lanes 0, 4, 8 and 12, then those after them
        let mut quarters = [_mm_setzero_si128(); 4];
        for (index, quarter) in quarters.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *quarter = unsafe { _mm_loadu_si128(place(row + 4 * index).cast()) };
        }
        *words = joined(quarters);
    }
    let (low01, high01) = (_mm512_unpacklo_epi32(rows[0], rows[1]), _mm512_unpackhi_epi32(rows[0], rows[1]));
    let (low23, high23) = (_mm512_unpacklo_epi32(rows[2], rows[3]), _mm512_unpackhi_epi32(rows[2], rows[3]));
    [
        _mm512_unpacklo_epi64(low01, low23),
        _mm512_unpackhi_epi64(low01, low23),
        _mm512_unpacklo_epi64(high01, high23),
        _mm512_unpackhi_epi64(high01, high23),
    ]
}

/// The entries at these indexes.
///
/// # Safety
/// Each is below the length.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
unsafe fn gather<T: Width>(entries: &[T], at: __m512i) -> __m512i {
    let mut quarters = [
        _mm512_castsi512_si128(at),
        _mm512_extracti32x4_epi32::<1>(at),
        _mm512_extracti32x4_epi32::<2>(at),
        _mm512_extracti32x4_epi32::<3>(at),
    ];
    for quarter in &mut quarters {
        // SAFETY: the caller's promise.
        *quarter = unsafe { gather_four(entries, *quarter) };
    }
    joined(quarters)
}

/// One register of four.
#[target_feature(enable = "avx512f")]
#[inline]
fn joined(quarters: [__m128i; 4]) -> __m512i {
    let low = _mm256_set_m128i(quarters[1], quarters[0]);
    let high = _mm256_set_m128i(quarters[3], quarters[2]);
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
}
