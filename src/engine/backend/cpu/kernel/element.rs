//! Number types that weights, keys and values are held in, and how each becomes singles in registers. Widening is exact.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m256, _mm_loadl_epi64, _mm_loadu_si128, _mm256_castsi256_ps, _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps,
    _mm256_cvtepu16_epi32, _mm256_cvtph_ps, _mm256_loadu_ps, _mm256_slli_epi32,
};

use half::{bf16, f16};

/// A number that a product takes from memory.
pub(in crate::engine::backend::cpu) trait Element: Copy + Send + Sync {
    /// As a single.
    fn widen(self) -> f32;

    /// The eight from `first` on, as singles.
    ///
    /// # Safety
    /// There are eight numbers at `first`, and the machine has AVX2 and F16C.
    #[cfg(target_arch = "x86_64")]
    unsafe fn widen_eight(first: *const Self) -> __m256;
}

impl Element for f32 {
    #[inline]
    fn widen(self) -> f32 {
        self
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn widen_eight(first: *const Self) -> __m256 {
        // SAFETY: the caller has eight numbers there.
        unsafe { _mm256_loadu_ps(first) }
    }
}

impl Element for bf16 {
    #[inline]
    fn widen(self) -> f32 {
        self.to_f32()
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn widen_eight(first: *const Self) -> __m256 {
        // SAFETY: the caller has eight numbers of two bytes there.
        let halves = unsafe { _mm_loadu_si128(first.cast()) };
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves)))
    }
}

impl Element for f16 {
    #[inline]
    fn widen(self) -> f32 {
        self.to_f32()
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn widen_eight(first: *const Self) -> __m256 {
        // SAFETY: the caller has eight numbers of two bytes there.
        _mm256_cvtph_ps(unsafe { _mm_loadu_si128(first.cast()) })
    }
}

impl Element for i8 {
    #[inline]
    fn widen(self) -> f32 {
        f32::from(self)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn widen_eight(first: *const Self) -> __m256 {
        // SAFETY: the caller has eight bytes there.
        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(unsafe { _mm_loadl_epi64(first.cast()) }))
    }
}
