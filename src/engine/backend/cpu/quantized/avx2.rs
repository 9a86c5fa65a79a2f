//! Products of a tile with 256-bit vectors: a lane is a row of half the tile.
//!
//! Pairs of byte products are summed in sixteen bits, and no more of them than these can hold.

#![expect(unsafe_code, reason = "vector instructions that are there only on some machines")]

use std::arch::x86_64::{
    __m256, __m256i, _mm_loadl_epi64, _mm_loadu_si128, _mm256_abs_epi8, _mm256_add_epi16, _mm256_add_epi32,
    _mm256_and_si256, _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps, _mm256_cvtepu8_epi32, _mm256_cvtph_ps, _mm256_fmadd_ps,
    _mm256_fnmadd_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_or_si256,
    _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256,
    _mm256_sign_epi8, _mm256_slli_epi16, _mm256_srli_epi16, _mm256_storeu_ps, _mm256_storeu_si256, _mm256_xor_si256,
};

use super::{
    Products, Tile,
    activations::Group,
    instructions::FoundAvx2,
    layout::{
        BlockFormat, HALVES, Q4_K_D, Q4_K_HEAD, Q4_K_SUPERBLOCK, Q4_K_UNIT, SUPERBLOCK, UNIT, UNITS, VECTOR,
        q6_k_places, q8_0_places,
    },
};

/// Bytes of a vector, half of one of the layout.
const HALF: usize = VECTOR / 2;
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
            BlockFormat::Q8_0 => q8_0::<N>(tile, x, lane),
            BlockFormat::Q4K => q4_k::<N>(tile, x, lane),
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
            let places = q8_0_places(unit);
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

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn q4_k<const N: usize>(tile: Tile<'_>, x: Rows<'_>, lane: usize) -> [__m256; N] {
    let ones = _mm256_set1_epi16(1);
    let mut sums = [_mm256_setzero_ps(); N];
    let mut scales = [0; 4 * VECTOR];
    for superblock in 0..tile.n_in / SUPERBLOCK {
        // SAFETY: the tile has so many superblocks, each of eight units, and so has each of x's rows.
        unsafe {
            let head = tile.bytes.as_ptr().add(superblock * Q4_K_SUPERBLOCK);
            let d = halves(head.add(Q4_K_D + 2 * lane));
            let minimum = halves(head.add(Q4_K_D + HALVES + 2 * lane));
            unpack_scales(head, &mut scales);
            for unit in 0..UNITS {
                let vectors = head.add(Q4_K_HEAD + unit * Q4_K_UNIT + 4 * lane);
                let place = (superblock * UNITS + unit) * x.group.n_rows + x.first;
                let quants = x.group.quants.as_ptr().add(place * UNIT);
                // Eight times two products of 15 · 127 at most.
                let mut pairs = [_mm256_setzero_si256(); N];
                for group in 0..4 {
                    let [low, high] = nibbles(load(vectors.add(group * VECTOR)));
                    add_pairs(&mut pairs, low, quants.add(4 * group));
                    add_pairs(&mut pairs, high, quants.add(4 * group + 16));
                }
                let dots = pairs.map(|pairs| _mm256_madd_epi16(pairs, ones));
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

/// The scales of eight units, sixteen rows each, then the minima.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn unpack_scales(head: *const u8, scales: &mut [u8; 4 * VECTOR]) {
    let fifth = _mm256_set1_epi8(0x30);
    // SAFETY: the caller's head has 192 bytes of scales.
    unsafe {
        let to = scales.as_mut_ptr();
        for at in [0, HALF] {
            let upper = load(head.add(2 * VECTOR + at));
            let uppers = [
                [_mm256_slli_epi16::<4>(upper), _mm256_slli_epi16::<2>(upper)],
                [upper, _mm256_srli_epi16::<2>(upper)],
            ];
            for (half, uppers) in uppers.into_iter().enumerate() {
                let lowers = nibbles(load(head.add(half * VECTOR + at)));
                for (part, (lower, upper)) in lowers.into_iter().zip(uppers).enumerate() {
                    let six = _mm256_or_si256(lower, _mm256_and_si256(upper, fifth));
                    _mm256_storeu_si256(to.add((2 * part + half) * VECTOR + at).cast(), six);
                }
            }
        }
    }
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
            let numbers = sixes(tile.bytes.as_ptr().add(places.vectors + 4 * lane));
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

/// The eight groups of a `Q6_K` unit.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn sixes(unit: *const u8) -> [[__m256i; 4]; 2] {
    let mut numbers = [[_mm256_setzero_si256(); 4]; 2];
    for pair in 0..2 {
        // SAFETY: a unit has two times three vectors.
        let [upper, first, second] = unsafe { [0, 1, 2].map(|vector| load(unit.add((3 * pair + vector) * VECTOR))) };
        let ([first_low, first_high], [second_low, second_high]) = (nibbles(first), nibbles(second));
        numbers[0][2 * pair] = with_upper(first_low, upper);
        numbers[1][2 * pair] = with_upper(first_high, _mm256_srli_epi16::<2>(upper));
        numbers[0][2 * pair + 1] = with_upper(second_low, _mm256_slli_epi16::<4>(upper));
        numbers[1][2 * pair + 1] = with_upper(second_high, _mm256_slli_epi16::<2>(upper));
    }
    numbers
}

/// Bits 4 and 5 of `upper` above the nibbles.
#[target_feature(enable = "avx2,fma,f16c")]
fn with_upper(nibbles: __m256i, upper: __m256i) -> __m256i {
    _mm256_or_si256(nibbles, _mm256_and_si256(upper, _mm256_set1_epi8(0x30)))
}

#[target_feature(enable = "avx2,fma,f16c")]
fn nibbles(bytes: __m256i) -> [__m256i; 2] {
    let mask = _mm256_set1_epi8(0x0f);
    [_mm256_and_si256(bytes, mask), _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), mask)]
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn load(vector: *const u8) -> __m256i {
    // SAFETY: the caller has 32 bytes there.
    unsafe { _mm256_loadu_si256(vector.cast()) }
}

/// Eight f16.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn halves(bytes: *const u8) -> __m256 {
    // SAFETY: the caller has 16 bytes there.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(bytes.cast()) })
}

/// Four columns of a row of x in all lanes.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn four(x: *const i8) -> __m256i {
    // SAFETY: the caller has four numbers there.
    _mm256_set1_epi32(unsafe { x.cast::<i32>().read_unaligned() })
}

/// Adds the products of four columns in pairs, `x` being those of the first of N rows that lie 32 bytes apart.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add_pairs<const N: usize>(pairs: &mut [__m256i; N], weights: __m256i, x: *const i8) {
    for (row, pairs) in pairs.iter_mut().enumerate() {
        // SAFETY: the caller has four numbers there for each row.
        let four = unsafe { four(x.add(row * UNIT)) };
        *pairs = _mm256_add_epi16(*pairs, _mm256_maddubs_epi16(weights, four));
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add<const N: usize>(sums: &mut [__m256; N], dots: [__m256i; N], scales: *const f32, d: __m256) {
    for (row, (sum, dots)) in sums.iter_mut().zip(dots).enumerate() {
        // SAFETY: the caller has a scale there for each row.
        let scale = _mm256_set1_ps(unsafe { *scales.add(row) });
        *sum = _mm256_fmadd_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(dots), scale), d, *sum);
    }
}
