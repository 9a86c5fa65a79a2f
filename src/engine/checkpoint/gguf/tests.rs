//! What llama.cpp's converter writes is found, under Hugging Face's names, and other files are refused by name.

use std::{fs, os::unix::fs::FileExt, path::PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{permutation::HeadPermutation, *};
use crate::engine::{checkpoint::file_header::StoredTensor, config::ModelConfig};

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data/formats/gguf").join(name)
}

fn json_of(name: &str) -> Value {
    serde_json::from_slice(&fs::read(data(name)).unwrap()).unwrap()
}

/// The tensor's rows in Hugging Face's order.
fn rows(gguf: &Gguf, config: &ModelConfig, tensor: &StoredTensor) -> Vec<u8> {
    let mut stored = vec![0; (tensor.end - tensor.begin) as usize];
    fs::File::open(&gguf.header.path).unwrap().read_exact_at(&mut stored, tensor.begin).unwrap();
    let Some(order) = HeadPermutation::of(&tensor.name, config) else { return stored };
    assert_eq!(order.n_rows(), tensor.shape[0]);
    let row_bytes = stored.len() / order.n_rows();
    (0..order.n_rows()).flat_map(|row| stored[order.stored_row(row) * row_bytes..][..row_bytes].to_vec()).collect()
}

#[test]
fn every_tensor_is_found_with_its_rows_in_the_order_of_the_original() {
    let gguf = read_header(&data("model.gguf")).unwrap();
    let config = ModelConfig::from_json(&serde_json::to_vec(&gguf.metadata.config()).unwrap()).unwrap();
    let expected = json_of("expected.json");
    let expected = expected["tensors"].as_object().unwrap();
    assert_eq!(gguf.header.tensors.len(), expected.len());
    for tensor in &gguf.header.tensors {
        let expected = &expected[&tensor.name];
        let sha = Sha256::digest(rows(&gguf, &config, tensor))
            .iter()
            .fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        assert_eq!(tensor.dtype.to_string(), expected["dtype"].as_str().unwrap(), "{}", tensor.name);
        assert_eq!(json!(tensor.shape), expected["shape"], "{}", tensor.name);
        assert_eq!(sha, expected["sha256"].as_str().unwrap(), "{}", tensor.name);
    }
    assert!(expected.keys().any(|name| name.ends_with("1.self_attn.k_proj.weight")));
}

#[test]
fn the_metadata_is_what_config_json_would_say() {
    let gguf = read_header(&data("model.gguf")).unwrap();
    assert_eq!(gguf.metadata.config(), json_of("config.json"));
    assert_eq!(gguf.metadata.file_type, Some(15));
    assert_eq!(gguf.metadata.head_dim(), 8);
}

/// A small file, written out by hand so that it can be wrong.
#[derive(Clone)]
struct Made {
    version: u32,
    /// Key, kind and value.
    entries: Vec<(String, u32, Vec<u8>)>,
    /// Name, sizes, type and offset.
    tensors: Vec<(String, Vec<u64>, u32, u64)>,
    n_data_bytes: usize,
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

impl Made {
    fn new(architecture: &str) -> Self {
        let whole = |key: &str, value: u32| (format!("{architecture}.{key}"), 4, value.to_le_bytes().to_vec());
        let epsilon = format!("{architecture}.attention.layer_norm_rms_epsilon");
        Self {
            version: 3,
            entries: vec![
                ("general.architecture".to_owned(), 8, text(architecture)),
                whole("context_length", 64),
                whole("embedding_length", 8),
                whole("block_count", 1),
                whole("feed_forward_length", 12),
                whole("attention.head_count", 2),
                (epsilon, 6, 1e-6_f32.to_le_bytes().to_vec()),
            ],
            tensors: vec![
                ("token_embd.weight".to_owned(), vec![8, 4], 0, 0),
                ("blk.0.attn_norm.weight".to_owned(), vec![8], 0, 128),
            ],
            n_data_bytes: 160,
        }
    }

    fn with(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.entries.retain(|(known, ..)| known != key);
        self.entries.push((key.to_owned(), kind, value.to_vec()));
        self
    }

    fn with_tensor(mut self, name: &str, sizes: &[u64], number: u32, offset: u64) -> Self {
        self.tensors.push((name.to_owned(), sizes.to_vec(), number, offset));
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = [&b"GGUF"[..], &self.version.to_le_bytes()].concat();
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.entries.len() as u64).to_le_bytes());
        for (key, kind, value) in &self.entries {
            bytes.extend([text(key), kind.to_le_bytes().to_vec(), value.clone()].concat());
        }
        for (name, sizes, number, offset) in &self.tensors {
            bytes.extend([text(name), (sizes.len() as u32).to_le_bytes().to_vec()].concat());
            bytes.extend(sizes.iter().flat_map(|size| size.to_le_bytes()));
            bytes.extend([&number.to_le_bytes()[..], &offset.to_le_bytes()].concat());
        }
        bytes.resize(bytes.len().next_multiple_of(32) + self.n_data_bytes, 0);
        bytes
    }

    fn read(&self) -> Result<Gguf, GgufError> {
        read_bytes(&self.bytes())
    }

    fn refused(&self) -> GgufError {
        let error = self.read().unwrap_err();
        assert!(error.to_string().contains("\nhint: "), "{error}");
        error
    }
}

fn read_bytes(bytes: &[u8]) -> Result<Gguf, GgufError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    fs::write(&path, bytes).unwrap();
    read_header(&path)
}

fn llama() -> Made {
    Made::new("llama")
}

#[test]
fn a_plain_llama_of_either_version_is_read() {
    for version in [2, 3] {
        let gguf = Made { version, ..llama() }.read().unwrap();
        assert_eq!(gguf.metadata.config()["architectures"], json!(["LlamaForCausalLM"]));
        assert_eq!(gguf.metadata.config()["rms_norm_eps"].to_string(), "1e-6");
        assert_eq!(gguf.metadata.config()["vocab_size"], 4);
        assert_eq!(gguf.metadata.config()["num_key_value_heads"], 2);
        assert_eq!(gguf.metadata.config()["tie_word_embeddings"], true);
        assert_eq!(gguf.header.tensors[1].shape, [8]);
        assert_eq!(gguf.header.tensors[1].end, gguf.header.n_bytes);
    }
    let head = Made { n_data_bytes: 288, ..llama() }.with_tensor("output.weight", &[8, 4], 0, 160);
    assert_eq!(head.read().unwrap().metadata.config()["tie_word_embeddings"], false);
    let aligned = llama().with("general.alignment", 4, &64_u32.to_le_bytes());
    assert!(matches!(aligned.refused(), GgufError::Outside { .. } | GgufError::Unaligned { .. }));
}

#[test]
fn a_model_of_another_kind_is_refused_with_a_reason() {
    assert!(matches!(Made::new("qwen2").refused(), GgufError::Architecture { found, .. } if found == "qwen2"));
    let one = 2_u32.to_le_bytes();
    let unsupported = |made: Made| matches!(made.refused(), GgufError::Unsupported { .. });
    assert!(unsupported(llama().with("llama.expert_count", 4, &one)));
    assert!(unsupported(llama().with("llama.rope.scaling.type", 8, &text("linear"))));
    assert!(unsupported(llama().with("llama.rope.scaling.factor", 6, &4.0_f32.to_le_bytes())));
    assert!(llama().with("llama.rope.scaling.type", 8, &text("none")).read().is_ok());
    assert!(matches!(
        llama().with("split.count", 2, &3_u16.to_le_bytes()).refused(),
        GgufError::Split { found: 3, .. }
    ));
    assert!(llama().with("split.count", 2, &1_u16.to_le_bytes()).read().is_ok());
    let value = |made: Made| matches!(made.refused(), GgufError::Value { .. });
    assert!(value(llama().with("llama.rope.dimension_count", 4, &one)));
    assert!(value(llama().with("llama.attention.head_count", 4, &3_u32.to_le_bytes())));
    assert!(value(llama().with("llama.attention.head_count", 4, &[0; 4])));
    assert!(value(llama().with("llama.block_count", 8, &text("many"))));
    assert!(value(llama().with("llama.attention.layer_norm_rms_epsilon", 6, &f32::NAN.to_le_bytes())));
    assert!(value(llama().with("general.alignment", 4, &24_u32.to_le_bytes())));
    let unknown = [
        "blk.0.attn_q.bias",
        "blk.1.attn_q.weight",
        "blk.0.ffn_gate_exps.weight",
        "v.patch_embd.weight",
        "rope_freqs.weight",
    ];
    for name in unknown {
        let made = Made { n_data_bytes: 192, ..llama() }.with_tensor(name, &[8], 0, 160);
        assert!(matches!(made.refused(), GgufError::UnknownTensor { tensor, .. } if tensor == name));
    }
    let frequencies = Made { n_data_bytes: 192, ..llama() }.with_tensor("blk.0.attn_rot_embd.weight", &[2], 0, 160);
    assert_eq!(frequencies.read().unwrap().header.tensors.len(), 2);
}

#[test]
fn tensors_must_lie_in_the_file_apart_from_each_other() {
    let roomy = Made { n_data_bytes: 288, ..llama() };
    let one =
        |sizes: &[u64], number, offset| roomy.clone().with_tensor("output.weight", sizes, number, offset).refused();
    assert!(roomy.clone().with_tensor("output.weight", &[8, 4], 0, 160).read().is_ok());
    assert!(matches!(one(&[8, 4], 0, 64), GgufError::Overlap { .. }));
    assert!(matches!(one(&[8, 4], 0, 0), GgufError::Overlap { .. }));
    assert!(matches!(one(&[8, 4], 0, 192), GgufError::Outside { .. }));
    assert!(matches!(one(&[8, 4], 0, u64::MAX - 31), GgufError::Outside { expected: u64::MAX, .. }));
    assert!(matches!(one(&[8, 4], 0, 1), GgufError::Unaligned { .. }));
    assert!(matches!(one(&[1 << 63, 4], 0, 160), GgufError::Shape { .. }));
    assert!(matches!(one(&[1 << 62], 0, 160), GgufError::Shape { .. }));
    assert!(matches!(one(&[0, 4], 0, 160), GgufError::Shape { .. }));
    assert!(matches!(one(&[8, 4], 12, 160), GgufError::Shape { .. }));
    assert!(matches!(one(&[1; 5], 0, 160), GgufError::Shape { .. }));
    assert!(matches!(one(&[256], 23, 160), GgufError::NumberType { found: 23, .. }));
    let twice = llama().with_tensor("token_embd.weight", &[8], 0, 0);
    assert!(matches!(twice.refused(), GgufError::Duplicate { .. }));
}

#[test]
fn huge_claims_are_refused_before_anything_is_allocated() {
    let good = llama().bytes();
    for value in [1_u64 << 63, u64::MAX, 1 << 40] {
        for at in [8, 16, 24] {
            let mut bytes = good.clone();
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            assert!(matches!(read_bytes(&bytes), Err(GgufError::TooLarge { .. })), "{at}");
        }
        let long = [&8_u32.to_le_bytes()[..], &value.to_le_bytes()].concat();
        for (kind, content) in [(8, &value.to_le_bytes()[..]), (9, &long)] {
            let made = llama().with("tokenizer.ggml.tokens", kind, content);
            assert!(matches!(made.refused(), GgufError::CutShort { .. }));
        }
    }
    let nested = [&9_u32.to_le_bytes()[..], &1_u64.to_le_bytes()].concat();
    assert!(matches!(llama().with("a", 9, &nested).refused(), GgufError::ValueKind { found: 9, .. }));
    assert!(matches!(llama().with("a", 13, &[]).refused(), GgufError::ValueKind { found: 13, .. }));
    // A large file of nothing, whose one list is longer than any header.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let made = llama().with("a", 9, &[&0_u32.to_le_bytes()[..], &(1_u64 << 33).to_le_bytes()].concat());
    fs::write(&path, made.bytes()).unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 34).unwrap();
    assert!(matches!(read_header(&path), Err(GgufError::TooLarge { .. })));
}

#[test]
fn entries_must_be_there_once() {
    let mut twice = llama();
    twice.entries.push(twice.entries[1].clone());
    assert!(matches!(twice.refused(), GgufError::Entry { found: 2, .. }));
    for idx in 0..llama().entries.len() {
        let mut made = llama();
        made.entries.remove(idx);
        assert!(matches!(made.refused(), GgufError::Entry { found: 0, .. }));
    }
    let none = Made { tensors: Vec::new(), ..llama() };
    assert!(matches!(none.refused(), GgufError::Entry { key, .. } if key == "vocab_size"));
    assert!(matches!(Made { version: 0x0300_0000, ..llama() }.refused(), GgufError::Version { .. }));
    assert!(matches!(read_bytes(b"GGML...."), Err(GgufError::Magic { .. })));
}

#[test]
fn a_file_that_is_cut_short_anywhere_is_refused() {
    let good = llama().bytes();
    for n_bytes in 0..good.len() {
        let error = read_bytes(&good[..n_bytes]).unwrap_err();
        assert!(matches!(error, GgufError::CutShort { .. } | GgufError::Outside { .. }), "{n_bytes}: {error}");
    }
    assert!(read_bytes(&good).is_ok());
}

#[test]
fn no_changed_byte_makes_the_reader_panic() {
    let good = fs::read(data("model.gguf")).unwrap();
    let begin = read_header(&data("model.gguf")).unwrap().header.tensors[0].begin as usize;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    fs::write(&path, &good).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let mut n_refused = 0;
    for (at, &byte) in good[..begin].iter().enumerate() {
        for change in [0x01, 0x80, 0xff] {
            file.write_all_at(&[byte ^ change], at as u64).unwrap();
            n_refused += usize::from(read_header(&path).is_err());
        }
        file.write_all_at(&[byte], at as u64).unwrap();
    }
    assert!(n_refused > begin / 2, "{n_refused} of {begin}");
    assert!(read_header(&path).is_ok());
}
