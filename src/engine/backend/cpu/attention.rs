//! Paged keys and values, and attention over them.

mod store;

use std::{io, ops::Range};

use half::{bf16, f16};
use rayon::iter::{IntoParallelRefMutIterator, ParallelIterator};

use self::store::{Store, Stored};
use super::{exponential::softmax, kernel::Kernel, model::Token};
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

/// Attention of some heads of consecutive tokens of one sequence.
struct Task<'a> {
    tokens: &'a [Token<'a>],
    heads: Range<usize>,
    /// For each token, shape (head, head dimension).
    queries: Vec<&'a [f32]>,
    /// The same shape.
    out: Vec<&'a mut [f32]>,
}

/// What a task needs meanwhile.
#[derive(Default)]
struct Buffers {
    /// Shape (head, token, head dimension).
    queries: Vec<f32>,
    /// Shape (head, token, position).
    scores: Vec<f32>,
    /// Shape (token, position in the block).
    tile: Vec<f32>,
}

/// Tokens that read keys and values together.
const TOKENS_AT_ONCE: usize = 8;
/// Most heads of a task: with 128 numbers a head they are 32 KiB of a block, which is a stream to the processor.
const HEADS_AT_ONCE: usize = 8;
/// How far ahead of what is read memory is asked for.
const HEADS_AHEAD: usize = 6;
/// Tasks for each thread, so that one that is held up does not hold up the others.
const TASKS_PER_THREAD: usize = 2;
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
    ///
    /// # Errors
    /// Where the system does not give even addresses.
    pub(super) fn new(config: &ModelConfig, kv_type: KvType, n_blocks: usize) -> io::Result<Self> {
        Ok(match kv_type {
            KvType::F32 => Self::F32(Pages::new(config, n_blocks)?),
            KvType::F16 => Self::F16(Pages::new(config, n_blocks)?),
            KvType::Bf16 => Self::Bf16(Pages::new(config, n_blocks)?),
            KvType::Int8 => Self::Int8(Pages::new(config, n_blocks)?),
        })
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
    fn new(config: &ModelConfig, n_blocks: usize) -> io::Result<Self> {
        let store = || Store::new(n_blocks * config.num_key_value_heads * BLOCK_SIZE, config.head_dim);
        let layer = |_| Ok(Layer { keys: store()?, values: store()? });
        Ok(Self {
            layers: (0..config.num_hidden_layers).map(layer).collect::<io::Result<_>>()?,
            n_heads: config.num_attention_heads,
            n_kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
        })
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
        let mut tasks = self.tasks(tokens, queries, out);
        let Layer { keys, values } = &self.layers[layer];
        let run = |buffers: &mut Buffers, task: &mut Task<'_>| {
            self.scores(kernel, keys, task, buffers);
            self.weigh(kernel, values, task, buffers);
        };
        if work < SEQUENTIAL_BELOW {
            let mut buffers = Buffers::default();
            for task in &mut tasks {
                run(&mut buffers, task);
            }
        } else {
            tasks.par_iter_mut().for_each_init(Buffers::default, run);
        }
    }

    /// Some heads of some tokens of one sequence each. What a task reads of a block lies side by side, and all its tokens
    /// read it together.
    fn tasks<'a>(&self, tokens: &'a [Token<'a>], queries: &'a [f32], out: &'a mut [f32]) -> Vec<Task<'a>> {
        let width = self.n_heads * self.head_dim;
        let groups: Vec<&[Token<'_>]> =
            tokens.chunk_by(follows).flat_map(|sequence| sequence.chunks(TOKENS_AT_ONCE)).collect();
        let enough = TASKS_PER_THREAD * rayon::current_num_threads();
        let heads_at_once = (groups.len() * self.n_heads / enough).clamp(1, HEADS_AT_ONCE);
        let mut tasks = Vec::new();
        let mut rows = out.chunks_exact_mut(width).zip(queries.chunks_exact(width));
        for tokens in groups {
            let first_task = tasks.len();
            tasks.extend((0..self.n_heads).step_by(heads_at_once).map(|first_head| {
                let heads = first_head..(first_head + heads_at_once).min(self.n_heads);
                Task { tokens, heads, queries: Vec::new(), out: Vec::new() }
            }));
            for (out, queries) in rows.by_ref().take(tokens.len()) {
                let part = heads_at_once * self.head_dim;
                for ((out, queries), task) in
                    out.chunks_mut(part).zip(queries.chunks(part)).zip(&mut tasks[first_task..])
                {
                    task.out.push(out);
                    task.queries.push(queries);
                }
            }
        }
        tasks
    }

    /// The weight of each position for each of the task's queries.
    fn scores(&self, kernel: Kernel, keys: &Store<N>, task: &Task<'_>, buffers: &mut Buffers) {
        let (n_tokens, n_heads) = (task.tokens.len(), task.heads.len());
        let last = task.last();
        let room = last.blocks.len() * BLOCK_SIZE;
        let Buffers { queries, scores, tile } = buffers;
        queries.clear();
        for head in 0..n_heads {
            let range = head * self.head_dim..(head + 1) * self.head_dim;
            task.queries.iter().for_each(|row| queries.extend_from_slice(&row[range.clone()]));
        }
        scores.resize(n_heads * n_tokens * room, 0.0);
        tile.resize(n_tokens * BLOCK_SIZE, 0.0);
        for (block, at) in last.blocks.iter().zip((0..).step_by(BLOCK_SIZE)) {
            let n_positions = BLOCK_SIZE.min(last.position + 1 - at);
            let tile = &mut tile[..n_tokens * n_positions];
            let heads = task.heads.clone().zip(queries.chunks_exact(n_tokens * self.head_dim));
            for ((head, queries), scores) in heads.zip(scores.chunks_exact_mut(n_tokens * room)) {
                let first = self.row(*block, self.kv_head(head));
                keys.prefetch(self.ahead(task, head, at));
                kernel.products(queries, keys.rows(first, n_positions), self.head_dim, tile);
                for (tile, scores) in tile.chunks_exact_mut(n_positions).zip(scores.chunks_exact_mut(room)) {
                    keys.scale(first, tile);
                    scores[at..at + n_positions].copy_from_slice(tile);
                }
            }
        }
        let scale = (self.head_dim as f32).sqrt().recip();
        for scores in scores.chunks_exact_mut(n_tokens * room) {
            for (token, scores) in task.tokens.iter().zip(scores.chunks_exact_mut(room)) {
                softmax(kernel, &mut scores[..=token.position], scale);
            }
        }
    }

    /// The sum of the values, each times its position's weight.
    fn weigh(&self, kernel: Kernel, values: &Store<N>, task: &mut Task<'_>, buffers: &mut Buffers) {
        let n_tokens = task.tokens.len();
        let last = task.last();
        let room = last.blocks.len() * BLOCK_SIZE;
        task.out.iter_mut().for_each(|out| out.fill(0.0));
        for (block, at) in last.blocks.iter().zip((0..).step_by(BLOCK_SIZE)) {
            let heads = task.heads.clone().zip(buffers.scores.chunks_exact_mut(n_tokens * room)).enumerate();
            for (place, (head, weights)) in heads {
                let first = self.row(*block, self.kv_head(head));
                values.prefetch(self.ahead(task, head, at));
                let tokens = task.tokens.iter().zip(&mut task.out).zip(weights.chunks_exact_mut(room));
                for ((token, out), weights) in tokens.filter(|((token, _), _)| token.position >= at) {
                    let weights = &mut weights[at..(at + BLOCK_SIZE).min(token.position + 1)];
                    values.scale(first, weights);
                    let out = &mut out[place * self.head_dim..(place + 1) * self.head_dim];
                    kernel.accumulate(weights, values.rows(first, weights.len()), out);
                }
            }
        }
    }

    /// The first row of what the task reads some heads after this head of the block that begins with position `at`.
    fn ahead(&self, task: &Task<'_>, head: usize, at: usize) -> usize {
        let blocks = task.last().blocks;
        let read = at / BLOCK_SIZE * task.heads.len() + head - task.heads.start + HEADS_AHEAD;
        let block = blocks[(read / task.heads.len()).min(blocks.len() - 1)];
        self.row(block, self.kv_head(task.heads.start + read % task.heads.len()))
    }

    fn kv_head(&self, head: usize) -> usize {
        head / (self.n_heads / self.n_kv_heads)
    }

    /// The row of a block's first position.
    fn row(&self, block: BlockId, kv_head: usize) -> usize {
        (block.0 as usize * self.n_kv_heads + kv_head) * BLOCK_SIZE
    }
}

impl<'a> Task<'a> {
    /// The one that sees the most.
    fn last(&self) -> &'a Token<'a> {
        self.tokens.last().expect("invariant: a task has a token")
    }
}

/// Whether `next` is the token after `token` in the same sequence.
fn follows(token: &Token<'_>, next: &Token<'_>) -> bool {
    std::ptr::eq(token.blocks.as_ptr(), next.blocks.as_ptr()) && next.position == token.position + 1
}
