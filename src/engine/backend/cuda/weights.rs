//! Matrices on the device, brought there a few rows at a time.
//!
//! What is read is laid out by several threads while what was laid out before is copied; in this machine's memory there are never
//! more than a few pieces of a matrix.

use std::{ops::Range, sync::mpsc};

use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::{
    device::{Address, Device, DeviceError, LargeProduct},
    kernels::{self, DeviceMatrix, MOST_ROWS, Then},
    packing::{TILE_ROWS, WeightForm, lay_out},
};
use crate::engine::{
    backend::{
        BackendError,
        cpu::quantized::{QuantizedMatrix, packing::Packing},
    },
    block_format::BlockFormat,
    format::Format,
    precision::{Part, Precision},
    weights::{self, NumberType, TensorInfo, Weights},
};

/// Numbers of a piece.
const PIECE_NUMBERS: usize = 1 << 20;
/// Pieces that may wait for being copied.
const PIECES_WAITING: usize = 8;

/// Matrices that are multiplied with the same activations, their products beside each other.
#[derive(Debug, Clone)]
pub struct Projection {
    /// With the column at which their products begin. Those of one form are one.
    pub parts: Vec<(DeviceMatrix, usize)>,
    /// Columns of all products.
    pub n_out: usize,
}

/// How matrices get to the device.
pub struct Loader<'a> {
    /// Where to.
    pub device: &'a mut dyn Device,
    /// Where from.
    pub source: &'a dyn Weights,
    /// How they are to be held.
    pub precision: Precision,
}

/// A tensor on its way: what it is, and its rows in pieces.
struct Tensor<'a> {
    source: &'a dyn Weights,
    name: String,
    info: TensorInfo,
    format: Format,
}

/// Bytes for the device, and how far they are from the matrix's first.
struct Piece {
    quants: (usize, Vec<u8>),
    scales: (usize, Vec<u8>),
}

/// What a matrix is held in on the device where this precision was asked for.
#[must_use]
pub fn device_format(precision: Precision, part: Part, n_in: usize, natural: Format) -> Format {
    let format = precision.format(part, n_in, natural);
    match WeightForm::of(format) {
        WeightForm::Dense => Format::Dense(NumberType::Bf16),
        WeightForm::Bytes | WeightForm::SmallBytes | WeightForm::Nibbles => format,
    }
}

/// Bytes that a matrix takes on the device.
#[must_use]
pub fn device_bytes(format: Format, n_out: usize, n_in: usize) -> usize {
    let form = WeightForm::of(format);
    n_out.div_ceil(TILE_ROWS) * (form.quant_bytes(n_in) + form.scale_bytes(n_in))
}

impl Loader<'_> {
    /// The tensors of these names and numbers of rows as one.
    ///
    /// # Errors
    /// [`BackendError`].
    pub fn projection(
        &mut self,
        tensors: &[(String, usize)],
        part: Part,
        n_in: usize,
    ) -> Result<Projection, BackendError> {
        let mut runs: Vec<Vec<Tensor<'_>>> = Vec::new();
        for (name, n_rows) in tensors {
            let info = weights::expect(self.source, name, *n_rows, n_in)?;
            let format = self.precision.format(part, n_in, info.natural);
            let tensor = Tensor { source: self.source, name: name.clone(), info, format };
            match runs.last_mut() {
                Some(run) if run.iter().all(|other| other.goes_before(&tensor)) => run.push(tensor),
                _ => runs.push(vec![tensor]),
            }
        }
        let (mut parts, mut n_out) = (Vec::new(), 0);
        for run in &runs {
            let matrix = load(self.device, run, n_in)?;
            parts.push((matrix, n_out));
            n_out += matrix.n_out;
        }
        Ok(Projection { parts, n_out })
    }

    /// A tensor of singles.
    ///
    /// # Errors
    /// [`BackendError`].
    pub fn norm(&mut self, name: &str, n: usize) -> Result<Address, BackendError> {
        let numbers = weights::tensor_f32(self.source, name, 1, n)?;
        let address = self.device.allocate(size_of_val(&numbers[..]))?;
        super::device::write_numbers(self.device, address, &numbers)?;
        Ok(address)
    }
}

fn load(device: &mut dyn Device, run: &[Tensor<'_>], n_in: usize) -> Result<DeviceMatrix, BackendError> {
    let form = WeightForm::of(run[0].format);
    let tiles = |tensor: &Tensor<'_>| tensor.info.n_rows.div_ceil(TILE_ROWS);
    let n_tiles: usize = run.iter().map(tiles).sum();
    let quants = device.allocate(n_tiles * form.quant_bytes(n_in))?;
    let scales = match form.scale_bytes(n_in) {
        0 => Address::NONE,
        n_bytes => device.allocate(n_tiles * n_bytes)?,
    };
    let mut first = 0;
    for tensor in run {
        let (quants, scales) =
            (quants.plus(first * form.quant_bytes(n_in)), scales.plus(first * form.scale_bytes(n_in)));
        tensor.bring(|piece| {
            device.write(quants.plus(piece.quants.0), &piece.quants.1)?;
            if piece.scales.1.is_empty() { Ok(()) } else { device.write(scales.plus(piece.scales.0), &piece.scales.1) }
        })?;
        first += tiles(tensor);
    }
    let n_out = run.iter().map(|tensor| tensor.info.n_rows).sum();
    Ok(DeviceMatrix { form, quants, scales, n_out, n_in })
}

impl Tensor<'_> {
    /// Whether another one's rows can follow in the same matrix.
    fn goes_before(&self, other: &Self) -> bool {
        let is_same = match (WeightForm::of(self.format), WeightForm::of(other.format)) {
            (WeightForm::Dense, WeightForm::Dense) => true,
            _ => self.format == other.format,
        };
        is_same && self.info.n_rows.is_multiple_of(TILE_ROWS)
    }

    /// Reads and lays out all pieces, several at once, and gives them to `take` one after the other.
    fn bring(&self, mut take: impl FnMut(Piece) -> Result<(), DeviceError>) -> Result<(), BackendError> {
        let tiles_at_once = (PIECE_NUMBERS / (TILE_ROWS * self.info.n_columns)).max(1);
        let n_tiles = self.info.n_rows.div_ceil(TILE_ROWS);
        let packed = match self.format {
            Format::Blocks(format) => self.source.packed(&self.name)?.filter(|packed| packed.format() == format),
            Format::Dense(_) => None,
        };
        let piece = |index: usize| {
            let tiles = index * tiles_at_once..((index + 1) * tiles_at_once).min(n_tiles);
            self.piece(tiles, packed.as_ref())
        };
        std::thread::scope(|scope| {
            let (sender, receiver) = mpsc::sync_channel(PIECES_WAITING);
            let maker = scope.spawn(move || {
                (0..n_tiles.div_ceil(tiles_at_once)).into_par_iter().try_for_each(|index| {
                    // Where nobody takes it any more, the reason is known there.
                    let _ = sender.send(piece(index)?);
                    Ok::<(), BackendError>(())
                })
            });
            // Taken to its end in any case, so that nobody waits for room.
            let mut taken = Ok(());
            for piece in receiver {
                if taken.is_ok() {
                    taken = take(piece);
                }
            }
            maker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok(taken?)
        })
    }

    fn piece(&self, tiles: Range<usize>, packed: Option<&QuantizedMatrix>) -> Result<Piece, BackendError> {
        let n_in = self.info.n_columns;
        let form = WeightForm::of(self.format);
        let mut quants = vec![0; tiles.len() * form.quant_bytes(n_in)];
        let mut scales = vec![0; tiles.len() * form.scale_bytes(n_in)];
        match self.format {
            Format::Dense(_) => self.dense(tiles.clone(), &mut quants)?,
            Format::Blocks(format) => {
                let of_packed;
                let bytes = if let Some(packed) = packed {
                    let tile_bytes = packed.bytes().len() / packed.n_tiles();
                    &packed.bytes()[tiles.start * tile_bytes..tiles.end * tile_bytes]
                } else {
                    of_packed = self.pack(format, tiles.clone())?;
                    &of_packed[..]
                };
                lay_out(format, n_in, bytes, &mut quants, &mut scales);
            }
        }
        let at = |n_bytes: usize| tiles.start * n_bytes;
        Ok(Piece { quants: (at(form.quant_bytes(n_in)), quants), scales: (at(form.scale_bytes(n_in)), scales) })
    }

    fn pack(&self, format: BlockFormat, tiles: Range<usize>) -> Result<Vec<u8>, BackendError> {
        let packing = Packing::new(self.source, (&self.name, self.info), format)?;
        packing.pack_rows(tiles.start * TILE_ROWS..(tiles.end * TILE_ROWS).min(self.info.n_rows))
    }

    fn dense(&self, tiles: Range<usize>, out: &mut [u8]) -> Result<(), BackendError> {
        let rows = tiles.start * TILE_ROWS..(tiles.end * TILE_ROWS).min(self.info.n_rows);
        let out = &mut out[..2 * rows.len() * self.info.n_columns];
        if self.info.format == Format::Dense(NumberType::Bf16) {
            return Ok(self.source.read(&self.name, rows, out)?);
        }
        let mut numbers = vec![0.0; rows.len() * self.info.n_columns];
        weights::read_f32(self.source, (&self.name, self.info), rows, &mut Vec::new(), &mut numbers)?;
        NumberType::Bf16.narrow(&numbers, out);
        Ok(())
    }
}

/// How products are computed.
#[derive(Debug, Clone, Copy)]
pub struct Products {
    /// Where weights are widened to bf16 for products of many rows at once, as large as the largest matrix that is not dense. Without
    /// it many rows are multiplied some at a time.
    pub widened: Option<Address>,
    /// Whether few rows are multiplied by kernels of their own.
    pub are_fast: bool,
}

impl Projection {
    /// Products of `n_rows` rows of `x` (bf16, shape (row, columns)), stored or added in singles: `out` of shape (row, `n_out`).
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn multiply(
        &self,
        device: &mut dyn Device,
        (x, n_rows): (Address, usize),
        (adds, out): (bool, Address),
        products: Products,
    ) -> Result<(), DeviceError> {
        for (matrix, column) in &self.parts {
            let out = out.plus(column * size_of::<f32>());
            let Some(widened) = products.widened.filter(|_| n_rows > MOST_ROWS || !products.are_fast) else {
                let then = if adds { Then::Add } else { Then::Store };
                for first in (0..n_rows).step_by(MOST_ROWS) {
                    let x = (x.plus(2 * first * matrix.n_in), (n_rows - first).min(MOST_ROWS));
                    let out = out.plus(4 * first * self.n_out);
                    kernels::multiply(device, *matrix, x, (then, out, self.n_out))?;
                }
                continue;
            };
            kernels::widen(device, *matrix, widened)?;
            let weights = if matrix.form == WeightForm::Dense { matrix.quants } else { widened };
            let (n_in, n_out, width) = (matrix.n_in, matrix.n_out, self.n_out);
            device.multiply(&LargeProduct { x, weights, out, n_rows, n_in, n_out, width, adds })?;
        }
        Ok(())
    }

    /// silu of the first half of the products times the second: `out` bf16, shape (row, `n_out` / 2); `room` is for them.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn silu_multiply(
        &self,
        device: &mut dyn Device,
        (x, n_rows): (Address, usize),
        (room, out): (Address, Address),
        products: Products,
    ) -> Result<(), DeviceError> {
        let ffn = self.n_out / 2;
        if let ([(both, _)], true) = (&self.parts[..], n_rows <= MOST_ROWS && products.are_fast) {
            let both = DeviceMatrix { n_out: ffn, ..*both };
            return kernels::multiply(device, both, (x, n_rows), (Then::Silu, out, ffn));
        }
        self.multiply(device, (x, n_rows), (false, room), products)?;
        kernels::silu_multiply(device, (n_rows, ffn), (room, out))
    }
}
