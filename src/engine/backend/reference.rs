//! candle-transformers' Llama behind the trait: slow and plain, the oracle.
//!
//! It keeps a cache for each sequence by name and computes rows one after another. It knows nothing of blocks: where a
//! row begins after positions that it has not computed itself, it computes them again from the row's ids.

mod tensors;

use std::{collections::HashMap, sync::Arc};

use candle_core::{DType, Device, IndexOp, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::llama::{Cache, Config, Llama, LlamaEosToks};

use super::{
    Backend, BackendError, BackendSpec, Batch, Row, RowOutput, SequenceId,
    output::{needed, outputs},
    reference::tensors::Tensors,
};
use crate::engine::{checkpoint, config::ModelConfig, kv::BlockId, sampling::SamplingError, weights::Weights};

/// The backend.
pub struct ReferenceBackend {
    spec: BackendSpec,
    config: Config,
    model: Llama,
    live: HashMap<SequenceId, Live>,
}

struct Live {
    cache: Cache,
    n_computed: usize,
}

impl ReferenceBackend {
    /// Takes all weights in f32; `n_blocks` only bounds what is admitted.
    ///
    /// # Errors
    /// candle's, where a tensor cannot be read.
    pub fn new(config: &ModelConfig, weights: Arc<dyn Weights>, n_blocks: usize) -> Result<Self, candle_core::Error> {
        let spec = BackendSpec {
            name: "reference",
            device: "cpu (reference)".into(),
            vocab_size: config.vocab_size,
            max_positions: config.max_position_embeddings,
            n_blocks,
            prefill_chunk: 256,
            weight_bytes: checkpoint::n_parameters(config) * DType::F32.size_in_bytes() as u64,
            dtype: "f32",
        };
        let config = Config {
            hidden_size: config.hidden_size,
            intermediate_size: config.intermediate_size,
            vocab_size: config.vocab_size,
            num_hidden_layers: config.num_hidden_layers,
            num_attention_heads: config.num_attention_heads,
            num_key_value_heads: config.num_key_value_heads,
            use_flash_attn: false,
            rms_norm_eps: config.rms_norm_eps,
            rope_theta: config.rope_theta as f32,
            bos_token_id: Some(config.bos_token_id),
            eos_token_id: Some(LlamaEosToks::Single(config.eos_token_id)),
            rope_scaling: None,
            max_position_embeddings: config.max_position_embeddings,
            tie_word_embeddings: config.tie_word_embeddings,
        };
        let weights = VarBuilder::from_backend(Box::new(Tensors(weights)), DType::F32, Device::Cpu);
        let model = Llama::load(weights, &config)?;
        Ok(Self { spec, config, model, live: HashMap::new() })
    }

    /// Logits at the positions of `wanted`, in order; all of the row's ids are in the cache afterwards.
    fn row(&mut self, row: &Row, wanted: &[usize]) -> candle_core::Result<Vec<f32>> {
        let mut live = match self.live.remove(&row.sequence) {
            Some(live) if live.n_computed == row.start => live,
            _ => self.catch_up(row)?,
        };
        let mut logits = Vec::with_capacity(wanted.len() * self.config.vocab_size);
        let last = row.ids.len() - 1;
        // The model gives logits of its last token only, so each wanted position ends a piece.
        for position in wanted.iter().copied().chain((wanted.last() != Some(&last)).then_some(last)) {
            let piece = row.ids.get(live.n_computed..=position).unwrap_or_default();
            let at_position = self.forward(piece, &mut live)?;
            if wanted.contains(&position) {
                logits.extend(at_position);
            }
        }
        self.live.insert(row.sequence, live);
        Ok(logits)
    }

    /// A cache that holds the positions before the row's chunk.
    fn catch_up(&self, row: &Row) -> candle_core::Result<Live> {
        let cache = Cache::new(true, DType::F32, &self.config, &Device::Cpu)?;
        let mut live = Live { cache, n_computed: 0 };
        let before = row.ids.get(..row.start).unwrap_or_default();
        if !before.is_empty() {
            self.forward(before, &mut live)?;
        }
        Ok(live)
    }

    fn forward(&self, ids: &[u32], live: &mut Live) -> candle_core::Result<Vec<f32>> {
        let input = Tensor::new(ids, &Device::Cpu)?.unsqueeze(0)?;
        let logits = self.model.forward(&input, live.n_computed, &mut live.cache)?;
        live.n_computed += ids.len();
        logits.i(0)?.to_vec1()
    }
}

impl Backend for ReferenceBackend {
    fn spec(&self) -> &BackendSpec {
        &self.spec
    }

    fn step(&mut self, batch: &Batch) -> Result<Vec<Result<RowOutput, SamplingError>>, BackendError> {
        let needed = needed(batch);
        let mut logits = Vec::new();
        for (index, row) in batch.rows.iter().enumerate() {
            let wanted: Vec<usize> =
                needed.iter().filter(|place| place.row == index).map(|place| place.position).collect();
            logits.extend(self.row(row, &wanted)?);
        }
        Ok(outputs(batch, &needed, &logits, self.config.vocab_size))
    }

    fn release(&mut self, sequence: SequenceId) {
        self.live.remove(&sequence);
    }

    fn poison(&mut self, _blocks: &[BlockId]) {}

    fn reset(&mut self) -> Result<(), BackendError> {
        self.live.clear();
        Ok(())
    }
}
