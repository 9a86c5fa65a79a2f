//! A small XVERSE checkpoint in a folder: config, generation config, tokenizer of the XVERSE kind and generated weights.
//!
//! The files look as XVERSE's do: no `rope_theta` or `num_key_value_heads` where they are the usual ones, `inv_freq` buffers
//! among the weights, a tokenizer in the form that needs repair. Tests of bad input write one and then spoil it.

use std::{collections::BTreeMap, fs, path::Path};

use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};

use super::generator;

/// Which of the two small tokenizers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TinyTokenizer {
    /// NFKC and no byte tokens.
    V1,
    /// Byte tokens and no normalisation.
    V2,
}

/// The shape of a checkpoint; [`Default`] is a fraction of a MiB.
#[derive(Debug, Clone)]
pub struct TinySpec {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    /// At least [`TINY_VOCABULARY`]; the tokenizer is filled up to it.
    pub vocab_size: usize,
    pub max_position_embeddings: usize,
    pub max_tokenizer_truncation: Option<usize>,
    pub rms_norm_eps: f64,
    pub rope_theta: f64,
    pub tokenizer: TinyTokenizer,
    /// More than one: shards with an index.
    pub n_shards: usize,
    /// Of the generator.
    pub seed: u64,
    /// Offset and scale for each kind of tensor, such as `q_proj`; all norms are `norm`.
    pub scales: BTreeMap<String, [f32; 2]>,
}

/// Tokens of the small tokenizers before they are filled up.
pub const TINY_VOCABULARY: usize = 700;

impl Default for TinySpec {
    fn default() -> Self {
        let scales = [
            ("embed_tokens", 0.02),
            ("q_proj", 0.28125),
            ("k_proj", 0.28125),
            ("v_proj", 0.21875),
            ("o_proj", 9.0 / 2048.0),
            ("gate_proj", 0.25),
            ("up_proj", 0.25),
            ("down_proj", 13.0 / 8192.0),
            ("lm_head", 0.34375),
        ];
        let mut scales: BTreeMap<String, [f32; 2]> =
            scales.into_iter().map(|(kind, scale)| (kind.to_owned(), [0.0, scale])).collect();
        scales.insert("norm".to_owned(), [1.0, 0.25]);
        Self {
            hidden_size: 64,
            intermediate_size: 172,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 4,
            vocab_size: TINY_VOCABULARY,
            max_position_embeddings: 512,
            max_tokenizer_truncation: None,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            tokenizer: TinyTokenizer::V2,
            n_shards: 1,
            seed: 1,
            scales,
        }
    }
}

/// One tensor of a checkpoint.
#[derive(Debug, Clone)]
pub struct TinyTensor {
    pub name: String,
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// Writes the whole folder, which must exist.
pub fn tiny_checkpoint(dir: &Path, spec: &TinySpec) {
    write_json(&dir.join("config.json"), &config_json(spec));
    write_json(&dir.join("generation_config.json"), &generation_config_json());
    write_json(&dir.join("tokenizer.json"), &tokenizer_json(spec.tokenizer, spec.vocab_size));
    let mut tensors = tensors(spec);
    tensors.extend(inverse_frequencies(spec));
    if spec.n_shards == 1 {
        write_safetensors(&dir.join("model.safetensors"), &tensors);
    } else {
        write_shards(dir, &tensors, spec.n_shards);
    }
}

/// `config.json`, as XVERSE writes it.
pub fn config_json(spec: &TinySpec) -> Value {
    let mut config = json!({
        "architectures": ["XverseForCausalLM"],
        "model_type": "xverse",
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.intermediate_size,
        "num_hidden_layers": spec.num_hidden_layers,
        "num_attention_heads": spec.num_attention_heads,
        "vocab_size": spec.vocab_size,
        "max_position_embeddings": spec.max_position_embeddings,
        "rms_norm_eps": spec.rms_norm_eps,
        "hidden_act": "silu",
        "pad_token_id": 1,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "tie_word_embeddings": false,
        "torch_dtype": "float32",
        "initializer_range": 0.02,
        "use_cache": true,
    });
    if spec.num_key_value_heads != spec.num_attention_heads {
        config["num_key_value_heads"] = json!(spec.num_key_value_heads);
    }
    if (spec.rope_theta - 10_000.0).abs() > 0.0 {
        config["rope_theta"] = json!(spec.rope_theta);
    }
    if let Some(limit) = spec.max_tokenizer_truncation {
        config["max_tokenizer_truncation"] = json!(limit);
    }
    config
}

/// `generation_config.json`, with shorter answers than XVERSE's own.
pub fn generation_config_json() -> Value {
    json!({
        "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3, "max_new_tokens": 128, "temperature": 0.5, "top_k": 30,
        "top_p": 0.85, "repetition_penalty": 1.1, "do_sample": true, "transformers_version": "4.29.1",
    })
}

/// `tokenizer.json` as shipped, filled up with tokens that no text gives.
pub fn tokenizer_json(tokenizer: TinyTokenizer, vocab_size: usize) -> Value {
    let text = match tokenizer {
        TinyTokenizer::V1 => include_str!("../golden/data/tokenizer-v1/tokenizer.json"),
        TinyTokenizer::V2 => include_str!("../golden/data/tokenizer-v2/tokenizer.json"),
    };
    let mut file: Value = serde_json::from_str(text).unwrap();
    assert!(vocab_size >= TINY_VOCABULARY, "{vocab_size} tokens, at least {TINY_VOCABULARY} are needed");
    for id in TINY_VOCABULARY..vocab_size {
        // No merge leads to them.
        file["model"]["vocab"][format!("filler{id}")] = json!(id);
    }
    file
}

/// All tensors that the model needs, in the order of the layers.
pub fn tensors(spec: &TinySpec) -> Vec<TinyTensor> {
    let hidden = spec.hidden_size;
    let kv = hidden / spec.num_attention_heads * spec.num_key_value_heads;
    let ffn = spec.intermediate_size;
    let mut named: Vec<(String, Vec<usize>)> =
        vec![("model.embed_tokens.weight".to_owned(), vec![spec.vocab_size, hidden])];
    for layer in 0..spec.num_hidden_layers {
        let of_layer = [
            ("self_attn.q_proj", vec![hidden, hidden]),
            ("self_attn.k_proj", vec![kv, hidden]),
            ("self_attn.v_proj", vec![kv, hidden]),
            ("self_attn.o_proj", vec![hidden, hidden]),
            ("mlp.gate_proj", vec![ffn, hidden]),
            ("mlp.up_proj", vec![ffn, hidden]),
            ("mlp.down_proj", vec![hidden, ffn]),
            ("input_layernorm", vec![hidden]),
            ("post_attention_layernorm", vec![hidden]),
        ];
        named.extend(of_layer.map(|(name, shape)| (format!("model.layers.{layer}.{name}.weight"), shape)));
    }
    named.push(("model.norm.weight".to_owned(), vec![hidden]));
    named.push(("lm_head.weight".to_owned(), vec![spec.vocab_size, hidden]));
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let values = generator::weights(spec.seed, &name, shape.iter().product(), spec.scales[kind_of(&name)]);
        TinyTensor { name, shape, values }
    };
    named.into_iter().map(tensor).collect()
}

/// Writes one file.
pub fn write_safetensors(path: &Path, tensors: &[TinyTensor]) {
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|tensor| tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect()).collect();
    let views = tensors.iter().zip(&bytes).map(|(tensor, bytes)| {
        (tensor.name.as_str(), TensorView::new(Dtype::F32, tensor.shape.clone(), bytes).unwrap())
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// `model.layers.0.self_attn.q_proj.weight` -> `q_proj`.
fn kind_of(name: &str) -> &str {
    let kind = name.rsplit('.').nth(1).unwrap();
    if kind.ends_with("norm") { "norm" } else { kind }
}

/// The buffers that XVERSE's shards hold beside the weights; a reader must pass them over.
fn inverse_frequencies(spec: &TinySpec) -> Vec<TinyTensor> {
    let head_dim = spec.hidden_size / spec.num_attention_heads;
    let values: Vec<f32> =
        (0..head_dim / 2).map(|pair| spec.rope_theta.powf(-2.0 * pair as f64 / head_dim as f64) as f32).collect();
    let name = |layer| format!("model.layers.{layer}.self_attn.rotary_emb.inv_freq");
    (0..spec.num_hidden_layers)
        .map(|layer| TinyTensor { name: name(layer), shape: vec![values.len()], values: values.clone() })
        .collect()
}

fn write_shards(dir: &Path, tensors: &[TinyTensor], n_shards: usize) {
    let mut weight_map = BTreeMap::new();
    for (shard, tensors) in tensors.chunks(tensors.len().div_ceil(n_shards)).enumerate() {
        let file = format!("model-{:05}-of-{n_shards:05}.safetensors", shard + 1);
        write_safetensors(&dir.join(&file), tensors);
        weight_map.extend(tensors.iter().map(|tensor| (tensor.name.clone(), file.clone())));
    }
    let total_size = 4 * tensors.iter().map(|tensor| tensor.values.len()).sum::<usize>();
    let index = json!({ "metadata": { "total_size": total_size }, "weight_map": weight_map });
    write_json(&dir.join("model.safetensors.index.json"), &index);
}

fn write_json(path: &Path, value: &Value) {
    fs::write(path, serde_json::to_vec_pretty(value).unwrap()).unwrap();
}
