//! A kept copy is what would have been made in memory, and no other.

use std::time::{Duration, SystemTime};

use super::*;
use crate::engine::{
    backend::cpu::quantized::packing::Packing,
    checkpoint::{self, gguf, pickle},
    format::Format,
    load,
    precision::Part,
    weights::{self, Weights},
};

const FILES: [&str; 2] = ["config.json", "model.safetensors"];

/// The mini model in a folder of its own.
fn model() -> tempfile::TempDir {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/xverse-mini");
    let dir = tempfile::tempdir().unwrap();
    for name in FILES {
        fs::copy(shipped.join(name), dir.path().join(name)).unwrap();
    }
    dir
}

fn opened(model: &Path) -> (ModelConfig, Checkpoint) {
    let config = ModelConfig::read(model).unwrap();
    let checkpoint = Checkpoint::open(model, &config).unwrap();
    (config, checkpoint)
}

fn four() -> Precision {
    Precision { number_type: None, quantize: Quantize::Four }
}

fn kept(folder: &Path, model: &Path) -> Checkpoint {
    let (config, checkpoint) = opened(model);
    open_or_make(folder, checkpoint, &config, (four(), &[model]))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// What a matrix is made into in memory.
fn packed(weights: &dyn Weights, name: &str, format: Format) -> Vec<u8> {
    let Format::Blocks(blocks) = format else { panic!("{name} is to be quantised") };
    let packing = Packing::new(weights, (name, weights.info(name).unwrap()), blocks).unwrap();
    let mut bytes = vec![0; packing.n_bytes()];
    for (piece, bytes) in bytes.chunks_mut(packing.piece_bytes()).enumerate() {
        packing.pack(piece, bytes).unwrap();
    }
    bytes
}

#[test]
fn a_copy_has_the_bits_that_are_made_in_memory() {
    let (model, folder) = (model(), tempfile::tempdir().unwrap());
    let copy = kept(folder.path(), model.path());
    assert!(copy.is_packed());
    let (config, original) = opened(model.path());
    let mut n_matrices = 0;
    for (name, part, _, n_in) in checkpoint::matrices(&config) {
        let format = four().format(part, n_in, original.natural(&name));
        assert_eq!(copy.natural(&name), format, "{name}");
        let matrix = copy.weights().packed(&name).unwrap().unwrap();
        assert!(matrix.bytes() == packed(original.weights(), &name, format), "{name}");
        assert_eq!(matrix.bytes().as_ptr() as usize % 64, 0, "{name}");
        n_matrices += 1;
    }
    assert!(n_matrices > 7);
    for (name, n_rows) in [("model.embed_tokens.weight", config.vocab_size), ("model.norm.weight", 1)] {
        let numbers =
            |from: &Checkpoint| weights::tensor_f32(from.weights(), name, n_rows, config.hidden_size).unwrap();
        assert!(numbers(&copy) == numbers(&original), "{name}");
    }
}

#[test]
fn rows_of_packed_tensors_are_read_as_what_they_stand_for() {
    let (model, folder) = (model(), tempfile::tempdir().unwrap());
    let copy = kept(folder.path(), model.path());
    let (config, _) = opened(model.path());
    let (name, (n_rows, n_columns)) =
        ("model.layers.0.mlp.up_proj.weight", (config.intermediate_size, config.hidden_size));
    let all = weights::tensor_f32(copy.weights(), name, n_rows, n_columns).unwrap();
    let info = copy.weights().info(name).unwrap();
    let mut some = vec![0.0; 21 * n_columns];
    weights::read_f32(copy.weights(), (name, info), 13..34, &mut Vec::new(), &mut some).unwrap();
    assert!(some == all[13 * n_columns..34 * n_columns] && all.iter().any(|number| *number != 0.0));
}

#[test]
fn a_copy_is_made_once_for_the_same_weights_and_anew_for_others() {
    let (model, folder) = (model(), tempfile::tempdir().unwrap());
    let _ = kept(folder.path(), model.path());
    let [first] = files(folder.path()).try_into().unwrap();
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_hours(24);
    fs::File::options().write(true).open(&first).unwrap().set_modified(long_ago).unwrap();
    let _ = kept(folder.path(), model.path());
    assert_eq!(files(folder.path()), std::slice::from_ref(&first));
    assert_eq!(fs::metadata(&first).unwrap().modified().unwrap(), long_ago, "used as it was");

    let weights = fs::File::options().write(true).open(model.path().join("model.safetensors")).unwrap();
    weights.set_modified(long_ago).unwrap();
    let _ = kept(folder.path(), model.path());
    let [second] = files(folder.path()).try_into().expect("the copy of what was there before is gone");
    assert_ne!(second, first);
}

#[test]
fn a_copy_belongs_to_its_configuration() {
    let model = model();
    let (config, checkpoint) = opened(model.path());
    let other = ModelConfig { num_attention_heads: config.num_attention_heads * 2, ..config.clone() };
    let key = |config| key(&checkpoint, config, four()).unwrap();
    assert_ne!(key(&config), key(&other));
}

#[test]
fn a_model_of_the_same_names_sizes_and_times_is_another_one_and_a_moved_one_is_the_same() {
    let (first, second, folder) = (model(), model(), tempfile::tempdir().unwrap());
    let weights = |model: &Path| model.join("model.safetensors");
    // Trained on from the first: the queries are a little different.
    let bytes = fs::read(weights(first.path())).unwrap();
    let (n_header, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let mut changed = bytes.clone();
    for (_, info) in header.tensors().iter().filter(|(name, _)| name.ends_with("q_proj.weight")) {
        let data = &mut changed[8 + n_header + info.data_offsets.0..8 + n_header + info.data_offsets.1];
        data.chunks_exact_mut(2).for_each(|number| number[0] ^= 1);
    }
    fs::write(weights(second.path()), changed).unwrap();
    let packed = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    for model in [&first, &second] {
        fs::File::options().write(true).open(weights(model.path())).unwrap().set_modified(packed).unwrap();
    }
    let path_of = |model: &Path| {
        let (config, checkpoint) = opened(model);
        key(&checkpoint, &config, four()).unwrap()
    };
    let of_first = path_of(first.path());
    assert_ne!(path_of(second.path()), of_first);
    let _ = (kept(folder.path(), first.path()), kept(folder.path(), second.path()));
    assert_eq!(files(folder.path()).len(), 2);
    let moved = second.path().join("moved");
    fs::rename(first.path(), &moved).unwrap();
    assert_eq!(path_of(&moved), of_first);
}

#[test]
fn the_numbers_count_in_files_of_every_format_and_of_adapters() {
    let formats = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data/formats");
    for (folder, file) in [
        ("bin", "pytorch_model.bin"),
        ("bin-sharded", "pytorch_model-00001-of-00002.bin"),
        ("gguf", "model.gguf"),
        ("gptq", "model.safetensors"),
        ("lora", "adapter_model.safetensors"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(formats.join(folder)).unwrap().flatten().filter(|entry| entry.path().is_file()) {
            fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
        }
        let is_adapter = folder == "lora";
        let model = if is_adapter { formats.join("lora-base") } else { dir.path().to_owned() };
        let sample = || {
            let (_, config) = load::read_config(&model).unwrap();
            let checkpoint = Checkpoint::open(&model, &config).unwrap();
            let checkpoint =
                if is_adapter { checkpoint.with_adapter(dir.path(), &config).unwrap() } else { checkpoint };
            checkpoint.sample().unwrap()
        };
        let before = sample();
        assert_eq!(sample(), before, "{folder}");
        let path = dir.path().join(file);
        let mut bytes = fs::read(&path).unwrap();
        let begin = match path.extension().and_then(|extension| extension.to_str()).unwrap() {
            "bin" => pickle::read_header(&path).unwrap().tensors[0].begin,
            "gguf" => gguf::read_header(&path).unwrap().header.tensors[0].begin,
            _ => 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()),
        };
        bytes[begin as usize] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_ne!(sample(), before, "{folder}");
    }
}

#[test]
fn what_is_half_written_or_damaged_is_never_used() {
    let (model, folder) = (model(), tempfile::tempdir().unwrap());
    let _ = kept(folder.path(), model.path());
    let [path] = files(folder.path()).try_into().unwrap();
    let whole = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let partial = writer::partial(&path);
    fs::write(&partial, &whole[..whole.len() / 2]).unwrap();
    remove_others(folder.path(), "", &path);
    assert!(!partial.exists(), "it would take the room that the copy needs");
    fs::write(&partial, &whole[..whole.len() / 2]).unwrap();
    assert!(kept(folder.path(), model.path()).is_packed());
    assert!(files(folder.path()) == [path.clone()] && fs::read(&path).unwrap() == whole);
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(kept(folder.path(), model.path()).is_packed());
    assert!(fs::read(&path).unwrap() == whole);
    // One letter more and one space less.
    let version = b"\"xverse_chat_layout\":\"";
    let at = whole.windows(version.len()).position(|bytes| bytes == version).unwrap() + version.len();
    let space = whole.windows(2).position(|bytes| bytes == b"  ").unwrap();
    let changed = [&whole[..at], b"9", &whole[at..space], &whole[space + 1..]].concat();
    fs::write(&path, changed).unwrap();
    let (config, _) = opened(model.path());
    let error = Checkpoint::open_file(&path, &config).unwrap_err();
    assert!(matches!(&error, CheckpointError::Layout { found, .. } if found == "91"), "{error}");
    assert!(kept(folder.path(), model.path()).is_packed());
}

#[test]
fn where_nothing_can_be_kept_the_weights_are_used_as_they_are() {
    let model = model();
    let nowhere = model.path().join("config.json");
    let weights = kept(&nowhere, model.path());
    assert!(!weights.is_packed());
    assert_eq!(files(model.path()).len(), FILES.len());
}

/// An adapter of rank 1 for one projection.
fn adapter(config: &ModelConfig) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let settings = r#"{"peft_type": "LORA", "r": 1, "lora_alpha": 2, "target_modules": ["up_proj"], "bias": "none"}"#;
    fs::write(dir.path().join("adapter_config.json"), settings).unwrap();
    let numbers = |n: usize| (0..n).flat_map(|i| ((i % 7) as f32 / 16.0).to_le_bytes()).collect::<Vec<u8>>();
    let (a, b) = (numbers(config.hidden_size), numbers(config.intermediate_size));
    let mut tensors = Vec::new();
    for layer in 0..config.num_hidden_layers {
        let name = |half: &str| format!("base_model.model.model.layers.{layer}.mlp.up_proj.lora_{half}.weight");
        let view =
            |shape: Vec<usize>, bytes| safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, bytes);
        tensors.push((name("A"), view(vec![1, config.hidden_size], &a).unwrap()));
        tensors.push((name("B"), view(vec![config.intermediate_size, 1], &b).unwrap()));
    }
    let bytes = safetensors::serialize(tensors, None).unwrap();
    fs::write(dir.path().join("adapter_model.safetensors"), bytes).unwrap();
    dir
}

#[test]
fn an_adapter_is_merged_into_the_copy_which_is_another_one() {
    let (model, folder) = (model(), tempfile::tempdir().unwrap());
    let _ = kept(folder.path(), model.path());
    let (config, plain) = opened(model.path());
    let dir = adapter(&config);
    let adapted = || opened(model.path()).1.with_adapter(dir.path(), &config).unwrap();
    let copy = open_or_make(folder.path(), adapted(), &config, (four(), &[model.path(), dir.path()]));
    assert_eq!(files(folder.path()).len(), 2);
    for (part, is_changed) in [("up_proj", true), ("gate_proj", false)] {
        let name = format!("model.layers.0.mlp.{part}.weight");
        let format = four().format(Part::Projection, config.hidden_size, plain.natural(&name));
        let matrix = copy.weights().packed(&name).unwrap().unwrap();
        assert!(matrix.bytes() == packed(adapted().weights(), &name, format), "{name}");
        assert_eq!(matrix.bytes() != packed(plain.weights(), &name, format), is_changed, "{name}");
    }
}
