//! The plain model behind the engine's trait, so that it goes through the same judgement as the real backends.

use std::collections::HashMap;

use xverse_chat::engine::{
    backend::{Backend, BackendError, BackendSpec, Batch, Drawn, Row, RowOutput, SequenceId},
    kv::BlockId,
    request::TokenLogprobs,
    sampling::SamplingError,
};

use crate::support::plain_model::{PlainCache, PlainModel};

/// Keeps a cache for each sequence and draws greedily.
pub struct PlainBackend {
    spec: BackendSpec,
    model: PlainModel,
    live: HashMap<SequenceId, PlainCache>,
}

impl PlainBackend {
    pub fn new(model: PlainModel) -> Self {
        let spec = BackendSpec {
            name: "plain",
            device: "cpu".to_owned(),
            vocab_size: model.vocab_size(),
            max_positions: usize::MAX,
            n_blocks: 64,
            prefill_chunk: 256,
            weight_bytes: 0,
            dtype: "f32",
        };
        Self { spec, model, live: HashMap::new() }
    }

    fn row(&mut self, row: &Row) -> RowOutput {
        let cache = self.live.entry(row.sequence).or_default();
        assert_eq!(cache.n_positions, row.start, "the plain backend knows no prefix hits");
        let logits = self.model.forward(&row.ids[row.start..], cache);
        let drawn = row.draw.is_some().then(|| {
            let last = &logits[logits.len() - 1];
            let token = (0..last.len()).max_by(|&a, &b| last[a].total_cmp(&last[b])).unwrap() as u32;
            Drawn { token, logprobs: Some(TokenLogprobs { token, logprob: 0.0, top: Vec::new() }) }
        });
        RowOutput { drawn, prompt_logprobs: Vec::new(), logits: if row.logits { logits.concat() } else { Vec::new() } }
    }
}

impl Backend for PlainBackend {
    fn spec(&self) -> &BackendSpec {
        &self.spec
    }

    fn step(&mut self, batch: &Batch) -> Result<Vec<Result<RowOutput, SamplingError>>, BackendError> {
        Ok(batch.rows.iter().map(|row| Ok(self.row(row))).collect())
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
