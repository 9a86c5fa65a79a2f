//! Products of a tile with 512-bit vectors: a lane is a row of the tile.

#![expect(unsafe_code, reason = "vector instructions that are there only on some machines")]

use std::arch::x86_64::{
    __m512, __m512i, _mm_load_si128, _mm_loadu_si128, _mm256_loadu_si256, _mm512_and_si512, _mm512_cvtepi8_epi32,
    _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32, _mm512_cvtph_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_fnmadd_ps,
    _mm512_loadu_si512, _mm512_mul_ps, _mm512_or_si512, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_setzero_si512, _mm512_slli_epi16, _mm512_srli_epi16, _mm512_store_si512,
    _mm512_storeu_ps, _mm512_ternarylogic_epi32,
};

use super::{
    Products, Tile,
    activations::Group,
    instructions::FoundAvx512Vnni,
    layout::{
        BlockFormat, HALVES, Q4_K_D, Q4_K_HEAD, Q4_K_SUPERBLOCK, Q4_K_UNIT, SUPERBLOCK, UNIT, UNITS, VECTOR,
        q6_k_places, q8_0_places,
    },
};

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
            BlockFormat::Q8_0 => q8_0::<N>(tile, x),
            BlockFormat::Q4K => q4_k::<N>(tile, x),
            BlockFormat::Q6K => q6_k::<N>(tile, x),
        }
    };
    for (sums, out) in sums.iter().zip(out) {
        // SAFETY: `out` has sixteen floats.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), *sums) };
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn q8_0<const N: usize>(tile: Tile<'_>, x: &Group) -> [__m512; N] {
    let mut sums = [_mm512_setzero_ps(); N];
    for unit in 0..tile.n_in / UNIT {
        // SAFETY: the tile has so many units, and so has each of x's N rows.
        unsafe {
            let places = q8_0_places(unit);
            let d = _mm512_cvtph_ps(_mm256_loadu_si256(tile.bytes.as_ptr().add(places.d).cast()));
            let vectors = tile.bytes.as_ptr().add(places.vectors);
            let quants = x.quants.as_ptr().add(unit * N * UNIT);
            let mut dots = [_mm512_setzero_si512(); N];
            for (row, dots) in dots.iter_mut().enumerate() {
                *dots = _mm512_set1_epi32(*x.offsets.as_ptr().add(unit * N + row));
            }
            for group in 0..8 {
                let weights = load(vectors.add(group * VECTOR));
                add_dots(&mut dots, weights, quants.add(4 * group));
            }
            add(&mut sums, dots, x.scales.as_ptr().add(unit * N), d);
        }
    }
    sums
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn q4_k<const N: usize>(tile: Tile<'_>, x: &Group) -> [__m512; N] {
    let mut sums = [_mm512_setzero_ps(); N];
    let mut scales = Scales([0; 4 * VECTOR]);
    for superblock in 0..tile.n_in / SUPERBLOCK {
        // SAFETY: the tile has so many superblocks, each of eight units, and so has each of x's N rows.
        unsafe {
            let head = tile.bytes.as_ptr().add(superblock * Q4_K_SUPERBLOCK);
            let d = _mm512_cvtph_ps(_mm256_loadu_si256(head.add(Q4_K_D).cast()));
            let minimum = _mm512_cvtph_ps(_mm256_loadu_si256(head.add(Q4_K_D + HALVES).cast()));
            unpack_scales(head, &mut scales);
            for unit in 0..UNITS {
                let vectors = head.add(Q4_K_HEAD + unit * Q4_K_UNIT);
                let place = (superblock * UNITS + unit) * N;
                let quants = x.quants.as_ptr().add(place * UNIT);
                let mut dots = [_mm512_setzero_si512(); N];
                for group in 0..4 {
                    let [low, high] = nibbles(load(vectors.add(group * VECTOR)));
                    add_dots(&mut dots, low, quants.add(4 * group));
                    add_dots(&mut dots, high, quants.add(4 * group + 16));
                }
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

/// The scales of eight units, sixteen rows each, then the minima.
#[repr(align(64))]
struct Scales([u8; 4 * VECTOR]);

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn unpack_scales(head: *const u8, scales: &mut Scales) {
    let nibble = _mm512_set1_epi8(0x0f);
    let fifth = _mm512_set1_epi8(0x30);
    // SAFETY: the caller's head has three vectors of scales, and `scales` four, aligned.
    unsafe {
        let upper = load(head.add(2 * VECTOR));
        let to = scales.0.as_mut_ptr();
        for (half, upper) in
            [[_mm512_slli_epi16::<4>(upper), _mm512_slli_epi16::<2>(upper)], [upper, _mm512_srli_epi16::<2>(upper)]]
                .into_iter()
                .enumerate()
        {
            let lower = load(head.add(half * VECTOR));
            let parts = [_mm512_and_si512(lower, nibble), _mm512_and_si512(_mm512_srli_epi16::<4>(lower), nibble)];
            for (part, (lower, upper)) in parts.into_iter().zip(upper).enumerate() {
                let six = _mm512_or_si512(lower, _mm512_and_si512(upper, fifth));
                _mm512_store_si512(to.add((2 * part + half) * VECTOR).cast(), six);
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn q6_k<const N: usize>(tile: Tile<'_>, x: &Group) -> [__m512; N] {
    let mut sums = [_mm512_setzero_ps(); N];
    for unit in 0..tile.n_in / UNIT {
        // SAFETY: the tile has so many units, and so has each of x's N rows.
        unsafe {
            let places = q6_k_places(unit);
            let d = _mm512_cvtph_ps(_mm256_loadu_si256(tile.bytes.as_ptr().add(places.d).cast()));
            let numbers = sixes(tile.bytes.as_ptr().add(places.vectors));
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

/// The eight groups of a `Q6_K` unit.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn sixes(unit: *const u8) -> [[__m512i; 4]; 2] {
    let mut numbers = [[_mm512_setzero_si512(); 4]; 2];
    for pair in 0..2 {
        // SAFETY: a unit has two times three vectors.
        let [upper, first, second] = unsafe { [0, 1, 2].map(|vector| load(unit.add((3 * pair + vector) * VECTOR))) };
        let ([first_low, first_high], [second_low, second_high]) = (nibbles(first), nibbles(second));
        numbers[0][2 * pair] = with_upper(first_low, upper);
        numbers[1][2 * pair] = with_upper(first_high, _mm512_srli_epi16::<2>(upper));
        numbers[0][2 * pair + 1] = with_upper(second_low, _mm512_slli_epi16::<4>(upper));
        numbers[1][2 * pair + 1] = with_upper(second_high, _mm512_slli_epi16::<2>(upper));
    }
    numbers
}

/// Bits 4 and 5 of `upper` above the nibbles.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn with_upper(nibbles: __m512i, upper: __m512i) -> __m512i {
    // The table of nibbles or (upper and mask).
    _mm512_ternarylogic_epi32::<0xf8>(nibbles, upper, _mm512_set1_epi8(0x30))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn nibbles(bytes: __m512i) -> [__m512i; 2] {
    let mask = _mm512_set1_epi8(0x0f);
    [_mm512_and_si512(bytes, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), mask)]
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn load(vector: *const u8) -> __m512i {
    // SAFETY: the caller has 64 bytes there.
    unsafe { _mm512_loadu_si512(vector.cast()) }
}

/// Adds the products of four columns, `x` being those of the first of N rows that lie 32 bytes apart.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn add_dots<const N: usize>(dots: &mut [__m512i; N], weights: __m512i, x: *const i8) {
    for (row, dots) in dots.iter_mut().enumerate() {
        // SAFETY: the caller has four numbers there for each row.
        let four = unsafe { x.add(row * UNIT).cast::<i32>().read_unaligned() };
        *dots = _mm512_dpbusd_epi32(*dots, weights, _mm512_set1_epi32(four));
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn add<const N: usize>(sums: &mut [__m512; N], dots: [__m512i; N], scales: *const f32, d: __m512) {
    for (row, (sum, dots)) in sums.iter_mut().zip(dots).enumerate() {
        // SAFETY: the caller has a scale there for each row.
        let scale = _mm512_set1_ps(unsafe { *scales.add(row) });
        *sum = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(dots), scale), d, *sum);
    }
}
