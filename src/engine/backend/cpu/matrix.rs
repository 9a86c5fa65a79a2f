//! A projection's weights in the format they are held in, and its product with rows of activations.
//!
//! Each number of a product is summed in an order that depends on nothing but its row's length, whatever the format.

use std::cell::OnceCell;

use bytemuck::{Pod, zeroed_vec};
use half::{bf16, f16};
use rayon::{
    iter::{IndexedParallelIterator, ParallelIterator},
    slice::{ParallelSlice, ParallelSliceMut},
};

use super::{
    kernel::{Kernel, element::Element},
    quantized::{
        self, PackedBytes, QuantizedMatrix, activations::Activations, instructions::Instructions, packing::Packing,
    },
};
use crate::engine::{
    backend::BackendError,
    block_format::BlockFormat,
    format::Format,
    weights::{self, NumberType, TensorInfo, Weights, WeightsError},
};

/// Weights of shape (out, in).
pub(super) enum Matrix {
    /// In single precision.
    F32(Dense<f32>),
    /// In half precision.
    F16(Dense<f16>),
    /// In bfloat16.
    Bf16(Dense<bf16>),
    /// In blocks.
    Quantized(QuantizedMatrix),
}

/// Rows of activations that several matrices are multiplied with.
pub(super) struct Input<'x> {
    x: &'x [f32],
    n_in: usize,
    /// Rounded for quantised weights, once there is one.
    rounded: OnceCell<Activations>,
}

/// What products are computed with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arithmetic {
    pub(super) kernel: Kernel,
    pub(super) instructions: Instructions,
}

/// Each number by itself, row-major.
pub(super) struct Dense<W> {
    weights: Vec<W>,
    n_in: usize,
}

/// Rows of x that one pass over a block of weights serves; with k = 2048 they are 256 KiB, about what a core's cache holds.
const ROWS_AT_ONCE: usize = 32;
/// Products below which a second thread costs more than it helps.
const SEQUENTIAL_BELOW: usize = 1 << 17;
/// Numbers that are read at once, so that what they are read into stays small beside the weights.
const READ_AT_ONCE: usize = 1 << 20;

impl Matrix {
    /// Reads the tensor of this name and shape into the given format.
    pub(super) fn load(
        source: &dyn Weights,
        name: &str,
        (n_out, n_in): (usize, usize),
        format: impl FnOnce(Format) -> Format,
    ) -> Result<Self, BackendError> {
        let info = weights::expect(source, name, n_out, n_in)?;
        let tensor = (name, info);
        let format = format(info.natural);
        if let Some(packed) = source.packed(name)?.filter(|packed| Format::Blocks(packed.format()) == format) {
            return Ok(Self::Quantized(packed));
        }
        match format {
            Format::Dense(NumberType::F32) => Ok(Self::F32(Dense::load(source, tensor, NumberType::F32)?)),
            Format::Dense(NumberType::F16) => Ok(Self::F16(Dense::load(source, tensor, NumberType::F16)?)),
            Format::Dense(NumberType::Bf16) => Ok(Self::Bf16(Dense::load(source, tensor, NumberType::Bf16)?)),
            Format::Blocks(blocks) => quantize(source, tensor, blocks).map(Self::Quantized),
        }
    }

    /// `out = x · weightsᵀ`; x of shape (token, in), out of shape (token, out).
    pub(super) fn multiply(&self, arithmetic: Arithmetic, input: &Input<'_>, out: &mut [f32]) {
        match self {
            Self::F32(dense) => dense.multiply(arithmetic.kernel, input.x, out),
            Self::F16(dense) => dense.multiply(arithmetic.kernel, input.x, out),
            Self::Bf16(dense) => dense.multiply(arithmetic.kernel, input.x, out),
            Self::Quantized(matrix) => {
                quantized::multiply(arithmetic.instructions, input.rounded(), &mut [(matrix, out)]);
            }
        }
    }
}

/// `out = x · weightsᵀ` for each matrix and its `out`, those in blocks together.
pub(super) fn multiply_all<const N: usize>(
    arithmetic: Arithmetic,
    input: &Input<'_>,
    targets: [(&Matrix, &mut [f32]); N],
) {
    let mut in_blocks = Vec::with_capacity(N);
    for (matrix, out) in targets {
        match matrix {
            Matrix::Quantized(matrix) => in_blocks.push((matrix, out)),
            Matrix::F32(_) | Matrix::F16(_) | Matrix::Bf16(_) => matrix.multiply(arithmetic, input, out),
        }
    }
    if !in_blocks.is_empty() {
        quantized::multiply(arithmetic.instructions, input.rounded(), &mut in_blocks);
    }
}

/// Packs a tensor while it is read, so that of what is stored only a few rows are ever in memory.
fn quantize(
    source: &dyn Weights,
    (name, info): (&str, TensorInfo),
    format: BlockFormat,
) -> Result<QuantizedMatrix, BackendError> {
    let of = |source| BackendError::Quantized { name: name.to_owned(), source };
    let packing = Packing::new(source, (name, info), format)?;
    let mut outcome = Ok(());
    let bytes = PackedBytes::filled(packing.n_bytes(), |bytes| {
        let pieces = bytes.par_chunks_mut(packing.piece_bytes()).enumerate();
        outcome = pieces.try_for_each(|(piece, packed)| packing.pack(piece, packed));
        Ok(())
    })
    .map_err(of)?;
    outcome?;
    QuantizedMatrix::new(format, info.n_rows, info.n_columns, bytes).map_err(of)
}

impl<'x> Input<'x> {
    /// Rows of `n_in` numbers.
    pub(super) fn new(x: &'x [f32], n_in: usize) -> Self {
        Self { x, n_in, rounded: OnceCell::new() }
    }

    fn rounded(&self) -> &Activations {
        self.rounded.get_or_init(|| Activations::new(self.x, self.n_in))
    }
}

impl Arithmetic {
    /// The best that this machine has.
    pub(super) fn detect() -> Self {
        Self { kernel: Kernel::detect(), instructions: Instructions::detect() }
    }
}

impl<W: Element + Pod> Dense<W> {
    fn load(
        source: &dyn Weights,
        (name, info): (&str, TensorInfo),
        number_type: NumberType,
    ) -> Result<Self, WeightsError> {
        let TensorInfo { n_rows, n_columns, .. } = info;
        let mut weights: Vec<W> = zeroed_vec(n_rows * n_columns);
        let rows_at_once = (READ_AT_ONCE / n_columns).max(1);
        weights.par_chunks_mut(rows_at_once * n_columns).enumerate().try_for_each(|(index, weights)| {
            let first = index * rows_at_once;
            let rows = first..first + weights.len() / n_columns;
            let bytes: &mut [u8] = bytemuck::cast_slice_mut(weights);
            // Numbers lie in memory as they are stored, little endian first.
            if info.format == Format::Dense(number_type) && cfg!(target_endian = "little") {
                return source.read(name, rows, bytes);
            }
            let mut numbers = vec![0.0; rows.len() * n_columns];
            weights::read_f32(source, (name, info), rows, &mut Vec::new(), &mut numbers)?;
            number_type.narrow(&numbers, bytes);
            Ok(())
        })?;
        Ok(Self { weights, n_in: n_columns })
    }

    fn multiply(&self, kernel: Kernel, x: &[f32], out: &mut [f32]) {
        let Self { ref weights, n_in } = *self;
        let (n_rows, n_out) = (x.len() / n_in, weights.len() / n_in);
        if n_rows * n_out * n_in < SEQUENTIAL_BELOW {
            return kernel.products(x, weights, n_in, out);
        }
        let block = n_out.div_ceil(4 * rayon::current_num_threads()).max(8);
        if n_rows == 1 {
            return out
                .par_chunks_mut(block)
                .zip(weights.par_chunks(block * n_in))
                .for_each(|(out, weights)| kernel.products(x, weights, n_in, out));
        }
        // Each task fills columns of `out` for all rows, which lie apart: they are computed side by side first.
        let blocks: Vec<Vec<f32>> =
            weights.par_chunks(block * n_in).map(|weights| multiply_block(kernel, x, weights, n_in)).collect();
        out.par_chunks_exact_mut(n_out).enumerate().for_each(|(row, out)| {
            for (out, block) in out.chunks_mut(block).zip(&blocks) {
                out.copy_from_slice(&block[row * out.len()..(row + 1) * out.len()]);
            }
        });
    }
}

fn multiply_block<W: Element>(kernel: Kernel, x: &[f32], weights: &[W], n_in: usize) -> Vec<f32> {
    let n_columns = weights.len() / n_in;
    let mut out = vec![0.0; x.len() / n_in * n_columns];
    for (x, out) in x.chunks(ROWS_AT_ONCE * n_in).zip(out.chunks_mut(ROWS_AT_ONCE * n_columns)) {
        kernel.products(x, weights, n_in, out);
    }
    out
}
