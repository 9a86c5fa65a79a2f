//! Random weights of a model's shape: one layer, repeated.

use std::{collections::HashMap, f32::consts::TAU, ops::Range};

use super::layout::{self, EMBEDDINGS, LM_HEAD};
use crate::engine::{
    config::ModelConfig,
    format::Format,
    sampling::philox::philox,
    weights::{NumberType, TensorInfo, Weights, WeightsError},
};

const STANDARD_DEVIATION: f32 = 0.02;

/// Weights from normal(0, 0.02), and norms of 1, made when they are asked for: the n-th number of a tensor depends on
/// seed, name and n alone, and layers have the same.
pub(super) struct MadeUpTensors {
    seed: u64,
    number_type: NumberType,
    shapes: HashMap<String, TensorInfo>,
    is_tied: bool,
}

impl MadeUpTensors {
    pub(super) fn new(config: &ModelConfig, seed: u64, number_type: NumberType) -> Self {
        let info = |shape: &[usize]| TensorInfo::new(Format::Dense(number_type), shape);
        Self {
            seed,
            number_type,
            shapes: layout::tensors(config).into_iter().map(|(name, shape)| (name, info(&shape))).collect(),
            is_tied: config.tie_word_embeddings,
        }
    }

    fn storage_name<'n>(&self, name: &'n str) -> &'n str {
        if self.is_tied && name == LM_HEAD { EMBEDDINGS } else { name }
    }
}

impl Weights for MadeUpTensors {
    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.shapes.get(self.storage_name(name)).copied()
    }

    fn read(&self, name: &str, rows: Range<usize>, bytes: &mut [u8]) -> Result<(), WeightsError> {
        let missing = || WeightsError::Missing { name: name.to_owned(), n_rows: rows.end, n_columns: 0 };
        let info = self.info(name).filter(|info| rows.end <= info.n_rows).ok_or_else(missing)?;
        let mut numbers = vec![1.0; rows.len() * info.n_columns];
        if !name.ends_with("norm.weight") {
            fill_normal(&mut numbers, rows.start * info.n_columns, self.seed, stream(&self.content(name)));
        }
        self.number_type.narrow(&numbers, bytes);
        Ok(())
    }

    fn content(&self, name: &str) -> String {
        without_layer_number(self.storage_name(name))
    }
}

/// `model.layers.7.mlp.up_proj.weight` becomes `model.layers.mlp.up_proj.weight`.
fn without_layer_number(name: &str) -> String {
    name.split('.').filter(|part| part.parse::<usize>().is_err()).collect::<Vec<_>>().join(".")
}

/// A number for a name (FNV-1a), which sets the tensors' random numbers apart.
fn stream(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Numbers from the `first`-th on by Box and Muller's method, four of them from one draw.
fn fill_normal(numbers: &mut [f32], first: usize, seed: u64, stream: u64) {
    const DRAW: usize = 4;
    let draw = |index: usize| {
        let [a, b, c, d] = philox([index as u64, stream], seed);
        let (first, second) = (pair(a, b), pair(c, d));
        [first[0], first[1], second[0], second[1]]
    };
    let lead = (first.next_multiple_of(DRAW) - first).min(numbers.len());
    let (leading, whole) = numbers.split_at_mut(lead);
    if !leading.is_empty() {
        for (number, normal) in leading.iter_mut().zip(draw(first / DRAW).into_iter().skip(first % DRAW)) {
            *number = normal * STANDARD_DEVIATION;
        }
    }
    for (part, index) in whole.chunks_mut(DRAW).zip(first.div_ceil(DRAW)..) {
        for (number, normal) in part.iter_mut().zip(draw(index)) {
            *number = normal * STANDARD_DEVIATION;
        }
    }
}

fn pair(a: u32, b: u32) -> [f32; 2] {
    const UNIT: f32 = 1.0 / (1 << 24) as f32;
    // Above 0, so that the logarithm is finite.
    let radius = (-2.0 * (((a >> 8) + 1) as f32 * UNIT).ln()).sqrt();
    let (sin, cos) = ((b >> 8) as f32 * UNIT * TAU).sin_cos();
    [radius * cos, radius * sin]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_do_not_depend_on_the_piece_they_are_made_in() {
        let mut whole = [0.0; 29];
        fill_normal(&mut whole, 0, 5, 6);
        for first in 0..9 {
            for n in 0..=20 {
                let mut piece = vec![0.0; n];
                fill_normal(&mut piece, first, 5, 6);
                assert_eq!(piece, whole[first..first + n], "{n} from {first}");
            }
        }
    }
}
