//! The golden files, read.

use std::{collections::BTreeMap, path::PathBuf};

use safetensors::SafeTensors;
use serde::Deserialize;

use crate::support::{
    generator,
    tiny_checkpoint::{TinySpec, TinyTokenizer},
};

/// `logits.json` with `logits.safetensors`: one random checkpoint each.
#[derive(Debug, Deserialize)]
pub struct GoldenModel {
    pub name: String,
    seed: u64,
    scales: BTreeMap<String, [f32; 2]>,
    config: GoldenConfig,
    measured: Measured,
    pub cases: Vec<LogitsCase>,
}

#[derive(Debug, Deserialize)]
struct GoldenConfig {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    vocab_size: usize,
    rms_norm_eps: f64,
    rope_theta: f64,
    max_position_embeddings: usize,
}

#[derive(Debug, Deserialize)]
struct Measured {
    attention_score_std: Vec<f64>,
    logit_std: f64,
}

/// One prompt.
#[derive(Debug, Deserialize)]
pub struct LogitsCase {
    #[serde(rename = "logits")]
    pub name: String,
    pub prompt: Vec<u32>,
    /// The 64 likeliest tokens one after another.
    pub greedy: Vec<u32>,
    /// By how much the likeliest token leads at least.
    margin: f64,
    /// Positions in prompt and answer whose logits are stored.
    rows: Vec<usize>,
    /// Their logits, filled in from the other file.
    #[serde(skip)]
    pub logits: Vec<(usize, Vec<f32>)>,
}

/// A file of the golden data.
pub fn data(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All models.
pub fn models() -> Vec<GoldenModel> {
    #[derive(Deserialize)]
    struct File {
        models: Vec<GoldenModel>,
    }
    let mut models = serde_json::from_slice::<File>(&data("logits.json")).unwrap().models;
    let bytes = data("logits.safetensors");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    for model in &mut models {
        for case in &mut model.cases {
            let tensor = tensors.tensor(&case.name).unwrap();
            assert_eq!(tensor.shape(), [case.rows.len(), model.config.vocab_size]);
            let values: Vec<f32> =
                tensor.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
            let rows = values.chunks_exact(model.config.vocab_size).map(<[f32]>::to_vec);
            case.logits = case.rows.iter().copied().zip(rows).collect();
        }
    }
    models
}

/// The model of this name.
pub fn model(name: &str) -> GoldenModel {
    models().into_iter().find(|model| model.name == name).unwrap()
}

impl GoldenModel {
    /// What it takes to write its checkpoint.
    pub fn spec(&self) -> TinySpec {
        let config = &self.config;
        TinySpec {
            hidden_size: config.hidden_size,
            intermediate_size: config.intermediate_size,
            num_hidden_layers: config.num_hidden_layers,
            num_attention_heads: config.num_attention_heads,
            num_key_value_heads: config.num_key_value_heads,
            vocab_size: config.vocab_size,
            max_position_embeddings: config.max_position_embeddings,
            max_tokenizer_truncation: None,
            rms_norm_eps: config.rms_norm_eps,
            rope_theta: config.rope_theta,
            tokenizer: TinyTokenizer::V2,
            // Half of them in shards, so that both ways of storing weights are held against the golden files.
            n_shards: if config.num_hidden_layers > 2 { 3 } else { 1 },
            seed: self.seed,
            scales: self.scales.clone(),
        }
    }
}

#[test]
fn the_generator_gives_the_numbers_that_python_has() {
    #[derive(Deserialize)]
    struct File {
        bits: Vec<String>,
        weights: Vec<f32>,
        logits: Vec<f32>,
        ids: Vec<u32>,
    }
    let file: File = serde_json::from_slice(&data("generator.json")).unwrap();
    let name = "model.norm.weight";
    assert_eq!(generator::bits(5, name).take(4).map(|z| z.to_string()).collect::<Vec<_>>(), file.bits);
    assert_eq!(generator::weights(5, name, 4, [1.0, 0.25]), file.weights);
    assert_eq!(generator::logits(5, name, 4, 8.0), file.logits);
    assert_eq!(generator::ids(5, name, 4, 1003), file.ids);
}

#[test]
fn the_golden_models_are_sharp_enough_to_show_mistakes() {
    let models = models();
    assert!(models.len() >= 4);
    for model in models {
        assert!(model.measured.logit_std >= 1.0, "{}", model.name);
        assert!(model.measured.attention_score_std.iter().all(|&std| std >= 1.0), "{}", model.name);
        assert_eq!(model.measured.attention_score_std.len(), model.config.num_hidden_layers);
        let lengths: Vec<usize> = model.cases.iter().map(|case| case.prompt.len()).collect();
        assert_eq!(lengths, [1, 2, 15, 16, 17, 33, 128, 300]);
        for case in model.cases {
            assert!(case.margin > 1e-3, "{}", case.name);
            assert_eq!(case.greedy.len(), 64);
        }
    }
}
