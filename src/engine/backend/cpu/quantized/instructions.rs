//! Which instruction sets the products of quantised weights can use here.
//!
//! Knows nothing of the products. A value that names an instruction set exists only where the machine has it.

/// An instruction set that this machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instructions {
    /// 512-bit vectors with sums of byte products.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(FoundAvx512Vnni),
    /// 256-bit vectors.
    #[cfg(target_arch = "x86_64")]
    Avx2(FoundAvx2),
    /// Whatever the compiler makes of plain code.
    Portable,
}

/// The machine has AVX-512 F, BW and VNNI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundAvx512Vnni(());

/// The machine has AVX2, FMA and F16C.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundAvx2(());

impl Instructions {
    /// The best one.
    #[must_use]
    pub fn detect() -> Self {
        Self::all().into_iter().next().unwrap_or(Self::Portable)
    }

    /// All that the machine has, best first.
    #[must_use]
    pub fn all() -> Vec<Self> {
        #[allow(unused_mut, reason = "only some machines have more")]
        let mut all = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            use std::is_x86_feature_detected as has;
            if has!("avx2") && has!("fma") && has!("f16c") {
                all.insert(0, Self::Avx2(FoundAvx2(())));
            }
            if has!("avx512f") && has!("avx512bw") && has!("avx512vnni") {
                all.insert(0, Self::Avx512Vnni(FoundAvx512Vnni(())));
            }
        }
        all
    }

    /// A word for logs and tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni(_) => "avx512-vnni",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            Self::Portable => "portable",
        }
    }
}
