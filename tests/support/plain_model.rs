//! The model in plain words: one token after another, one number after another, sums in f64.
//!
//! Written from the description of `LLaMA`, not from any of the backends. It can be made wrong on purpose ([`Mutation`]), to
//! show that the golden files tell a wrong model from a right one.

use std::collections::HashMap;

use super::tiny_checkpoint::{TinySpec, tensors};

/// A mistake that an implementation may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// No mistake.
    None,
    /// Rotary positions turn neighbours (2i, 2i + 1) instead of halves (i, i + d/2).
    InterleavedRope,
    /// Rotary positions turn the other way for keys.
    KeysTurnBackwards,
    /// Keys are turned as if they stood one position later.
    KeysOnePositionLate,
    /// Another base of the rotary frequencies.
    WrongTheta,
    /// A token sees the one after it, where that is computed in the same piece.
    MaskSeesOneAhead,
    /// A token does not see itself.
    MaskMissesItself,
    /// A token does not see the first one.
    MaskMissesTheFirst,
    /// Ten times the epsilon.
    WrongEps,
    /// No epsilon.
    NoEps,
    /// Attention scores are divided by the root of the hidden size.
    ScaleOfHiddenSize,
    /// Query head h reads key-value head h mod n instead of h / (heads per key-value head).
    HeadsDealtOut,
    /// The activation is on the wrong branch.
    GateAndUpSwapped,
    /// GELU instead of `SiLU`.
    Gelu,
    /// The feed-forward block's input is not normalised with its own weights.
    OneNormForBoth,
    /// No norm before the head.
    NoFinalNorm,
    /// The embedding table is the head.
    TiedHead,
}

/// The model.
pub struct PlainModel {
    spec: TinySpec,
    mutation: Mutation,
    weights: HashMap<String, Vec<f32>>,
}

/// Keys and values so far: for each layer, one row a position.
#[derive(Default, Clone)]
pub struct PlainCache {
    layers: Vec<PlainLayer>,
    pub n_positions: usize,
}

#[derive(Default, Clone)]
struct PlainLayer {
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
}

impl PlainModel {
    pub fn new(spec: &TinySpec, mutation: Mutation) -> Self {
        let weights = tensors(spec).into_iter().map(|tensor| (tensor.name, tensor.values)).collect();
        Self { spec: spec.clone(), mutation, weights }
    }

    pub fn vocab_size(&self) -> usize {
        self.spec.vocab_size
    }

    /// Logits of each of `ids`, which follow what is in the cache.
    pub fn forward(&self, ids: &[u32], cache: &mut PlainCache) -> Vec<Vec<f32>> {
        let hidden_size = self.spec.hidden_size;
        cache.layers.resize(self.spec.num_hidden_layers, PlainLayer::default());
        let embedding = &self.weights["model.embed_tokens.weight"];
        let mut hidden: Vec<Vec<f32>> =
            ids.iter().map(|&id| embedding[id as usize * hidden_size..][..hidden_size].to_vec()).collect();
        for layer in 0..self.spec.num_hidden_layers {
            self.attention_block(layer, &mut hidden, cache);
            for token in &mut hidden {
                self.feed_forward_block(layer, token);
            }
        }
        cache.n_positions += ids.len();
        hidden.iter().map(|token| self.head(token)).collect()
    }

    /// hidden += o(attention(norm(hidden)))
    fn attention_block(&self, layer: usize, hidden: &mut [Vec<f32>], cache: &mut PlainCache) {
        let name = |part: &str| format!("model.layers.{layer}.self_attn.{part}.weight");
        let first = cache.n_positions;
        let PlainLayer { keys, values } = &mut cache.layers[layer];
        let mut queries = Vec::new();
        for (idx, token) in hidden.iter().enumerate() {
            let normed = self.norm(&format!("model.layers.{layer}.input_layernorm.weight"), token);
            let position = first + idx;
            let late = usize::from(self.mutation == Mutation::KeysOnePositionLate);
            let backwards = self.mutation == Mutation::KeysTurnBackwards;
            queries.push(self.rotated(self.project(&name("q_proj"), &normed), position, false));
            keys.push(self.rotated(self.project(&name("k_proj"), &normed), position + late, backwards));
            values.push(self.project(&name("v_proj"), &normed));
        }
        let n_positions = keys.len();
        for (idx, token) in hidden.iter_mut().enumerate() {
            let seen = self.seen(first + idx, n_positions);
            let attended = self.attend(&queries[idx], &keys[seen.clone()], &values[seen]);
            add(token, &self.project(&name("o_proj"), &attended));
        }
    }

    /// hidden += down(silu(gate(norm(hidden))) * up(norm(hidden)))
    fn feed_forward_block(&self, layer: usize, token: &mut [f32]) {
        let name = |part: &str| format!("model.layers.{layer}.mlp.{part}.weight");
        let one_for_both = self.mutation == Mutation::OneNormForBoth;
        let norm = if one_for_both { "input_layernorm" } else { "post_attention_layernorm" };
        let normed = self.norm(&format!("model.layers.{layer}.{norm}.weight"), token);
        let mut gate = self.project(&name("gate_proj"), &normed);
        let mut up = self.project(&name("up_proj"), &normed);
        if self.mutation == Mutation::GateAndUpSwapped {
            std::mem::swap(&mut gate, &mut up);
        }
        let inner: Vec<f32> = gate.iter().zip(&up).map(|(gate, up)| self.activation(*gate) * up).collect();
        add(token, &self.project(&name("down_proj"), &inner));
    }

    fn head(&self, token: &[f32]) -> Vec<f32> {
        let normed = match self.mutation {
            Mutation::NoFinalNorm => token.to_vec(),
            _ => self.norm("model.norm.weight", token),
        };
        let tied = self.mutation == Mutation::TiedHead;
        self.project(if tied { "model.embed_tokens.weight" } else { "lm_head.weight" }, &normed)
    }

    /// Which positions a token at `position` attends to.
    fn seen(&self, position: usize, n_positions: usize) -> std::ops::Range<usize> {
        match self.mutation {
            Mutation::MaskSeesOneAhead => 0..(position + 2).min(n_positions),
            Mutation::MaskMissesItself if position > 0 => 0..position,
            Mutation::MaskMissesTheFirst if position > 0 => 1..position + 1,
            _ => 0..position + 1,
        }
    }

    /// For each head: softmax(q · k / sqrt(d)) · v
    fn attend(&self, query: &[f32], keys: &[Vec<f32>], values: &[Vec<f32>]) -> Vec<f32> {
        let (n_heads, n_kv_heads) = (self.spec.num_attention_heads, self.spec.num_key_value_heads);
        let d = self.spec.hidden_size / n_heads;
        let divisor = if self.mutation == Mutation::ScaleOfHiddenSize { self.spec.hidden_size } else { d };
        let mut out = Vec::with_capacity(query.len());
        for head in 0..n_heads {
            let dealt_out = self.mutation == Mutation::HeadsDealtOut;
            let kv_head = if dealt_out { head % n_kv_heads } else { head / (n_heads / n_kv_heads) };
            let (of_query, of_kv) = (head * d..(head + 1) * d, kv_head * d..(kv_head + 1) * d);
            let scores: Vec<f64> = keys
                .iter()
                .map(|key| dot(&query[of_query.clone()], &key[of_kv.clone()]) / (divisor as f64).sqrt())
                .collect();
            let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let exponentials: Vec<f64> = scores.iter().map(|score| (score - highest).exp()).collect();
            let sum: f64 = exponentials.iter().sum();
            for idx in of_kv {
                let weighted: f64 = exponentials.iter().zip(values).map(|(e, value)| e * f64::from(value[idx])).sum();
                out.push((weighted / sum) as f32);
            }
        }
        out
    }

    /// Each head's pairs (i, i + d/2) turned by position / theta^(2i/d); angles in f32, as everywhere else.
    fn rotated(&self, mut vector: Vec<f32>, position: usize, backwards: bool) -> Vec<f32> {
        let d = self.spec.hidden_size / self.spec.num_attention_heads;
        let wrong_theta = self.mutation == Mutation::WrongTheta;
        let theta = if wrong_theta { 500_000.0 } else { self.spec.rope_theta as f32 };
        for head in vector.chunks_exact_mut(d) {
            for pair in 0..d / 2 {
                let frequency = 1.0 / theta.powf(2.0 * pair as f32 / d as f32);
                let angle = position as f32 * frequency;
                let (sin, cos) = if backwards { (-angle).sin_cos() } else { angle.sin_cos() };
                let (a, b) = match self.mutation {
                    Mutation::InterleavedRope => (2 * pair, 2 * pair + 1),
                    _ => (pair, pair + d / 2),
                };
                (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[b] * cos + head[a] * sin);
            }
        }
        vector
    }

    /// x / sqrt(mean(x²) + eps) · weight
    fn norm(&self, name: &str, token: &[f32]) -> Vec<f32> {
        let eps = match self.mutation {
            Mutation::WrongEps => 10.0 * self.spec.rms_norm_eps,
            Mutation::NoEps => 0.0,
            _ => self.spec.rms_norm_eps,
        };
        let root = (dot(token, token) / token.len() as f64 + eps).sqrt();
        token.iter().zip(&self.weights[name]).map(|(x, weight)| (f64::from(*x) / root) as f32 * weight).collect()
    }

    /// weight · x, where weight has shape (out, in).
    fn project(&self, name: &str, token: &[f32]) -> Vec<f32> {
        self.weights[name].chunks_exact(token.len()).map(|row| dot(row, token) as f32).collect()
    }

    fn activation(&self, x: f32) -> f32 {
        match self.mutation {
            Mutation::Gelu => 0.5 * x * (1.0 + (0.797_884_6 * (x + 0.044_715 * x * x * x)).tanh()),
            _ => x / (1.0 + (-x).exp()),
        }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    // Eight sums side by side, which the compiler turns into vector instructions: a long test is a quarter as long.
    let mut sums = [0.0; 8];
    for (a, b) in a.chunks(8).zip(b.chunks(8)) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += f64::from(*a) * f64::from(*b);
        }
    }
    sums.iter().sum()
}

fn add(to: &mut [f32], from: &[f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += from;
    }
}
