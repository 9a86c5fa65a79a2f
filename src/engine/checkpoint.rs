//! Weights: safetensors in one file or in shards, checked by name, shape and size before anything is allocated.

use std::path::Path;

use candle_core::{DType, Device};
use candle_nn::VarBuilder;

use super::config::ModelConfig;

/// A checkpoint whose headers have been checked; tensors are read when asked for.
#[derive(Debug)]
pub struct Checkpoint;

/// Why a checkpoint was refused.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// To be refined.
    #[error("{0}")]
    Invalid(String),
}

impl Checkpoint {
    /// Opens the weights in `dir` and checks all headers against `config`.
    ///
    /// # Errors
    /// [`CheckpointError`], with what was found, what was expected and a hint.
    pub fn open(dir: &Path, config: &ModelConfig) -> Result<Self, CheckpointError> {
        todo!("{dir:?} {config:?}")
    }

    /// Number of parameters, `lm_head` included.
    #[must_use]
    pub fn n_parameters(&self) -> u64 {
        todo!()
    }

    /// The tensors, converted to `dtype` on `device` one at a time as they are asked for.
    #[must_use]
    pub fn var_builder(self, dtype: DType, device: &Device) -> VarBuilder<'static> {
        todo!("{dtype:?} {device:?}")
    }
}

/// Weights of `config`'s shape from normal(0, 0.02), one random layer repeated, for measuring without a checkpoint.
#[must_use]
pub fn random(config: &ModelConfig, seed: u64, dtype: DType, device: &Device) -> VarBuilder<'static> {
    todo!("{config:?} {seed} {dtype:?} {device:?}")
}
