//! How far one model's distributions are from another's.

use std::{fmt, sync::Arc};

use xverse_chat::engine::{
    backend::{
        Backend, Batch, Row, SequenceId,
        cpu::{CpuBackend, CpuOptions},
    },
    config::ModelConfig,
    kv::{BLOCK_SIZE, BlockId},
    kv_type::KvType,
    precision::{Precision, Quantize},
    weights::Weights,
};

/// A model on this machine's cores; keys and values in single precision.
pub struct Model {
    backend: CpuBackend,
    vocab_size: usize,
}

/// Logits of each position.
pub struct Logits {
    rows: Vec<f32>,
    vocab_size: usize,
}

/// Over all positions.
#[derive(Debug)]
pub struct Distance {
    /// Kullback-Leibler divergence in nats.
    pub mean_kl: f64,
    /// Share of positions with the same likeliest token.
    pub same_top: f64,
}

impl Model {
    pub fn load(config: &ModelConfig, weights: &Arc<dyn Weights>, quantize: Quantize) -> Self {
        let precision = Precision { number_type: None, quantize };
        let options = CpuOptions { precision, kv_type: KvType::F32, n_blocks: 64, threads: 2 };
        let backend = CpuBackend::new(config, Arc::clone(weights), options).unwrap();
        Self { backend, vocab_size: config.vocab_size }
    }

    /// Reads `ids` in one step.
    pub fn logits(mut self, ids: &[u32]) -> Logits {
        let row = Row {
            sequence: SequenceId(0),
            ids: ids.to_vec(),
            start: 0,
            blocks: (0..ids.len().div_ceil(BLOCK_SIZE) as u32).map(BlockId).collect(),
            draw: None,
            logprobs: None,
            prompt_logprobs: None,
            following: None,
            logits: true,
        };
        let output = self.backend.step(&Batch { rows: vec![row] }).unwrap().remove(0).unwrap();
        Logits { rows: output.logits, vocab_size: self.vocab_size }
    }
}

impl Distance {
    /// Of `other` from `first`.
    pub fn between(first: &Logits, other: &Logits) -> Self {
        assert_eq!(first.rows.len(), other.rows.len());
        let rows = |logits: &Logits| logits.rows.chunks_exact(logits.vocab_size).map(log_softmax).collect::<Vec<_>>();
        let (first, other) = (rows(first), rows(other));
        let divergence = |(p, q): (&Vec<f64>, &Vec<f64>)| p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
        let top = |row: &Vec<f64>| (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b]));
        let n = first.len() as f64;
        Self {
            mean_kl: first.iter().zip(&other).map(divergence).sum::<f64>() / n,
            same_top: first.iter().zip(&other).filter(|(p, q)| top(p) == top(q)).count() as f64 / n,
        }
    }
}

impl fmt::Display for Distance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KL {:.6} (same likeliest token {:.1} %)", self.mean_kl, self.same_top * 100.0)
    }
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - max).exp()).sum();
    logits.iter().map(|logit| f64::from(logit - max) - sum.ln()).collect()
}
