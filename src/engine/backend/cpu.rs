//! The model on this machine's cores, in f32, with paged keys and values.
//!
//! Mirrors `LlamaForCausalLM` of Hugging Face transformers. Batch-invariant: each number of a row is summed in one order
//! that depends on nothing but the row, so its bits do not depend on its neighbours, on the chunk it came in or on the
//! number of threads. candle's own matrix product picks its order by shape and widens whole matrices of sixteen bits, which is
//! why the products here are our own.

mod attention;
mod exponential;
mod kernel;
mod large_pages;
mod matrix;
mod model;
pub mod quantized;

use std::sync::Arc;

use super::{Backend, BackendError, BackendSpec, Batch, Row, RowOutput, SequenceId};
use crate::engine::{
    backend::output::{self, Needed},
    config::ModelConfig,
    format::Format,
    kv::{BLOCK_SIZE, BlockId},
    kv_type::KvType,
    precision::Precision,
    sampling::SamplingError,
    weights::{NumberType, Weights},
};
use attention::Cache;
use matrix::Arithmetic;
use model::{Model, Token};

/// The backend.
pub struct CpuBackend {
    spec: BackendSpec,
    model: Model,
    cache: Cache,
    arithmetic: Arithmetic,
    pool: rayon::ThreadPool,
}

/// What there is to choose.
#[derive(Debug, Clone, Copy)]
pub struct CpuOptions {
    /// Of the weights.
    pub precision: Precision,
    /// Of keys and values.
    pub kv_type: KvType,
    /// Room for keys and values.
    pub n_blocks: usize,
    /// Threads that compute.
    pub threads: usize,
}

impl CpuBackend {
    /// Reads the weights from `source`, of which it keeps the embeddings where they are, and makes room for keys and
    /// values.
    ///
    /// # Errors
    /// [`BackendError`], where a tensor cannot be read.
    pub fn new(config: &ModelConfig, source: Arc<dyn Weights>, options: CpuOptions) -> Result<Self, BackendError> {
        let CpuOptions { precision, kv_type, n_blocks, threads } = options;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("cpu-{index}"))
            .build()
            .map_err(|error| BackendError::Threads(error.to_string()))?;
        let natural = |name: &str| source.info(name).map_or(Format::Dense(NumberType::F32), |info| info.natural);
        let spec = BackendSpec {
            name: "cpu",
            device: "cpu".into(),
            vocab_size: config.vocab_size,
            max_positions: config.max_position_embeddings,
            n_blocks,
            prefill_chunk: 256,
            weight_bytes: precision.weight_bytes(config, natural),
            dtype: precision.main_format(config, natural).name(),
        };
        let model = pool.install(|| Model::load(config, source, precision, n_blocks * BLOCK_SIZE))?;
        let cache = Cache::new(config, kv_type, n_blocks).map_err(BackendError::NoRoom)?;
        Ok(Self { spec, model, cache, arithmetic: Arithmetic::detect(), pool })
    }

    /// Bytes of keys and values that one position takes.
    #[must_use]
    pub fn kv_bytes_per_position(config: &ModelConfig, kv_type: KvType) -> usize {
        2 * config.num_hidden_layers * config.num_key_value_heads * kv_type.n_bytes(config.head_dim)
    }
}

impl Backend for CpuBackend {
    fn spec(&self) -> &BackendSpec {
        &self.spec
    }

    fn step(&mut self, batch: &Batch) -> Result<Vec<Result<RowOutput, SamplingError>>, BackendError> {
        let Self { model, cache, arithmetic, pool, .. } = self;
        pool.install(|| {
            let tokens: Vec<Token<'_>> = batch.rows.iter().flat_map(tokens_of).collect();
            let hidden = model.forward(*arithmetic, &tokens, cache)?;
            let needed = output::needed(batch);
            let places: Vec<usize> = needed.iter().map(|Needed { place, .. }| *place).collect();
            let logits = model.logits(*arithmetic, &hidden, &places);
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
