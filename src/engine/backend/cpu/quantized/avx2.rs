//! Products of a tile with 256-bit vectors: a lane is a row of half the tile.
//!
//! Pairs of byte products are summed in sixteen bits, and no more of them than these can hold.

#![expect(unsafe_code, reason = "vector instructions that are there only on some machines")]

mod numbers;

use std::arch::x86_64::{
    __m256, __m256i, _mm_loadl_epi64, _mm_loadu_si128, _mm256_abs_epi8, _mm256_add_epi16, _mm256_add_epi32,
    _mm256_and_si256, _mm256_blend_epi16, _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps, _mm256_cvtepu8_epi16,
    _mm256_cvtepu8_epi32, _mm256_cvtph_ps, _mm256_fmadd_ps, _mm256_fnmadd_ps, _mm256_madd_epi16, _mm256_maddubs_epi16,
    _mm256_mul_ps, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps,
    _mm256_setzero_si256, _mm256_sign_epi8, _mm256_slli_epi16, _mm256_slli_epi32, _mm256_srai_epi32, _mm256_srli_epi16,
    _mm256_storeu_ps, _mm256_sub_epi16, _mm256_sub_epi32, _mm256_xor_si256,
};

use super::{
    Products, Tile,
    activations::Group,
    instructions::FoundAvx2,
    layout::{
        HALVES, Q2_K_D, Q2_K_HEAD, Q4_K_D, Q4_K_HEAD, SUPERBLOCK, UNIT, UNITS, VECTOR, q3_k_places, q4_k_superblock,
        q6_k_places, unit_bytes, unit_places,
    },
};
use crate::engine::block_format::BlockFormat;
use numbers::{load, numbers, unpack_scales};

/// Lanes of a vector.
const LANES: usize = 8;

/// Some rows of a group.
#[derive(Clone, Copy)]
struct Rows<'a> {
    group: &'a Group,
    first: usize,
}

/// The caller has checked the lengths of the tile and of the group.
pub(super) fn products(_found: FoundAvx2, tile: Tile<'_>, x: &Group, out: &mut Products) {
    let mut first = 0;
    while first < x.n_rows {
        let rows = Rows { group: x, first };
        let out = &mut out[first..];
        for lane in [0, LANES] {
            // SAFETY: the machine has the instructions, as `_found` says; the lengths are those of the format, and the
            // group has so many rows from `first` on.
            unsafe {
                match x.n_rows - first {
                    1 => of_rows::<1>(tile, rows, lane, out),
                    2 | 3 => of_rows::<2>(tile, rows, lane, out),
                    _ => of_rows::<4>(tile, rows, lane, out),
                }
            }
        }
        first += match x.n_rows - first {
            1 => 1,
            2 | 3 => 2,
            _ => 4,
        };
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn of_rows<const N: usize>(tile: Tile<'_>, x: Rows<'_>, lane: usize, out: &mut [[f32; 16]]) {
    // SAFETY: as the caller's.
    let sums = unsafe {
        match tile.format {
            BlockFormat::Q4_0 => units::<N, 4>(tile, x, lane),
            BlockFormat::Q5_0 => units::<N, 5>(tile, x, lane),
            BlockFormat::Q8_0 => q8_0::<N>(tile, x, lane),
            BlockFormat::Q4_1 => units_with_minima::<N, 4>(tile, x, lane),
            BlockFormat::Q5_1 => units_with_minima::<N, 5>(tile, x, lane),
            BlockFormat::Q2K => q2_k::<N>(tile, x, lane),
            BlockFormat::Q3K => q3_k::<N>(tile, x, lane),
            BlockFormat::Q4K => q4_k::<N, 4>(tile, x, lane),
            BlockFormat::Q5K => q4_k::<N, 5>(tile, x, lane),
            BlockFormat::Q6K => q6_k::<N>(tile, x, lane),
        }
    };
    for (sums, out) in sums.iter().zip(out) {
        // SAFETY: `out` has eight floats from lane 0 on and from lane 8 on.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr().add(lane), *sums) };
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn q8_0<const N: usize>(tile: Tile<'_>, x: Rows<'_>, lane: usize) -> [__m256; N] {
    let (offset, ones) = (_mm256_set1_epi8(-128), _mm256_set1_epi16(1));
    let mut sums = [_mm256_setzero_ps(); N];
    for unit in 0..tile.n_in / UNIT {
        // SAFETY: the tile has so many units, and so has each of x's rows.
        unsafe {
            let place = unit * x.group.n_rows + x.first;
            let places = unit_places(8, false, unit);
            let vectors = tile.bytes.as_ptr().add(places.vectors + 4 * lane);
            let quants = x.group.quants.as_ptr().add(place * UNIT);
            let mut dots = [_mm256_setzero_si256(); N];
            for group in 0..8 {
                // Signs move from the weights to x, so that one factor has none: two products are 2 · 128 · 127 at most.
                let weights = _mm256_xor_si256(load(vectors.add(group * VECTOR)), offset);
                let magnitudes = _mm256_abs_epi8(weights);
                for (row, dots) in dots.iter_mut().enumerate() {
                    let x = _mm256_sign_epi8(four(quants.add(row * UNIT + 4 * group)), weights);
                    let pairs = _mm256_maddubs_epi16(magnitudes, x);
                    *dots = _mm256_add_epi32(*dots, _mm256_madd_epi16(pairs, ones));
                }
            }
            let d = halves(tile.bytes.as_ptr().add(places.d + 2 * lane));
            add(&mut sums, dots, x.group.scales.as_ptr().add(place), d);
        }
    }
    sums
}

/// `Q4_0` and `Q5_0`.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn units<const N: usize, const BITS: usize>(tile: Tile<'_>, x: Rows<'_>, lane: usize) -> [__m256; N] {
    let mut sums = [_mm256_setzero_ps(); N];
    for unit in 0..tile.n_in / UNIT {
        // SAFETY: the tile has so many units, and so has each of x's rows.
        unsafe {
            let place = unit * x.group.n_rows + x.first;
            let places = unit_places(BITS, false, unit);
            let d = halves(tile.bytes.as_ptr().add(places.d + 2 * lane));
            let vectors = tile.bytes.as_ptr().add(places.vectors + 4 * lane);
            let mut dots = unit_dots::<N, BITS>(vectors, x.group.quants.as_ptr().add(place * UNIT));
            for (row, dots) in dots.iter_mut().enumerate() {
                // Minus half of what BITS can say: x's are for eight of them.
                let offset = _mm256_set1_epi32(*x.group.offsets.as_ptr().add(place + row));
                let offset = if BITS == 4 { _mm256_srai_epi32::<4>(offset) } else { _mm256_srai_epi32::<3>(offset) };
                *dots = _mm256_add_epi32(*dots, offset);
            }
            add(&mut sums, dots, x.group.scales.as_ptr().add(place), d);
        }
    }
    sums
}

/// `Q4_1` and `Q5_1`.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn units_with_minima<const N: usize, const BITS: usize>(
    tile: Tile<'_>,
    x: Rows<'_>,
    lane: usize,
) -> [__m256; N] {
    let mut sums = [_mm256_setzero_ps(); N];
    for unit in 0..tile.n_in / UNIT {
        // SAFETY: the tile has so many units, and so has each of x's rows.
        unsafe {
            let place = unit * x.group.n_rows + x.first;
            let places = unit_places(BITS, true, unit);
            let [d, minimum] = [0, HALVES].map(|at| halves(tile.bytes.as_ptr().add(places.d + at + 2 * lane)));
            let vectors = tile.bytes.as_ptr().add(places.vectors + 4 * lane);
            let dots = unit_dots::<N, BITS>(vectors, x.group.quants.as_ptr().add(place * UNIT));
            add(&mut sums, dots, x.group.scales.as_ptr().add(place), d);
            for (row, sum) in sums.iter_mut().enumerate() {
                let x = _mm256_set1_ps(*x.group.sums.as_ptr().add(place + row));
                *sum = _mm256_fmadd_ps(minimum, x, *sum);
            }
        }
    }
    sums
}

/// `Q4_K` and `Q5_K`.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn q4_k<const N: usize, const BITS: usize>(tile: Tile<'_>, x: Rows<'_>, lane: usize) -> [__m256; N] {
    let mut sums = [_mm256_setzero_ps(); N];
    let mut scales = [0; 4 * VECTOR];
    for superblock in 0..tile.n_in / SUPERBLOCK {
        // SAFETY: the tile has so many superblocks, each of eight units, and so has each of x's rows.
        unsafe {
            let head = tile.bytes.as_ptr().add(superblock * q4_k_superblock(BITS));
            let [d, minimum] = [Q4_K_D, Q4_K_D + HALVES].map(|at| halves(head.add(at + 2 * lane)));
            unpack_scales(head, &mut scales);
            for unit in 0..UNITS {
                let vectors = head.add(Q4_K_HEAD + unit * unit_bytes(BITS) + 4 * lane);
                let place = (superblock * UNITS + unit) * x.group.n_rows + x.first;
                let dots = unit_dots::<N, BITS>(vectors, x.group.quants.as_ptr().add(place * UNIT));
                let scale = scales.as_ptr().add(unit * 16 + lane);
                let [scale, minimum_scale] = [scale, scale.add(2 * VECTOR)]
                    .map(|scale| _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(scale.cast()))));
                add(&mut sums, dots, x.group.scales.as_ptr().add(place), _mm256_mul_ps(d, scale));
                let minimum = _mm256_mul_ps(minimum, minimum_scale);
                for (row, sum) in sums.iter_mut().enumerate() {
                    let x = _mm256_set1_ps(*x.group.sums.as_ptr().add(place + row));
                    *sum = _mm256_fnmadd_ps(minimum, x, *sum);
                }
            }
        }
    }
    sums
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn q6_k<const N: usize>(tile: Tile<'_>, x: Rows<'_>, lane: usize) -> [__m256; N] {
    let ones = _mm256_set1_epi16(1);
    let mut sums = [_mm256_setzero_ps(); N];
    for unit in 0..tile.n_in / UNIT {
        // SAFETY: the tile has so many units, and so has each of x's rows.
        unsafe {
            let places = q6_k_places(unit);
            let d = halves(tile.bytes.as_ptr().add(places.d + 2 * lane));
            let numbers = numbers::<6>(tile.bytes.as_ptr().add(places.vectors + 4 * lane));
            let place = unit * x.group.n_rows + x.first;
            for (half, numbers) in numbers.into_iter().enumerate() {
                let mut dots = [_mm256_setzero_si256(); N];
                for (row, dots) in dots.iter_mut().enumerate() {
                    *dots = _mm256_set1_epi32(*x.group.half_offsets.as_ptr().add(2 * (place + row) + half));
                }
                let quants = x.group.quants.as_ptr().add(place * UNIT + 16 * half);
                for (pair, weights) in numbers.as_chunks::<2>().0.iter().enumerate() {
                    // Two times two products of 63 · 127 at most.
                    let mut pairs = [_mm256_setzero_si256(); N];
                    add_pairs(&mut pairs, weights[0], quants.add(8 * pair));
                    add_pairs(&mut pairs, weights[1], quants.add(8 * pair + 4));
                    for (dots, pairs) in dots.iter_mut().zip(pairs) {
                        *dots = _mm256_add_epi32(*dots, _mm256_madd_epi16(pairs, ones));
                    }
                }
                let scale = _mm_loadl_epi64(tile.bytes.as_ptr().add(places.scales + half * 16 + lane).cast());
                let scale = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(scale));
                add(&mut sums, dots, x.group.scales.as_ptr().add(place), _mm256_mul_ps(d, scale));
            }
        }
    }
    sums
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn q2_k<const N: usize>(tile: Tile<'_>, x: Rows<'_>, lane: usize) -> [__m256; N] {
    let mut sums = [_mm256_setzero_ps(); N];
    for superblock in 0..tile.n_in / SUPERBLOCK {
        // SAFETY: the tile has so many superblocks, each of eight units, and so has each of x's rows.
        unsafe {
            let head = tile.bytes.as_ptr().add(superblock * (Q2_K_HEAD + UNITS * unit_bytes(2)));
            let [d, minimum] = [Q2_K_D, Q2_K_D + HALVES].map(|at| halves(head.add(at + 2 * lane)));
            for unit in 0..UNITS {
                let place = (superblock * UNITS + unit) * x.group.n_rows + x.first;
                let both = _mm256_cvtepu8_epi16(_mm_loadu_si128(head.add(unit * HALVES + 2 * lane).cast()));
                let scale = _mm256_and_si256(both, _mm256_set1_epi16(0x0f));
                let minimum_scale = _mm256_srli_epi16::<4>(both);
                let vectors = head.add(Q2_K_HEAD + unit * unit_bytes(2) + 4 * lane);
                let dots = half_dots::<N, 2>(vectors, x.group.quants.as_ptr().add(place * UNIT));
                for (row, (sum, dots)) in sums.iter_mut().zip(dots).enumerate() {
                    let minima = _mm256_cvtepi32_ps(_mm256_madd_epi16(half_sums(x, place + row), minimum_scale));
                    let dots = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_madd_epi16(dots, scale)), d);
                    let x = _mm256_set1_ps(*x.group.scales.as_ptr().add(place + row));
                    *sum = _mm256_fmadd_ps(_mm256_fnmadd_ps(minima, minimum, dots), x, *sum);
                }
            }
        }
    }
    sums
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn q3_k<const N: usize>(tile: Tile<'_>, x: Rows<'_>, lane: usize) -> [__m256; N] {
    let mut sums = [_mm256_setzero_ps(); N];
    let mut scales = [0; 4 * VECTOR];
    for superblock in 0..tile.n_in / SUPERBLOCK {
        // SAFETY: the tile has so many superblocks, each of eight units, and so has each of x's rows.
        unsafe {
            let places = q3_k_places(superblock * UNITS);
            let d = halves(tile.bytes.as_ptr().add(places.d + 2 * lane));
            unpack_scales(tile.bytes.as_ptr().add(places.sixes), &mut scales);
            for unit in 0..UNITS {
                let place = (superblock * UNITS + unit) * x.group.n_rows + x.first;
                let scale = scales.as_ptr().add(unit * HALVES + 2 * lane);
                let scale = _mm256_cvtepu8_epi16(_mm_loadu_si128(scale.cast()));
                let scale = _mm256_sub_epi16(scale, _mm256_set1_epi16(32));
                // Four, which is the numbers' offset, is in these.
                let offset_scale = _mm256_slli_epi16::<2>(scale);
                let vectors = tile.bytes.as_ptr().add(places.vectors + unit * unit_bytes(3) + 4 * lane);
                let mut dots = half_dots::<N, 3>(vectors, x.group.quants.as_ptr().add(place * UNIT));
                for (row, dots) in dots.iter_mut().enumerate() {
                    let offset = _mm256_madd_epi16(half_sums(x, place + row), offset_scale);
                    *dots = _mm256_sub_epi32(_mm256_madd_epi16(*dots, scale), offset);
                }
                add(&mut sums, dots, x.group.scales.as_ptr().add(place), d);
            }
        }
    }
    sums
}

/// Eight f16.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn halves(bytes: *const u8) -> __m256 {
    // SAFETY: the caller has 16 bytes there.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(bytes.cast()) })
}

/// The sums of both halves of a row's unit, sixteen bits each, in all lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn half_sums(x: Rows<'_>, place: usize) -> __m256i {
    // SAFETY: the caller's place is one of the group's.
    _mm256_set1_epi32(unsafe { x.group.half_sums.as_ptr().add(place).cast::<i32>().read_unaligned() })
}

/// The products with both halves of a unit of two or three bits a number, which fit into sixteen bits each: sixteen times
/// 7 · 127 at most.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn half_dots<const N: usize, const BITS: usize>(vectors: *const u8, quants: *const i8) -> [__m256i; N] {
    let ones = _mm256_set1_epi16(1);
    let mut dots = [[_mm256_setzero_si256(); N]; 2];
    // SAFETY: the caller has a unit's vectors and x's there.
    for (half, numbers) in unsafe { numbers::<BITS>(vectors) }.into_iter().enumerate() {
        for (group, weights) in numbers.into_iter().enumerate() {
            // SAFETY: as above.
            unsafe { add_pairs(&mut dots[half], weights, quants.add(16 * half + 4 * group)) };
        }
    }
    let [mut pairs, second] = dots;
    for (pairs, second) in pairs.iter_mut().zip(second) {
        let [first, second] = [_mm256_madd_epi16(*pairs, ones), _mm256_madd_epi16(second, ones)];
        *pairs = _mm256_blend_epi16::<0xaa>(first, _mm256_slli_epi32::<16>(second));
    }
    pairs
}

/// The products with a unit of four or five bits a number.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn unit_dots<const N: usize, const BITS: usize>(vectors: *const u8, quants: *const i8) -> [__m256i; N] {
    let ones = _mm256_set1_epi16(1);
    let mut pairs = [[_mm256_setzero_si256(); N]; 2];
    // SAFETY: the caller has a unit's vectors and x's there.
    unsafe {
        let [first, second] = numbers::<BITS>(vectors);
        for (group, (first, second)) in first.into_iter().zip(second).enumerate() {
            // Eight times two products of 15 · 127 at most, or four times two of 31 · 127.
            add_pairs(&mut pairs[0], first, quants.add(4 * group));
            add_pairs(&mut pairs[usize::from(BITS == 5)], second, quants.add(4 * group + 16));
        }
    }
    let [mut dots, second] = pairs;
    for (dots, second) in dots.iter_mut().zip(second) {
        *dots = _mm256_madd_epi16(*dots, ones);
        if BITS == 5 {
            *dots = _mm256_add_epi32(*dots, _mm256_madd_epi16(second, ones));
        }
    }
    dots
}

/// Four columns of a row of x in all lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn four(x: *const i8) -> __m256i {
    // SAFETY: the caller has four numbers there.
    _mm256_set1_epi32(unsafe { x.cast::<i32>().read_unaligned() })
}

/// Adds the products of four columns in pairs, `x` being those of the first of N rows that lie 32 bytes apart.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add_pairs<const N: usize>(pairs: &mut [__m256i; N], weights: __m256i, x: *const i8) {
    for (row, pairs) in pairs.iter_mut().enumerate() {
        // SAFETY: the caller has four numbers there for each row.
        let four = unsafe { four(x.add(row * UNIT)) };
        *pairs = _mm256_add_epi16(*pairs, _mm256_maddubs_epi16(weights, four));
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add<const N: usize>(sums: &mut [__m256; N], dots: [__m256i; N], scales: *const f32, d: __m256) {
    for (row, (sum, dots)) in sums.iter_mut().zip(dots).enumerate() {
        // SAFETY: the caller has a scale there for each row.
        let scale = _mm256_set1_ps(unsafe { *scales.add(row) });
        *sum = _mm256_fmadd_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(dots), scale), d, *sum);
    }
}
