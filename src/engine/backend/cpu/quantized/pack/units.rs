//! The blocks of 32 columns, which are units.
//!
//! Knows how ggml orders their bits; a block's scales are the caller's to judge.

use super::{
    super::{
        layout::{HALVES, unit_bytes, unit_places},
        numbers::{self, Words},
    },
    put_half, words,
};
use crate::engine::block_format::BlockFormat;

/// Packs a row of blocks; whether all their scales and minima are finite.
pub(super) fn pack(format: BlockFormat, blocks: &[u8], row: usize, tile: &mut [u8]) -> bool {
    let (bits, has_minima) = (format.bits(), format.has_minima());
    let mut is_finite = true;
    for (unit, block) in blocks.chunks_exact(format.block_bytes()).enumerate() {
        let places = unit_places(bits, has_minima, unit);
        let (d, rest) = block.split_at(2);
        is_finite &= put_half(&mut tile[places.d..], row, d);
        let mut quants = rest;
        if has_minima {
            let (minimum, rest) = rest.split_at(2);
            is_finite &= put_half(&mut tile[places.d + HALVES..], row, minimum);
            quants = rest;
        }
        let words = match bits {
            4 => nibbles(words(quants), 0),
            5 => {
                let [tops, lower @ ..]: [u32; 5] = words(quants);
                nibbles(lower, tops)
            }
            _ => words(quants).map(|four: u32| four ^ 0x8080_8080),
        };
        numbers::put(bits, &mut tile[places.vectors..][..unit_bytes(bits)], row, &words);
    }
    is_finite
}

/// The first half's numbers are in the lower halves of the bytes; bit c of `tops` is above column c's.
fn nibbles(quants: [u32; 4], tops: u32) -> Words {
    std::array::from_fn(|group| {
        let lower = quants[group % 4] >> (group / 4 * 4) & 0x0f0f_0f0f;
        // Four bits a byte apart: copies seven bits apart, of which each bit is in its place in one.
        let copies = (tops >> (4 * group) & 0x0f) * 0x0020_4081;
        lower | (copies & 0x0101_0101) << 4
    })
}
