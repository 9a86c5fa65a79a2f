//! What is converted can be loaded, says what it is, and is there whole or not at all.

use super::*;
use crate::engine::{
    checkpoint::verify,
    precision::Quantize,
    weights::{self, NumberType},
};

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/xverse-mini")
}

fn options(output_path: PathBuf, number_type: Option<NumberType>, quantize: Quantize) -> ConvertOptions {
    ConvertOptions {
        model_path: shipped(),
        tokenizer_path: shipped(),
        adapter_path: None,
        precision: Precision { number_type, quantize },
        output_path,
    }
}

fn opened(path: &Path) -> (ModelConfig, Checkpoint) {
    let config = ModelConfig::read(path).unwrap();
    let checkpoint = Checkpoint::open(path, &config).unwrap();
    (config, checkpoint)
}

#[test]
fn weights_in_another_number_type_are_the_same_numbers_rounded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("half");
    let converted = convert(&options(path.clone(), Some(NumberType::F16), Quantize::None)).unwrap();
    assert_eq!(converted.format, Format::Dense(NumberType::F16));
    let (config, half) = opened(&path);
    let (_, whole) = opened(&shipped());
    let name = "model.layers.1.mlp.down_proj.weight";
    let numbers = |from: &Checkpoint| {
        weights::tensor_f32(from.weights(), name, config.hidden_size, config.intermediate_size).unwrap()
    };
    let rounded: Vec<f32> = numbers(&whole).iter().map(|number| half::f16::from_f32(*number).to_f32()).collect();
    assert!(numbers(&half) == rounded);
    let fields: Value = serde_json::from_slice(&fs::read(path.join("config.json")).unwrap()).unwrap();
    assert_eq!(fields["torch_dtype"], "float16");
    assert!(path.join("tokenizer.json").is_file() && path.join("generation_config.json").is_file());
}

#[test]
fn a_quantised_folder_says_so_and_is_verified_by_its_hash() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("four");
    convert(&options(path.clone(), None, Quantize::Four)).unwrap();
    let fields: Value = serde_json::from_slice(&fs::read(path.join("config.json")).unwrap()).unwrap();
    assert_eq!(fields["quantization_config"]["quant_method"], "xverse-chat");
    let (config, checkpoint) = opened(&path);
    assert!(checkpoint.is_packed());
    verify::numbers(checkpoint.weights(), &config).unwrap();
    let [verified] = verify::files(&path).unwrap().try_into().unwrap();
    assert_eq!(verified.matches, Some("the hash it was written with"));

    let weights = path.join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&weights, bytes).unwrap();
    let [damaged] = verify::files(&path).unwrap_err().try_into().unwrap();
    assert!(damaged.to_string().contains("model.safetensors: the SHA-256 of its tensors is "), "{damaged}");
}

#[test]
fn a_folder_that_is_there_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let error = convert(&options(dir.path().to_owned(), None, Quantize::None)).unwrap_err();
    assert!(matches!(error, ConvertError::Occupied { .. }), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn nothing_is_left_where_nothing_can_be_written() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let error = convert(&options(dir.path().join("file/four"), None, Quantize::Four)).unwrap_err();
    assert!(matches!(error, ConvertError::Unwritable { .. }) && error.to_string().contains("\nhint: "), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn what_another_run_left_or_is_at_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let (path, left) = (dir.path().join("four"), dir.path().join("four.partial/mine"));
    fs::create_dir(left.parent().unwrap()).unwrap();
    fs::write(&left, "mine").unwrap();
    let error = convert(&options(path.clone(), None, Quantize::Four)).unwrap_err();
    assert!(matches!(error, ConvertError::Unfinished { .. }) && error.to_string().contains("four.partial"), "{error}");
    assert_eq!(fs::read(&left).unwrap(), b"mine");
    assert!(!path.exists());
}

#[test]
fn what_is_packed_is_written_again_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    convert(&options(first.clone(), None, Quantize::Four)).unwrap();
    convert(&ConvertOptions { model_path: first.clone(), ..options(second.clone(), None, Quantize::Four) }).unwrap();
    let content = |path: &Path| {
        let bytes = fs::read(path.join("model.safetensors")).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        bytes[8 + length..].to_vec()
    };
    assert!(content(&first) == content(&second));
}

#[test]
fn a_number_type_is_that_of_embeddings_and_norms_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("half");
    convert(&options(path.clone(), Some(NumberType::F16), Quantize::Eight)).unwrap();
    let (_, checkpoint) = opened(&path);
    for name in ["model.embed_tokens.weight", "model.norm.weight"] {
        let info = checkpoint.weights().info(name).unwrap();
        assert_eq!(info.format, Format::Dense(NumberType::F16), "{name}");
    }
}

#[test]
fn rows_without_a_token_are_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let (padded, path) = (dir.path().join("padded"), dir.path().join("written"));
    fs::create_dir(&padded).unwrap();
    for name in ["config.json", "model.safetensors", "generation_config.json"] {
        fs::copy(shipped().join(name), padded.join(name)).unwrap();
    }
    let mut tokenizer: Value = serde_json::from_slice(&ChatTokenizer::read_json(&shipped()).unwrap()).unwrap();
    tokenizer["model"]["vocab"].as_object_mut().unwrap().retain(|_, id| id.as_u64() < Some(2047));
    let vocab = tokenizer["model"]["vocab"].as_object().unwrap().clone();
    let is_left = |merge: &Value| vocab.contains_key(&merge.as_str().unwrap().replace(' ', ""));
    tokenizer["model"]["merges"].as_array_mut().unwrap().retain(is_left);
    fs::write(padded.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let options = options(path.clone(), None, Quantize::Eight);
    convert(&ConvertOptions { model_path: padded.clone(), tokenizer_path: padded, ..options }).unwrap();
    let (config, written) = opened(&path);
    assert_eq!(config.vocab_size, 2047);
    assert_eq!(written.weights().info("lm_head.weight").unwrap().n_rows, 2047);
    load::for_tokenizer(&config, &ChatTokenizer::open(&path).unwrap()).unwrap();
}
