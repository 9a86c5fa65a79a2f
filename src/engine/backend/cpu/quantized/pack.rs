//! From ggml's blocks or from numbers to packed tiles, and back to numbers.
//!
//! Works on any whole tiles of a matrix, so that a matrix can stream through. Knows nothing of files. Packing moves bits and
//! computes nothing; what is dequantised from packed bytes is what ggml's blocks mean.

#![expect(unsafe_code, reason = "candle gives no bytes of its blocks")]

mod superblocks;
mod units;

use candle_core::quantized::k_quants::{
    BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0, GgmlType,
};

use super::{
    QuantizedError, Tile,
    layout::{TILE_ROWS, UNIT},
    packed_bytes,
    unit::{Unit, offset},
};
use crate::engine::block_format::BlockFormat;

/// Packs the `blocks` of consecutive rows of `n_in` columns, from the first row of a tile on; all of `packed` is written.
///
/// # Errors
/// Where `blocks` are no whole rows, `packed` has another length than they take, or a scale is not finite.
pub fn pack(format: BlockFormat, n_in: usize, blocks: &[u8], packed: &mut [u8]) -> Result<(), QuantizedError> {
    let row_bytes = n_in / format.columns() * format.block_bytes();
    let n_rows = blocks.len() / row_bytes.max(1);
    let expected = packed_bytes(format, n_rows, n_in)?;
    if blocks.len() != n_rows * row_bytes {
        return Err(QuantizedError::Length { found: blocks.len(), expected: n_rows * row_bytes });
    }
    if packed.len() != expected {
        return Err(QuantizedError::Length { found: packed.len(), expected });
    }
    let tiles = packed.chunks_exact_mut(format.tile_bytes(n_in));
    for (tile_idx, (rows, tile)) in blocks.chunks(TILE_ROWS * row_bytes).zip(tiles).enumerate() {
        tile.fill(0);
        for (row, blocks) in rows.chunks_exact(row_bytes).enumerate() {
            if !pack_row(format, blocks, row, tile) {
                return Err(QuantizedError::Scale { row: tile_idx * TILE_ROWS + row });
            }
        }
    }
    Ok(())
}

/// Quantises `rows` of `n_in` numbers and packs them, from the first row of a tile on.
///
/// # Errors
/// Those of [`pack`]; numbers that are not finite give scales that are not.
pub fn quantize(format: BlockFormat, n_in: usize, rows: &[f32], packed: &mut [u8]) -> Result<(), QuantizedError> {
    if let Some(at) = rows.iter().position(|number| !number.is_finite()) {
        return Err(QuantizedError::Scale { row: at / n_in });
    }
    match format {
        BlockFormat::Q4_0 => quantize_as::<BlockQ4_0>(format, n_in, rows, packed),
        BlockFormat::Q4_1 => quantize_as::<BlockQ4_1>(format, n_in, rows, packed),
        BlockFormat::Q5_0 => quantize_as::<BlockQ5_0>(format, n_in, rows, packed),
        BlockFormat::Q5_1 => quantize_as::<BlockQ5_1>(format, n_in, rows, packed),
        BlockFormat::Q8_0 => quantize_as::<BlockQ8_0>(format, n_in, rows, packed),
        BlockFormat::Q2K => quantize_as::<BlockQ2K>(format, n_in, rows, packed),
        BlockFormat::Q3K => quantize_as::<BlockQ3K>(format, n_in, rows, packed),
        BlockFormat::Q4K => quantize_as::<BlockQ4K>(format, n_in, rows, packed),
        BlockFormat::Q5K => quantize_as::<BlockQ5K>(format, n_in, rows, packed),
        BlockFormat::Q6K => quantize_as::<BlockQ6K>(format, n_in, rows, packed),
    }
}

/// The numbers of the first rows of packed tiles, as many as `rows`, shape (row, `n_in`), has.
///
/// # Errors
/// Where `packed` has another length than those rows take.
pub fn dequantize(format: BlockFormat, n_in: usize, packed: &[u8], rows: &mut [f32]) -> Result<(), QuantizedError> {
    let expected = packed_bytes(format, rows.len() / n_in.max(1), n_in)?;
    if packed.len() != expected {
        return Err(QuantizedError::Length { found: packed.len(), expected });
    }
    let tiles = packed.chunks_exact(format.tile_bytes(n_in));
    for (bytes, rows) in tiles.zip(rows.chunks_mut(TILE_ROWS * n_in)) {
        let tile = Tile { format, n_in, bytes };
        for index in 0..n_in / UNIT {
            let unit = Unit::read(tile, index);
            for (row, numbers) in rows.chunks_exact_mut(n_in).enumerate() {
                unpack(format, &unit, row, &mut numbers[index * UNIT..][..UNIT]);
            }
        }
    }
    Ok(())
}

fn quantize_as<B: GgmlType>(
    format: BlockFormat,
    n_in: usize,
    rows: &[f32],
    packed: &mut [u8],
) -> Result<(), QuantizedError> {
    packed_bytes(format, rows.len() / n_in.max(1), n_in)?;
    let mut blocks = vec![B::zeros(); rows.len() / B::BLCK_SIZE];
    B::from_float(rows, &mut blocks);
    assert_eq!(size_of::<B>(), format.block_bytes(), "a block's bytes");
    // SAFETY: a block is a C struct of bytes and halves whose sizes add up to its own: all its bytes are initialised.
    let bytes = unsafe { std::slice::from_raw_parts(blocks.as_ptr().cast::<u8>(), size_of_val(blocks.as_slice())) };
    pack(format, n_in, bytes, packed)
}

/// Whether all scales are finite.
fn pack_row(format: BlockFormat, blocks: &[u8], row: usize, tile: &mut [u8]) -> bool {
    match format {
        BlockFormat::Q4_0 | BlockFormat::Q4_1 | BlockFormat::Q5_0 | BlockFormat::Q5_1 | BlockFormat::Q8_0 => {
            units::pack(format, blocks, row, tile)
        }
        BlockFormat::Q2K => superblocks::pack_q2_k(blocks.as_chunks().0, row, tile),
        BlockFormat::Q3K => superblocks::pack_q3_k(blocks.as_chunks().0, row, tile),
        BlockFormat::Q4K => superblocks::pack_q4_k(blocks.as_chunks().0, row, tile),
        BlockFormat::Q5K => superblocks::pack_q5_k(blocks.as_chunks().0, row, tile),
        BlockFormat::Q6K => superblocks::pack_q6_k(blocks.as_chunks().0, row, tile),
    }
}

fn unpack(format: BlockFormat, unit: &Unit, row: usize, numbers: &mut [f32]) {
    let offset = offset(format) as f32;
    for (index, (numbers, group)) in numbers.chunks_exact_mut(4).zip(&unit.groups).enumerate() {
        let part = &unit.parts[index / 4];
        for (number, said) in numbers.iter_mut().zip(&group[4 * row..]) {
            *number = part.scales[row] * (f32::from(*said) - offset) - part.minima[row];
        }
    }
}

/// The bytes, four to a word.
#[inline]
fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
    let words = bytes[..4 * N].as_chunks().0;
    std::array::from_fn(|word| u32::from_le_bytes(words[word]))
}

/// Puts `half` among those of sixteen rows; whether it is a number.
#[inline]
fn put_half(halves: &mut [u8], row: usize, half: &[u8]) -> bool {
    halves[2 * row..2 * row + 2].copy_from_slice(half);
    // The exponent of what is not finite has all bits set.
    half.get(1).is_some_and(|upper| upper & 0x7c != 0x7c)
}
