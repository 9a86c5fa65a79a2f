//! Checkpoints as other tools write them, against what transformers and PEFT compute from the same files in f32.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use xverse_chat::engine::{
    backend::{
        Backend, Batch, Row, SequenceId,
        cpu::{CpuBackend, CpuOptions},
        reference::ReferenceBackend,
    },
    block_format::BlockFormat,
    checkpoint::{Checkpoint, error::CheckpointError},
    config::ModelConfig,
    format::Format,
    kv::BlockId,
    kv_type::KvType,
    load,
    precision::{Precision, Quantize},
    weights::NumberType,
};

const TOLERANCE: f32 = 1e-4;

/// `expected.json`.
#[derive(Deserialize)]
struct Expected {
    prompt: Vec<u32>,
    /// After the prompt.
    logits: Vec<f32>,
    /// The likeliest tokens one after another.
    greedy: Vec<u32>,
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data/formats").join(name)
}

fn expected(name: &str) -> Expected {
    serde_json::from_slice(&std::fs::read(folder(name).join("expected.json")).unwrap()).unwrap()
}

fn opened(name: &str, adapter: Option<&str>) -> Result<(ModelConfig, Checkpoint), CheckpointError> {
    let config = ModelConfig::read(&folder(name)).unwrap();
    let checkpoint = Checkpoint::open(&folder(name), &config)?;
    let checkpoint = match adapter {
        Some(adapter) => checkpoint.with_adapter(&folder(adapter), &config)?,
        None => checkpoint,
    };
    Ok((config, checkpoint))
}

/// The checkpoint with its weights in f32.
fn loaded(name: &str, adapter: Option<&str>) -> CpuBackend {
    let (config, checkpoint) = opened(name, adapter).unwrap();
    let precision = Precision { number_type: Some(NumberType::F32), quantize: Quantize::None };
    let options = CpuOptions { precision, kv_type: KvType::F32, n_blocks: 8, threads: 1 };
    CpuBackend::new(&config, checkpoint.into_weights(), options).unwrap()
}

/// Logits after the last of `ids`.
fn logits(backend: &mut dyn Backend, ids: &[u32]) -> Vec<f32> {
    let row = Row {
        sequence: SequenceId(0),
        ids: ids.to_vec(),
        start: 0,
        blocks: (0..8).map(BlockId).collect(),
        draw: None,
        logprobs: None,
        prompt_logprobs: None,
        following: None,
        logits: true,
    };
    let all = backend.step(&Batch { rows: vec![row] }).unwrap().remove(0).unwrap().logits;
    all[all.len() / ids.len() * (ids.len() - 1)..].to_vec()
}

fn agrees(mut backend: impl Backend, expected: &Expected) {
    let found = logits(&mut backend, &expected.prompt);
    let apart = found.iter().zip(&expected.logits).fold(0.0, |most: f32, (a, b)| most.max((a - b).abs()));
    assert!(found.len() == expected.logits.len() && apart <= TOLERANCE, "{apart}");
    same_tokens(backend, expected);
}

fn same_tokens(mut backend: impl Backend, expected: &Expected) {
    let mut ids = expected.prompt.clone();
    for token in &expected.greedy {
        let logits = logits(&mut backend, &ids);
        let likeliest = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap() as u32;
        assert_eq!(likeliest, *token, "after {ids:?}");
        ids.push(likeliest);
    }
}

#[test]
fn pickled_shards_give_what_transformers_computes() {
    agrees(loaded("bin-sharded", None), &expected("bin-sharded"));
}

/// The same with every number as a single, whatever it is stored in.
fn in_singles(config: &ModelConfig, checkpoint: Checkpoint) -> ReferenceBackend {
    ReferenceBackend::new(config, checkpoint.into_weights(), 8).unwrap()
}

/// As it is served.
fn in_own_blocks(config: &ModelConfig, checkpoint: Checkpoint) -> CpuBackend {
    let options = CpuOptions { precision: Precision::default(), kv_type: KvType::F32, n_blocks: 8, threads: 1 };
    CpuBackend::new(config, checkpoint.into_weights(), options).unwrap()
}

#[test]
fn a_gguf_file_gives_what_its_numbers_give_in_transformers() {
    let expected = expected("gguf");
    let (config, checkpoint) = opened("gguf", None).unwrap();
    agrees(in_singles(&config, checkpoint), &expected);
    let (config, checkpoint) = opened("gguf", None).unwrap();
    same_tokens(in_own_blocks(&config, checkpoint), &expected);
}

#[test]
fn a_gguf_file_alone_is_a_model() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("chat.gguf");
    std::fs::copy(folder("gguf").join("model.gguf"), &path).unwrap();
    for path in [path.as_path(), dir.path()] {
        let config = load::read_config(path).unwrap().1;
        let checkpoint = Checkpoint::open(path, &config).unwrap();
        agrees(in_singles(&config, checkpoint), &expected("gguf"));
    }
}

#[test]
fn a_gptq_checkpoint_gives_what_its_numbers_give_in_transformers() {
    let expected = expected("gptq");
    let (config, checkpoint) = opened("gptq", None).unwrap();
    let name = "model.layers.0.mlp.up_proj.weight";
    assert_eq!(checkpoint.natural(name), Format::Blocks(BlockFormat::Q4_0));
    agrees(in_singles(&config, checkpoint), &expected);
    let (config, checkpoint) = opened("gptq", None).unwrap();
    let mut blocks = in_own_blocks(&config, checkpoint);
    assert_eq!(blocks.spec().dtype, "Q4_0");
    // Activations are rounded to eight bits there, which is all that sets the two apart.
    let found = logits(&mut blocks, &expected.prompt);
    let squares = |numbers: &mut dyn Iterator<Item = f32>| numbers.map(|number| number * number).sum::<f32>();
    let apart = squares(&mut found.iter().zip(&expected.logits).map(|(a, b)| a - b));
    let all = squares(&mut expected.logits.iter().copied());
    assert!(apart < 1e-3 * all, "{apart} of {all}");
}

#[test]
fn an_adapter_gives_what_peft_computes() {
    agrees(loaded("lora-base", Some("lora")), &expected("lora"));
    agrees(loaded("lora-base", Some("lora-patterns")), &expected("lora-patterns"));
}

#[test]
fn a_pickled_adapter_is_read_like_the_other() {
    let prompt = expected("lora").prompt;
    let [mut plain, mut adapted] = [None, Some("lora-bin")].map(|adapter| loaded("lora-base", adapter));
    assert_ne!(logits(&mut plain, &prompt), logits(&mut adapted, &prompt));
}

#[test]
fn an_adapter_of_another_shape_is_refused_and_named() {
    let error = opened("bin-sharded", Some("lora")).unwrap_err();
    assert!(matches!(error, CheckpointError::Adapter(_)), "{error}");
    assert!(error.to_string().contains("lora_") && error.to_string().contains("\nhint: "), "{error}");
}
