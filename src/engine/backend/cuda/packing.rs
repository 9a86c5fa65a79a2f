//! Weights in the order in which a warp's lanes read them.
//!
//! Made from packed tiles of the CPU backend, whose sixteen rows are also a tile here: the integers and scales keep their values,
//! only their places change. `kernels/product.cuh` reads them and says why they lie so.

use half::{bf16, f16};

use crate::engine::{
    backend::cpu::quantized::{
        pack,
        unit::{Unit, offset, q4_k_factors},
    },
    block_format::BlockFormat,
    format::Format,
};

/// Rows of a tile.
pub const TILE_ROWS: usize = 16;
/// Columns of a step; those of a matrix are a multiple of it.
pub const STEP: usize = 32;
const LANES: usize = 32;
/// Columns that share the two f16 of [`WeightForm::Nibbles`].
const SUPERBLOCK: usize = 256;

/// How the numbers of a matrix are held on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WeightForm {
    /// bf16, row-major.
    Dense,
    /// Integers of eight bits, an f16 scale for 32 columns.
    Bytes,
    /// Integers of eight bits, an f16 scale for 16 columns.
    SmallBytes,
    /// `Q4_K`: integers of four bits, a scale and a minimum for 32 columns.
    Nibbles,
}

impl WeightForm {
    /// What becomes of a format. Formats with minima other than `Q4_K` become bf16.
    #[must_use]
    pub fn of(format: Format) -> Self {
        match format {
            Format::Dense(_)
            | Format::Blocks(BlockFormat::Q4_1 | BlockFormat::Q5_1 | BlockFormat::Q2K | BlockFormat::Q5K) => {
                Self::Dense
            }
            Format::Blocks(BlockFormat::Q4_0 | BlockFormat::Q5_0 | BlockFormat::Q8_0) => Self::Bytes,
            Format::Blocks(BlockFormat::Q3K | BlockFormat::Q6K) => Self::SmallBytes,
            Format::Blocks(BlockFormat::Q4K) => Self::Nibbles,
        }
    }

    /// Bytes of the integers, or numbers, of a tile.
    #[must_use]
    pub fn quant_bytes(self, n_in: usize) -> usize {
        match self {
            Self::Dense => 2 * TILE_ROWS * n_in,
            Self::Bytes | Self::SmallBytes => TILE_ROWS * n_in,
            Self::Nibbles => TILE_ROWS * n_in / 2,
        }
    }

    /// Bytes of the scales of a tile.
    #[must_use]
    pub fn scale_bytes(self, n_in: usize) -> usize {
        match self {
            Self::Dense => 0,
            Self::Bytes => TILE_ROWS * n_in / 32 * 2,
            Self::SmallBytes => TILE_ROWS * n_in / 16 * 2,
            Self::Nibbles => TILE_ROWS * n_in / SUPERBLOCK * 20,
        }
    }

    /// Columns are a multiple of this.
    #[must_use]
    pub fn columns(self) -> usize {
        if self == Self::Nibbles { SUPERBLOCK } else { STEP }
    }
}

/// Lays out the packed tiles of rows of `n_in` columns; `quants` and `scales` are as long as their [`WeightForm`] takes for as many.
/// Scales that no f16 holds become infinite, as they would in a block of eight bits.
///
/// # Panics
/// Where the lengths do not fit each other.
pub fn lay_out(format: BlockFormat, n_in: usize, packed: &[u8], quants: &mut [u8], scales: &mut [u8]) {
    let form = WeightForm::of(Format::Blocks(format));
    let n_tiles = quants.len() / form.quant_bytes(n_in);
    let tiles = packed.chunks_exact(packed.len() / n_tiles).zip(quants.chunks_exact_mut(form.quant_bytes(n_in)));
    for (index, (tile, quants)) in tiles.enumerate() {
        let scales = &mut scales[index * form.scale_bytes(n_in)..][..form.scale_bytes(n_in)];
        match form {
            WeightForm::Dense => dense(format, n_in, tile, quants),
            WeightForm::Bytes => bytes(format, n_in, (tile, 1), quants, scales),
            WeightForm::SmallBytes => bytes(format, n_in, (tile, 2), quants, scales),
            WeightForm::Nibbles => nibbles(n_in, tile, quants, scales),
        }
    }
}

fn dense(format: BlockFormat, n_in: usize, tile: &[u8], out: &mut [u8]) {
    let mut numbers = vec![0.0; TILE_ROWS * n_in];
    pack::dequantize(format, n_in, tile, &mut numbers).expect("invariant: a tile has a tile's bytes");
    for (out, number) in out.chunks_exact_mut(2).zip(numbers) {
        out.copy_from_slice(&bf16::from_f32(number).to_le_bytes());
    }
}

fn bytes(format: BlockFormat, n_in: usize, (tile, n_groups): (&[u8], usize), quants: &mut [u8], scales: &mut [u8]) {
    let offset = offset(format);
    for step in 0..n_in / STEP {
        let unit = Unit::of(format, n_in, tile, step);
        for row in 0..TILE_ROWS {
            for column in 0..STEP {
                let at = (step * LANES + lane(row, column)) * 16 + row / 8 * 8 + in_lane(column);
                quants[at] = (i32::from(unit.bits(row, column)) - offset) as u8;
            }
            for group in 0..n_groups {
                let at = ((step * n_groups + group) * TILE_ROWS + row) * 2;
                scales[at..at + 2].copy_from_slice(&f16::from_f32(unit.scale(row, group)).to_le_bytes());
            }
        }
    }
}

fn nibbles(n_in: usize, tile: &[u8], quants: &mut [u8], scales: &mut [u8]) {
    quants.fill(0);
    for step in 0..n_in / STEP {
        let unit = Unit::of(BlockFormat::Q4K, n_in, tile, step);
        let (superblock, pair) = (step / 8 * 20 * TILE_ROWS, step % 8 / 2);
        for (row, (factors, units)) in q4_k_factors(tile, step).into_iter().enumerate() {
            for column in 0..STEP {
                // Of the eight in a lane the first of each pair is in the lower sixteen bits.
                let of_lane = in_lane(column);
                let shift = of_lane / 2 * 4 + of_lane % 2 * 16;
                let word = step / 2 * LANES * 16 + lane(row, column) * 16 + step % 2 * 8 + row / 8 * 4;
                quants[word + shift / 8] |= unit.bits(row, column) << (shift % 8);
            }
            let at = superblock + (pair * TILE_ROWS + row) * 4 + step % 2 * 2;
            scales[at..at + 2].copy_from_slice(&factors);
            let at = superblock + (4 * TILE_ROWS + row) * 4;
            scales[at..at + 4].copy_from_slice(&units);
        }
    }
}

/// Which lane reads a column of a step.
fn lane(row: usize, column: usize) -> usize {
    row % 8 * 4 + column % 16 / 4
}

/// The how many-th of the eight that a lane reads of a row.
fn in_lane(column: usize) -> usize {
    column / 16 * 4 + column % 4
}
