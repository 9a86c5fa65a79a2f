//! Where the bytes of a packed matrix lie; the one layout that the kernels of all instruction sets read.
//!
//! A matrix of shape (out, in) is cut into tiles of sixteen rows, the last one filled up with rows of zeros. A tile holds
//! its numbers in units of 32 columns, a unit in groups of four columns, and a group is sixteen rows beside each other, four
//! numbers each: 64 bytes, which is one vector whose lanes are rows. All numbers are little-endian, all sums of parts are
//! those of ggml's blocks, so that packing neither loses nor adds a bit (but for padding).
//!
//! Whatever belongs together lies together, in the order in which it is read: two streams of memory are slower than one.
//!
//! * `Q8_0`: pairs of units: the f16 scales of both (16 each), then both: eight groups of q + 128.
//! * `Q4_K`: superblocks of 256 columns: 128 bytes of the low four bits of scale and minimum (16 rows a unit; the scale
//!   below), 64 bytes with the upper two bits of both (unit u below unit u + 4), 16 f16 `d`, 16 f16 `dmin`, then the units:
//!   four vectors with group g in the lower and g + 4 in the upper halves of the bytes.
//! * `Q6_K`: pairs of superblocks: f16 `d` of both (16 each), then both, each of four pairs of units: 64 bytes of scales (16
//!   for each 16 columns), then both units: two times a vector with upper bits, those of groups g, g + 4, g + 1 and g + 5 in
//!   bits 4-5, 6-7, 0-1 and 2-3, and the two vectors with their lower four, as in `Q4_K`.
//!
//! Where the last pair is half a pair, the place of the other's f16 stays empty.

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
/// Bytes of a `Q8_0` unit.
pub(super) const Q8_0_UNIT: usize = 8 * VECTOR;
/// Bytes of a `Q4_K` unit.
pub(super) const Q4_K_UNIT: usize = 4 * VECTOR;
/// Bytes before the units of a `Q4_K` superblock.
pub(super) const Q4_K_HEAD: usize = 192 + 2 * HALVES;
/// Where `d` is in a `Q4_K` superblock; `dmin` follows.
pub(super) const Q4_K_D: usize = 192;
/// Bytes of a `Q4_K` superblock.
pub(super) const Q4_K_SUPERBLOCK: usize = Q4_K_HEAD + UNITS * Q4_K_UNIT;
/// Bytes of a `Q6_K` unit.
pub(super) const Q6_K_UNIT: usize = 6 * VECTOR;
/// Bytes of a pair of `Q6_K` units.
const Q6_K_PAIR: usize = VECTOR + 2 * Q6_K_UNIT;
/// Bytes of a `Q6_K` superblock.
const Q6_K_SUPERBLOCK: usize = UNITS / 2 * Q6_K_PAIR;

/// How the numbers of a quantised matrix are coded: ggml's block types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlockFormat {
    /// 32 columns share a scale; eight bits a number.
    Q8_0,
    /// 256 columns in eight parts, each with a scale and a minimum; four bits a number.
    Q4K,
    /// 256 columns in sixteen parts, each with a scale; six bits a number.
    Q6K,
}

impl BlockFormat {
    /// Columns of a block: what the columns of a matrix must be a multiple of.
    #[must_use]
    pub const fn columns(self) -> usize {
        match self {
            Self::Q8_0 => UNIT,
            Self::Q4K | Self::Q6K => SUPERBLOCK,
        }
    }

    /// Bytes of one of ggml's blocks.
    #[must_use]
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q6K => 210,
        }
    }

    /// The name that ggml and `llama.cpp` have for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Q8_0 => "Q8_0",
            Self::Q4K => "Q4_K",
            Self::Q6K => "Q6_K",
        }
    }

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
            Self::Q8_0 => n_blocks.div_ceil(2) * VECTOR + n_blocks * Q8_0_UNIT,
            Self::Q4K => n_blocks * Q4_K_SUPERBLOCK,
            Self::Q6K => n_blocks.div_ceil(2) * VECTOR + n_blocks * Q6_K_SUPERBLOCK,
        }
    }
}

/// Where in a tile the parts of a `Q8_0` unit are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Q8_0Places {
    pub(super) d: usize,
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
pub(super) const fn q8_0_places(unit: usize) -> Q8_0Places {
    let first = unit / 2 * (VECTOR + 2 * Q8_0_UNIT);
    Q8_0Places { d: first + unit % 2 * HALVES, vectors: first + VECTOR + unit % 2 * Q8_0_UNIT }
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
        vectors: pair + VECTOR + unit % 2 * Q6_K_UNIT,
    }
}
