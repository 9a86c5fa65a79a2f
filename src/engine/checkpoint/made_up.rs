//! Random weights of a model's shape: one layer, repeated.

use std::{
    collections::HashMap,
    f32::consts::TAU,
    sync::{Mutex, PoisonError},
};

use candle_core::{DType, Device, Error, Result, Shape, Tensor};
use candle_nn::{Init, var_builder::SimpleBackend};
use rayon::{
    iter::{IndexedParallelIterator, ParallelIterator},
    slice::ParallelSliceMut,
};

use super::layout::{self, EMBEDDINGS, LM_HEAD};
use crate::engine::{config::ModelConfig, sampling::philox::philox};

const STANDARD_DEVIATION: f32 = 0.02;

/// Makes tensors when they are asked for and keeps them, so that layers share one storage.
pub(super) struct MadeUpTensors {
    seed: u64,
    shapes: HashMap<String, Vec<usize>>,
    is_tied: bool,
    made: Mutex<HashMap<(String, DType), Tensor>>,
}

impl MadeUpTensors {
    pub(super) fn new(config: &ModelConfig, seed: u64) -> Self {
        Self {
            seed,
            shapes: layout::tensors(config).into_iter().collect(),
            is_tied: config.tie_word_embeddings,
            made: Mutex::default(),
        }
    }

    fn shape(&self, name: &str) -> Option<&Vec<usize>> {
        self.shapes.get(self.storage_name(name))
    }

    fn storage_name<'n>(&self, name: &'n str) -> &'n str {
        if self.is_tied && name == LM_HEAD { EMBEDDINGS } else { name }
    }

    fn make(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let n_values = shape.iter().product();
        if name.ends_with("norm.weight") {
            return Tensor::ones(shape, DType::F32, &Device::Cpu);
        }
        let mut values = vec![0.0; n_values];
        fill_normal(&mut values, self.seed, stream(name));
        Tensor::from_vec(values, shape, &Device::Cpu)
    }
}

impl SimpleBackend for MadeUpTensors {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        let tensor_shape = self.shape(name).ok_or_else(|| Error::CannotFindTensor { path: name.to_owned() })?;
        if shape.dims() != tensor_shape {
            let msg = format!("shape mismatch for {name}");
            return Err(Error::UnexpectedShape { msg, expected: shape, got: Shape::from(tensor_shape.as_slice()) });
        }
        self.get_unchecked(name, dtype, device)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let shape = self.shape(name).ok_or_else(|| Error::CannotFindTensor { path: name.to_owned() })?;
        let shared = without_layer_number(self.storage_name(name));
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (shared, dtype);
        if let Some(tensor) = made.get(&key) {
            return tensor.to_device(device);
        }
        let tensor = self.make(&key.0, shape)?.to_dtype(dtype)?.to_device(device)?;
        made.insert(key, tensor.clone());
        Ok(tensor)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.shape(name).is_some()
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

/// Normal numbers by Box and Muller's method; the n-th one depends on seed, stream and n alone.
fn fill_normal(values: &mut [f32], seed: u64, stream: u64) {
    const CHUNK: usize = 1 << 16;
    values.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk_idx, chunk)| {
        for (block_idx, block) in chunk.chunks_mut(4).enumerate() {
            let counter = (chunk_idx * (CHUNK / 4) + block_idx) as u64;
            let [a, b, c, d] = philox([counter, stream], seed);
            let normals = [pair(a, b), pair(c, d)];
            for (value, normal) in block.iter_mut().zip(normals.as_flattened()) {
                *value = normal * STANDARD_DEVIATION;
            }
        }
    });
}

fn pair(a: u32, b: u32) -> [f32; 2] {
    const UNIT: f32 = 1.0 / (1 << 24) as f32;
    // Above 0, so that the logarithm is finite.
    let radius = (-2.0 * (((a >> 8) + 1) as f32 * UNIT).ln()).sqrt();
    let (sin, cos) = ((b >> 8) as f32 * UNIT * TAU).sin_cos();
    [radius * cos, radius * sin]
}
