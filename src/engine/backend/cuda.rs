//! The model on a CUDA card.
//!
//! The kernels' source is in `kernels/`, plain C++ but for what `device.cuh` names. **Architecture Invariant:** every kernel, and
//! everything that launches one, also runs on the host behind [`device::Device`], where the tests compare it with plain references,
//! so that nothing is written blind.
//!
//! Sequences that draw one token each are computed together, up to 32 at once, by launches that were recorded for a number of rows
//! and a length of context; prompts are computed in large chunks. A row's bits do not depend on its neighbours within a step of
//! drawing.

mod ahead;
#[cfg(feature = "cuda")]
pub mod card;
#[cfg(not(feature = "cuda"))]
#[path = "cuda/no_card.rs"]
pub mod card;
pub mod card_error;
pub mod device;
pub mod kernels;
pub mod model;
pub mod packing;
pub mod plan;
mod samples;
mod seen;
pub mod self_check;
mod step;
pub mod weights;

#[cfg(test)]
mod ahead_tests;
#[cfg(test)]
mod backend_tests;
#[cfg(test)]
mod emulator;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use super::{Backend, BackendError, BackendSpec, Batch, RowOutput, SequenceId};
use crate::engine::{
    config::ModelConfig,
    format::Format,
    kv::BlockId,
    precision::Precision,
    sampling::SamplingError,
    weights::{NumberType, Weights},
};
use ahead::Ahead;
use device::{Device, GraphId};
use kernels::Cells;
use model::Model;
use plan::{KvRoom, Plan, PlanError};
use seen::Seen;
use step::Staging;

/// The backend.
pub struct CudaBackend {
    spec: BackendSpec,
    device: Box<dyn Device>,
    model: Model,
    staging: Staging,
    seen: Seen,
    graphs: HashMap<GraphKey, Graph>,
    ahead: Option<Ahead>,
    settings: CudaSettings,
}

/// What can be turned off, for finding out where something goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "they are switches, each by itself")]
pub struct CudaSettings {
    /// Recorded launches for drawing.
    pub graphs: bool,
    /// Drawing on the device, not on the host.
    pub sampler: bool,
    /// Telling log-probabilities on the device, not on the host.
    pub probabilities: bool,
    /// Launching a step before the tokens of the one before it are known here.
    pub ahead: bool,
    /// cuBLAS for the products of many rows.
    pub cublas: bool,
    /// Kernels of our own for the products of few rows; without them cuBLAS.
    pub fast_products: bool,
    /// Attention in parts; without it plainly.
    pub fast_attention: bool,
    /// Tokens of prompts that are computed at once at most.
    pub most_tokens: usize,
}

impl Default for CudaSettings {
    fn default() -> Self {
        Self {
            graphs: true,
            sampler: true,
            probabilities: true,
            ahead: true,
            cublas: true,
            fast_products: true,
            fast_attention: true,
            most_tokens: 1024,
        }
    }
}

/// Launches for so many rows whose contexts are no longer than this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct GraphKey {
    n_rows: usize,
    most_positions: usize,
}

/// What is there to be run again.
#[derive(Debug, Clone, Copy)]
enum Graph {
    /// It ran once, so that everything it needs is loaded.
    Warm,
    /// It was recorded.
    Recorded(GraphId),
    /// It could not be recorded.
    Failed,
}

impl CudaBackend {
    /// How many blocks of keys and values the device has room for beside the weights.
    ///
    /// # Errors
    /// [`BackendError::Plan`], where the model has another shape than the kernels or the device has too little room.
    pub fn n_blocks(
        device: &dyn Device,
        (config, precision, cells): (&ModelConfig, Precision, Cells),
        natural: impl Fn(&str) -> Format,
        room: KvRoom,
        settings: CudaSettings,
    ) -> Result<usize, BackendError> {
        let plan = Plan::new(config, (precision, cells), &natural, settings.most_tokens)?;
        let free = device.free_bytes()?;
        let hint =
            |error: PlanError| error.with_hint((config, precision, cells), natural, (room, free), settings.most_tokens);
        Ok(plan.n_blocks(room, device.name(), free).map_err(hint)?)
    }

    /// Brings the weights to the device, beside room for `n_blocks` blocks of keys and values.
    ///
    /// # Errors
    /// [`BackendError`], where a tensor cannot be read or the device has too little room.
    pub fn new(
        mut device: Box<dyn Device>,
        (config, weights): (&ModelConfig, &dyn Weights),
        (precision, cells, n_blocks): (Precision, Cells, usize),
        settings: CudaSettings,
    ) -> Result<Self, BackendError> {
        let natural = |name: &str| weights.info(name).map_or(Format::Dense(NumberType::Bf16), |info| info.natural);
        let plan = Plan::new(config, (precision, cells), natural, settings.most_tokens)?;
        let settings = self_check::checked(&mut *device, (plan.heads, cells), settings)?;
        let spec = BackendSpec {
            name: "cuda",
            device: device.name().to_owned(),
            vocab_size: config.vocab_size,
            max_positions: config.max_position_embeddings,
            n_blocks,
            prefill_chunk: settings.most_tokens,
            weight_bytes: (plan.weight_bytes + plan.embedding_bytes) as u64,
            dtype: match precision.main_format(config, natural) {
                Format::Dense(_) => NumberType::Bf16.name(),
                blocks @ Format::Blocks(_) => blocks.name(),
            },
        };
        let staging = Staging::new(&mut *device, &plan)?;
        let seen = Seen::new(&mut *device, config.vocab_size)?;
        let model = Model::load(&mut *device, weights, (config, precision), (plan, n_blocks, settings))?;
        Ok(Self { spec, device, model, staging, seen, graphs: HashMap::new(), ahead: None, settings })
    }
}

impl Backend for CudaBackend {
    fn spec(&self) -> &BackendSpec {
        &self.spec
    }

    fn step(&mut self, batch: &Batch) -> Result<Vec<Result<RowOutput, SamplingError>>, BackendError> {
        self.compute(batch)
    }

    fn copy_gb_s(&mut self) -> Result<Option<f64>, BackendError> {
        Ok(Some(self.model.copy_gb_s(&mut *self.device)?))
    }

    fn release(&mut self, sequence: SequenceId) {
        self.seen.release(sequence);
    }

    fn poison(&mut self, blocks: &[BlockId]) {
        for block in blocks {
            // Whatever goes wrong here goes wrong in the next step as well, which can say so.
            let _ = self.model.poison(&mut *self.device, *block);
        }
    }

    fn reset(&mut self) -> Result<(), BackendError> {
        self.ahead = None;
        self.seen.forget();
        Ok(self.device.read(self.model.logits_address(), &mut [0; 4])?)
    }
}
