//! The numbers of a unit out of the bits of its vectors, as `quantized::numbers` says how they lie there.
//!
//! Knows nothing of scales. A byte of what comes out is a number that no sign has been given yet.

use std::arch::x86_64::{
    __m256i, _mm256_and_si256, _mm256_loadu_si256, _mm256_or_si256, _mm256_set1_epi8, _mm256_setzero_si256,
    _mm256_slli_epi16, _mm256_srli_epi16, _mm256_storeu_si256,
};

use super::super::layout::VECTOR;

/// The groups of the first half of the columns, then those of the second.
pub(super) type Numbers = [[__m256i; 4]; 2];

/// The numbers of half the rows of a unit of BITS bits.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn numbers<const BITS: usize>(unit: *const u8) -> Numbers {
    // SAFETY: the caller has the halves of as many vectors there as BITS.
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

/// 256 sixes in their order.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn unpack_scales(sixes: *const u8, scales: &mut [u8; 4 * VECTOR]) {
    // SAFETY: the caller has 192 bytes of sixes there.
    unsafe {
        let to = scales.as_mut_ptr();
        for at in [0, VECTOR / 2] {
            let upper = load(sixes.add(2 * VECTOR + at));
            let uppers = [
                [_mm256_slli_epi16::<4>(upper), _mm256_slli_epi16::<2>(upper)],
                [upper, _mm256_srli_epi16::<2>(upper)],
            ];
            for (half, uppers) in uppers.into_iter().enumerate() {
                let lowers = nibbles(load(sixes.add(half * VECTOR + at)));
                for (part, (lower, upper)) in lowers.into_iter().zip(uppers).enumerate() {
                    let six = with_upper::<0x30>(lower, upper);
                    _mm256_storeu_si256(to.add((2 * part + half) * VECTOR + at).cast(), six);
                }
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn load(vector: *const u8) -> __m256i {
    // SAFETY: the caller has 32 bytes there.
    unsafe { _mm256_loadu_si256(vector.cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn nibbles(bytes: __m256i) -> [__m256i; 2] {
    let mask = _mm256_set1_epi8(0x0f);
    [_mm256_and_si256(bytes, mask), _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), mask)]
}

/// Those bits of `upper` that MASK has beside the lower ones.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn with_upper<const MASK: i8>(lower: __m256i, upper: __m256i) -> __m256i {
    _mm256_or_si256(lower, _mm256_and_si256(upper, _mm256_set1_epi8(MASK)))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn twos(unit: *const u8) -> Numbers {
    let mask = _mm256_set1_epi8(3);
    let mut numbers = [[_mm256_setzero_si256(); 4]; 2];
    for (half, numbers) in numbers.iter_mut().enumerate() {
        // SAFETY: a unit has two vectors.
        let bytes = unsafe { load(unit.add(half * VECTOR)) };
        numbers[0] = _mm256_and_si256(bytes, mask);
        numbers[1] = _mm256_and_si256(_mm256_srli_epi16::<2>(bytes), mask);
        numbers[2] = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), mask);
        numbers[3] = _mm256_and_si256(_mm256_srli_epi16::<6>(bytes), mask);
    }
    numbers
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn fours(unit: *const u8) -> Numbers {
    let [mut first, mut second] = [[_mm256_setzero_si256(); 4]; 2];
    for (group, (first, second)) in first.iter_mut().zip(&mut second).enumerate() {
        // SAFETY: a unit has four vectors.
        [*first, *second] = nibbles(unsafe { load(unit.add(group * VECTOR)) });
    }
    [first, second]
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn threes([first, second]: Numbers, upper: __m256i) -> Numbers {
    [
        [
            with_upper::<4>(first[0], _mm256_slli_epi16::<2>(upper)),
            with_upper::<4>(first[1], _mm256_slli_epi16::<1>(upper)),
            with_upper::<4>(first[2], upper),
            with_upper::<4>(first[3], _mm256_srli_epi16::<1>(upper)),
        ],
        [
            with_upper::<4>(second[0], _mm256_srli_epi16::<2>(upper)),
            with_upper::<4>(second[1], _mm256_srli_epi16::<3>(upper)),
            with_upper::<4>(second[2], _mm256_srli_epi16::<4>(upper)),
            with_upper::<4>(second[3], _mm256_srli_epi16::<5>(upper)),
        ],
    ]
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn fives([first, second]: Numbers, upper: __m256i) -> Numbers {
    [
        [
            with_upper::<0x10>(first[0], _mm256_slli_epi16::<4>(upper)),
            with_upper::<0x10>(first[1], _mm256_slli_epi16::<3>(upper)),
            with_upper::<0x10>(first[2], _mm256_slli_epi16::<2>(upper)),
            with_upper::<0x10>(first[3], _mm256_slli_epi16::<1>(upper)),
        ],
        [
            with_upper::<0x10>(second[0], upper),
            with_upper::<0x10>(second[1], _mm256_srli_epi16::<1>(upper)),
            with_upper::<0x10>(second[2], _mm256_srli_epi16::<2>(upper)),
            with_upper::<0x10>(second[3], _mm256_srli_epi16::<3>(upper)),
        ],
    ]
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn sixes(unit: *const u8) -> Numbers {
    let mut numbers = [[_mm256_setzero_si256(); 4]; 2];
    for pair in 0..2 {
        // SAFETY: a unit has two times three vectors.
        let [upper, first, second] = unsafe { [0, 1, 2].map(|vector| load(unit.add((3 * pair + vector) * VECTOR))) };
        let ([first_low, first_high], [second_low, second_high]) = (nibbles(first), nibbles(second));
        numbers[0][2 * pair] = with_upper::<0x30>(first_low, upper);
        numbers[1][2 * pair] = with_upper::<0x30>(first_high, _mm256_srli_epi16::<2>(upper));
        numbers[0][2 * pair + 1] = with_upper::<0x30>(second_low, _mm256_slli_epi16::<4>(upper));
        numbers[1][2 * pair + 1] = with_upper::<0x30>(second_high, _mm256_slli_epi16::<2>(upper));
    }
    numbers
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn eights(unit: *const u8) -> Numbers {
    let mut numbers = [[_mm256_setzero_si256(); 4]; 2];
    for (group, number) in numbers.as_flattened_mut().iter_mut().enumerate() {
        // SAFETY: a unit has eight vectors.
        *number = unsafe { load(unit.add(group * VECTOR)) };
    }
    numbers
}
