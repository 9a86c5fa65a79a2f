//! The blocks of 256 columns, which are superblocks.
//!
//! Knows how ggml orders their bits; a block's scales are the caller's to judge.

use super::{
    super::{
        layout::{
            HALVES, Q2_K_D, Q2_K_HEAD, Q4_K_D, Q4_K_HEAD, SIXES, TILE_ROWS, UNIT, UNITS, put_sixes, q3_k_places,
            q4_k_superblock, q6_k_places, unit_bytes,
        },
        numbers::{self, Words},
    },
    put_half, words,
};

/// Packs a row of blocks; whether all their `d` and `dmin` are finite.
pub(super) fn pack_q2_k(blocks: &[[u8; 84]], row: usize, tile: &mut [u8]) -> bool {
    let mut is_finite = true;
    for (block, to) in blocks.iter().zip(tile.chunks_exact_mut(Q2_K_HEAD + UNITS * unit_bytes(2))) {
        let (scales, rest) = block.split_at(16);
        let (quants, halves) = rest.split_at(64);
        let (head, units) = to.split_at_mut(Q2_K_HEAD);
        is_finite &= put_halves(&mut head[Q2_K_D..], row, halves);
        for (unit, to) in units.chunks_exact_mut(unit_bytes(2)).enumerate() {
            head[(unit * TILE_ROWS + row) * 2..][..2].copy_from_slice(&scales[2 * unit..][..2]);
            numbers::put(2, to, row, &crumbs(quants, unit));
        }
    }
    is_finite
}

/// Packs a row of blocks; whether all their `d` are finite.
pub(super) fn pack_q3_k(blocks: &[[u8; 110]], row: usize, tile: &mut [u8]) -> bool {
    let mut is_finite = true;
    for (superblock, block) in blocks.iter().enumerate() {
        let (tops, rest) = block.split_at(32);
        let (quants, rest) = rest.split_at(64);
        let (scales, d) = rest.split_at(12);
        let places = q3_k_places(superblock * UNITS);
        is_finite &= put_half(&mut tile[places.d..], row, d);
        let sixes = &mut tile[places.sixes..][..SIXES];
        for part in 0..UNITS {
            // Two parts a unit: the one 128 sixes further on is half a superblock further on.
            let lower = scales[part];
            let upper = [part, part + 8].map(|part| scales[8 + part % 4] >> (part / 4 * 2) << 4 & 0x30);
            let at = (part / 2 * TILE_ROWS + row) * 2 + part % 2;
            put_sixes(sixes, at, [lower & 0x0f | upper[0], lower >> 4 | upper[1]]);
        }
        let tops: Words = words(tops);
        for (unit, to) in tile[places.vectors..].chunks_exact_mut(unit_bytes(3)).take(UNITS).enumerate() {
            let mut words = crumbs(quants, unit);
            words.iter_mut().zip(tops).for_each(|(word, tops)| *word |= (tops >> unit & 0x0101_0101) << 2);
            numbers::put(3, to, row, &words);
        }
    }
    is_finite
}

/// Packs a row of blocks; whether all their `d` and `dmin` are finite.
pub(super) fn pack_q4_k(blocks: &[[u8; 144]], row: usize, tile: &mut [u8]) -> bool {
    let mut is_finite = true;
    for (block, to) in blocks.iter().zip(tile.chunks_exact_mut(q4_k_superblock(4))) {
        let (head, units) = to.split_at_mut(Q4_K_HEAD);
        let (before, quants) = block.split_at(16);
        is_finite &= put_head(head, row, before);
        for (unit, to) in units.chunks_exact_mut(unit_bytes(4)).enumerate() {
            numbers::put(4, to, row, &nibbles(quants, unit));
        }
    }
    is_finite
}

/// Packs a row of blocks; whether all their `d` and `dmin` are finite.
pub(super) fn pack_q5_k(blocks: &[[u8; 176]], row: usize, tile: &mut [u8]) -> bool {
    let mut is_finite = true;
    for (block, to) in blocks.iter().zip(tile.chunks_exact_mut(q4_k_superblock(5))) {
        let (head, units) = to.split_at_mut(Q4_K_HEAD);
        let (before, rest) = block.split_at(16);
        let (tops, quants) = rest.split_at(32);
        is_finite &= put_head(head, row, before);
        let tops: Words = words(tops);
        for (unit, to) in units.chunks_exact_mut(unit_bytes(5)).enumerate() {
            let mut words = nibbles(quants, unit);
            words.iter_mut().zip(tops).for_each(|(word, tops)| *word |= (tops >> unit & 0x0101_0101) << 4);
            numbers::put(5, to, row, &words);
        }
    }
    is_finite
}

/// Packs a row of blocks; whether all their `d` are finite.
pub(super) fn pack_q6_k(blocks: &[[u8; 210]], row: usize, tile: &mut [u8]) -> bool {
    let mut is_finite = true;
    for (superblock, block) in blocks.iter().enumerate() {
        let (low, rest) = block.split_at(128);
        let (upper, rest) = rest.split_at(64);
        let (scales, d) = rest.split_at(16);
        for unit in 0..UNITS {
            let places = q6_k_places(superblock * UNITS + unit);
            is_finite &= put_half(&mut tile[places.d..], row, d);
            tile[places.scales + row] = scales[2 * unit];
            tile[places.scales + TILE_ROWS + row] = scales[2 * unit + 1];
            let mut words: Words = words(&low[unit / 4 * 64 + unit % 2 * UNIT..]);
            words.iter_mut().zip(crumbs(upper, unit)).for_each(|(word, upper)| {
                *word = *word >> (unit % 4 / 2 * 4) & 0x0f0f_0f0f | upper << 4;
            });
            numbers::put(6, &mut tile[places.vectors..][..unit_bytes(6)], row, &words);
        }
    }
    is_finite
}

/// `d`, `dmin` and the six-bit scales and minima.
fn put_head(head: &mut [u8], row: usize, before: &[u8]) -> bool {
    let (halves, scales) = before.split_at(4);
    for unit in 0..UNITS {
        put_sixes(head, unit * TILE_ROWS + row, scale_and_minimum(scales, unit));
    }
    put_halves(&mut head[Q4_K_D..], row, halves)
}

fn put_halves(to: &mut [u8], row: usize, halves: &[u8]) -> bool {
    let (d, minimum) = halves.split_at(2);
    put_half(to, row, d) & put_half(&mut to[HALVES..], row, minimum)
}

/// The six-bit scale and minimum of a unit.
fn scale_and_minimum(scales: &[u8], unit: usize) -> [u8; 2] {
    if unit < 4 {
        [scales[unit] & 63, scales[unit + 4] & 63]
    } else {
        let lower = scales[unit + 4];
        [lower & 0x0f | scales[unit - 4] >> 6 << 4, lower >> 4 | scales[unit] >> 6 << 4]
    }
}

/// Two bits each: four units share 32 bytes.
fn crumbs(quants: &[u8], unit: usize) -> Words {
    words(&quants[unit / 4 * UNIT..]).map(|word: u32| word >> (unit % 4 * 2) & 0x0303_0303)
}

/// Four bits each: two units share 32 bytes.
fn nibbles(quants: &[u8], unit: usize) -> Words {
    words(&quants[unit / 2 * UNIT..]).map(|word: u32| word >> (unit % 2 * 4) & 0x0f0f_0f0f)
}
