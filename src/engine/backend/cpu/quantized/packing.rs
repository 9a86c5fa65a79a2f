//! A tensor on its way into its packed form, in pieces that can be made apart from each other.
//!
//! Owns neither what is read nor what is written. **Architecture Invariant:** blocks that are already of the format are moved
//! bit by bit; everything else is quantised from its numbers.

use std::ops::Range;

use super::{QuantizedError, layout::TILE_ROWS, pack, packed_bytes};
use crate::engine::{
    backend::BackendError,
    block_format::BlockFormat,
    format::Format,
    weights::{self, TensorInfo, Weights},
};

/// Numbers that are read at once, so that what they are read into stays small beside the weights.
const NUMBERS_AT_ONCE: usize = 1 << 20;

/// A tensor and the format that it is to be packed in.
pub struct Packing<'s> {
    source: &'s dyn Weights,
    name: &'s str,
    info: TensorInfo,
    format: BlockFormat,
    rows_at_once: usize,
    piece_bytes: usize,
    n_bytes: usize,
}

impl<'s> Packing<'s> {
    /// Of the tensor `name`, of which `info` is known.
    ///
    /// # Errors
    /// Where its shape has no packed form.
    pub fn new(
        source: &'s dyn Weights,
        (name, info): (&'s str, TensorInfo),
        format: BlockFormat,
    ) -> Result<Self, BackendError> {
        let of = |source| BackendError::Quantized { name: name.to_owned(), source };
        let rows_at_once = (NUMBERS_AT_ONCE / (TILE_ROWS * info.n_columns)).max(1) * TILE_ROWS;
        let piece_bytes = packed_bytes(format, rows_at_once, info.n_columns).map_err(of)?;
        let n_bytes = packed_bytes(format, info.n_rows, info.n_columns).map_err(of)?;
        Ok(Self { source, name, info, format, rows_at_once, piece_bytes, n_bytes })
    }

    /// Bytes of a piece; the last one may have fewer.
    #[must_use]
    pub fn piece_bytes(&self) -> usize {
        self.piece_bytes
    }

    /// Bytes of the whole matrix.
    #[must_use]
    pub fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    /// Reads and packs the rows of a piece.
    ///
    /// # Errors
    /// Where they cannot be read, or hold what is no number.
    pub fn pack(&self, piece: usize, packed: &mut [u8]) -> Result<(), BackendError> {
        let first = piece * self.rows_at_once;
        self.pack_into(first..(first + self.rows_at_once).min(self.info.n_rows), packed)
    }

    /// Reads and packs some rows, from the first one of a tile on.
    ///
    /// # Errors
    /// Where they cannot be read, or hold what is no number.
    pub fn pack_rows(&self, rows: Range<usize>) -> Result<Vec<u8>, BackendError> {
        let of = |source| BackendError::Quantized { name: self.name.to_owned(), source };
        let mut packed = vec![0; packed_bytes(self.format, rows.len(), self.info.n_columns).map_err(of)?];
        self.pack_into(rows, &mut packed)?;
        Ok(packed)
    }

    fn pack_into(&self, rows: Range<usize>, packed: &mut [u8]) -> Result<(), BackendError> {
        let Self { source, name, info, format, .. } = *self;
        let of = |source| BackendError::Quantized { name: name.to_owned(), source };
        let first = rows.start;
        let in_row = |error| match error {
            QuantizedError::Scale { row } => QuantizedError::Scale { row: first + row },
            other => other,
        };
        let mut buffer = Vec::new();
        if info.format == Format::Blocks(format) {
            buffer.resize(info.row_bytes(rows.len()), 0);
            source.read(name, rows, &mut buffer)?;
            return pack::pack(format, info.n_columns, &buffer, packed).map_err(in_row).map_err(of);
        }
        let mut numbers = vec![0.0; rows.len() * info.n_columns];
        weights::read_f32(source, (name, info), rows, &mut buffer, &mut numbers)?;
        pack::quantize(format, info.n_columns, &numbers, packed).map_err(in_row).map_err(of)
    }
}
