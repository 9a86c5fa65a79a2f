//! Products of a tile in plain code, for machines without the vector instructions that the others need.
//!
//! The same sums in the same order as there, but rounded after each multiplication.

use super::{
    Products, Tile,
    activations::Group,
    layout::{
        BlockFormat, HALVES, Q4_K_D, Q4_K_HEAD, Q4_K_SUPERBLOCK, Q4_K_UNIT, Q6_K_UNIT, Q8_0_UNIT, TILE_ROWS, UNIT,
        UNITS, VECTOR, q6_k_places, q8_0_places,
    },
    pack::half,
};

type Floats = [f32; TILE_ROWS];

pub(super) fn products(tile: Tile<'_>, x: &Group, out: &mut Products) {
    match tile.format {
        BlockFormat::Q8_0 => q8_0(tile, x, out),
        BlockFormat::Q4K => q4_k(tile, x, out),
        BlockFormat::Q6K => q6_k(tile, x, out),
    }
}

fn q8_0(tile: Tile<'_>, x: &Group, out: &mut Products) {
    for unit in 0..tile.n_in / UNIT {
        let places = q8_0_places(unit);
        let d = halves(&tile.bytes[places.d..]);
        let vectors = &tile.bytes[places.vectors..][..Q8_0_UNIT];
        for (row, sums) in out.iter_mut().enumerate().take(x.n_rows) {
            let place = unit * x.n_rows + row;
            let mut dots = [x.offsets[place]; TILE_ROWS];
            let quants = &x.quants[place * UNIT..(place + 1) * UNIT];
            for (four, vector) in quants.chunks_exact(4).zip(vectors.chunks_exact(VECTOR)) {
                add_dots(&mut dots, vector, four);
            }
            add(sums, &dots, x.scales[place], &d);
        }
    }
}

fn q4_k(tile: Tile<'_>, x: &Group, out: &mut Products) {
    for (index, superblock) in tile.bytes.chunks_exact(Q4_K_SUPERBLOCK).enumerate() {
        let (head, units) = superblock.split_at(Q4_K_HEAD);
        let (d, minimum) = (halves(&head[Q4_K_D..]), halves(&head[Q4_K_D + HALVES..]));
        for (unit, vectors) in units.chunks_exact(Q4_K_UNIT).enumerate() {
            let (mut unit_d, mut unit_minimum) = (d, minimum);
            for row in 0..TILE_ROWS {
                let lower = head[unit * TILE_ROWS + row];
                let upper = head[128 + unit % 4 * TILE_ROWS + row] >> (unit / 4 * 4);
                unit_d[row] *= f32::from(lower & 0x0f | (upper & 3) << 4);
                unit_minimum[row] *= f32::from(lower >> 4 | (upper >> 2 & 3) << 4);
            }
            let vectors = nibbles(vectors);
            for (row, sums) in out.iter_mut().enumerate().take(x.n_rows) {
                let place = (index * UNITS + unit) * x.n_rows + row;
                let mut dots = [0; TILE_ROWS];
                let quants = &x.quants[place * UNIT..(place + 1) * UNIT];
                for (four, vector) in quants.chunks_exact(4).zip(&vectors) {
                    add_dots(&mut dots, vector, four);
                }
                add(sums, &dots, x.scales[place], &unit_d);
                sums.iter_mut().zip(&unit_minimum).for_each(|(sum, minimum)| *sum -= minimum * x.sums[place]);
            }
        }
    }
}

fn q6_k(tile: Tile<'_>, x: &Group, out: &mut Products) {
    for unit in 0..tile.n_in / UNIT {
        let places = q6_k_places(unit);
        let d = halves(&tile.bytes[places.d..]);
        let vectors = &tile.bytes[places.vectors..][..Q6_K_UNIT];
        let groups = sixes(vectors);
        for half in 0..2 {
            let scales = &tile.bytes[places.scales + half * TILE_ROWS..][..TILE_ROWS];
            let mut half_d = d;
            half_d.iter_mut().zip(scales).for_each(|(d, scale)| *d *= f32::from(scale.cast_signed()));
            for (row, sums) in out.iter_mut().enumerate().take(x.n_rows) {
                let place = unit * x.n_rows + row;
                let mut dots = [x.half_offsets[2 * place + half]; TILE_ROWS];
                let quants = &x.quants[place * UNIT + half * 16..][..16];
                for (four, vector) in quants.chunks_exact(4).zip(&groups[4 * half..]) {
                    add_dots(&mut dots, vector, four);
                }
                add(sums, &dots, x.scales[place], &half_d);
            }
        }
    }
}

fn halves(bytes: &[u8]) -> Floats {
    std::array::from_fn(|row| half(bytes, row))
}

/// Four vectors of lower halves, then those of upper ones.
fn nibbles(vectors: &[u8]) -> [[u8; VECTOR]; 8] {
    let mut groups = [[0; VECTOR]; 8];
    let (low, high) = groups.split_at_mut(4);
    for ((low, high), vector) in low.iter_mut().zip(high).zip(vectors.chunks_exact(VECTOR)) {
        for ((low, high), byte) in low.iter_mut().zip(high).zip(vector) {
            (*low, *high) = (byte & 0x0f, byte >> 4);
        }
    }
    groups
}

/// The eight groups of a `Q6_K` unit.
fn sixes(unit: &[u8]) -> [[u8; VECTOR]; 8] {
    let mut groups = [[0; VECTOR]; 8];
    for (pair, vectors) in unit.chunks_exact(3 * VECTOR).enumerate() {
        let (upper, nibbles) = vectors.split_at(VECTOR);
        let (first, second) = nibbles.split_at(VECTOR);
        let parts = [(0, first, 0, 4), (4, first, 4, 6), (1, second, 0, 0), (5, second, 4, 2)];
        for (group, nibbles, shift, upper_shift) in parts {
            for ((number, nibble), upper) in groups[2 * pair + group].iter_mut().zip(nibbles).zip(upper) {
                *number = nibble >> shift & 0x0f | (upper >> upper_shift & 3) << 4;
            }
        }
    }
    groups
}

/// Adds the products of four columns.
fn add_dots(dots: &mut [i32; TILE_ROWS], vector: &[u8], four: &[i8]) {
    for (dot, weights) in dots.iter_mut().zip(vector.chunks_exact(4)) {
        *dot += weights.iter().zip(four).map(|(weight, x)| i32::from(*weight) * i32::from(*x)).sum::<i32>();
    }
}

fn add(sums: &mut Floats, dots: &[i32; TILE_ROWS], scale: f32, d: &Floats) {
    for ((sum, dot), d) in sums.iter_mut().zip(dots).zip(d) {
        *sum += *dot as f32 * scale * d;
    }
}
