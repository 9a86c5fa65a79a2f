//! Products of a tile in plain code, for machines without the vector instructions that the others need.
//!
//! The same sums in the same order as there (but for halves of a unit with scales of their own, each of which is a sum), and
//! rounded after each multiplication.

use super::{
    Products, Tile,
    activations::Group,
    layout::{TILE_ROWS, UNIT, VECTOR},
    unit::{Floats, Unit},
};
use crate::engine::block_format::BlockFormat;

pub(super) fn products(tile: Tile<'_>, x: &Group, out: &mut Products) {
    let format = tile.format;
    for index in 0..tile.n_in / UNIT {
        let unit = Unit::read(tile, index);
        let n_parts = if format.has_half_scales() { 2 } else { 1 };
        let groups = unit.groups.chunks_exact(unit.groups.len() / n_parts);
        for (half, (part, groups)) in unit.parts.iter().zip(groups).enumerate() {
            for (row, sums) in out.iter_mut().enumerate().take(x.n_rows) {
                let place = index * x.n_rows + row;
                let mut dots = [offset(format, x, place, half); TILE_ROWS];
                let quants = &x.quants[place * UNIT + half * 16..(place + 1) * UNIT];
                for (four, vector) in quants.chunks_exact(4).zip(groups) {
                    add_dots(&mut dots, vector, four);
                }
                add(sums, &dots, x.scales[place], &part.scales);
                if format.has_minima() {
                    let x = if n_parts == 1 {
                        x.sums[place]
                    } else {
                        x.scales[place] * f32::from(x.half_sums[place][half])
                    };
                    sums.iter_mut().zip(&part.minima).for_each(|(sum, minimum)| *sum -= minimum * x);
                }
            }
        }
    }
}

/// What takes back what the numbers' bits say too much: half of their range, x's being for eight bits, and six of a half.
fn offset(format: BlockFormat, x: &Group, place: usize, half: usize) -> i32 {
    if format.has_minima() {
        0
    } else if format.has_half_scales() {
        x.half_offsets[2 * place + half] >> (6 - format.bits())
    } else {
        x.offsets[place] >> (8 - format.bits())
    }
}

/// Adds the products of four columns.
fn add_dots(dots: &mut [i32; TILE_ROWS], vector: &[u8; VECTOR], four: &[i8]) {
    for (dot, weights) in dots.iter_mut().zip(vector.chunks_exact(4)) {
        *dot += weights.iter().zip(four).map(|(weight, x)| i32::from(*weight) * i32::from(*x)).sum::<i32>();
    }
}

fn add(sums: &mut Floats, dots: &[i32; TILE_ROWS], scale: f32, d: &Floats) {
    for ((sum, dot), d) in sums.iter_mut().zip(dots).zip(d) {
        *sum += *dot as f32 * scale * d;
    }
}
