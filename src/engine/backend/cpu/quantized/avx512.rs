//! Products of a tile with 512-bit vectors: a lane is a row of the tile.

#![expect(unsafe_code, reason = "vector instructions that are there only on some machines")]

mod numbers;

use std::arch::x86_64::{
    __m512, __m512i, _mm_load_si128, _mm_loadu_si128, _mm256_load_si256, _mm256_loadu_si256, _mm512_and_si512,
    _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps, _mm512_cvtepu8_epi16, _mm512_cvtepu8_epi32, _mm512_cvtph_ps,
    _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_madd_epi16, _mm512_mask_blend_epi16, _mm512_mul_ps,
    _mm512_set1_epi16, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_slli_epi16,
    _mm512_slli_epi32, _mm512_srai_epi32, _mm512_srli_epi16, _mm512_storeu_ps, _mm512_sub_epi16, _mm512_sub_epi32,
};

use super::{
    Products, Tile,
    activations::Group,
    instructions::FoundAvx512Vnni,
    layout::{
        HALVES, Q2_K_D, Q2_K_HEAD, Q4_K_D, Q4_K_HEAD, SUPERBLOCK, UNIT, UNITS, VECTOR, q3_k_places, q4_k_superblock,
        q6_k_places, unit_bytes, unit_places,
    },
};
use crate::engine::block_format::BlockFormat;
use numbers::{Scales, load, nibbles, numbers, unpack_scales};

/// Adds the products of a unit of numbers of so many bits, where the vectors and x's are.
///
/// A macro, as no function with instructions of its own can be told to be always inlined, and this is too much for the
/// compiler to inline it in three places.
macro_rules! add_unit {
    ($bits:expr, $dots:expr, $vectors:expr, $quants:expr) => {{
        let (dots, vectors, quants) = ($dots, $vectors, $quants);
        match $bits {
            4 => {
                for group in 0..4 {
                    let [low, high] = nibbles(load(vectors.add(group * VECTOR)));
                    add_dots(dots, low, quants.add(4 * group));
                    add_dots(dots, high, quants.add(4 * group + 16));
                }
            }
            8 => {
                for group in 0..8 {
                    add_dots(dots, load(vectors.add(group * VECTOR)), quants.add(4 * group));
                }
            }
            _ => {
                for (group, weights) in numbers::<$bits>(vectors).as_flattened().iter().enumerate() {
                    add_dots(dots, *weights, quants.add(4 * group));
                }
            }
        }
    }};
}

/// The caller has checked the lengths of the tile and of the group.
pub(super) fn products(_found: FoundAvx512Vnni, tile: Tile<'_>, x: &Group, out: &mut Products) {
    // SAFETY: the machine has the instructions, as `_found` says; the lengths are those of the format.
    unsafe {
        match x.n_rows {
            1 => rows::<1>(tile, x, out),
            2 => rows::<2>(tile, x, out),
            3 => rows::<3>(tile, x, out),
            4 => rows::<4>(tile, x, out),
            5 => rows::<5>(tile, x, out),
            6 => rows::<6>(tile, x, out),
            7 => rows::<7>(tile, x, out),
            _ => rows::<8>(tile, x, out),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn rows<const N: usize>(tile: Tile<'_>, x: &Group, out: &mut Products) {
    // SAFETY: as the caller's.
    let sums = unsafe {
        match tile.format {
            BlockFormat::Q4_0 => units::<N, 4>(tile, x),
            BlockFormat::Q5_0 => units::<N, 5>(tile, x),
            BlockFormat::Q8_0 => units::<N, 8>(tile, x),
            BlockFormat::Q4_1 => units_with_minima::<N, 4>(tile, x),
            BlockFormat::Q5_1 => units_with_minima::<N, 5>(tile, x),
            BlockFormat::Q2K => q2_k::<N>(tile, x),
            BlockFormat::Q3K => q3_k::<N>(tile, x),
            BlockFormat::Q4K => q4_k::<N, 4>(tile, x),
            BlockFormat::Q5K => q4_k::<N, 5>(tile, x),
            BlockFormat::Q6K => q6_k::<N>(tile, x),
        }
    };
    for (sums, out) in sums.iter().zip(out) {
        // SAFETY: `out` has sixteen floats.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), *sums) };
    }
}

/// `Q4_0`, `Q5_0` and `Q8_0`.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn units<const N: usize, const BITS: usize>(tile: Tile<'_>, x: &Group) -> [__m512; N] {
    let mut sums = [_mm512_setzero_ps(); N];
    for unit in 0..tile.n_in / UNIT {
        // SAFETY: the tile has so many units, and so has each of x's N rows.
        unsafe {
            let places = unit_places(BITS, false, unit);
            let d = halves(tile.bytes.as_ptr().add(places.d));
            let mut dots = [_mm512_setzero_si512(); N];
            for (row, dots) in dots.iter_mut().enumerate() {
                // Minus half of what BITS can say: x's are for eight of them.
                let offset = _mm512_set1_epi32(*x.offsets.as_ptr().add(unit * N + row));
                *dots = match BITS {
                    4 => _mm512_srai_epi32::<4>(offset),
                    5 => _mm512_srai_epi32::<3>(offset),
                    _ => offset,
                };
            }
            let vectors = tile.bytes.as_ptr().add(places.vectors);
            add_unit!(BITS, &mut dots, vectors, x.quants.as_ptr().add(unit * N * UNIT));
            add(&mut sums, dots, x.scales.as_ptr().add(unit * N), d);
        }
    }
    sums
}

/// `Q4_1` and `Q5_1`.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn units_with_minima<const N: usize, const BITS: usize>(tile: Tile<'_>, x: &Group) -> [__m512; N] {
    let mut sums = [_mm512_setzero_ps(); N];
    for unit in 0..tile.n_in / UNIT {
        // SAFETY: the tile has so many units, and so has each of x's N rows.
        unsafe {
            let places = unit_places(BITS, true, unit);
            let [d, minimum] = [0, HALVES].map(|at| halves(tile.bytes.as_ptr().add(places.d + at)));
            let mut dots = [_mm512_setzero_si512(); N];
            let vectors = tile.bytes.as_ptr().add(places.vectors);
            add_unit!(BITS, &mut dots, vectors, x.quants.as_ptr().add(unit * N * UNIT));
            add(&mut sums, dots, x.scales.as_ptr().add(unit * N), d);
            for (row, sum) in sums.iter_mut().enumerate() {
                *sum = _mm512_fmadd_ps(minimum, _mm512_set1_ps(*x.sums.as_ptr().add(unit * N + row)), *sum);
            }
        }
    }
    sums
}

/// `Q4_K` and `Q5_K`.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn q4_k<const N: usize, const BITS: usize>(tile: Tile<'_>, x: &Group) -> [__m512; N] {
    let mut sums = [_mm512_setzero_ps(); N];
    let mut scales = Scales([0; 4 * VECTOR]);
    for superblock in 0..tile.n_in / SUPERBLOCK {
        // SAFETY: the tile has so many superblocks, each of eight units, and so has each of x's N rows.
        unsafe {
            let head = tile.bytes.as_ptr().add(superblock * q4_k_superblock(BITS));
            let [d, minimum] = [Q4_K_D, Q4_K_D + HALVES].map(|at| halves(head.add(at)));
            unpack_scales(head, &mut scales);
            for unit in 0..UNITS {
                let vectors = head.add(Q4_K_HEAD + unit * unit_bytes(BITS));
                let place = (superblock * UNITS + unit) * N;
                let mut dots = [_mm512_setzero_si512(); N];
                add_unit!(BITS, &mut dots, vectors, x.quants.as_ptr().add(place * UNIT));
                let scale = scales.0.as_ptr().add(unit * 16);
                let [scale, minimum_scale] = [scale, scale.add(2 * VECTOR)]
                    .map(|scale| _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_load_si128(scale.cast()))));
                add(&mut sums, dots, x.scales.as_ptr().add(place), _mm512_mul_ps(d, scale));
                let minimum = _mm512_mul_ps(minimum, minimum_scale);
                for (row, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm512_fnmadd_ps(minimum, _mm512_set1_ps(*x.sums.as_ptr().add(place + row)), *sum);
                }
            }
        }
    }
    sums
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn q6_k<const N: usize>(tile: Tile<'_>, x: &Group) -> [__m512; N] {
    let mut sums = [_mm512_setzero_ps(); N];
    for unit in 0..tile.n_in / UNIT {
        // SAFETY: the tile has so many units, and so has each of x's N rows.
        unsafe {
            let places = q6_k_places(unit);
            let d = halves(tile.bytes.as_ptr().add(places.d));
            let numbers = numbers::<6>(tile.bytes.as_ptr().add(places.vectors));
            for (half, numbers) in numbers.into_iter().enumerate() {
                let mut dots = [_mm512_setzero_si512(); N];
                for (row, dots) in dots.iter_mut().enumerate() {
                    *dots = _mm512_set1_epi32(*x.half_offsets.as_ptr().add(2 * (unit * N + row) + half));
                }
                let quants = x.quants.as_ptr().add(unit * N * UNIT + 16 * half);
                for (group, weights) in numbers.into_iter().enumerate() {
                    add_dots(&mut dots, weights, quants.add(4 * group));
                }
                let scale = _mm_loadu_si128(tile.bytes.as_ptr().add(places.scales + half * 16).cast());
                let scale = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(scale));
                add(&mut sums, dots, x.scales.as_ptr().add(unit * N), _mm512_mul_ps(d, scale));
            }
        }
    }
    sums
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn q2_k<const N: usize>(tile: Tile<'_>, x: &Group) -> [__m512; N] {
    let mut sums = [_mm512_setzero_ps(); N];
    for superblock in 0..tile.n_in / SUPERBLOCK {
        // SAFETY: the tile has so many superblocks, each of eight units, and so has each of x's N rows.
        unsafe {
            let head = tile.bytes.as_ptr().add(superblock * (Q2_K_HEAD + UNITS * unit_bytes(2)));
            let [d, minimum] = [Q2_K_D, Q2_K_D + HALVES].map(|at| halves(head.add(at)));
            for unit in 0..UNITS {
                let place = (superblock * UNITS + unit) * N;
                let both = _mm512_cvtepu8_epi16(_mm256_loadu_si256(head.add(unit * HALVES).cast()));
                let scale = _mm512_and_si512(both, _mm512_set1_epi16(0x0f));
                let minimum_scale = _mm512_srli_epi16::<4>(both);
                let vectors = head.add(Q2_K_HEAD + unit * unit_bytes(2));
                let dots = half_dots::<N, 2>(vectors, x.quants.as_ptr().add(place * UNIT));
                for (row, (sum, dots)) in sums.iter_mut().zip(dots).enumerate() {
                    let minima = _mm512_cvtepi32_ps(_mm512_madd_epi16(half_sums(x, place + row), minimum_scale));
                    let dots = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_madd_epi16(dots, scale)), d);
                    let x = _mm512_set1_ps(*x.scales.as_ptr().add(place + row));
                    *sum = _mm512_fmadd_ps(_mm512_fnmadd_ps(minima, minimum, dots), x, *sum);
                }
            }
        }
    }
    sums
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn q3_k<const N: usize>(tile: Tile<'_>, x: &Group) -> [__m512; N] {
    let mut sums = [_mm512_setzero_ps(); N];
    let mut scales = Scales([0; 4 * VECTOR]);
    for superblock in 0..tile.n_in / SUPERBLOCK {
        // SAFETY: the tile has so many superblocks, each of eight units, and so has each of x's N rows.
        unsafe {
            let places = q3_k_places(superblock * UNITS);
            let d = halves(tile.bytes.as_ptr().add(places.d));
            unpack_scales(tile.bytes.as_ptr().add(places.sixes), &mut scales);
            for unit in 0..UNITS {
                let place = (superblock * UNITS + unit) * N;
                let scale = _mm512_cvtepu8_epi16(_mm256_load_si256(scales.0.as_ptr().add(unit * HALVES).cast()));
                let scale = _mm512_sub_epi16(scale, _mm512_set1_epi16(32));
                // Four, which is the numbers' offset, is in these.
                let offset_scale = _mm512_slli_epi16::<2>(scale);
                let vectors = tile.bytes.as_ptr().add(places.vectors + unit * unit_bytes(3));
                let mut dots = half_dots::<N, 3>(vectors, x.quants.as_ptr().add(place * UNIT));
                for (row, dots) in dots.iter_mut().enumerate() {
                    let offset = _mm512_madd_epi16(half_sums(x, place + row), offset_scale);
                    *dots = _mm512_sub_epi32(_mm512_madd_epi16(*dots, scale), offset);
                }
                add(&mut sums, dots, x.scales.as_ptr().add(place), d);
            }
        }
    }
    sums
}

/// Sixteen f16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn halves(bytes: *const u8) -> __m512 {
    // SAFETY: the caller has 32 bytes there.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(bytes.cast()) })
}

/// The sums of both halves of a row's unit, sixteen bits each, in all lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn half_sums(x: &Group, place: usize) -> __m512i {
    // SAFETY: the caller's place is one of the group's.
    _mm512_set1_epi32(unsafe { x.half_sums.as_ptr().add(place).cast::<i32>().read_unaligned() })
}

/// The products with both halves of a unit of two or three bits a number, which fit into sixteen bits each: sixteen times
/// 7 · 127 at most.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn half_dots<const N: usize, const BITS: usize>(vectors: *const u8, quants: *const i8) -> [__m512i; N] {
    // SAFETY: the caller has a unit's vectors and x's there.
    let mut dots = [[_mm512_setzero_si512(); N]; 2];
    for (half, numbers) in unsafe { numbers::<BITS>(vectors) }.into_iter().enumerate() {
        for (group, weights) in numbers.into_iter().enumerate() {
            // SAFETY: as above.
            unsafe { add_dots(&mut dots[half], weights, quants.add(16 * half + 4 * group)) };
        }
    }
    let [mut pairs, second] = dots;
    for (pairs, second) in pairs.iter_mut().zip(second) {
        *pairs = _mm512_mask_blend_epi16(0xaaaa_aaaa, *pairs, _mm512_slli_epi32::<16>(second));
    }
    pairs
}

/// Adds the products of four columns, `x` being those of the first of N rows that lie 32 bytes apart.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn add_dots<const N: usize>(dots: &mut [__m512i; N], weights: __m512i, x: *const i8) {
    for (row, dots) in dots.iter_mut().enumerate() {
        // SAFETY: the caller has four numbers there for each row.
        let four = unsafe { x.add(row * UNIT).cast::<i32>().read_unaligned() };
        *dots = _mm512_dpbusd_epi32(*dots, weights, _mm512_set1_epi32(four));
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn add<const N: usize>(sums: &mut [__m512; N], dots: [__m512i; N], scales: *const f32, d: __m512) {
    for (row, (sum, dots)) in sums.iter_mut().zip(dots).enumerate() {
        // SAFETY: the caller has a scale there for each row.
        let scale = _mm512_set1_ps(unsafe { *scales.add(row) });
        *sum = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(dots), scale), d, *sum);
    }
}
