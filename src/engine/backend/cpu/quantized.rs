//! Matrices of quantised weights, and products of rows of x with them.
//!
//! Owns the packed bytes, which are made instead of ggml's blocks and may lie in a mapped file. Knows nothing of models or
//! files. Batch-invariant: each product is the sum of its units of 32 columns from first to last, exact within a unit, so
//! its bits depend on nothing but the two rows that meet in it and the instruction set.

pub mod activations;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod instructions;
pub mod layout;
mod numbers;
pub mod pack;
pub mod packing;
mod portable;
pub mod unit;

use std::{fmt, ops::Range, sync::Arc};

use rayon::iter::{IntoParallelIterator, ParallelIterator};

use activations::{Activations, GROUP_ROWS, Group};
use instructions::Instructions;
use layout::TILE_ROWS;

use super::large_pages::LargePages;
use crate::engine::block_format::BlockFormat;

/// Products of a tile with a group of rows of x: shape (row of x, row of the tile).
type Products = [[f32; TILE_ROWS]; GROUP_ROWS];

/// Bytes of x that all tiles of a task meet before the next rows do: they stay in a core's second cache beside a tile.
const ROWS_BYTES: usize = 384 << 10;
/// Products below which a second thread costs more than it helps.
const SEQUENTIAL_BELOW: usize = 1 << 18;
/// Tasks for each thread, so that one that is held up does not hold up the others.
const TASKS_PER_THREAD: usize = 6;

/// A matrix of shape (`n_out`, `n_in`).
#[derive(Debug, Clone)]
pub struct QuantizedMatrix {
    format: BlockFormat,
    n_out: usize,
    n_in: usize,
    bytes: PackedBytes,
}

/// Where packed bytes are; clones share them. A start at a multiple of 64 is fastest.
#[derive(Clone)]
pub struct PackedBytes {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
}

/// Why there is no such matrix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantizedError {
    /// The shape has no packed form.
    #[error(
        "a matrix of shape ({n_out}, {n_in}) cannot be packed as {format}, expected columns in multiples of {multiple}\n\
         hint: choose another format for it"
    )]
    Shape {
        /// The format's name.
        format: &'static str,
        /// Rows asked for.
        n_out: usize,
        /// Columns asked for.
        n_in: usize,
        /// What the columns should be a multiple of.
        multiple: usize,
    },
    /// The bytes are not those of such a matrix.
    #[error("found {found} bytes for a packed matrix, expected {expected}\nhint: make the packed copy again")]
    Length {
        /// Bytes found.
        found: usize,
        /// Bytes that the shape takes.
        expected: usize,
    },
    /// A scale in the blocks is no number.
    #[error(
        "found a scale that is not finite in row {row}, expected numbers\nhint: the file is damaged or was quantised from damaged weights"
    )]
    Scale {
        /// The row within those that were to be packed.
        row: usize,
    },
    /// There is no room for the matrix.
    #[error("found no room for {bytes} bytes of weights, expected more free memory\nhint: {reason}")]
    Memory {
        /// Bytes asked for.
        bytes: usize,
        /// The system's words.
        reason: String,
    },
}

impl QuantizedMatrix {
    /// The matrix that `bytes` are, packed as [`layout`] says.
    ///
    /// # Errors
    /// Where the shape cannot be packed, or takes another number of bytes.
    pub fn new(format: BlockFormat, n_out: usize, n_in: usize, bytes: PackedBytes) -> Result<Self, QuantizedError> {
        let expected = packed_bytes(format, n_out, n_in)?;
        let found = bytes.range.len();
        if found != expected {
            return Err(QuantizedError::Length { found, expected });
        }
        Ok(Self { format, n_out, n_in, bytes })
    }

    /// How its numbers are coded.
    #[must_use]
    pub fn format(&self) -> BlockFormat {
        self.format
    }

    /// Rows, which are a product's columns.
    #[must_use]
    pub fn n_out(&self) -> usize {
        self.n_out
    }

    /// Columns, which a row of x has as well.
    #[must_use]
    pub fn n_in(&self) -> usize {
        self.n_in
    }

    /// The packed bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// Tiles of sixteen rows, the last one perhaps with fewer.
    #[must_use]
    pub fn n_tiles(&self) -> usize {
        self.n_out.div_ceil(TILE_ROWS)
    }

    /// `out[r][c] = x[r] · row c of the tiles`, for the tiles in `tiles`; each of `out`, one for each row of x, is as long
    /// as the tiles have rows (without those that only fill the last tile up).
    ///
    /// # Panics
    /// Where x has other columns or `out` another shape.
    pub fn products(&self, instructions: Instructions, x: &Activations, tiles: Range<usize>, out: &mut [&mut [f32]]) {
        assert_eq!((x.n_in(), x.n_rows()), (self.n_in, out.len()), "rows of x and of the products");
        let tile_bytes = self.format.tile_bytes(self.n_in);
        let bytes = &self.bytes()[tiles.start * tile_bytes..tiles.end * tile_bytes];
        let groups_at_once = (ROWS_BYTES / (GROUP_ROWS * self.n_in)).max(1);
        let chunks = x.groups().chunks(groups_at_once).zip(out.chunks_mut(groups_at_once * GROUP_ROWS));
        for (groups, out) in chunks {
            for (index, bytes) in bytes.chunks_exact(tile_bytes).enumerate() {
                let tile = Tile { format: self.format, n_in: self.n_in, bytes };
                for (group, out) in groups.iter().zip(out.chunks_mut(GROUP_ROWS)) {
                    let products = tile.products(instructions, group);
                    for (out, products) in out.iter_mut().zip(products) {
                        let to = &mut out[index * TILE_ROWS..];
                        let n = to.len().min(TILE_ROWS);
                        to[..n].copy_from_slice(&products[..n]);
                    }
                }
            }
        }
    }
}

/// `out = x · matrixᵀ` for every matrix and its `out` of shape (row of x, `n_out`), shared out to the threads of the pool that
/// this runs in.
///
/// # Panics
/// Where x has other columns or an `out` has another shape.
pub fn multiply(instructions: Instructions, x: &Activations, targets: &mut [(&QuantizedMatrix, &mut [f32])]) {
    let n_tiles: usize = targets.iter().map(|(matrix, _)| matrix.n_tiles()).sum();
    let n_tasks = match n_tiles * TILE_ROWS * x.n_in() * x.n_rows() {
        ..SEQUENTIAL_BELOW => 1,
        _ => TASKS_PER_THREAD * rayon::current_num_threads(),
    };
    let per_task = n_tiles.div_ceil(n_tasks).max(1);
    let mut tasks = Vec::new();
    for (matrix, out) in targets {
        assert_eq!(out.len(), x.n_rows() * matrix.n_out(), "the shape of the products");
        add_tasks(matrix, out, per_task, &mut tasks);
    }
    if n_tasks == 1 {
        for task in &mut tasks {
            task.run(instructions, x);
        }
    } else {
        tasks.into_par_iter().for_each(|mut task| task.run(instructions, x));
    }
}

/// Some tiles of a matrix, and where their products go.
struct Task<'a> {
    matrix: &'a QuantizedMatrix,
    tiles: Range<usize>,
    out: Vec<&'a mut [f32]>,
}

impl Task<'_> {
    fn run(&mut self, instructions: Instructions, x: &Activations) {
        self.matrix.products(instructions, x, self.tiles.clone(), &mut self.out);
    }
}

fn add_tasks<'a>(matrix: &'a QuantizedMatrix, out: &'a mut [f32], per_task: usize, tasks: &mut Vec<Task<'a>>) {
    let first = tasks.len();
    for tile in (0..matrix.n_tiles()).step_by(per_task) {
        let tiles = tile..(tile + per_task).min(matrix.n_tiles());
        tasks.push(Task { matrix, tiles, out: Vec::with_capacity(out.len() / matrix.n_out()) });
    }
    for row in out.chunks_exact_mut(matrix.n_out()) {
        for (columns, task) in row.chunks_mut(per_task * TILE_ROWS).zip(&mut tasks[first..]) {
            task.out.push(columns);
        }
    }
}

/// The bytes of a packed matrix of this shape.
///
/// # Errors
/// Where the shape cannot be packed.
pub fn packed_bytes(format: BlockFormat, n_out: usize, n_in: usize) -> Result<usize, QuantizedError> {
    let shape = || QuantizedError::Shape { format: format.name(), n_out, n_in, multiple: format.columns() };
    format.packed_bytes(n_out, n_in).ok_or_else(shape)
}

impl PackedBytes {
    /// Part of bytes that something else holds, a mapped file for instance; nothing where it has no such part.
    #[must_use]
    pub fn shared(owner: Arc<dyn AsRef<[u8]> + Send + Sync>, range: Range<usize>) -> Option<Self> {
        (*owner).as_ref().get(range.clone())?;
        Some(Self { owner, range })
    }

    /// `n_bytes` of its own, aligned and on large pages where the system has them, filled by `fill` (they are zeros before).
    ///
    /// # Errors
    /// Where there is no room, or whatever `fill` says.
    pub fn filled<E: From<QuantizedError>>(
        n_bytes: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let no_room = |error: std::io::Error| QuantizedError::Memory { bytes: n_bytes, reason: error.to_string() };
        let mut pages = LargePages::new(n_bytes).map_err(no_room)?;
        fill(pages.as_mut_slice())?;
        Ok(Self { owner: Arc::new(pages), range: 0..n_bytes })
    }

    fn as_slice(&self) -> &[u8] {
        &(*self.owner).as_ref()[self.range.clone()]
    }
}

impl fmt::Debug for PackedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.range.len())
    }
}

/// Sixteen rows of weights.
#[derive(Clone, Copy)]
struct Tile<'a> {
    format: BlockFormat,
    n_in: usize,
    bytes: &'a [u8],
}

impl Tile<'_> {
    /// The products with each row of x; rows that the group has not are left at zero.
    fn products(self, instructions: Instructions, x: &Group) -> Products {
        assert_eq!(self.bytes.len(), self.format.tile_bytes(self.n_in), "a tile's bytes");
        assert_eq!(x.quants.len(), x.n_rows * self.n_in, "a group's columns");
        let mut out = Products::default();
        match instructions {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Vnni(found) => avx512::products(found, self, x, &mut out),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2(found) => avx2::products(found, self, x, &mut out),
            Instructions::Portable => portable::products(self, x, &mut out),
        }
        out
    }
}

#[cfg(test)]
mod tests;
