//! [`super::avx512`] with half as many lanes, and vectors where that has masks: four groups of eight at once.

use super::Query;
use super::four::gather_four;
use crate::arrays::Arrays;
use crate::format::{SEGMENT, TRIE_BITS};
use crate::v4::V4;
use crate::width::{Large, Small, Width};
use sluice_flow::{Protocol, Verdict};
use std::arch::x86_64::*;

/// Of a group.
pub(super) const LANES: usize = 8;

pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx2")
}

/// `G` groups of lookups. As many verdicts as queries.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn groups<L: Large, S: Small, const G: usize>(
    arrays: &Arrays<L, S>,
    queries: &[[Query; LANES]; G],
    verdicts: &mut [[Verdict; LANES]; G],
) {
    // loops, not `array::from_fn`: a closure that it calls would be a real call, with all registers spilled
    let zero = _mm256_setzero_si256();
    let mut asked = [Asked { v4: zero, port: zero, dport: zero, protocol: zero, direction: zero, v4_lanes: zero }; G];
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
            let open = _mm256_cmpeq_epi32(sides_of[g][2], splat(arrays.sides.open_at));
            write(zero, open, &mut verdicts[g]);
        }
        return;
    }
    for g in 0..G {
        ports[g] = port_class(arrays, &asked[g]);
        if mask(asked[g].v4_lanes) != 0 {
            classes[g] = v4_class(&arrays.addresses.v4, asked[g].v4);
        }
    }
    for g in 0..G {
        let v6 = !mask(asked[g].v4_lanes) & 0xff;
        if v6 != 0 {
            classes[g] = with_v6(arrays, classes[g], v6, &queries[g]);
        }
    }
    for g in 0..G {
        let at = _mm256_add_epi32(sides_of[g][0], _mm256_srli_epi32::<5>(classes[g]));
        // SAFETY: each side has a directory entry for every 32 classes, and classes are below their number.
        rows[g] = unsafe { gather(&arrays.directory, at) };
    }
    for g in 0..G {
        let at = _mm256_add_epi32(sides_of[g][1], ports[g]);
        // SAFETY: each side has a local port for every port class.
        ports[g] = unsafe { gather(&arrays.local_ports, at) };
        let low = _mm256_and_si256(classes[g], splat(SEGMENT as u32 - 1));
        let at = _mm256_add_epi32(_mm256_slli_epi32::<5>(rows[g]), low);
        // SAFETY: every directory entry is a segment, and a segment has a row for each of its classes.
        rows[g] = unsafe { gather(&arrays.segments, at) };
    }
    for g in 0..G {
        let of_row = _mm256_add_epi32(sides_of[g][2], _mm256_mullo_epi32(rows[g], sides_of[g][3]));
        let at = _mm256_add_epi32(of_row, ports[g]);
        // SAFETY: each row that a side's segments name has `stride` actions, and its local ports are below that.
        let action = unsafe { gather(&arrays.actions, at) };
        write(action, _mm256_cmpeq_epi32(at, splat(arrays.sides.open_at)), &mut verdicts[g]);
    }
}

/// The words of queries, a lane for each.
#[derive(Clone, Copy)]
struct Asked {
    /// In host order; of IPv6 lanes it means nothing.
    v4: __m256i,
    port: __m256i,
    dport: __m256i,
    protocol: __m256i,
    direction: __m256i,
    /// All ones in lanes with an IPv4 address.
    v4_lanes: __m256i,
}

impl Asked {
    #[target_feature(enable = "avx2")]
    #[inline]
    fn of(queries: &[Query; LANES]) -> Self {
        let bytes: *const u8 = queries.as_ptr().cast();
        // SAFETY: the first 16 of a query's 22 bytes, see `Query`.
        let [high, middle, low, v4] = unsafe { transposed(|lane| bytes.wrapping_add(lane * size_of::<Query>())) };
        // SAFETY: the last 16 of a query's 22 bytes.
        let [_, _, port, rest] = unsafe { transposed(|lane| bytes.wrapping_add(lane * size_of::<Query>() + 6)) };
        // ::ffff:0:0/96, as a little-endian machine reads it
        let mapped = _mm256_xor_si256(low, splat(0xffff_0000));
        let other = _mm256_or_si256(_mm256_or_si256(high, middle), mapped);
        let order = _mm_setr_epi8(3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12);
        Self {
            v4: _mm256_shuffle_epi8(v4, _mm256_broadcastsi128_si256(order)),
            port: _mm256_srli_epi32::<16>(port),
            dport: _mm256_and_si256(rest, splat(0xffff)),
            protocol: _mm256_and_si256(_mm256_srli_epi32::<16>(rest), splat(0xff)),
            direction: _mm256_srli_epi32::<24>(rest),
            v4_lanes: _mm256_cmpeq_epi32(other, _mm256_setzero_si256()),
        }
    }
}

/// Four words of each lane.
type Columns = [__m256i; 4];

/// Directory, ports, actions and stride of each lane's side.
#[target_feature(enable = "avx2")]
#[inline]
fn sides<L: Large, S: Small>(arrays: &Arrays<L, S>, asked: &Asked) -> Columns {
    let port = _mm256_min_epu32(asked.port, splat(arrays.sides.beyond));
    let at = _mm256_add_epi32(_mm256_slli_epi32::<1>(port), asked.direction);
    let first = _mm_cvtsi128_si32(_mm256_castsi256_si128(at)).cast_unsigned();
    if mask(_mm256_cmpeq_epi32(at, splat(first))) == 0xff {
        // packets of one pod often come together
        let side = &arrays.sides.all[first as usize];
        return [splat(side.directory), splat(side.ports), splat(side.actions), splat(side.stride)];
    }
    let places = lanes(at);
    // SAFETY: a side has 16 bytes, and there are two for each port up to `beyond`.
    unsafe { transposed(|lane| arrays.sides.all.as_ptr().wrapping_add(places[lane] as usize).cast()) }
}

/// Whether any lane's side is isolated.
#[target_feature(enable = "avx2")]
#[inline]
fn isolated(sides: &[Columns]) -> bool {
    let mut strides = _mm256_setzero_si256();
    for side in sides {
        // an isolated side has a port in each row, at least
        strides = _mm256_or_si256(strides, side[3]);
    }
    _mm256_testz_si256(strides, strides) == 0
}

/// The class of each lane's port.
#[target_feature(enable = "avx2")]
#[inline]
fn port_class<L: Large, S: Small>(arrays: &Arrays<L, S>, asked: &Asked) -> __m256i {
    let mut at = splat(3 << 16);
    for (index, protocol) in Protocol::WITH_PORTS.into_iter().enumerate() {
        let is = _mm256_cmpeq_epi32(asked.protocol, splat(u32::from(protocol.0)));
        at = _mm256_blendv_epi8(at, _mm256_or_si256(asked.dport, splat((index as u32) << 16)), is);
    }
    // SAFETY: there are 65536 ports for each of three protocols, and one for all others.
    unsafe { gather(&arrays.addresses.port_class, at) }
}

/// The class of each lane's IPv4 address.
#[target_feature(enable = "avx2")]
#[inline]
fn v4_class<L: Large>(trie: &V4<L, TRIE_BITS>, v4: __m256i) -> __m256i {
    let blocks = splat(trie.blocks);
    let in_window = _mm256_sub_epi32(v4, splat(trie.flat_first));
    let beside = at_least(in_window, splat(trie.flat_len));
    let root = _mm256_add_epi32(_mm256_srli_epi32::<16>(v4), splat(trie.flat_len));
    let at = _mm256_blendv_epi8(in_window, root, beside);
    // SAFETY: below the window's length, or one of the 65536 roots, which stand behind it.
    let first = unsafe { gather(&trie.entries, at) };
    // a class of the window as a root would say it
    let mut node = _mm256_add_epi32(first, _mm256_andnot_si256(beside, blocks));
    for level in (0..V4::<L, TRIE_BITS>::LEVELS).rev() {
        let ends = at_least(node, blocks);
        if mask(ends) == 0xff {
            break;
        }
        let bits =
            _mm256_and_si256(_mm256_srl_epi32(v4, _mm_cvtsi32_si128((level * TRIE_BITS).cast_signed())), splat((1 << TRIE_BITS) - 1));
        let at = _mm256_add_epi32(_mm256_add_epi32(_mm256_slli_epi32::<{ TRIE_BITS as _ }>(node), bits), splat(trie.blocks_at));
        let at = _mm256_andnot_si256(ends, at);
        // SAFETY: in a block, or the first entry of all.
        let next = unsafe { gather(&trie.entries, at) };
        node = _mm256_blendv_epi8(next, node, ends);
    }
    _mm256_sub_epi32(node, blocks)
}

/// The classes, those of the lanes `v6` looked up one by one.
#[target_feature(enable = "avx2")]
#[inline]
fn with_v6<L: Large, S: Small>(arrays: &Arrays<L, S>, classes: __m256i, v6: u32, queries: &[Query; LANES]) -> __m256i {
    let mut classes = lanes(classes);
    arrays.put_v6_classes(v6, queries, &mut classes);
    // SAFETY: eight words.
    unsafe { _mm256_loadu_si256(classes.as_ptr().cast()) }
}

/// Writes verdicts: 0 denies, n + 1 is rule n, and the lanes `open` are not isolated.
#[target_feature(enable = "avx2")]
#[inline]
fn write(action: __m256i, open: __m256i, verdicts: &mut [Verdict; LANES]) {
    // `Verdict` numbers its variants: not isolated 0, allow 1, deny 2; the second word is the rule, if it is 1
    let none = _mm256_cmpeq_epi32(action, _mm256_setzero_si256());
    let which = _mm256_andnot_si256(open, _mm256_sub_epi32(splat(1), none));
    let rule = _mm256_sub_epi32(action, splat(1));
    let (low, high) = (_mm256_unpacklo_epi32(which, rule), _mm256_unpackhi_epi32(which, rule));
    let (first, second) = (_mm256_permute2x128_si256::<0x20>(low, high), _mm256_permute2x128_si256::<0x31>(low, high));
    let to: *mut __m256i = verdicts.as_mut_ptr().cast();
    // SAFETY: four verdicts of two words each, of a form that `Verdict` promises.
    unsafe { _mm256_storeu_si256(to, first) };
    // SAFETY: the other four.
    unsafe { _mm256_storeu_si256(to.wrapping_add(1), second) };
}

#[target_feature(enable = "avx2")]
#[inline]
fn splat(word: u32) -> __m256i {
    _mm256_set1_epi32(word.cast_signed())
}

/// All ones where `word` is not below `limit`, both without a sign.
#[target_feature(enable = "avx2")]
#[inline]
fn at_least(word: __m256i, limit: __m256i) -> __m256i {
    _mm256_cmpeq_epi32(_mm256_max_epu32(word, limit), word)
}

/// A bit for each lane of all ones.
#[target_feature(enable = "avx2")]
#[inline]
fn mask(lanes: __m256i) -> u32 {
    _mm256_movemask_ps(_mm256_castsi256_ps(lanes)).cast_unsigned()
}

#[target_feature(enable = "avx2")]
#[inline]
fn lanes(words: __m256i) -> [u32; LANES] {
    let mut lanes = [0; LANES];
    // SAFETY: eight words.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), words) };
    lanes
}

/// Four words from each of eight places: their first words in lane order, then their second ones, and so on.
///
/// # Safety
/// 16 bytes can be read at each place.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn transposed(place: impl Fn(usize) -> *const u8) -> Columns {
    let mut rows = [_mm256_setzero_si256(); 4];
    for (row, words) in rows.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        let low = unsafe { _mm_loadu_si128(place(row).cast()) };
        // SAFETY: the caller's promise.
        let high = unsafe { _mm_loadu_si128(place(row + 4).cast()) };
        *words = _mm256_set_m128i(high, low);
    }
    let (low01, high01) = (_mm256_unpacklo_epi32(rows[0], rows[1]), _mm256_unpackhi_epi32(rows[0], rows[1]));
    let (low23, high23) = (_mm256_unpacklo_epi32(rows[2], rows[3]), _mm256_unpackhi_epi32(rows[2], rows[3]));
    [
        _mm256_unpacklo_epi64(low01, low23),
        _mm256_unpackhi_epi64(low01, low23),
        _mm256_unpacklo_epi64(high01, high23),
        _mm256_unpackhi_epi64(high01, high23),
    ]
}

/// The entries at these indexes.
///
/// # Safety
/// Each is below the length.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn gather<T: Width>(entries: &[T], at: __m256i) -> __m256i {
    let mut halves = [_mm256_castsi256_si128(at), _mm256_extracti128_si256::<1>(at)];
    for half in &mut halves {
        // SAFETY: the caller's promise.
        *half = unsafe { gather_four(entries, *half) };
    }
    _mm256_set_m128i(halves[1], halves[0])
}
