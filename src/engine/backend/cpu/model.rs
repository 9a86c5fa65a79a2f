//! Weights and the forward pass: embedding, pre-norm layers of attention and SwiGLU, final norm, head.
//!
//! Activations are row-major, one row a token. Mirrors `modeling_llama.py` of Hugging Face transformers in f32.

use candle_core::{CpuStorage, Error, Result, Storage, Tensor};
use candle_nn::VarBuilder;
use rayon::{
    iter::{IndexedParallelIterator, ParallelIterator},
    slice::{ParallelSlice, ParallelSliceMut},
};

use super::{attention::Cache, kernel::Kernel};
use crate::engine::{config::ModelConfig, kv::BlockId};

/// A token to be computed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token<'a> {
    pub(super) id: u32,
    pub(super) position: usize,
    /// Of its sequence, up to the one that holds this position.
    pub(super) blocks: &'a [BlockId],
}

impl Token<'_> {
    /// The block that its keys and values go into.
    pub(super) fn block(&self) -> BlockId {
        *self.blocks.last().expect("invariant: a token has a block for its position")
    }
}

/// All weights.
pub(super) struct Model {
    config: ModelConfig,
    embedding: Weight,
    layers: Vec<Layer>,
    norm: Weight,
    head: Weight,
    /// Shape (position, `head_dim` / 2).
    cos: Vec<f32>,
    sin: Vec<f32>,
}

struct Layer {
    input_norm: Weight,
    query: Weight,
    key: Weight,
    value: Weight,
    output: Weight,
    post_attention_norm: Weight,
    gate: Weight,
    up: Weight,
    down: Weight,
}

/// An f32 tensor of shape (out, in) or (n); clones of one tensor share their memory.
struct Weight(Tensor);

/// Rows of x that one pass over a block of weights serves; with k = 2048 they are 256 KiB, about what a core's cache holds.
const ROWS_AT_ONCE: usize = 32;
/// Products below which a second thread costs more than it helps.
const SEQUENTIAL_BELOW: usize = 1 << 17;

impl Model {
    pub(super) fn load(config: &ModelConfig, weights: &VarBuilder<'_>) -> Result<Self> {
        let (hidden, ffn) = (config.hidden_size, config.intermediate_size);
        let (q, kv) = (config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim);
        let model = weights.pp("model");
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for index in 0..config.num_hidden_layers {
            let layer = model.pp("layers").pp(index);
            let (attention, mlp) = (layer.pp("self_attn"), layer.pp("mlp"));
            layers.push(Layer {
                input_norm: Weight::vector(&layer.pp("input_layernorm"), hidden)?,
                query: Weight::matrix(&attention.pp("q_proj"), q, hidden)?,
                key: Weight::matrix(&attention.pp("k_proj"), kv, hidden)?,
                value: Weight::matrix(&attention.pp("v_proj"), kv, hidden)?,
                output: Weight::matrix(&attention.pp("o_proj"), hidden, q)?,
                post_attention_norm: Weight::vector(&layer.pp("post_attention_layernorm"), hidden)?,
                gate: Weight::matrix(&mlp.pp("gate_proj"), ffn, hidden)?,
                up: Weight::matrix(&mlp.pp("up_proj"), ffn, hidden)?,
                down: Weight::matrix(&mlp.pp("down_proj"), hidden, ffn)?,
            });
        }
        let embedding = Weight::matrix(&model.pp("embed_tokens"), config.vocab_size, hidden)?;
        let head = if config.tie_word_embeddings {
            Weight(embedding.0.clone())
        } else {
            Weight::matrix(&weights.pp("lm_head"), config.vocab_size, hidden)?
        };
        let norm = Weight::vector(&model.pp("norm"), hidden)?;
        let (cos, sin) = rotary_tables(config);
        Ok(Self { config: config.clone(), embedding, layers, norm, head, cos, sin })
    }

    pub(super) fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    /// The residual stream after the last layer, shape (token, hidden); keys and values go into `cache`.
    pub(super) fn forward(&self, kernel: Kernel, tokens: &[Token<'_>], cache: &mut Cache) -> Result<Vec<f32>> {
        let config = &self.config;
        let n = tokens.len();
        let q_width = config.num_attention_heads * config.head_dim;
        let kv_width = config.num_key_value_heads * config.head_dim;
        let mut x = self.embed(tokens)?;
        let mut normed = vec![0.0; n * config.hidden_size];
        let (mut query, mut attended) = (vec![0.0; n * q_width], vec![0.0; n * q_width]);
        let (mut key, mut value) = (vec![0.0; n * kv_width], vec![0.0; n * kv_width]);
        let (mut gate, mut up) = (vec![0.0; n * config.intermediate_size], vec![0.0; n * config.intermediate_size]);
        let mut delta = vec![0.0; n * config.hidden_size];
        for (index, layer) in self.layers.iter().enumerate() {
            self.norm_rows(&layer.input_norm, &x, &mut normed)?;
            layer.query.multiply(kernel, &normed, &mut query)?;
            layer.key.multiply(kernel, &normed, &mut key)?;
            layer.value.multiply(kernel, &normed, &mut value)?;
            self.rotate(tokens, &mut query);
            self.rotate(tokens, &mut key);
            cache.append(index, tokens, &key, &value);
            cache.attend(kernel, index, tokens, &query, &mut attended);
            layer.output.multiply(kernel, &attended, &mut delta)?;
            add(&mut x, &delta);
            self.norm_rows(&layer.post_attention_norm, &x, &mut normed)?;
            layer.gate.multiply(kernel, &normed, &mut gate)?;
            layer.up.multiply(kernel, &normed, &mut up)?;
            silu_multiply(&mut gate, &up);
            layer.down.multiply(kernel, &gate, &mut delta)?;
            add(&mut x, &delta);
        }
        Ok(x)
    }

    /// Logits of the tokens at `places`, shape (place, vocabulary).
    pub(super) fn logits(&self, kernel: Kernel, hidden: &[f32], places: &[usize]) -> Result<Vec<f32>> {
        let width = self.config.hidden_size;
        let picked: Vec<f32> =
            places.iter().flat_map(|place| &hidden[place * width..(place + 1) * width]).copied().collect();
        let mut normed = vec![0.0; picked.len()];
        self.norm_rows(&self.norm, &picked, &mut normed)?;
        let mut logits = vec![0.0; places.len() * self.config.vocab_size];
        self.head.multiply(kernel, &normed, &mut logits)?;
        Ok(logits)
    }

    fn embed(&self, tokens: &[Token<'_>]) -> Result<Vec<f32>> {
        let width = self.config.hidden_size;
        self.embedding.read(|table| {
            tokens.iter().flat_map(|token| &table[token.id as usize * width..][..width]).copied().collect()
        })
    }

    /// RMSNorm of each row: x / sqrt(mean(x²) + eps) * weight.
    fn norm_rows(&self, weight: &Weight, x: &[f32], out: &mut [f32]) -> Result<()> {
        let width = self.config.hidden_size;
        weight.read(|weight| {
            for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
                let mean = x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>() / width as f64;
                let scale = (mean + self.config.rms_norm_eps).sqrt().recip() as f32;
                for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
                    *out = weight * (x * scale);
                }
            }
        })
    }

    /// Turns each head's first half against its second (`NeoX` style) by its token's position.
    fn rotate(&self, tokens: &[Token<'_>], x: &mut [f32]) {
        let (head_dim, half) = (self.config.head_dim, self.config.head_dim / 2);
        let width = x.len() / tokens.len();
        for (token, row) in tokens.iter().zip(x.chunks_exact_mut(width)) {
            let cos = &self.cos[token.position * half..(token.position + 1) * half];
            let sin = &self.sin[token.position * half..(token.position + 1) * half];
            for head in row.chunks_exact_mut(head_dim) {
                let (first, second) = head.split_at_mut(half);
                for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                    (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                }
            }
        }
    }
}

impl Weight {
    fn matrix(weights: &VarBuilder<'_>, n_out: usize, n_in: usize) -> Result<Self> {
        weights.get((n_out, n_in), "weight")?.contiguous().map(Self)
    }

    fn vector(weights: &VarBuilder<'_>, n: usize) -> Result<Self> {
        weights.get(n, "weight").map(Self)
    }

    fn read<T>(&self, f: impl FnOnce(&[f32]) -> T) -> Result<T> {
        let (storage, layout) = self.0.storage_and_layout();
        match &*storage {
            Storage::Cpu(CpuStorage::F32(values)) => {
                let first = layout.start_offset();
                Ok(f(&values[first..first + layout.shape().elem_count()]))
            }
            _ => Err(Error::Msg("the cpu backend needs f32 weights on the cpu".into())),
        }
    }

    /// `out = x · weightᵀ`; x of shape (token, in), out of shape (token, out).
    fn multiply(&self, kernel: Kernel, x: &[f32], out: &mut [f32]) -> Result<()> {
        let (n_out, n_in) = self.0.dims2()?;
        let n_rows = x.len() / n_in;
        self.read(|weight| {
            if n_rows * n_out * n_in < SEQUENTIAL_BELOW {
                return kernel.products(x, weight, n_in, out);
            }
            let block = n_out.div_ceil(4 * rayon::current_num_threads()).max(8);
            if n_rows == 1 {
                return out
                    .par_chunks_mut(block)
                    .zip(weight.par_chunks(block * n_in))
                    .for_each(|(out, weight)| kernel.products(x, weight, n_in, out));
            }
            // Each task fills columns of `out` for all rows, which lie apart: they are computed side by side first.
            let blocks: Vec<Vec<f32>> =
                weight.par_chunks(block * n_in).map(|weight| multiply_block(kernel, x, weight, n_in)).collect();
            out.par_chunks_exact_mut(n_out).enumerate().for_each(|(row, out)| {
                for (out, block) in out.chunks_mut(block).zip(&blocks) {
                    out.copy_from_slice(&block[row * out.len()..(row + 1) * out.len()]);
                }
            });
        })
    }
}

fn multiply_block(kernel: Kernel, x: &[f32], weight: &[f32], n_in: usize) -> Vec<f32> {
    let n_columns = weight.len() / n_in;
    let mut out = vec![0.0; x.len() / n_in * n_columns];
    for (x, out) in x.chunks(ROWS_AT_ONCE * n_in).zip(out.chunks_mut(ROWS_AT_ONCE * n_columns)) {
        kernel.products(x, weight, n_in, out);
    }
    out
}

fn add(x: &mut [f32], delta: &[f32]) {
    for (x, delta) in x.iter_mut().zip(delta) {
        *x += delta;
    }
}

/// `gate = silu(gate) * up`.
fn silu_multiply(gate: &mut [f32], up: &[f32]) {
    let one = |gate: &mut [f32], up: &[f32]| {
        for (gate, up) in gate.iter_mut().zip(up) {
            *gate = *gate / (1.0 + (-*gate).exp()) * up;
        }
    };
    if gate.len() < SEQUENTIAL_BELOW / 16 {
        one(gate, up);
    } else {
        gate.par_chunks_mut(4096).zip(up.par_chunks(4096)).for_each(|(gate, up)| one(gate, up));
    }
}

/// Cosine and sine of position × `rope_theta`^(-2i / `head_dim`), in f32 throughout as the original computes them.
fn rotary_tables(config: &ModelConfig) -> (Vec<f32>, Vec<f32>) {
    let half = config.head_dim / 2;
    let frequencies: Vec<f32> =
        (0..half).map(|i| 1.0 / (config.rope_theta as f32).powf((2 * i) as f32 / config.head_dim as f32)).collect();
    (0..config.max_position_embeddings)
        .flat_map(|position| frequencies.iter().map(move |frequency| (position as f32 * frequency).sin_cos()))
        .map(|(sin, cos)| (cos, sin))
        .unzip()
}
