//! What the bytes of a unit of a packed tile mean, for plain code.
//!
//! Knows every format and no instruction set. A number is its scale times (what its bits say, less the format's
//! [`offset`]), less its minimum, rounded in this order as ggml rounds it.

use half::f16;

use super::{
    Tile,
    layout::{
        HALVES, Q2_K_D, Q2_K_HEAD, Q4_K_D, Q4_K_HEAD, SIXES, TILE_ROWS, UNITS, q3_k_places, q4_k_superblock,
        q6_k_places, six, unit_bytes, unit_places,
    },
    numbers::{Groups, groups},
};
use crate::engine::block_format::BlockFormat;

/// A number for each row of a tile.
pub(super) type Floats = [f32; TILE_ROWS];

/// 32 columns of sixteen rows.
pub struct Unit {
    pub(super) groups: Groups,
    pub(super) parts: [Part; 2],
}

/// What half of the columns share.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub(super) scales: Floats,
    /// Zeros where the format has none.
    pub(super) minima: Floats,
}

/// What the numbers' bits say too much.
#[must_use]
pub const fn offset(format: BlockFormat) -> i32 {
    if format.has_minima() { 0 } else { 1 << (format.bits() - 1) }
}

impl Unit {
    /// Of a tile of a packed matrix with `n_in` columns, for those who lay it out anew.
    #[must_use]
    pub fn of(format: BlockFormat, n_in: usize, tile: &[u8], unit: usize) -> Self {
        Self::read(Tile { format, n_in, bytes: tile }, unit)
    }

    /// What the bits at a row and column say.
    #[must_use]
    pub fn bits(&self, row: usize, column: usize) -> u8 {
        self.groups[column / 4][4 * row + column % 4]
    }

    /// The scale of a row's first or second sixteen columns.
    #[must_use]
    pub fn scale(&self, row: usize, half: usize) -> f32 {
        self.parts[half].scales[row]
    }

    /// A tile's unit.
    pub(super) fn read(tile: Tile<'_>, unit: usize) -> Self {
        let format = tile.format;
        let (parts, vectors) = match format {
            BlockFormat::Q4_0 | BlockFormat::Q4_1 | BlockFormat::Q5_0 | BlockFormat::Q5_1 | BlockFormat::Q8_0 => {
                let places = unit_places(format.bits(), format.has_minima(), unit);
                let mut part = Part { scales: halves(&tile.bytes[places.d..]), minima: [0.0; TILE_ROWS] };
                if format.has_minima() {
                    // Of these formats alone they are to be added.
                    part.minima = halves(&tile.bytes[places.d + HALVES..]).map(|minimum| -minimum);
                }
                ([part; 2], places.vectors)
            }
            BlockFormat::Q2K => q2_k(tile.bytes, unit),
            BlockFormat::Q3K => q3_k(tile.bytes, unit),
            BlockFormat::Q4K | BlockFormat::Q5K => q4_k(format, tile.bytes, unit),
            BlockFormat::Q6K => q6_k(tile.bytes, unit),
        };
        Self { groups: groups(format.bits(), &tile.bytes[vectors..][..unit_bytes(format.bits())]), parts }
    }
}

/// Of a unit of a `Q4_K` tile: each row's factors of scale and minimum, and the two f16 that they are factors of.
#[must_use]
pub fn q4_k_factors(tile: &[u8], unit: usize) -> [([u8; 2], [u8; 4]); TILE_ROWS] {
    let superblock = unit / UNITS * q4_k_superblock(BlockFormat::Q4K.bits());
    let (head, unit) = (&tile[superblock..][..Q4_K_HEAD], unit % UNITS);
    std::array::from_fn(|row| {
        let half = |at: usize| [head[at + 2 * row], head[at + 2 * row + 1]];
        let ([a, b], [c, d]) = (half(Q4_K_D), half(Q4_K_D + HALVES));
        let factors = [0, UNITS].map(|of| six(head, (of + unit) * TILE_ROWS + row));
        (factors, [a, b, c, d])
    })
}

fn q2_k(tile: &[u8], unit: usize) -> ([Part; 2], usize) {
    let superblock = unit / UNITS * (Q2_K_HEAD + UNITS * unit_bytes(2));
    let (head, unit) = (&tile[superblock..][..Q2_K_HEAD], unit % UNITS);
    let [d, minima] = [Q2_K_D, Q2_K_D + HALVES].map(|at| halves(&head[at..]));
    let parts = [0, 1].map(|half| {
        let byte = |row: usize| head[(unit * TILE_ROWS + row) * 2 + half];
        Part {
            scales: times(d, |row| f32::from(byte(row) & 0x0f)),
            minima: times(minima, |row| f32::from(byte(row) >> 4)),
        }
    });
    (parts, superblock + Q2_K_HEAD + unit * unit_bytes(2))
}

fn q3_k(tile: &[u8], unit: usize) -> ([Part; 2], usize) {
    let places = q3_k_places(unit);
    let (d, sixes) = (halves(&tile[places.d..]), &tile[places.sixes..][..SIXES]);
    let parts = [0, 1].map(|half| {
        let scale = |row: usize| f32::from(six(sixes, (unit % UNITS * TILE_ROWS + row) * 2 + half)) - 32.0;
        Part { scales: times(d, scale), minima: [0.0; TILE_ROWS] }
    });
    (parts, places.vectors)
}

fn q4_k(format: BlockFormat, tile: &[u8], unit: usize) -> ([Part; 2], usize) {
    let superblock = unit / UNITS * q4_k_superblock(format.bits());
    let (head, unit) = (&tile[superblock..][..Q4_K_HEAD], unit % UNITS);
    let [d, minima] = [Q4_K_D, Q4_K_D + HALVES].map(|at| halves(&head[at..]));
    let part = Part {
        scales: times(d, |row| f32::from(six(head, unit * TILE_ROWS + row))),
        minima: times(minima, |row| f32::from(six(head, (UNITS + unit) * TILE_ROWS + row))),
    };
    ([part; 2], superblock + Q4_K_HEAD + unit * unit_bytes(format.bits()))
}

fn q6_k(tile: &[u8], unit: usize) -> ([Part; 2], usize) {
    let places = q6_k_places(unit);
    let d = halves(&tile[places.d..]);
    let parts = [0, TILE_ROWS].map(|at| {
        let scale = |row: usize| f32::from(tile[places.scales + at + row].cast_signed());
        Part { scales: times(d, scale), minima: [0.0; TILE_ROWS] }
    });
    (parts, places.vectors)
}

fn times(floats: Floats, by: impl Fn(usize) -> f32) -> Floats {
    std::array::from_fn(|row| floats[row] * by(row))
}

fn halves(bytes: &[u8]) -> Floats {
    let halves = bytes[..HALVES].as_chunks().0;
    std::array::from_fn(|row| f16::from_le_bytes(halves[row]).to_f32())
}
