//! Where the bytes of a packed matrix lie; the one layout that the kernels of all instruction sets read.
//!
//! A matrix of shape (out, in) is cut into tiles of sixteen rows, the last one filled up with rows of zeros. A tile holds
//! its numbers in units of 32 columns, a unit in groups of four columns, and a group is sixteen rows beside each other, four
//! numbers each: 64 bytes, which is one vector whose lanes are rows; how groups share vectors is `numbers`'s. All
//! numbers are little-endian, all sums of parts are those of ggml's blocks, so that packing neither loses nor adds a bit
//! (but for padding).
//!
//! Whatever belongs together lies together, in the order in which it is read: two streams of memory are slower than one.
//!
//! * `Q4_0`, `Q5_0`, `Q8_0`: pairs of units: the f16 scales of both (16 each), then the numbers of both.
//! * `Q4_1`, `Q5_1`: units: 16 f16 scales, 16 f16 minima (to be added), then the numbers.
//! * `Q4_K`, `Q5_K`: superblocks of 256 columns: 192 bytes of sixes (as `put_sixes` says), a scale for each (unit, row),
//!   then a minimum for each, then 16 f16 `d`, 16 f16 `dmin`, then the numbers of the units.
//! * `Q2_K`: superblocks: 256 bytes for each (unit, row, half of the columns), the scale below the minimum, then 16 f16 `d`,
//!   16 f16 `dmin`, then the numbers of the units.
//! * `Q3_K`: pairs of superblocks: f16 `d` of both (16 each), then both: 192 bytes of sixes, a scale + 32 for each (unit, row,
//!   half of the columns), then the numbers of the units.
//! * `Q6_K`: pairs of superblocks: f16 `d` of both (16 each), then both, each of four pairs of units: 64 bytes of scales (16
//!   for each 16 columns), then the numbers of both units.
//!
//! Where the last pair is half a pair, the place of the other's f16 stays empty.

use crate::engine::block_format::BlockFormat;

/// Changes whenever packed bytes of another build could not be used; for files that hold them.
pub const LAYOUT_VERSION: u32 = 1;

/// Rows of a tile.
pub const TILE_ROWS: usize = 16;
/// Columns of a unit: what one scale of the activations covers.
pub(super) const UNIT: usize = 32;
/// Columns of a superblock of the k-quants.
pub(super) const SUPERBLOCK: usize = 256;
/// Units of a superblock.
pub(super) const UNITS: usize = SUPERBLOCK / UNIT;
/// Bytes of one vector: four columns of sixteen rows.
pub(super) const VECTOR: usize = 64;
/// Bytes of one f16 for each row.
pub(super) const HALVES: usize = 2 * TILE_ROWS;
/// Bytes of 256 sixes.
pub(super) const SIXES: usize = 3 * VECTOR;
/// Where `d` is in a superblock of `Q4_K` and `Q5_K`; `dmin` follows.
pub(super) const Q4_K_D: usize = SIXES;
/// Bytes before the units of such a superblock.
pub(super) const Q4_K_HEAD: usize = Q4_K_D + 2 * HALVES;
/// Where `d` is in a superblock of `Q2_K`; `dmin` follows.
pub(super) const Q2_K_D: usize = 4 * VECTOR;
/// Bytes before the units of such a superblock.
pub(super) const Q2_K_HEAD: usize = Q2_K_D + 2 * HALVES;
/// Bytes of a `Q3_K` superblock.
const Q3_K_SUPERBLOCK: usize = SIXES + UNITS * unit_bytes(3);
/// Bytes of a pair of `Q6_K` units.
const Q6_K_PAIR: usize = VECTOR + 2 * unit_bytes(6);
/// Bytes of a `Q6_K` superblock.
const Q6_K_SUPERBLOCK: usize = UNITS / 2 * Q6_K_PAIR;

impl BlockFormat {
    /// Bytes of a packed matrix of shape (`n_out`, `n_in`), or nothing where they cannot be counted or the columns fill no
    /// blocks.
    #[must_use]
    pub fn packed_bytes(self, n_out: usize, n_in: usize) -> Option<usize> {
        if n_in == 0 || !n_in.is_multiple_of(self.columns()) {
            return None;
        }
        n_in.checked_mul(4 * TILE_ROWS)?;
        n_out.div_ceil(TILE_ROWS).checked_mul(self.tile_bytes(n_in))
    }

    /// Bytes of one tile.
    pub(super) const fn tile_bytes(self, n_in: usize) -> usize {
        let n_blocks = n_in / self.columns();
        match self {
            Self::Q4_0 | Self::Q5_0 | Self::Q8_0 => n_blocks.div_ceil(2) * VECTOR + n_blocks * unit_bytes(self.bits()),
            Self::Q4_1 | Self::Q5_1 => n_blocks * (VECTOR + unit_bytes(self.bits())),
            Self::Q2K => n_blocks * (Q2_K_HEAD + UNITS * unit_bytes(2)),
            Self::Q3K => n_blocks.div_ceil(2) * VECTOR + n_blocks * Q3_K_SUPERBLOCK,
            Self::Q4K | Self::Q5K => n_blocks * q4_k_superblock(self.bits()),
            Self::Q6K => n_blocks.div_ceil(2) * VECTOR + n_blocks * Q6_K_SUPERBLOCK,
        }
    }

    /// Bits of a number.
    pub(super) const fn bits(self) -> usize {
        match self {
            Self::Q2K => 2,
            Self::Q3K => 3,
            Self::Q4_0 | Self::Q4_1 | Self::Q4K => 4,
            Self::Q5_0 | Self::Q5_1 | Self::Q5K => 5,
            Self::Q6K => 6,
            Self::Q8_0 => 8,
        }
    }

    /// Whether a minimum is a part of each number; where it is not, half of the range is taken from all.
    pub(super) const fn has_minima(self) -> bool {
        matches!(self, Self::Q4_1 | Self::Q5_1 | Self::Q2K | Self::Q4K | Self::Q5K)
    }

    /// Whether each half of a unit has a scale of its own.
    pub(super) const fn has_half_scales(self) -> bool {
        matches!(self, Self::Q2K | Self::Q3K | Self::Q6K)
    }
}

/// Bytes of the numbers of a unit.
pub(super) const fn unit_bytes(bits: usize) -> usize {
    bits * VECTOR
}

/// Bytes of a superblock of `Q4_K` or `Q5_K`.
pub(super) const fn q4_k_superblock(bits: usize) -> usize {
    Q4_K_HEAD + UNITS * unit_bytes(bits)
}

/// Where in a tile the parts of a unit of the formats without superblocks are.
#[derive(Debug, Clone, Copy)]
pub(super) struct UnitPlaces {
    /// Where there are minima, they follow.
    pub(super) d: usize,
    pub(super) vectors: usize,
}

/// Where in a tile the parts of a `Q3_K` unit are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Q3KPlaces {
    /// Of its superblock.
    pub(super) d: usize,
    /// Of its superblock.
    pub(super) sixes: usize,
    pub(super) vectors: usize,
}

/// Where in a tile the parts of a `Q6_K` unit are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Q6KPlaces {
    /// Of its superblock.
    pub(super) d: usize,
    /// 16 for the first half of its columns, 16 for the second.
    pub(super) scales: usize,
    pub(super) vectors: usize,
}

/// The places of a unit.
#[inline]
pub(super) const fn unit_places(bits: usize, has_minima: bool, unit: usize) -> UnitPlaces {
    if has_minima {
        let d = unit * (VECTOR + unit_bytes(bits));
        return UnitPlaces { d, vectors: d + VECTOR };
    }
    let first = unit / 2 * (VECTOR + 2 * unit_bytes(bits));
    UnitPlaces { d: first + unit % 2 * HALVES, vectors: first + VECTOR + unit % 2 * unit_bytes(bits) }
}

/// The places of a unit.
#[inline]
pub(super) const fn q3_k_places(unit: usize) -> Q3KPlaces {
    let superblock = unit / UNITS;
    let first = superblock / 2 * (VECTOR + 2 * Q3_K_SUPERBLOCK);
    let sixes = first + VECTOR + superblock % 2 * Q3_K_SUPERBLOCK;
    Q3KPlaces { d: first + superblock % 2 * HALVES, sixes, vectors: sixes + SIXES + unit % UNITS * unit_bytes(3) }
}

/// The places of a unit.
#[inline]
pub(super) const fn q6_k_places(unit: usize) -> Q6KPlaces {
    let superblock = unit / UNITS;
    let first = superblock / 2 * (VECTOR + 2 * Q6_K_SUPERBLOCK);
    let pair = first + VECTOR + superblock % 2 * Q6_K_SUPERBLOCK + unit % UNITS / 2 * Q6_K_PAIR;
    Q6KPlaces {
        d: first + superblock % 2 * HALVES,
        scales: pair + unit % 2 * 2 * TILE_ROWS,
        vectors: pair + VECTOR + unit % 2 * unit_bytes(6),
    }
}

/// Puts two of 256 six-bit numbers, the one at `index` and the one 128 further on, into bytes whose upper bits are zeros
/// there. The low four bits of the two share a byte, the upper two bits of both those of the two that are 64 further on.
#[inline]
pub(super) fn put_sixes(sixes: &mut [u8], index: usize, [first, second]: [u8; 2]) {
    sixes[index] = first & 0x0f | second << 4;
    sixes[2 * VECTOR + index % VECTOR] |= (first >> 4 | second >> 4 << 2) << (index / VECTOR * 4);
}

/// The number that [`put_sixes`] has put there.
#[inline]
pub(super) fn six(sixes: &[u8], index: usize) -> u8 {
    let (index, is_second) = (index % (2 * VECTOR), index / (2 * VECTOR));
    let upper = sixes[2 * VECTOR + index % VECTOR] >> (index / VECTOR * 4 + 2 * is_second) & 3;
    sixes[index] >> (4 * is_second) & 0x0f | upper << 4
}
