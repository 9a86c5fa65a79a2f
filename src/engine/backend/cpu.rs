//! The model on this machine's cores, in f32, with paged keys and values.
//!
//! Mirrors `LlamaForCausalLM` of Hugging Face transformers. Batch-invariant: each number of a row is summed in one order
//! that depends on nothing but the row, so its bits do not depend on its neighbours, on the chunk it came in or on the
//! number of threads. candle's own matrix product picks its order by shape, which is why the products here are our own;
//! candle reads and holds the weights.

mod attention;
mod kernel;
mod model;

use candle_core::DType;
use candle_nn::VarBuilder;

use super::{Backend, BackendError, BackendSpec, Batch, Row, RowOutput, SequenceId};
use crate::engine::{
    backend::output::{self, Needed},
    checkpoint::n_parameters,
    config::ModelConfig,
    kv::{BLOCK_SIZE, BlockId},
    sampling::SamplingError,
};
use attention::Cache;
use kernel::Kernel;
use model::{Model, Token};

/// The backend.
pub struct CpuBackend {
    spec: BackendSpec,
    model: Model,
    cache: Cache,
    kernel: Kernel,
    pool: rayon::ThreadPool,
}

impl CpuBackend {
    /// Takes the weights from `weights`, which must give f32 on the CPU, and makes room for `n_blocks` blocks.
    ///
    /// # Errors
    /// candle's, where a tensor cannot be read.
    pub fn new(
        config: &ModelConfig,
        weights: &VarBuilder<'_>,
        n_blocks: usize,
        threads: usize,
    ) -> Result<Self, candle_core::Error> {
        let model = Model::load(config, weights)?;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("cpu-{index}"))
            .build()
            .map_err(candle_core::Error::wrap)?;
        let spec = BackendSpec {
            name: "cpu",
            device: "cpu".into(),
            vocab_size: config.vocab_size,
            max_positions: config.max_position_embeddings,
            n_blocks,
            weight_bytes: n_parameters(config) * DType::F32.size_in_bytes() as u64,
            dtype: "f32",
        };
        Ok(Self { spec, model, cache: Cache::new(config, n_blocks), kernel: Kernel::detect(), pool })
    }

    /// Bytes of keys and values that one position takes.
    #[must_use]
    pub fn kv_bytes_per_position(config: &ModelConfig) -> usize {
        let per_layer = 2 * config.num_key_value_heads * config.head_dim;
        config.num_hidden_layers * per_layer * DType::F32.size_in_bytes()
    }
}

impl Backend for CpuBackend {
    fn spec(&self) -> &BackendSpec {
        &self.spec
    }

    fn step(&mut self, batch: &Batch) -> Result<Vec<Result<RowOutput, SamplingError>>, BackendError> {
        let Self { model, cache, kernel, pool, .. } = self;
        pool.install(|| {
            let tokens: Vec<Token<'_>> = batch.rows.iter().flat_map(tokens_of).collect();
            let hidden = model.forward(*kernel, &tokens, cache)?;
            let needed = output::needed(batch);
            let places: Vec<usize> = needed.iter().map(|Needed { place, .. }| *place).collect();
            let logits = model.logits(*kernel, &hidden, &places)?;
            Ok(output::outputs(batch, &needed, &logits, model.vocab_size()))
        })
    }

    fn release(&mut self, _sequence: SequenceId) {}

    fn poison(&mut self, blocks: &[BlockId]) {
        self.cache.poison(blocks);
    }

    fn reset(&mut self) -> Result<(), BackendError> {
        Ok(())
    }
}

/// The tokens of a row that are to be computed, each with its position and where its keys and values go.
fn tokens_of(row: &Row) -> impl Iterator<Item = Token<'_>> {
    row.ids.iter().enumerate().skip(row.start).map(|(position, id)| Token {
        id: *id,
        position,
        blocks: row.blocks.get(..=position / BLOCK_SIZE).expect("invariant: a row has blocks for all its positions"),
    })
}

#[cfg(test)]
mod tests;
