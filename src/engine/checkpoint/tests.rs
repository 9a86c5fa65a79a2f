//! What a checkpoint may look like and what is said of those that do not.

use std::{collections::BTreeMap, fs};

use safetensors::Dtype;
use serde_json::json;

use super::{stored_type::StoredType, *};
use crate::engine::weights;

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn config() -> ModelConfig {
    let json = json!({
        "architectures": ["XverseForCausalLM"], "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 10, "max_position_embeddings": 32
    });
    ModelConfig::from_json(json.to_string().as_bytes()).unwrap()
}

fn tied() -> ModelConfig {
    ModelConfig { tie_word_embeddings: true, ..config() }
}

/// Numbers 0, 1, 2, … as f32 for every tensor of the model.
fn tensors(config: &ModelConfig) -> Tensors {
    let numbers = |shape: &[usize]| (0..shape.iter().product()).flat_map(|i: usize| (i as f32).to_le_bytes()).collect();
    layout::tensors(config)
        .into_iter()
        .map(|(name, shape)| (name, (Dtype::F32, shape.clone(), numbers(&shape))))
        .collect()
}

/// A file's bytes, written out by hand so that it can be wrong.
fn file(tensors: &Tensors) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    for (name, (dtype, shape, bytes)) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}));
        data.extend_from_slice(bytes);
    }
    with_header(&serde_json::Value::Object(header).to_string(), &data)
}

fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// The error for a folder with this single file.
fn refused(bytes: &[u8]) -> CheckpointError {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
    Checkpoint::open(dir.path(), &config()).unwrap_err()
}

fn opened(config: &ModelConfig, tensors: &Tensors) -> Checkpoint {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("model.safetensors"), file(tensors)).unwrap();
    Checkpoint::open(dir.path(), config).unwrap()
}

/// Two shards with their index: the embeddings in the second, the rest in the first.
fn write_shards(dir: &Path, tensors: &Tensors) {
    let (mut first, mut second) = (tensors.clone(), Tensors::new());
    let embeddings = first.remove(layout::EMBEDDINGS).unwrap();
    second.insert(layout::EMBEDDINGS.to_owned(), embeddings);
    fs::write(dir.join("model-00001-of-00002.safetensors"), file(&first)).unwrap();
    fs::write(dir.join("model-00002-of-00002.safetensors"), file(&second)).unwrap();
    let shard = |name: &String| format!("model-0000{}-of-00002.safetensors", 1 + u8::from(second.contains_key(name)));
    write_index(dir, &tensors.keys().map(|name| (name.clone(), shard(name))).collect());
}

fn write_index(dir: &Path, weight_map: &BTreeMap<String, String>) {
    let index = json!({"metadata": {"total_size": 1}, "weight_map": weight_map});
    fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

/// All numbers of a tensor of this shape.
fn values(weights: &Arc<dyn Weights>, name: &str, (n_rows, n_columns): (usize, usize)) -> Vec<f32> {
    weights::tensor_f32(weights.as_ref(), name, n_rows, n_columns).unwrap()
}

#[test]
fn one_file_is_read_and_converted_when_asked_for() {
    let checkpoint = opened(&config(), &tensors(&config()));
    // Embeddings and head 2 x 80, final norm 8, per layer q and o 64 each, k and v 32 each, ffn 3 x 96, norms 2 x 8.
    assert_eq!(checkpoint.n_parameters(), 2 * 80 + 8 + 2 * (128 + 64 + 288 + 16));
    assert_eq!(checkpoint.n_bytes(), checkpoint.n_parameters() * 4);
    assert!(checkpoint.unused().is_empty());
    assert_eq!(checkpoint.natural(layout::LM_HEAD), Format::Dense(NumberType::F32));
    let weights = checkpoint.into_weights();
    assert_eq!(values(&weights, "model.norm.weight", (1, 8)), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    let mut two_rows = [0; 2 * 8 * 4];
    weights.read(layout::EMBEDDINGS, 3..5, &mut two_rows).unwrap();
    assert_eq!(
        two_rows.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).sum::<f32>(),
        (24..40).sum::<i32>() as f32
    );
    assert!(weights.read(layout::EMBEDDINGS, 9..11, &mut two_rows).is_err());
    assert!(weights.info("model.layers.1.mlp.up_proj.weight").is_some());
    assert!(weights.info("model.layers.2.mlp.up_proj.weight").is_none());
    assert!(weights::tensor_f32(weights.as_ref(), "model.norm.weight", 1, 9).is_err());
    assert!(weights::tensor_f32(weights.as_ref(), "model.bias", 1, 8).is_err());
}

#[test]
fn half_precision_is_read() {
    for (dtype, one) in [(Dtype::BF16, 0x3f80_u16), (Dtype::F16, 0x3c00)] {
        let mut tensors = tensors(&config());
        let ones = std::iter::repeat_n(one.to_le_bytes(), 8).flatten().collect();
        tensors.insert("model.norm.weight".to_owned(), (dtype, vec![8], ones));
        let weights = opened(&config(), &tensors).into_weights();
        assert_eq!(values(&weights, "model.norm.weight", (1, 8)), [1.0; 8]);
    }
}

#[test]
fn shards_are_read_through_their_index() {
    let dir = tempfile::tempdir().unwrap();
    write_shards(dir.path(), &tensors(&config()));
    let checkpoint = Checkpoint::open(dir.path(), &config()).unwrap();
    let weights = checkpoint.into_weights();
    assert_eq!(values(&weights, layout::EMBEDDINGS, (10, 8))[79], 79.0);
    assert_eq!(values(&weights, layout::LM_HEAD, (10, 8))[79], 79.0);
}

#[test]
fn shards_may_be_called_otherwise_where_their_index_is_the_only_one() {
    let dir = tempfile::tempdir().unwrap();
    write_shards(dir.path(), &tensors(&config()));
    let index = |name: &str| dir.path().join(format!("{name}.safetensors.index.json"));
    fs::rename(index("model"), index("gptq_model-8bit-128g")).unwrap();
    assert!(Checkpoint::open(dir.path(), &config()).is_ok());
    fs::remove_file(index("gptq_model-8bit-128g")).unwrap();
    let error = Checkpoint::open(dir.path(), &config()).unwrap_err();
    assert!(matches!(&error, CheckpointError::NoIndex { names, .. } if names.len() == 2), "{error}");
}

#[test]
fn tied_embeddings_are_the_head_and_count_once() {
    let mut stored = tensors(&tied());
    let checkpoint = opened(&tied(), &stored);
    assert_eq!(checkpoint.n_parameters(), n_parameters(&config()) - 80);
    let weights = checkpoint.into_weights();
    assert_eq!(values(&weights, layout::LM_HEAD, (10, 8))[5], 5.0);
    stored.insert(layout::LM_HEAD.to_owned(), (Dtype::F32, vec![10, 8], vec![0; 320]));
    let checkpoint = opened(&tied(), &stored);
    assert!(checkpoint.unused().is_empty());
    let weights = checkpoint.into_weights();
    assert_eq!(values(&weights, layout::LM_HEAD, (10, 8))[5], 5.0);
}

#[test]
fn rotary_frequencies_are_ignored_and_strangers_are_listed() {
    let mut tensors = tensors(&config());
    for name in ["model.layers.0.self_attn.rotary_emb.inv_freq", "a.stranger", "another"] {
        tensors.insert(name.to_owned(), (Dtype::I64, vec![1], vec![0; 8]));
    }
    assert_eq!(opened(&config(), &tensors).unused(), ["a.stranger", "another"]);
}

#[test]
fn a_truncated_shard_is_named_with_both_sizes() {
    let dir = tempfile::tempdir().unwrap();
    write_shards(dir.path(), &tensors(&config()));
    let name = "model-00001-of-00002.safetensors";
    let whole = fs::read(dir.path().join(name)).unwrap();
    for (length, expected) in [(whole.len() - 1, whole.len()), (100, 0), (8, 0), (7, 8), (0, 8)] {
        fs::write(dir.path().join(name), &whole[..length]).unwrap();
        let error = Checkpoint::open(dir.path(), &config()).unwrap_err();
        let CheckpointError::FileSize { file, found, expected: needed } = &error else { panic!("{error}") };
        assert_eq!((file.as_str(), *found), (name, length as u64));
        assert!(expected == 0 || *needed == expected as u64, "{error}");
        assert!(error.to_string().contains(&format!("{length} bytes")), "{error}");
    }
}

#[test]
fn bytes_after_the_last_tensor_are_refused() {
    let bytes = [file(&tensors(&config())), vec![0]].concat();
    assert!(matches!(refused(&bytes), CheckpointError::FileSize { .. }));
}

#[test]
fn an_absurd_header_length_is_refused_before_it_is_allocated() {
    for length in [0, 1, safetensors_file::MAX_HEADER_BYTES + 1, u64::MAX] {
        let error = refused(&[&length.to_le_bytes()[..], b"{}"].concat());
        assert!(matches!(error, CheckpointError::HeaderLength { found, .. } if found == length), "{error}");
    }
}

#[test]
fn a_header_that_is_none_is_refused() {
    for text in ["[]", "{\"a\": 1}", "oops", "{\"a\":{\"dtype\":\"F99\",\"shape\":[1],\"data_offsets\":[0,4]}}"] {
        assert!(matches!(refused(&with_header(text, &[0; 4])), CheckpointError::HeaderBroken { .. }));
    }
}

#[test]
fn offsets_must_be_gapless_and_of_the_shapes_size() {
    for offsets in [[0, 8], [4, 8], [0, 3], [4, 0]] {
        let header = json!({"a": {"dtype": "F32", "shape": [1], "data_offsets": offsets}}).to_string();
        assert!(matches!(refused(&with_header(&header, &[0; 8])), CheckpointError::Offsets { .. }), "{offsets:?}");
    }
    let overlap = json!({
        "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    });
    assert!(matches!(refused(&with_header(&overlap.to_string(), &[0; 4])), CheckpointError::Offsets { .. }));
}

#[test]
fn a_shape_larger_than_memory_is_refused() {
    let shape = [u64::MAX / 4, 3];
    let header = json!({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}}).to_string();
    assert!(matches!(refused(&with_header(&header, &[0; 4])), CheckpointError::ShapeOverflow { .. }));
}

#[test]
fn a_wrong_shape_is_named() {
    let mut tensors = tensors(&config());
    tensors.insert(layout::EMBEDDINGS.to_owned(), (Dtype::F32, vec![11, 8], vec![0; 352]));
    let error = refused(&file(&tensors));
    let CheckpointError::Shape { tensor, found, expected, .. } = &error else { panic!("{error}") };
    assert_eq!((tensor.as_str(), found, expected), (layout::EMBEDDINGS, &vec![11, 8], &vec![10, 8]));
}

#[test]
fn integers_are_no_weights() {
    let mut tensors = tensors(&config());
    tensors.insert("model.norm.weight".to_owned(), (Dtype::I64, vec![8], vec![0; 64]));
    assert!(
        matches!(refused(&file(&tensors)), CheckpointError::NumberType { found: StoredType::Other(name), .. } if name == "I64")
    );
}

#[test]
fn missing_tensors_are_named() {
    let mut tensors = tensors(&config());
    tensors.retain(|name, _| !name.starts_with("model.layers.1."));
    let error = refused(&file(&tensors));
    assert!(matches!(&error, CheckpointError::Missing { names, expected: 21 } if names.len() == 9), "{error}");
    assert!(error.to_string().contains("9 of 21") && error.to_string().contains("model.layers.1.input_layernorm"));
}

#[test]
fn a_tensor_that_comes_twice_is_refused_within_a_file_and_across_files() {
    let entry = "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":";
    let header = format!("{{{entry}[0,4]}},{entry}[4,8]}}}}");
    assert!(matches!(refused(&with_header(&header, &[0; 8])), CheckpointError::Duplicate { .. }));

    let dir = tempfile::tempdir().unwrap();
    write_shards(dir.path(), &tensors(&config()));
    fs::write(dir.path().join("model-00002-of-00002.safetensors"), file(&tensors(&config()))).unwrap();
    let error = Checkpoint::open(dir.path(), &config()).unwrap_err();
    let CheckpointError::Duplicate { first, second, .. } = error else { panic!("{error}") };
    assert_ne!(first, second);
}

#[test]
fn an_index_may_name_only_files_beside_it() {
    for name in ["../x.safetensors", "/etc/x.safetensors", "a/b.safetensors", "./x.safetensors", "..", "", "x.bin"] {
        let dir = tempfile::tempdir().unwrap();
        write_index(dir.path(), &BTreeMap::from([("a".to_owned(), name.to_owned())]));
        let error = Checkpoint::open(dir.path(), &config()).unwrap_err();
        assert!(matches!(&error, CheckpointError::ShardName { name: found, .. } if found == name), "{error}");
    }
}

#[test]
fn a_shard_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    write_shards(dir.path(), &tensors(&config()));
    fs::remove_file(dir.path().join("model-00002-of-00002.safetensors")).unwrap();
    let error = Checkpoint::open(dir.path(), &config()).unwrap_err();
    assert!(matches!(&error, CheckpointError::ShardMissing { name } if name.contains("00002")), "{error}");
}

#[cfg(unix)]
#[test]
fn a_link_may_lead_into_the_download_cache_but_not_elsewhere() {
    let root = tempfile::tempdir().unwrap();
    for folder in ["blobs", "snapshots/1", "elsewhere"] {
        fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    let dir = root.path().join("snapshots/1");
    let link = dir.join("model.safetensors");
    fs::write(root.path().join("blobs/abc"), file(&tensors(&config()))).unwrap();
    std::os::unix::fs::symlink("../../blobs/abc", &link).unwrap();
    assert!(Checkpoint::open(&dir, &config()).is_ok());

    fs::rename(root.path().join("blobs/abc"), root.path().join("elsewhere/abc")).unwrap();
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("../../elsewhere/abc", &link).unwrap();
    let error = Checkpoint::open(&dir, &config()).unwrap_err();
    assert!(matches!(error, CheckpointError::ShardOutside { .. }), "{error}");
}

#[test]
fn an_index_that_disagrees_with_its_files_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    write_shards(dir.path(), &tensors(&config()));
    let shard = "model-00001-of-00002.safetensors".to_owned();
    let claims = [layout::EMBEDDINGS, layout::LM_HEAD].map(|name| (name.to_owned(), shard.clone()));
    write_index(dir.path(), &BTreeMap::from(claims));
    let error = Checkpoint::open(dir.path(), &config()).unwrap_err();
    assert!(matches!(&error, CheckpointError::IndexMismatch { tensor, .. } if tensor == layout::EMBEDDINGS), "{error}");
}

#[test]
fn an_index_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("model.safetensors.index.json");
    fs::write(&index, "{\n\"weight_map\": [\n").unwrap();
    let error = Checkpoint::open(dir.path(), &config()).unwrap_err();
    assert!(matches!(error, CheckpointError::IndexBroken { .. }), "{error}");
    fs::write(&index, "{\"weight_map\": {}}").unwrap();
    assert!(matches!(Checkpoint::open(dir.path(), &config()).unwrap_err(), CheckpointError::IndexEmpty { .. }));
    fs::File::create(&index).unwrap().set_len((16 << 20) + 1).unwrap();
    assert!(matches!(Checkpoint::open(dir.path(), &config()).unwrap_err(), CheckpointError::IndexTooLarge { .. }));
}

#[test]
fn weights_in_another_format_are_told_from_none() {
    let dir = tempfile::tempdir().unwrap();
    let error = Checkpoint::open(dir.path(), &config()).unwrap_err();
    assert!(matches!(error, CheckpointError::NoWeights { .. }), "{error}");
    fs::write(dir.path().join("consolidated.00.pth"), "").unwrap();
    let error = Checkpoint::open(dir.path(), &config()).unwrap_err();
    assert!(matches!(&error, CheckpointError::OtherFormat { found, .. } if found == "consolidated.00.pth"));
    assert!(error.to_string().contains("\nhint: "), "{error}");
}

#[test]
fn the_only_file_with_weights_may_have_any_name_and_of_several_one_must_be_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("gptq_model-4bit-128g.safetensors"), file(&tensors(&config()))).unwrap();
    fs::write(dir.path().join("adapter_model.safetensors"), "").unwrap();
    assert!(Checkpoint::open(dir.path(), &config()).is_ok());
    fs::remove_file(dir.path().join("gptq_model-4bit-128g.safetensors")).unwrap();
    for name in ["chat-q4_k_m.gguf", "chat-q8_0.gguf"] {
        fs::write(dir.path().join(name), "GGML").unwrap();
    }
    let error = Checkpoint::open(dir.path(), &config()).unwrap_err();
    assert!(matches!(&error, CheckpointError::Ambiguous { names, .. } if names.len() == 2), "{error}");
    assert!(error.to_string().contains("--model_path ") && error.to_string().contains("chat-q4_k_m.gguf"), "{error}");
    assert!(matches!(gguf_config(dir.path()).unwrap_err(), CheckpointError::Ambiguous { .. }));
    let error = Checkpoint::open(&dir.path().join("chat-q8_0.gguf"), &config()).unwrap_err();
    assert!(matches!(error, CheckpointError::Gguf(_)), "{error}");
}

#[test]
fn bin_shards_without_their_index_are_named_and_so_is_the_index() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin", "training_args.bin"] {
        fs::write(dir.path().join(name), "").unwrap();
    }
    let error = Checkpoint::open(dir.path(), &config()).unwrap_err();
    assert!(matches!(&error, CheckpointError::NoIndex { names, .. } if names.len() == 2), "{error}");
    assert!(error.to_string().contains("pytorch_model.bin.index.json"), "{error}");
}

#[test]
fn what_a_training_leaves_beside_its_weights_is_no_weights() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |added: &str| {
        fs::write(dir.path().join(added), "").unwrap();
        Checkpoint::open(dir.path(), &config()).unwrap_err()
    };
    assert!(matches!(refused("training_args.bin"), CheckpointError::NoWeights { .. }));
    assert!(matches!(refused("rng_state_0.pth"), CheckpointError::NoWeights { .. }));
    let error = refused("latest");
    assert!(matches!(error, CheckpointError::TrainingState { .. }), "{error}");
    assert!(error.to_string().contains("zero_to_fp32.py"), "{error}");
    assert!(matches!(refused("zero_to_fp32.py"), CheckpointError::TrainingState { .. }));
    let error = refused("consolidated.00.pth");
    assert!(matches!(&error, CheckpointError::OtherFormat { found, .. } if found == "consolidated.00.pth"), "{error}");
}

#[test]
fn headers_beyond_what_any_model_has_are_refused_in_few_words() {
    let info = json!({"dtype": "U8", "shape": [0], "data_offsets": [0, 0]});
    let long = json!({"x".repeat(2000): info}).to_string();
    let deep = json!({"x": {"dtype": "U8", "shape": vec![1; 100_000], "data_offsets": [0, 1]}}).to_string();
    let strange = json!({"x": {"dtype": "U".repeat(100_000), "shape": [1], "data_offsets": [0, 1]}}).to_string();
    let talkative = json!({"__metadata__": {"x".repeat(2000): ""}}).to_string();
    for (header, words) in
        [(long, "2000 bytes"), (deep, "100000 axes"), (strange, "variant"), (talkative, "2000 bytes")]
    {
        let said = refused(&with_header(&header, &[])).to_string();
        assert!(said.contains(words) && said.len() < 1000, "{said}");
    }
}

/// An adapter of rank 1 for the head, as PEFT saves it: with the head that it was trained on.
fn head_adapter(base: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let settings = json!({"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["lm_head"]});
    fs::write(dir.path().join("adapter_config.json"), settings.to_string()).unwrap();
    let ones = |n: usize| (0..n).flat_map(|_| 1.0_f32.to_le_bytes()).collect::<Vec<u8>>();
    let named = |end: &str| format!("base_model.model.lm_head.{end}.weight");
    let tensors = Tensors::from([
        (named("lora_A"), (Dtype::F32, vec![1, 8], ones(8))),
        (named("lora_B"), (Dtype::F32, vec![10, 1], ones(10))),
        (named("base_layer"), (Dtype::F32, vec![10, 8], base.to_vec())),
    ]);
    fs::write(dir.path().join("adapter_model.safetensors"), file(&tensors)).unwrap();
    dir
}

#[test]
fn an_adapter_of_the_head_brings_the_head_it_was_trained_on() {
    let tensors = tensors(&config());
    let mut head = tensors[layout::LM_HEAD].2.clone();
    let own = head_adapter(&head);
    let adapted = opened(&config(), &tensors).with_adapter(own.path(), &config()).unwrap();
    assert_eq!(adapted.adapted(), [layout::LM_HEAD]);
    let plain = opened(&config(), &tensors).into_weights();
    let added: Vec<f32> = values(&plain, layout::LM_HEAD, (10, 8)).iter().map(|number| number + 1.0).collect();
    assert_eq!(values(&adapted.into_weights(), layout::LM_HEAD, (10, 8)), added);
    head[4..8].copy_from_slice(&2.0_f32.to_le_bytes());
    let other = head_adapter(&head);
    let error = opened(&config(), &tensors).with_adapter(other.path(), &config()).unwrap_err();
    assert!(error.to_string().contains("lm_head.base_layer.weight has other numbers"), "{error}");
}

#[test]
fn weights_that_cannot_be_read_are_an_error() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("model.safetensors")).unwrap();
    let error = Checkpoint::open(dir.path(), &config()).unwrap_err();
    assert!(matches!(error, CheckpointError::Unreadable { .. }), "{error}");
}

#[test]
fn random_weights_are_normal_and_the_same_for_a_seed() {
    let config = ModelConfig { vocab_size: 5000, ..config() };
    let embeddings = |seed| {
        let weights = random(&config, seed, NumberType::F32);
        values(&weights, layout::EMBEDDINGS, (5000, 8))
    };
    let numbers = embeddings(1);
    assert_eq!(numbers, embeddings(1));
    assert_ne!(numbers, embeddings(2));
    let mean = numbers.iter().sum::<f32>() / numbers.len() as f32;
    let deviation = (numbers.iter().map(|number| (number - mean).powi(2)).sum::<f32>() / numbers.len() as f32).sqrt();
    assert!(mean.abs() < 5e-4 && (deviation - 0.02).abs() < 5e-4, "{mean} {deviation}");
    let beyond = numbers.iter().filter(|number| number.abs() > 0.04).count() as f32 / numbers.len() as f32;
    assert!((beyond - 0.0455).abs() < 0.005, "{beyond}");
}

#[test]
fn random_layers_are_all_the_same_and_norms_are_one() {
    let weights = random(&config(), 1, NumberType::Bf16);
    let up = |layer: usize| values(&weights, &format!("model.layers.{layer}.mlp.up_proj.weight"), (12, 8));
    assert_eq!(up(0), up(1));
    let content = |layer: usize| weights.content(&format!("model.layers.{layer}.mlp.up_proj.weight"));
    assert_eq!(content(0), content(1));
    assert_ne!(up(0), values(&weights, "model.layers.0.mlp.gate_proj.weight", (12, 8)));
    assert_eq!(values(&weights, "model.layers.1.input_layernorm.weight", (1, 8)), [1.0; 8]);
    assert!(weights.info("model.layers.2.mlp.up_proj.weight").is_none());
    assert!(weights.info("no.such").is_none());
}

#[test]
fn a_file_that_becomes_shorter_is_an_error_and_no_crash() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let bytes = file(&tensors(&config()));
    fs::write(&path, &bytes).unwrap();
    let weights = Checkpoint::open(dir.path(), &config()).unwrap().into_weights();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(bytes.len() as u64 / 2).unwrap();
    let read = |name: &str, (n_rows, n_columns)| weights::tensor_f32(weights.as_ref(), name, n_rows, n_columns);
    let error = layout::tensors(&config())
        .into_iter()
        .find_map(|(name, shape)| read(&name, if let [a, b] = *shape { (a, b) } else { (1, shape[0]) }).err())
        .unwrap();
    assert!(error.to_string().contains("model.safetensors") && error.to_string().contains("shorter"), "{error}");
}
