//! Paged keys and values, and attention over them.

use rayon::{
    iter::{IndexedParallelIterator, ParallelIterator},
    slice::ParallelSliceMut,
};

use super::{kernel::Kernel, model::Token};
use crate::engine::{
    config::ModelConfig,
    kv::{BLOCK_SIZE, BlockId},
};

/// Keys and values of all layers; in each, shape (block, key-value head, position in the block, head dimension), f32.
pub(super) struct Cache {
    layers: Vec<Layer>,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
}

struct Layer {
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// Products below which a second thread costs more than it helps.
const SEQUENTIAL_BELOW: usize = 1 << 16;

impl Cache {
    /// Room for `n_blocks` blocks; the system gives the memory when it is first written.
    pub(super) fn new(config: &ModelConfig, n_blocks: usize) -> Self {
        let len = n_blocks * BLOCK_SIZE * config.num_key_value_heads * config.head_dim;
        let layer = || Layer { keys: vec![0.0; len], values: vec![0.0; len] };
        Self {
            layers: (0..config.num_hidden_layers).map(|_| layer()).collect(),
            n_heads: config.num_attention_heads,
            n_kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
        }
    }

    /// Fills blocks with NaN.
    pub(super) fn poison(&mut self, blocks: &[BlockId]) {
        let len = self.n_kv_heads * BLOCK_SIZE * self.head_dim;
        for layer in &mut self.layers {
            for block in blocks {
                let first = block.0 as usize * len;
                layer.keys[first..first + len].fill(f32::NAN);
                layer.values[first..first + len].fill(f32::NAN);
            }
        }
    }

    /// Puts in the keys and values of `tokens`, each of shape (token, key-value head, head dimension).
    pub(super) fn append(&mut self, layer: usize, tokens: &[Token<'_>], keys: &[f32], values: &[f32]) {
        let width = self.n_kv_heads * self.head_dim;
        for (index, token) in tokens.iter().enumerate() {
            for head in 0..self.n_kv_heads {
                let from = index * width + head * self.head_dim;
                let to = self.offset(token.block(), head) + token.position % BLOCK_SIZE * self.head_dim;
                let layer = &mut self.layers[layer];
                layer.keys[to..to + self.head_dim].copy_from_slice(&keys[from..from + self.head_dim]);
                layer.values[to..to + self.head_dim].copy_from_slice(&values[from..from + self.head_dim]);
            }
        }
    }

    /// Each token's attention over the positions up to its own; queries and out of shape (token, head, head dimension).
    pub(super) fn attend(&self, kernel: Kernel, layer: usize, tokens: &[Token<'_>], queries: &[f32], out: &mut [f32]) {
        let work: usize = tokens.iter().map(|token| (token.position + 1) * self.n_heads * self.head_dim).sum();
        let one = |scores: &mut Vec<f32>, (index, out): (usize, &mut [f32])| {
            let query = &queries[index * self.head_dim..(index + 1) * self.head_dim];
            let (token, head) = (&tokens[index / self.n_heads], index % self.n_heads);
            self.head(kernel, layer, token, head, query, scores, out);
        };
        if work < SEQUENTIAL_BELOW {
            let mut scores = Vec::new();
            out.chunks_exact_mut(self.head_dim).enumerate().for_each(|item| one(&mut scores, item));
        } else {
            out.par_chunks_exact_mut(self.head_dim).enumerate().for_each_init(Vec::new, one);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the innermost function, called from one place")]
    fn head(
        &self,
        kernel: Kernel,
        layer: usize,
        token: &Token<'_>,
        head: usize,
        query: &[f32],
        scores: &mut Vec<f32>,
        out: &mut [f32],
    ) {
        let kv_head = head / (self.n_heads / self.n_kv_heads);
        let layer = &self.layers[layer];
        let n = token.position + 1;
        scores.clear();
        scores.resize(n, 0.0);
        for (block, scores) in token.blocks.iter().zip(scores.chunks_mut(BLOCK_SIZE)) {
            let first = self.offset(*block, kv_head);
            let keys = &layer.keys[first..first + scores.len() * self.head_dim];
            kernel.products(query, keys, self.head_dim, scores);
        }
        softmax(scores, (self.head_dim as f32).sqrt().recip());
        out.fill(0.0);
        for (block, scores) in token.blocks.iter().zip(scores.chunks(BLOCK_SIZE)) {
            let first = self.offset(*block, kv_head);
            let values = &layer.values[first..first + scores.len() * self.head_dim];
            kernel.accumulate(scores, values, out);
        }
    }

    fn offset(&self, block: BlockId, kv_head: usize) -> usize {
        (block.0 as usize * self.n_kv_heads + kv_head) * BLOCK_SIZE * self.head_dim
    }
}

fn softmax(scores: &mut [f32], scale: f32) {
    let max = scores.iter().fold(f32::NEG_INFINITY, |max, score| max.max(score * scale));
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = (*score * scale - max).exp();
        sum += *score;
    }
    for score in scores {
        *score /= sum;
    }
}
