//! How the numbers of a stored tensor are written, whatever the format of the file.
//!
//! It knows sizes, not what is computed with them. **Architecture Invariant:** a type whose size is not known here has no
//! place among a model's weights.

use std::fmt;

use crate::engine::block_format::BlockFormat;

/// The type of a stored tensor's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of single precision.
    BF16,
    /// Signed, 32 bits; GPTQ's packed integers are kept in it.
    I32,
    /// Bytes.
    U8,
    /// A type that no weight has, by the name that its format gives it.
    Other(String),
    /// Blocks of quantised numbers.
    Block(BlockFormat),
}

impl StoredType {
    /// Numbers in a block and its bytes; 1 for types that have no blocks, `None` where the size is not known.
    #[must_use]
    pub fn block(&self) -> Option<(usize, usize)> {
        match self {
            Self::F32 | Self::I32 => Some((1, 4)),
            Self::F16 | Self::BF16 => Some((1, 2)),
            Self::U8 => Some((1, 1)),
            Self::Block(block) => Some((block.columns(), block.block_bytes())),
            Self::Other(_) => None,
        }
    }

    /// Bytes of a row-major tensor, `None` where blocks do not fill its rows or no number holds its size.
    #[must_use]
    pub fn tensor_bytes(&self, shape: &[usize]) -> Option<u64> {
        let (block_values, block_bytes) = self.block()?;
        let n_values = shape.iter().try_fold(1_u64, |n, &size| n.checked_mul(size as u64))?;
        let row = shape.last().copied().unwrap_or(1);
        if !row.is_multiple_of(block_values) {
            return None;
        }
        (n_values / block_values as u64).checked_mul(block_bytes as u64)
    }
}

impl fmt::Display for StoredType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::F32 => f.write_str("F32"),
            Self::F16 => f.write_str("F16"),
            Self::BF16 => f.write_str("BF16"),
            Self::I32 => f.write_str("I32"),
            Self::U8 => f.write_str("U8"),
            Self::Other(name) => f.write_str(name),
            Self::Block(block) => f.write_str(block.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_must_fill_rows() {
        let blocks = StoredType::Block(BlockFormat::Q4K);
        assert_eq!(blocks.tensor_bytes(&[3, 512]), Some(3 * 2 * 144));
        assert_eq!(blocks.tensor_bytes(&[256, 3]), None);
        assert_eq!(StoredType::F16.tensor_bytes(&[]), Some(2));
        assert_eq!(StoredType::F16.tensor_bytes(&[usize::MAX, 3]), None);
        assert_eq!(StoredType::Other("F64".to_owned()).tensor_bytes(&[1]), None);
    }
}
