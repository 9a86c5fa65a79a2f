//! The numbers of a unit out of the bits of its vectors, as `quantized::numbers` says how they lie there.
//!
//! Knows nothing of scales. A byte of what comes out is a number that no sign has been given yet.

use std::arch::x86_64::{
    __m512i, _mm512_and_si512, _mm512_loadu_si512, _mm512_set1_epi8, _mm512_setzero_si512, _mm512_slli_epi16,
    _mm512_srli_epi16, _mm512_store_si512, _mm512_ternarylogic_epi32,
};

use super::super::layout::VECTOR;

/// The groups of the first half of the columns, then those of the second.
pub(super) type Numbers = [[__m512i; 4]; 2];

/// The numbers of a unit of BITS bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn numbers<const BITS: usize>(unit: *const u8) -> Numbers {
    // SAFETY: the caller has as many vectors there as BITS.
    unsafe {
        match BITS {
            2 => twos(unit),
            3 => threes(twos(unit.add(VECTOR)), load(unit)),
            4 => fours(unit),
            5 => fives(fours(unit.add(VECTOR)), load(unit)),
            6 => sixes(unit),
            _ => eights(unit),
        }
    }
}

/// 256 sixes, stored at multiples of 64.
#[repr(align(64))]
pub(super) struct Scales(pub(super) [u8; 4 * VECTOR]);

/// 256 sixes in their order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn unpack_scales(sixes: *const u8, scales: &mut Scales) {
    // SAFETY: the caller has three vectors of sixes there, and `scales` four, aligned.
    unsafe {
        let upper = load(sixes.add(2 * VECTOR));
        let to = scales.0.as_mut_ptr();
        let uppers =
            [[_mm512_slli_epi16::<4>(upper), _mm512_slli_epi16::<2>(upper)], [upper, _mm512_srli_epi16::<2>(upper)]];
        for (half, uppers) in uppers.into_iter().enumerate() {
            let lowers = nibbles(load(sixes.add(half * VECTOR)));
            for (part, (lower, upper)) in lowers.into_iter().zip(uppers).enumerate() {
                _mm512_store_si512(to.add((2 * part + half) * VECTOR).cast(), with_upper::<0x30>(lower, upper));
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn load(vector: *const u8) -> __m512i {
    // SAFETY: the caller has 64 bytes there.
    unsafe { _mm512_loadu_si512(vector.cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn nibbles(bytes: __m512i) -> [__m512i; 2] {
    let mask = _mm512_set1_epi8(0x0f);
    [_mm512_and_si512(bytes, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), mask)]
}

/// Those bits of `upper` that MASK has beside the lower ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn with_upper<const MASK: i8>(lower: __m512i, upper: __m512i) -> __m512i {
    // The table of lower or (upper and mask).
    _mm512_ternarylogic_epi32::<0xf8>(lower, upper, _mm512_set1_epi8(MASK))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn twos(unit: *const u8) -> Numbers {
    let mask = _mm512_set1_epi8(3);
    let mut numbers = [[_mm512_setzero_si512(); 4]; 2];
    for (half, numbers) in numbers.iter_mut().enumerate() {
        // SAFETY: a unit has two vectors.
        let bytes = unsafe { load(unit.add(half * VECTOR)) };
        numbers[0] = _mm512_and_si512(bytes, mask);
        numbers[1] = _mm512_and_si512(_mm512_srli_epi16::<2>(bytes), mask);
        numbers[2] = _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), mask);
        numbers[3] = _mm512_and_si512(_mm512_srli_epi16::<6>(bytes), mask);
    }
    numbers
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn fours(unit: *const u8) -> Numbers {
    let [mut first, mut second] = [[_mm512_setzero_si512(); 4]; 2];
    for (group, (first, second)) in first.iter_mut().zip(&mut second).enumerate() {
        // SAFETY: a unit has four vectors.
        [*first, *second] = nibbles(unsafe { load(unit.add(group * VECTOR)) });
    }
    [first, second]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn threes([first, second]: Numbers, upper: __m512i) -> Numbers {
    [
        [
            with_upper::<4>(first[0], _mm512_slli_epi16::<2>(upper)),
            with_upper::<4>(first[1], _mm512_slli_epi16::<1>(upper)),
            with_upper::<4>(first[2], upper),
            with_upper::<4>(first[3], _mm512_srli_epi16::<1>(upper)),
        ],
        [
            with_upper::<4>(second[0], _mm512_srli_epi16::<2>(upper)),
            with_upper::<4>(second[1], _mm512_srli_epi16::<3>(upper)),
            with_upper::<4>(second[2], _mm512_srli_epi16::<4>(upper)),
            with_upper::<4>(second[3], _mm512_srli_epi16::<5>(upper)),
        ],
    ]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn fives([first, second]: Numbers, upper: __m512i) -> Numbers {
    [
        [
            with_upper::<0x10>(first[0], _mm512_slli_epi16::<4>(upper)),
            with_upper::<0x10>(first[1], _mm512_slli_epi16::<3>(upper)),
            with_upper::<0x10>(first[2], _mm512_slli_epi16::<2>(upper)),
            with_upper::<0x10>(first[3], _mm512_slli_epi16::<1>(upper)),
        ],
        [
            with_upper::<0x10>(second[0], upper),
            with_upper::<0x10>(second[1], _mm512_srli_epi16::<1>(upper)),
            with_upper::<0x10>(second[2], _mm512_srli_epi16::<2>(upper)),
            with_upper::<0x10>(second[3], _mm512_srli_epi16::<3>(upper)),
        ],
    ]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn sixes(unit: *const u8) -> Numbers {
    let mut numbers = [[_mm512_setzero_si512(); 4]; 2];
    for pair in 0..2 {
        // SAFETY: a unit has two times three vectors.
        let [upper, first, second] = unsafe { [0, 1, 2].map(|vector| load(unit.add((3 * pair + vector) * VECTOR))) };
        let ([first_low, first_high], [second_low, second_high]) = (nibbles(first), nibbles(second));
        numbers[0][2 * pair] = with_upper::<0x30>(first_low, upper);
        numbers[1][2 * pair] = with_upper::<0x30>(first_high, _mm512_srli_epi16::<2>(upper));
        numbers[0][2 * pair + 1] = with_upper::<0x30>(second_low, _mm512_slli_epi16::<4>(upper));
        numbers[1][2 * pair + 1] = with_upper::<0x30>(second_high, _mm512_slli_epi16::<2>(upper));
    }
    numbers
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn eights(unit: *const u8) -> Numbers {
    let mut numbers = [[_mm512_setzero_si512(); 4]; 2];
    for (group, number) in numbers.as_flattened_mut().iter_mut().enumerate() {
        // SAFETY: a unit has eight vectors.
        *number = unsafe { load(unit.add(group * VECTOR)) };
    }
    numbers
}
