//! How the numbers of a tensor are written, in a file or in memory.
//!
//! Knows sizes and meaning, not where a tensor is or what it is for.

use std::borrow::Cow;

use candle_core::{CpuStorage, quantized::GgmlDType};

use super::{block_format::BlockFormat, weights::NumberType};

/// How numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// Each by itself.
    Dense(NumberType),
    /// In blocks, which do not cross rows.
    Blocks(BlockFormat),
}

impl Format {
    /// Numbers that belong together.
    #[must_use]
    pub fn block_len(self) -> usize {
        match self {
            Self::Dense(_) => 1,
            Self::Blocks(blocks) => blocks.columns(),
        }
    }

    /// Bytes of so many numbers in whole blocks.
    #[must_use]
    pub fn n_bytes(self, n: u64) -> u64 {
        let block_bytes = match self {
            Self::Dense(number_type) => number_type.n_bytes(),
            Self::Blocks(blocks) => blocks.block_bytes(),
        };
        n / self.block_len() as u64 * block_bytes as u64
    }

    /// As llama.cpp names it, or as a number type.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dense(number_type) => number_type.name(),
            Self::Blocks(blocks) => blocks.name(),
        }
    }

    /// The numbers that whole blocks stand for, as singles.
    pub fn widen(self, bytes: &[u8], numbers: &mut [f32]) {
        match self {
            Self::Dense(number_type) => number_type.widen(bytes, numbers),
            Self::Blocks(blocks) => {
                let blocks = ggml_type(blocks).from_data(Cow::Borrowed(bytes));
                if let Ok(CpuStorage::F32(meant)) = blocks.dequantize(numbers.len()) {
                    numbers.copy_from_slice(&meant);
                } else {
                    // Whoever meets them will say so.
                    numbers.fill(f32::NAN);
                }
            }
        }
    }
}

fn ggml_type(blocks: BlockFormat) -> GgmlDType {
    match blocks {
        BlockFormat::Q4_0 => GgmlDType::Q4_0,
        BlockFormat::Q4_1 => GgmlDType::Q4_1,
        BlockFormat::Q5_0 => GgmlDType::Q5_0,
        BlockFormat::Q5_1 => GgmlDType::Q5_1,
        BlockFormat::Q8_0 => GgmlDType::Q8_0,
        BlockFormat::Q2K => GgmlDType::Q2K,
        BlockFormat::Q3K => GgmlDType::Q3K,
        BlockFormat::Q4K => GgmlDType::Q4K,
        BlockFormat::Q5K => GgmlDType::Q5K,
        BlockFormat::Q6K => GgmlDType::Q6K,
    }
}
