//! Weights that were quantised and taken back to singles.

use std::{collections::HashMap, ops::Range, sync::Arc};

use xverse_chat::engine::{
    backend::cpu::quantized::{
        pack::{dequantize, quantize},
        packed_bytes,
    },
    checkpoint,
    config::ModelConfig,
    format::Format,
    precision::{Part, Precision, Quantize},
    weights::{self, NumberType, TensorInfo, Weights, WeightsError},
};

/// How weights are quantised.
#[derive(Debug, Clone, Copy)]
pub enum Scheme {
    /// As this program does it.
    Blocks(Quantize),
    /// As the original does it: symmetric, one scale for each output row, the head left alone.
    PerRow(Quantize),
}

/// Weights as they come back from a scheme.
pub struct Dequantized {
    inner: Arc<dyn Weights>,
    parts: HashMap<String, Part>,
    scheme: Scheme,
}

impl Dequantized {
    pub fn new(inner: Arc<dyn Weights>, config: &ModelConfig, scheme: Scheme) -> Self {
        let parts = checkpoint::matrices(config).into_iter().map(|(name, part, ..)| (name, part)).collect();
        Self { inner, parts, scheme }
    }
}

impl Weights for Dequantized {
    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.inner.info(name).map(|info| TensorInfo { format: Format::Dense(NumberType::F32), ..info })
    }

    fn read(&self, name: &str, rows: Range<usize>, bytes: &mut [u8]) -> Result<(), WeightsError> {
        let stored = self.inner.info(name).unwrap();
        let mut numbers = vec![0.0; rows.len() * stored.n_columns];
        weights::read_f32(self.inner.as_ref(), (name, stored), rows, &mut Vec::new(), &mut numbers)?;
        match (self.scheme, self.parts.get(name)) {
            (_, None) | (Scheme::PerRow(_), Some(Part::Head)) => {}
            (Scheme::Blocks(bits), Some(part)) => through_blocks(bits, *part, stored.n_columns, &mut numbers),
            (Scheme::PerRow(bits), Some(Part::Projection)) => {
                numbers.chunks_exact_mut(stored.n_columns).for_each(|row| per_row(bits, row));
            }
        }
        NumberType::F32.narrow(&numbers, bytes);
        Ok(())
    }
}

fn through_blocks(bits: Quantize, part: Part, n_columns: usize, rows: &mut [f32]) {
    let precision = Precision { number_type: None, quantize: bits };
    let Format::Blocks(format) = precision.format(part, n_columns, Format::Dense(NumberType::F32)) else { return };
    let mut packed = vec![0; packed_bytes(format, rows.len() / n_columns, n_columns).unwrap()];
    quantize(format, n_columns, rows, &mut packed).unwrap();
    dequantize(format, n_columns, &packed, rows).unwrap();
}

/// `scale = max|row| / (2^(bits - 1) - 1)`, kept in bfloat16 as the original's model is; `round(w / scale) * scale`.
fn per_row(bits: Quantize, row: &mut [f32]) {
    let steps = if bits == Quantize::Eight { 127.0 } else { 7.0 };
    let largest = row.iter().fold(0.0, |largest: f32, weight| largest.max(weight.abs()));
    let scale = half::bf16::from_f32(largest / steps).to_f32();
    if scale > 0.0 {
        for weight in row {
            *weight = (*weight / scale).round().clamp(-steps - 1.0, steps) * scale;
        }
    }
}
