//! From ggml's blocks or from numbers to packed tiles, and back to numbers.
//!
//! Works on any whole tiles of a matrix, so that a matrix can stream through. Knows nothing of files. Packing moves bits and
//! computes nothing; what is dequantised from packed bytes is what ggml's blocks mean.

#![expect(unsafe_code, reason = "candle gives no bytes of its blocks")]

use candle_core::quantized::k_quants::{BlockQ4K, BlockQ6K, BlockQ8_0, GgmlType};
use half::f16;

use super::{
    QuantizedError,
    layout::{
        BlockFormat, HALVES, Q4_K_D, Q4_K_HEAD, Q4_K_SUPERBLOCK, Q4_K_UNIT, Q6_K_UNIT, SUPERBLOCK, TILE_ROWS, UNIT,
        UNITS, VECTOR, q6_k_places, q8_0_places,
    },
    packed_bytes,
};

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
            let is_finite = match format {
                BlockFormat::Q8_0 => pack_q8_0(blocks.as_chunks().0, row, tile),
                BlockFormat::Q4K => pack_q4_k(blocks.as_chunks().0, row, tile),
                BlockFormat::Q6K => pack_q6_k(blocks.as_chunks().0, row, tile),
            };
            if !is_finite {
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
        BlockFormat::Q8_0 => quantize_as::<BlockQ8_0>(format, n_in, rows, packed),
        BlockFormat::Q4K => quantize_as::<BlockQ4K>(format, n_in, rows, packed),
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
    for (tile, rows) in tiles.zip(rows.chunks_mut(TILE_ROWS * n_in)) {
        for (row, numbers) in rows.chunks_exact_mut(n_in).enumerate() {
            match format {
                BlockFormat::Q8_0 => unpack_q8_0(tile, row, numbers),
                BlockFormat::Q4K => unpack_q4_k(tile, row, numbers),
                BlockFormat::Q6K => unpack_q6_k(tile, row, numbers),
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

fn pack_q8_0(blocks: &[[u8; 34]], row: usize, tile: &mut [u8]) -> bool {
    let mut is_finite = true;
    for (unit, block) in blocks.iter().enumerate() {
        let places = q8_0_places(unit);
        let (d, quants) = block.split_at(2);
        is_finite &= is_number(d);
        put_half(&mut tile[places.d..], row, d);
        for (four, vector) in words(quants).zip(tile[places.vectors..].chunks_exact_mut(VECTOR)) {
            put(vector, row, four ^ 0x8080_8080);
        }
    }
    is_finite
}

fn pack_q4_k(blocks: &[[u8; 144]], row: usize, tile: &mut [u8]) -> bool {
    let mut is_finite = true;
    for (block, to) in blocks.iter().zip(tile.chunks_exact_mut(Q4_K_SUPERBLOCK)) {
        let (halves, rest) = block.split_at(4);
        let (scales, quants) = rest.split_at(12);
        let (head, units) = to.split_at_mut(Q4_K_HEAD);
        for (half, at) in halves.chunks_exact(2).zip([Q4_K_D, Q4_K_D + HALVES]) {
            is_finite &= is_number(half);
            put_half(&mut head[at..], row, half);
        }
        for unit in 0..UNITS {
            let (scale, minimum) = scale_and_minimum(scales, unit);
            head[unit * TILE_ROWS + row] = scale & 0x0f | minimum << 4;
            let upper = scale >> 4 | minimum >> 4 << 2;
            head[128 + unit % 4 * TILE_ROWS + row] |= upper << (unit / 4 * 4);
        }
        for (unit, to) in units.chunks_exact_mut(Q4_K_UNIT).enumerate() {
            let quants = &quants[unit / 2 * UNIT..][..UNIT];
            let shift = unit % 2 * 4;
            let (low, high) = quants.split_at(UNIT / 2);
            for ((low, high), vector) in words(low).zip(words(high)).zip(to.chunks_exact_mut(VECTOR)) {
                put(vector, row, low >> shift & 0x0f0f_0f0f | (high >> shift & 0x0f0f_0f0f) << 4);
            }
        }
    }
    is_finite
}

fn pack_q6_k(blocks: &[[u8; 210]], row: usize, tile: &mut [u8]) -> bool {
    let mut is_finite = true;
    for (superblock, block) in blocks.iter().enumerate() {
        let (low, rest) = block.split_at(128);
        let (upper, rest) = rest.split_at(64);
        let (scales, d) = rest.split_at(16);
        is_finite &= is_number(d);
        for unit in 0..UNITS {
            let places = q6_k_places(superblock * UNITS + unit);
            put_half(&mut tile[places.d..], row, d);
            tile[places.scales + row] = scales[2 * unit];
            tile[places.scales + TILE_ROWS + row] = scales[2 * unit + 1];
            let low = &low[unit / 4 * 64 + unit % 2 * UNIT..][..UNIT];
            let upper = &upper[unit / 4 * UNIT..][..UNIT];
            let to = &mut tile[places.vectors..][..Q6_K_UNIT];
            put_q6_k_unit(to, row, [low, upper], [unit % 4 / 2 * 4, unit % 4 * 2]);
        }
    }
    is_finite
}

/// Low and upper bits of 32 numbers, to be found after a shift.
fn put_q6_k_unit(to: &mut [u8], row: usize, [low, upper]: [&[u8]; 2], [low_shift, upper_shift]: [usize; 2]) {
    let mut groups = [(0, 0); 8];
    for ((group, low), upper) in groups.iter_mut().zip(words(low)).zip(words(upper)) {
        *group = (low >> low_shift & 0x0f0f_0f0f, upper >> upper_shift & 0x0303_0303);
    }
    let [first, second] = [&groups[..4], &groups[4..]];
    let halves = first.chunks_exact(2).zip(second.chunks_exact(2));
    for ((first, second), vectors) in halves.zip(to.chunks_exact_mut(3 * VECTOR)) {
        put(vectors, row, first[0].1 << 4 | second[0].1 << 6 | first[1].1 | second[1].1 << 2);
        put(&mut vectors[VECTOR..], row, first[0].0 | second[0].0 << 4);
        put(&mut vectors[2 * VECTOR..], row, first[1].0 | second[1].0 << 4);
    }
}

fn unpack_q8_0(tile: &[u8], row: usize, numbers: &mut [f32]) {
    for (unit, numbers) in numbers.chunks_exact_mut(UNIT).enumerate() {
        let places = q8_0_places(unit);
        let d = half(&tile[places.d..], row);
        for (numbers, vector) in numbers.chunks_exact_mut(4).zip(tile[places.vectors..].chunks_exact(VECTOR)) {
            let quants = &vector[4 * row..4 * row + 4];
            numbers.iter_mut().zip(quants).for_each(|(number, quant)| *number = d * (f32::from(*quant) - 128.0));
        }
    }
}

fn unpack_q4_k(superblocks: &[u8], row: usize, numbers: &mut [f32]) {
    for (numbers, superblock) in numbers.chunks_exact_mut(SUPERBLOCK).zip(superblocks.chunks_exact(Q4_K_SUPERBLOCK)) {
        let (head, units) = superblock.split_at(Q4_K_HEAD);
        let (d, minimum) = (half(&head[Q4_K_D..], row), half(&head[Q4_K_D + HALVES..], row));
        for (unit, (numbers, vectors)) in numbers.chunks_exact_mut(UNIT).zip(units.chunks_exact(Q4_K_UNIT)).enumerate()
        {
            let lower = head[unit * TILE_ROWS + row];
            let upper = head[128 + unit % 4 * TILE_ROWS + row] >> (unit / 4 * 4);
            let d = d * f32::from(lower & 0x0f | (upper & 3) << 4);
            let minimum = minimum * f32::from(lower >> 4 | (upper >> 2 & 3) << 4);
            for (index, number) in numbers.iter_mut().enumerate() {
                let byte = vectors[index % 16 / 4 * VECTOR + 4 * row + index % 4];
                *number = d * f32::from(byte >> (index / 16 * 4) & 0x0f) - minimum;
            }
        }
    }
}

fn unpack_q6_k(tile: &[u8], row: usize, numbers: &mut [f32]) {
    for (unit, numbers) in numbers.chunks_exact_mut(UNIT).enumerate() {
        let places = q6_k_places(unit);
        let d = half(&tile[places.d..], row);
        let vectors = &tile[places.vectors..][..Q6_K_UNIT];
        for (index, number) in numbers.iter_mut().enumerate() {
            let (is_second, group) = (index / 16, index % 16 / 4);
            let scale = d * f32::from(tile[places.scales + is_second * TILE_ROWS + row].cast_signed());
            let place = 4 * row + index % 4;
            let vectors = &vectors[group / 2 * 3 * VECTOR..];
            let low = vectors[(1 + group % 2) * VECTOR + place] >> (4 * is_second) & 0x0f;
            let shift = [[4, 6], [0, 2]][group % 2][is_second];
            let upper = vectors[place] >> shift & 3;
            *number = scale * (f32::from(low | upper << 4) - 32.0);
        }
    }
}

/// The six-bit scale and minimum of a unit of ggml's `Q4_K`.
fn scale_and_minimum(scales: &[u8], unit: usize) -> (u8, u8) {
    if unit < 4 {
        (scales[unit] & 63, scales[unit + 4] & 63)
    } else {
        let lower = scales[unit + 4];
        (lower & 0x0f | scales[unit - 4] >> 6 << 4, lower >> 4 | scales[unit] >> 6 << 4)
    }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word))
}

fn put(vector: &mut [u8], row: usize, four: u32) {
    vector[4 * row..4 * row + 4].copy_from_slice(&four.to_le_bytes());
}

fn put_half(halves: &mut [u8], row: usize, half: &[u8]) {
    halves[2 * row..2 * row + 2].copy_from_slice(half);
}

pub(super) fn half(halves: &[u8], index: usize) -> f32 {
    f16::from_le_bytes([halves[2 * index], halves[2 * index + 1]]).to_f32()
}

fn is_number(half: &[u8]) -> bool {
    // The exponent of what is not finite has all bits set.
    half.get(1).is_some_and(|upper| upper & 0x7c != 0x7c)
}
