//! Paged keys and values, and attention over them.

mod store;

use half::{bf16, f16};
use rayon::{
    iter::{IndexedParallelIterator, ParallelIterator},
    slice::ParallelSliceMut,
};

use self::store::{Store, Stored};
use super::{kernel::Kernel, model::Token};
use crate::engine::{
    config::ModelConfig,
    kv::{BLOCK_SIZE, BlockId},
    kv_type::KvType,
};

/// Keys and values of all layers.
pub(super) enum Cache {
    /// In single precision.
    F32(Pages<f32>),
    /// In half precision.
    F16(Pages<f16>),
    /// In bfloat16.
    Bf16(Pages<bf16>),
    /// In eight bits.
    Int8(Pages<i8>),
}

/// In each layer, rows in the order (block, key-value head, position in the block), each of `head_dim` numbers.
pub(super) struct Pages<N> {
    layers: Vec<Layer<N>>,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
}

struct Layer<N> {
    keys: Store<N>,
    values: Store<N>,
}

/// Products below which a second thread costs more than it helps.
const SEQUENTIAL_BELOW: usize = 1 << 16;

/// Does the same to whichever pages there are.
macro_rules! each {
    ($cache:expr, $pages:ident => $what:expr) => {
        match $cache {
            Cache::F32($pages) => $what,
            Cache::F16($pages) => $what,
            Cache::Bf16($pages) => $what,
            Cache::Int8($pages) => $what,
        }
    };
}

impl Cache {
    /// Room for `n_blocks` blocks.
    pub(super) fn new(config: &ModelConfig, kv_type: KvType, n_blocks: usize) -> Self {
        match kv_type {
            KvType::F32 => Self::F32(Pages::new(config, n_blocks)),
            KvType::F16 => Self::F16(Pages::new(config, n_blocks)),
            KvType::Bf16 => Self::Bf16(Pages::new(config, n_blocks)),
            KvType::Int8 => Self::Int8(Pages::new(config, n_blocks)),
        }
    }

    /// Fills blocks with what is no number.
    pub(super) fn poison(&mut self, blocks: &[BlockId]) {
        each!(self, pages => pages.poison(blocks));
    }

    /// Puts in the keys and values of `tokens`, each of shape (token, key-value head, head dimension).
    pub(super) fn append(&mut self, layer: usize, tokens: &[Token<'_>], keys: &[f32], values: &[f32]) {
        each!(self, pages => pages.append(layer, tokens, keys, values));
    }

    /// Each token's attention over the positions up to its own; queries and out of shape (token, head, head dimension).
    pub(super) fn attend(&self, kernel: Kernel, layer: usize, tokens: &[Token<'_>], queries: &[f32], out: &mut [f32]) {
        each!(self, pages => pages.attend(kernel, layer, tokens, queries, out));
    }
}

impl<N: Stored> Pages<N> {
    fn new(config: &ModelConfig, n_blocks: usize) -> Self {
        let store = || Store::new(n_blocks * config.num_key_value_heads * BLOCK_SIZE, config.head_dim);
        Self {
            layers: (0..config.num_hidden_layers).map(|_| Layer { keys: store(), values: store() }).collect(),
            n_heads: config.num_attention_heads,
            n_kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
        }
    }

    fn poison(&mut self, blocks: &[BlockId]) {
        let n_rows = self.n_kv_heads * BLOCK_SIZE;
        for layer in &mut self.layers {
            for block in blocks {
                layer.keys.poison(block.0 as usize * n_rows, n_rows);
                layer.values.poison(block.0 as usize * n_rows, n_rows);
            }
        }
    }

    fn append(&mut self, layer: usize, tokens: &[Token<'_>], keys: &[f32], values: &[f32]) {
        let width = self.n_kv_heads * self.head_dim;
        for (index, token) in tokens.iter().enumerate() {
            for head in 0..self.n_kv_heads {
                let from = index * width + head * self.head_dim;
                let to = self.row(token.block(), head) + token.position % BLOCK_SIZE;
                let layer = &mut self.layers[layer];
                layer.keys.put(to, &keys[from..from + self.head_dim]);
                layer.values.put(to, &values[from..from + self.head_dim]);
            }
        }
    }

    fn attend(&self, kernel: Kernel, layer: usize, tokens: &[Token<'_>], queries: &[f32], out: &mut [f32]) {
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
        let Layer { keys, values } = &self.layers[layer];
        scores.clear();
        scores.resize(token.position + 1, 0.0);
        for (block, scores) in token.blocks.iter().zip(scores.chunks_mut(BLOCK_SIZE)) {
            let first = self.row(*block, kv_head);
            kernel.products(query, keys.rows(first, scores.len()), self.head_dim, scores);
            keys.scale(first, scores);
        }
        softmax(scores, (self.head_dim as f32).sqrt().recip());
        out.fill(0.0);
        for (block, scores) in token.blocks.iter().zip(scores.chunks_mut(BLOCK_SIZE)) {
            let first = self.row(*block, kv_head);
            values.scale(first, scores);
            kernel.accumulate(scores, values.rows(first, scores.len()), out);
        }
    }

    /// The row of a block's first position.
    fn row(&self, block: BlockId, kv_head: usize) -> usize {
        (block.0 as usize * self.n_kv_heads + kv_head) * BLOCK_SIZE
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
