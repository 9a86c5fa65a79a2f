//! Weights and the forward pass: embedding, pre-norm layers of attention and SwiGLU, final norm, head.
//!
//! Activations are row-major, one row a token. Mirrors `modeling_llama.py` of Hugging Face transformers in f32.

use std::{collections::HashMap, sync::Arc};

use rayon::{
    iter::{IndexedParallelIterator, ParallelIterator},
    slice::{ParallelSlice, ParallelSliceMut},
};

use super::{
    attention::Cache,
    exponential,
    kernel::Kernel,
    matrix::{Arithmetic, Input, Matrix, multiply_all},
};
use crate::engine::{
    backend::{BackendError, rotary},
    config::ModelConfig,
    kv::BlockId,
    precision::{Part, Precision},
    weights::{self, TensorInfo, Weights, WeightsError},
};

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
    embedding: Embedding,
    layers: Vec<Layer>,
    norm: Vec<f32>,
    head: Arc<Matrix>,
    /// Shape (position, `head_dim` / 2).
    cos: Vec<f32>,
    sin: Vec<f32>,
}

/// The embedding table, which stays where it is stored: a token needs one row of it.
struct Embedding {
    source: Arc<dyn Weights>,
    info: TensorInfo,
}

struct Layer {
    input_norm: Vec<f32>,
    query: Arc<Matrix>,
    key: Arc<Matrix>,
    value: Arc<Matrix>,
    output: Arc<Matrix>,
    post_attention_norm: Vec<f32>,
    gate: Arc<Matrix>,
    up: Arc<Matrix>,
    down: Arc<Matrix>,
}

const EMBEDDING: &str = "model.embed_tokens.weight";
/// Numbers below which a second thread costs more than it helps.
const SEQUENTIAL_BELOW: usize = 1 << 14;

/// Reads matrices; those with the same content once.
struct Loader<'a> {
    source: &'a dyn Weights,
    precision: Precision,
    known: HashMap<String, Arc<Matrix>>,
}

impl Loader<'_> {
    fn matrix(&mut self, name: &str, part: Part, n_out: usize, n_in: usize) -> Result<Arc<Matrix>, BackendError> {
        let name = format!("{name}.weight");
        let content = self.source.content(&name);
        if let Some(known) = self.known.get(&content) {
            return Ok(Arc::clone(known));
        }
        let format = |stored| self.precision.format(part, n_in, stored);
        let matrix = Arc::new(Matrix::load(self.source, &name, (n_out, n_in), format)?);
        self.known.insert(content, Arc::clone(&matrix));
        Ok(matrix)
    }

    fn norm(&self, name: &str, n: usize) -> Result<Vec<f32>, WeightsError> {
        weights::tensor_f32(self.source, &format!("{name}.weight"), 1, n)
    }
}

impl Model {
    /// Reads the weights; no sequence has more than `most_positions`, which keys and values have room for.
    pub(super) fn load(
        config: &ModelConfig,
        source: Arc<dyn Weights>,
        precision: Precision,
        most_positions: usize,
    ) -> Result<Self, BackendError> {
        let (hidden, ffn) = (config.hidden_size, config.intermediate_size);
        let (q, kv) = (config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim);
        let mut loader = Loader { source: source.as_ref(), precision, known: HashMap::new() };
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for index in 0..config.num_hidden_layers {
            let mut matrix = |name: &str, n_out, n_in| {
                loader.matrix(&format!("model.layers.{index}.{name}"), Part::Projection, n_out, n_in)
            };
            let query = matrix("self_attn.q_proj", q, hidden)?;
            let key = matrix("self_attn.k_proj", kv, hidden)?;
            let value = matrix("self_attn.v_proj", kv, hidden)?;
            let output = matrix("self_attn.o_proj", hidden, q)?;
            let gate = matrix("mlp.gate_proj", ffn, hidden)?;
            let up = matrix("mlp.up_proj", ffn, hidden)?;
            let down = matrix("mlp.down_proj", hidden, ffn)?;
            let norm = |name: &str| loader.norm(&format!("model.layers.{index}.{name}"), hidden);
            let (input_norm, post_attention_norm) = (norm("input_layernorm")?, norm("post_attention_layernorm")?);
            layers.push(Layer { input_norm, query, key, value, output, post_attention_norm, gate, up, down });
        }
        let head = loader.matrix("lm_head", Part::Head, config.vocab_size, hidden)?;
        let norm = loader.norm("model.norm", hidden)?;
        let info = weights::expect(source.as_ref(), EMBEDDING, config.vocab_size, hidden)?;
        let (cos, sin) = rotary::tables(config, most_positions.min(config.max_position_embeddings));
        Ok(Self { config: config.clone(), embedding: Embedding { source, info }, layers, norm, head, cos, sin })
    }

    pub(super) fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    /// The residual stream after the last layer, shape (token, hidden); keys and values go into `cache`.
    pub(super) fn forward(
        &self,
        arithmetic: Arithmetic,
        tokens: &[Token<'_>],
        cache: &mut Cache,
    ) -> Result<Vec<f32>, WeightsError> {
        let config = &self.config;
        let n = tokens.len();
        let q_width = config.num_attention_heads * config.head_dim;
        let kv_width = config.num_key_value_heads * config.head_dim;
        let mut x = self.embedding.rows(tokens)?;
        let mut normed = vec![0.0; n * config.hidden_size];
        let (mut query, mut attended) = (vec![0.0; n * q_width], vec![0.0; n * q_width]);
        let (mut key, mut value) = (vec![0.0; n * kv_width], vec![0.0; n * kv_width]);
        let (mut gate, mut up) = (vec![0.0; n * config.intermediate_size], vec![0.0; n * config.intermediate_size]);
        let mut delta = vec![0.0; n * config.hidden_size];
        for (index, layer) in self.layers.iter().enumerate() {
            self.norm_rows(&layer.input_norm, &x, &mut normed);
            let input = Input::new(&normed, config.hidden_size);
            let targets = [(&*layer.query, &mut query[..]), (&layer.key, &mut key), (&layer.value, &mut value)];
            multiply_all(arithmetic, &input, targets);
            self.rotate(tokens, &mut query);
            self.rotate(tokens, &mut key);
            cache.append(index, tokens, &key, &value);
            cache.attend(arithmetic.kernel, index, tokens, &query, &mut attended);
            layer.output.multiply(arithmetic, &Input::new(&attended, q_width), &mut delta);
            add(&mut x, &delta);
            self.norm_rows(&layer.post_attention_norm, &x, &mut normed);
            let input = Input::new(&normed, config.hidden_size);
            multiply_all(arithmetic, &input, [(&*layer.gate, &mut gate[..]), (&layer.up, &mut up)]);
            silu_multiply(arithmetic.kernel, &mut gate, &up);
            layer.down.multiply(arithmetic, &Input::new(&gate, config.intermediate_size), &mut delta);
            add(&mut x, &delta);
        }
        Ok(x)
    }

    /// Logits of the tokens at `places`, shape (place, vocabulary).
    pub(super) fn logits(&self, arithmetic: Arithmetic, hidden: &[f32], places: &[usize]) -> Vec<f32> {
        let width = self.config.hidden_size;
        let picked: Vec<f32> =
            places.iter().flat_map(|place| &hidden[place * width..(place + 1) * width]).copied().collect();
        let mut normed = vec![0.0; picked.len()];
        self.norm_rows(&self.norm, &picked, &mut normed);
        let mut logits = vec![0.0; places.len() * self.config.vocab_size];
        self.head.multiply(arithmetic, &Input::new(&normed, width), &mut logits);
        logits
    }

    /// `RMSNorm` of each row: x / sqrt(mean(x²) + eps) * weight.
    fn norm_rows(&self, weight: &[f32], x: &[f32], out: &mut [f32]) {
        let width = self.config.hidden_size;
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let mean = x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>() / width as f64;
            let scale = (mean + self.config.rms_norm_eps).sqrt().recip() as f32;
            for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
                *out = weight * (x * scale);
            }
        }
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

impl Embedding {
    /// The tokens' rows, shape (token, hidden).
    fn rows(&self, tokens: &[Token<'_>]) -> Result<Vec<f32>, WeightsError> {
        let width = self.info.n_columns;
        let (mut x, mut buffer) = (vec![0.0; tokens.len() * width], Vec::new());
        for (token, x) in tokens.iter().zip(x.chunks_exact_mut(width)) {
            let row = token.id as usize..token.id as usize + 1;
            weights::read_f32(self.source.as_ref(), (EMBEDDING, self.info), row, &mut buffer, x)?;
        }
        Ok(x)
    }
}

fn add(x: &mut [f32], delta: &[f32]) {
    for (x, delta) in x.iter_mut().zip(delta) {
        *x += delta;
    }
}

/// `gate = silu(gate) * up`, by all threads where that is worth it.
fn silu_multiply(kernel: Kernel, gate: &mut [f32], up: &[f32]) {
    if gate.len() < SEQUENTIAL_BELOW {
        exponential::silu_multiply(kernel, gate, up);
    } else {
        gate.par_chunks_mut(4096)
            .zip(up.par_chunks(4096))
            .for_each(|(gate, up)| exponential::silu_multiply(kernel, gate, up));
    }
}
