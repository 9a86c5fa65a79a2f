//! What a backend takes its weights from: tensors by Hugging Face's names, a few rows at a time.
//!
//! Knows no file format and not how weights are held in memory. **Architecture Invariant:** nobody needs a whole tensor in
//! memory to get at a part of it.

use std::{fmt, io, ops::Range};

use half::{bf16, f16, slice::HalfFloatSliceExt};

use super::{backend::cpu::quantized::QuantizedMatrix, format::Format};

/// How a number is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NumberType {
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// bfloat16: the upper half of a single.
    Bf16,
}

/// A tensor, without its numbers; one of shape (n) counts as a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorInfo {
    /// As it is read.
    pub format: Format,
    /// What it is to be held in where nothing else was asked for.
    pub natural: Format,
    /// For a projection: its outputs.
    pub n_rows: usize,
    /// For a projection: its inputs.
    pub n_columns: usize,
}

/// Why weights could not be had.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// A file could not be read.
    #[error(
        "{file} cannot be read: {source}\nhint: the file was there when its header was read; has it been changed since?"
    )]
    Unreadable {
        /// Its name.
        file: String,
        /// What the system says.
        source: io::Error,
    },
    /// What is in the files is not what their headers promised, or an adapter's share could not be had.
    #[error("{0}")]
    Content(String),
    /// A tensor is not there, or not of this shape.
    #[error(
        "{name} of shape ({n_rows}, {n_columns}) is not among the weights\nhint: config.json and the weights are not of the same model"
    )]
    Missing {
        /// Which.
        name: String,
        /// Rows that were expected.
        n_rows: usize,
        /// Columns that were expected.
        n_columns: usize,
    },
}

/// Tensors by name.
pub trait Weights: Send + Sync {
    /// What a tensor is; `None` where there is no such tensor.
    fn info(&self, name: &str) -> Option<TensorInfo>;

    /// Reads some rows of a tensor as they are stored, little endian; `bytes` is as long as those rows.
    ///
    /// # Errors
    /// [`WeightsError`].
    fn read(&self, name: &str, rows: Range<usize>, bytes: &mut [u8]) -> Result<(), WeightsError>;

    /// The tensor as the CPU backend computes with it, where it lies ready.
    ///
    /// # Errors
    /// [`WeightsError`], where it is there but cannot be had.
    fn packed(&self, name: &str) -> Result<Option<QuantizedMatrix>, WeightsError> {
        let _ = name;
        Ok(None)
    }

    /// A name for what the tensor holds: tensors with the same numbers may have the same one.
    fn content(&self, name: &str) -> String {
        name.to_owned()
    }
}

impl NumberType {
    /// Bytes of a number.
    #[must_use]
    pub fn n_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// As it is spelled on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// Numbers of this type as singles; exact.
    pub fn widen(self, bytes: &[u8], numbers: &mut [f32]) {
        let halves = || bytes.chunks_exact(2).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
        match self {
            Self::F32 => {
                for (number, bytes) in numbers.iter_mut().zip(bytes.chunks_exact(4)) {
                    *number = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                }
            }
            Self::F16 => {
                let halves: Vec<f16> = halves().map(f16::from_bits).collect();
                halves.convert_to_f32_slice(numbers);
            }
            Self::Bf16 => {
                for (number, half) in numbers.iter_mut().zip(halves()) {
                    *number = bf16::from_bits(half).to_f32();
                }
            }
        }
    }

    /// Singles as numbers of this type, rounded to the nearest, ties to even.
    pub fn narrow(self, numbers: &[f32], bytes: &mut [u8]) {
        match self {
            Self::F32 => {
                for (bytes, number) in bytes.chunks_exact_mut(4).zip(numbers) {
                    bytes.copy_from_slice(&number.to_le_bytes());
                }
            }
            Self::F16 => {
                for (bytes, number) in bytes.chunks_exact_mut(2).zip(numbers) {
                    bytes.copy_from_slice(&f16::from_f32(*number).to_le_bytes());
                }
            }
            Self::Bf16 => {
                for (bytes, number) in bytes.chunks_exact_mut(2).zip(numbers) {
                    bytes.copy_from_slice(&bf16::from_f32(*number).to_le_bytes());
                }
            }
        }
    }
}

impl fmt::Display for NumberType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl TensorInfo {
    /// Of a tensor of this shape, held as it is read.
    #[must_use]
    pub fn new(format: Format, shape: &[usize]) -> Self {
        let n_columns = shape.last().copied().unwrap_or(1);
        let n_rows = shape.iter().rev().skip(1).product();
        Self { format, natural: format, n_rows, n_columns }
    }

    /// Bytes of so many rows.
    #[must_use]
    pub fn row_bytes(&self, n_rows: usize) -> usize {
        n_rows * self.format.n_bytes(self.n_columns as u64) as usize
    }
}

/// What `name` is, when it has this shape.
///
/// # Errors
/// [`WeightsError::Missing`].
pub fn expect(weights: &dyn Weights, name: &str, n_rows: usize, n_columns: usize) -> Result<TensorInfo, WeightsError> {
    weights
        .info(name)
        .filter(|info| (info.n_rows, info.n_columns) == (n_rows, n_columns))
        .ok_or_else(|| WeightsError::Missing { name: name.to_owned(), n_rows, n_columns })
}

/// Reads rows of a tensor of which `info` is known as singles; `buffer` is for the stored bytes.
///
/// # Errors
/// [`WeightsError`].
pub fn read_f32(
    weights: &dyn Weights,
    (name, info): (&str, TensorInfo),
    rows: Range<usize>,
    buffer: &mut Vec<u8>,
    numbers: &mut [f32],
) -> Result<(), WeightsError> {
    buffer.resize(info.row_bytes(rows.len()), 0);
    weights.read(name, rows, buffer)?;
    info.format.widen(buffer, numbers);
    Ok(())
}

/// A whole tensor as singles.
///
/// # Errors
/// [`WeightsError`].
pub fn tensor_f32(
    weights: &dyn Weights,
    name: &str,
    n_rows: usize,
    n_columns: usize,
) -> Result<Vec<f32>, WeightsError> {
    let info = expect(weights, name, n_rows, n_columns)?;
    let mut numbers = vec![0.0; n_rows * n_columns];
    read_f32(weights, (name, info), 0..n_rows, &mut Vec::new(), &mut numbers)?;
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_sixteen_bits_comes_back_as_it_was() {
        for number_type in [NumberType::F16, NumberType::Bf16] {
            let bits: Vec<u16> = (0..=u16::MAX).collect();
            let bytes: Vec<u8> = bits.iter().flat_map(|bits| bits.to_le_bytes()).collect();
            let mut numbers = vec![0.0; bits.len()];
            number_type.widen(&bytes, &mut numbers);
            let mut back = vec![0; bytes.len()];
            number_type.narrow(&numbers, &mut back);
            for ((before, after), number) in bytes.chunks_exact(2).zip(back.chunks_exact(2)).zip(&numbers) {
                assert!(before == after || number.is_nan(), "{number_type} {before:?} {number} {after:?}");
            }
        }
    }

    #[test]
    fn numbers_are_rounded_to_the_nearest() {
        let mut bytes = [0; 2];
        // 1 + 2^-8 lies between two neighbours of eight bits, 1 and 1 + 2^-7; a little more is nearer to the second.
        for (number, bits) in [(1.0 + 1.0 / 256.0, 0x3f80), (1.0 + 1.1 / 256.0, 0x3f81_u16)] {
            NumberType::Bf16.narrow(&[number], &mut bytes);
            assert_eq!(u16::from_le_bytes(bytes), bits);
        }
    }
}
