//! GPTQ checkpoints: projections as packed integers with a scale and a zero point for each group of inputs.
//!
//! It knows the packing, not the model. **Architecture Invariant:** a [`Quantized`] that was made has finite scales, groups
//! that exist, and integers for every weight; where it says so its rows are ggml blocks with exactly the same values.

pub mod config;
pub mod error;
mod packing;

use std::ops::Range;

use half::f16;

use self::{
    config::{GptqConfig, ZeroPoint},
    error::GptqError,
    packing::Packed,
};
use super::{file_header::StoredTensor, stored_type::StoredType};
use crate::engine::{block_format::BlockFormat, format::Format, weights::NumberType};

/// Rows that are taken out of the words together: as many as lie in one line of the processor's cache.
const TILE_ROWS: usize = 16;

/// The tensors of one projection, by the ends of their names.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'h> {
    /// `….qweight`: integers, packed along the inputs.
    pub qweight: &'h StoredTensor,
    /// `….qzeros`: zero points, packed along the outputs.
    pub qzeros: &'h StoredTensor,
    /// `….scales`.
    pub scales: &'h StoredTensor,
    /// `….g_idx`: the group of each input; in order where it is absent.
    pub g_idx: Option<&'h StoredTensor>,
}

/// The bytes of [`Parts`].
#[derive(Debug, Clone)]
pub struct PartBytes {
    /// Of `qweight`.
    pub qweight: Vec<u8>,
    /// Of `qzeros`.
    pub qzeros: Vec<u8>,
    /// Of `scales`.
    pub scales: Vec<u8>,
    /// Of `g_idx`.
    pub g_idx: Option<Vec<u8>>,
}

/// The sizes of one projection, checked against the shapes of its tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    n_in: usize,
    n_out: usize,
    bits: usize,
    group_size: usize,
    n_groups: usize,
    zero_point: ZeroPoint,
    scale_type: NumberType,
}

/// Checks the shapes of a projection of `shape` (out, in) called `name`.
///
/// # Errors
/// [`GptqError`], with what was found, what was expected and a hint.
pub fn check(
    config: &GptqConfig,
    name: &str,
    parts: &Parts<'_>,
    (n_out, n_in): (usize, usize),
) -> Result<Sizes, GptqError> {
    let bits = config.bits();
    let group_size = config.group_size().unwrap_or(n_in);
    let per_word = 32 / bits;
    for (axis, found) in [("inputs", n_in), ("outputs", n_out)] {
        if found == 0 || !found.is_multiple_of(per_word) {
            return Err(GptqError::Width { name: name.to_owned(), axis, found, divisor: per_word });
        }
    }
    let n_groups = n_in.div_ceil(group_size);
    let integers = |tensor: &StoredTensor| tensor.dtype == StoredType::I32;
    let scale_type = match parts.scales.dtype {
        StoredType::F16 => Some(NumberType::F16),
        StoredType::BF16 => Some(NumberType::Bf16),
        StoredType::F32 => Some(NumberType::F32),
        StoredType::I32 | StoredType::U8 | StoredType::Other(_) | StoredType::Block(_) => None,
    };
    let g_idx = parts.g_idx.map(|tensor| (tensor, integers(tensor), vec![n_in]));
    let expected = [
        Some((parts.qweight, integers(parts.qweight), vec![n_in / per_word, n_out])),
        Some((parts.qzeros, integers(parts.qzeros), vec![n_groups, n_out / per_word])),
        Some((parts.scales, scale_type.is_some(), vec![n_groups, n_out])),
        g_idx,
    ];
    for (tensor, is_its_type, expected) in expected.into_iter().flatten() {
        if !is_its_type {
            return Err(GptqError::NumberType { tensor: tensor.name.clone(), found: tensor.dtype.clone() });
        }
        if tensor.shape != expected {
            return Err(GptqError::Shape { tensor: tensor.name.clone(), found: tensor.shape.clone(), expected });
        }
    }
    let scale_type = scale_type.unwrap_or(NumberType::F16);
    Ok(Sizes { n_in, n_out, bits, group_size, n_groups, zero_point: config.zero_point(), scale_type })
}

/// A projection, ready to be taken row by row.
#[derive(Debug)]
pub struct Quantized {
    sizes: Sizes,
    weights: Packed,
    /// Zero points, (groups, out).
    zeros: Vec<u8>,
    /// (groups, out).
    scales: Vec<f32>,
    /// The group of each input, `None` where groups are in order.
    groups: Option<Vec<u32>>,
    format: Format,
}

impl Quantized {
    /// Reads zero points, scales and groups of a projection called `name`, and says how its rows come out.
    ///
    /// # Errors
    /// [`GptqError`], with what was found, what was expected and a hint.
    pub fn new(name: &str, sizes: Sizes, bytes: PartBytes) -> Result<Self, GptqError> {
        let Sizes { n_in, n_out, bits, n_groups, .. } = sizes;
        let per_word = 32 / bits;
        for (part, found, expected) in [
            ("qweight", bytes.qweight.len(), n_in / per_word * n_out * 4),
            ("qzeros", bytes.qzeros.len(), n_groups * (n_out / per_word) * 4),
            ("scales", bytes.scales.len(), n_groups * n_out * sizes.scale_type.n_bytes()),
            ("g_idx", bytes.g_idx.as_ref().map_or(n_in * 4, Vec::len), n_in * 4),
        ] {
            if found != expected {
                return Err(GptqError::Bytes { name: name.to_owned(), part, found, expected });
            }
        }
        let mut scales = vec![0.0; n_groups * n_out];
        sizes.scale_type.widen(&bytes.scales, &mut scales);
        if let Some((at, &found)) = scales.iter().enumerate().find(|(_, scale)| !scale.is_finite()) {
            let (group, output) = (at / n_out, at % n_out);
            return Err(GptqError::Scale { name: name.to_owned(), group, output, found });
        }
        let zeros = packing::zeros(&bytes.qzeros, bits, sizes.zero_point);
        let groups = sizes.groups(name, bytes.g_idx.as_deref())?;
        let format = sizes.format(&zeros, &scales, groups.is_some());
        let weights = Packed { bytes: bytes.qweight, bits, n_columns: n_out };
        Ok(Self { sizes, weights, zeros, scales, groups, format })
    }

    /// How rows come out: as blocks whose integers and scales are those of the file, or as singles because no block can say
    /// the same.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Rows of the projection, which are columns of the file, one after the other, written as [`Self::format`] says.
    pub fn read(&self, rows: Range<usize>, out: &mut [u8]) {
        if let Format::Blocks(block) = self.format {
            return self.blocks(block, rows, out);
        }
        let mut numbers = vec![0.0; rows.len() * self.sizes.n_in];
        self.numbers(rows, &mut numbers);
        NumberType::F32.narrow(&numbers, out);
    }

    fn blocks(&self, block: BlockFormat, rows: Range<usize>, out: &mut [u8]) {
        let mut outs = out.chunks_exact_mut(self.sizes.n_in / block.columns() * block.block_bytes());
        self.for_each_row(rows, |row, integers| {
            let Some(out) = outs.next() else { return };
            let blocks = integers.chunks_exact(block.columns()).zip(out.chunks_exact_mut(block.block_bytes()));
            for (block_idx, (values, out)) in blocks.enumerate() {
                let group = block_idx * block.columns() / self.sizes.group_size;
                let scale = f16::from_f32(self.scale(group, row));
                packing::block(self.sizes.bits, scale, values, out);
            }
        });
    }

    fn numbers(&self, rows: Range<usize>, out: &mut [f32]) {
        let mut outs = out.chunks_exact_mut(self.sizes.n_in);
        self.for_each_row(rows, |row, integers| {
            let Some(out) = outs.next() else { return };
            for (input, (&integer, out)) in integers.iter().zip(out).enumerate() {
                let group = self.group(input);
                let zero = self.zeros.get(group * self.sizes.n_out + row).copied().unwrap_or_default();
                *out = self.scale(group, row) * (f32::from(integer) - f32::from(zero));
            }
        });
    }

    fn for_each_row(&self, rows: Range<usize>, mut take: impl FnMut(usize, &[u8])) {
        let n_in = self.sizes.n_in;
        let mut integers = vec![0; TILE_ROWS * n_in];
        let end = rows.end.min(self.sizes.n_out);
        for start in (rows.start..end).step_by(TILE_ROWS) {
            let tile = start..end.min(start + TILE_ROWS);
            self.weights.columns(tile.clone(), n_in, &mut integers);
            tile.zip(integers.chunks_exact(n_in)).for_each(|(row, integers)| take(row, integers));
        }
    }

    fn group(&self, input: usize) -> usize {
        let in_order = input / self.sizes.group_size;
        self.groups.as_ref().map_or(in_order, |groups| groups.get(input).map_or(in_order, |&group| group as usize))
    }

    fn scale(&self, group: usize, row: usize) -> f32 {
        self.scales.get(group * self.sizes.n_out + row).copied().unwrap_or_default()
    }
}

impl Sizes {
    /// Outputs and inputs.
    #[must_use]
    pub fn shape(&self) -> (usize, usize) {
        (self.n_out, self.n_in)
    }

    /// How rows come out if integers and groups are as the configuration says; what is in the file has the last word.
    #[must_use]
    pub fn promised(&self, config: &GptqConfig) -> Format {
        let is_whole = self.n_in.is_multiple_of(32) && (self.n_groups == 1 || self.group_size.is_multiple_of(32));
        match self.bits {
            8 if config.is_symmetric() && !config.is_act_ordered() && is_whole => Format::Blocks(BlockFormat::Q8_0),
            4 if config.is_symmetric() && !config.is_act_ordered() && is_whole => Format::Blocks(BlockFormat::Q4_0),
            _ => Format::Dense(NumberType::F16),
        }
    }

    /// The group of each input, `None` where they are in order.
    fn groups(&self, name: &str, bytes: Option<&[u8]>) -> Result<Option<Vec<u32>>, GptqError> {
        let Some(bytes) = bytes else { return Ok(None) };
        let words = bytes.as_chunks::<4>().0.iter().map(|word| i32::from_le_bytes(*word));
        let mut groups = Vec::with_capacity(self.n_in);
        for (input, found) in words.enumerate() {
            match u32::try_from(found) {
                Ok(group) if (group as usize) < self.n_groups => groups.push(group),
                _ => {
                    return Err(GptqError::Group { name: name.to_owned(), input, found, n_groups: self.n_groups });
                }
            }
        }
        let in_order = groups.iter().enumerate().all(|(input, &group)| input / self.group_size == group as usize);
        Ok(if in_order { None } else { Some(groups) })
    }

    /// Blocks where they can say exactly what the file says: groups in order and of whole blocks, zero points in the middle,
    /// scales that are numbers in f16.
    fn format(&self, zeros: &[u8], scales: &[f32], is_shuffled: bool) -> Format {
        let block = if self.bits == 8 { BlockFormat::Q8_0 } else { BlockFormat::Q4_0 };
        let fits = |size: usize| size.is_multiple_of(block.columns());
        let is_whole = fits(self.n_in) && (self.n_groups == 1 || fits(self.group_size));
        let middle = 1 << (self.bits - 1);
        let is_exact = |&scale: &f32| f16::from_f32(scale).to_f32() == scale;
        if !is_shuffled && is_whole && zeros.iter().all(|&zero| zero == middle) && scales.iter().all(is_exact) {
            Format::Blocks(block)
        } else {
            Format::Dense(NumberType::F32)
        }
    }
}

#[cfg(test)]
mod tests;
