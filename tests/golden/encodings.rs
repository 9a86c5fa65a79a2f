//! Texts to ids and back, against the Python library; a tokenizer that puts a space before texts fails.

use std::{collections::HashMap, fs, path::Path};

use serde::Deserialize;
use serde_json::{Value, json};
use xverse_chat::{chat::info::PromptFormat, engine::tokenizer::ChatTokenizer};

use super::files;
use crate::support::tiny_checkpoint::{TINY_VOCABULARY, TinyTokenizer, tokenizer_json};

#[derive(Debug, Deserialize)]
struct Version {
    with_special_tokens: Decoded,
    cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
struct Decoded {
    ids: Vec<u32>,
    decoded: String,
}

#[derive(Debug, Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
    decoded: String,
}

/// The tokenizer of a version, opened from a folder after `change` was made to its file.
pub fn tokenizer(format: PromptFormat, change: impl FnOnce(&mut Value)) -> ChatTokenizer {
    let version = match format {
        PromptFormat::V1 => TinyTokenizer::V1,
        PromptFormat::V2 => TinyTokenizer::V2,
    };
    let mut file = tokenizer_json(version, TINY_VOCABULARY);
    change(&mut file);
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tokenizer.json"), serde_json::to_vec(&file).unwrap()).unwrap();
    open(dir.path())
}

/// As shipped.
pub fn unchanged(_: &mut Value) {}

/// With the space before texts that newer files have by default.
pub fn with_prefix_space(file: &mut Value) {
    let metaspaces = file["pre_tokenizer"]["pretokenizers"].as_array_mut().unwrap();
    for part in metaspaces.iter_mut().filter(|part| part["type"] == "Metaspace") {
        part["add_prefix_space"] = json!(true);
        part["prepend_scheme"] = json!("always");
    }
}

fn open(dir: &Path) -> ChatTokenizer {
    ChatTokenizer::open(dir).unwrap_or_else(|error| panic!("{error}"))
}

fn golden(format: PromptFormat) -> Version {
    #[derive(Deserialize)]
    struct File {
        encodings: HashMap<PromptFormat, Version>,
    }
    let mut file: File = serde_json::from_slice(&files::data("encodings.json")).unwrap();
    file.encodings.remove(&format).unwrap()
}

/// Texts whose ids are not the golden ones.
fn mistaken(tokenizer: &ChatTokenizer, golden: &Version) -> Vec<String> {
    let wrong = golden.cases.iter().filter(|case| tokenizer.encode(&case.text).unwrap() != case.ids);
    wrong.map(|case| format!("{:?}: {:?}, expected {:?}", case.text, tokenizer.encode(&case.text), case.ids)).collect()
}

#[test]
fn texts_become_the_ids_that_python_gives() {
    for format in [PromptFormat::V1, PromptFormat::V2] {
        let tokenizer = tokenizer(format, unchanged);
        assert_eq!(tokenizer.vocab_size(), TINY_VOCABULARY);
        let mistaken = mistaken(&tokenizer, &golden(format));
        assert!(mistaken.is_empty(), "{format:?}:\n{}", mistaken.join("\n"));
    }
}

#[test]
fn ids_become_the_texts_that_python_gives() {
    for format in [PromptFormat::V1, PromptFormat::V2] {
        let tokenizer = tokenizer(format, unchanged);
        let Version { with_special_tokens, cases } = golden(format);
        for case in cases {
            assert_eq!(tokenizer.decode(&case.ids), case.decoded, "{format:?}");
        }
        assert_eq!(tokenizer.decode(&with_special_tokens.ids), with_special_tokens.decoded, "{format:?}");
    }
}

#[test]
fn no_text_becomes_a_special_token() {
    for format in [PromptFormat::V1, PromptFormat::V2] {
        let tokenizer = tokenizer(format, unchanged);
        for special in ["<pad>", "<|startoftext|>", "<|endoftext|>"] {
            for text in [special.to_owned(), format!("a{special}b"), format!(" {special}{special}\n")] {
                let ids = tokenizer.encode(&text).unwrap();
                assert!(!ids.iter().any(|id| (1..=3).contains(id)), "{format:?}, {text:?}: {ids:?}");
            }
        }
    }
}

#[test]
fn a_prefix_space_shows() {
    for format in [PromptFormat::V1, PromptFormat::V2] {
        let mistaken = mistaken(&tokenizer(format, with_prefix_space), &golden(format));
        assert!(mistaken.len() > 30, "{format:?}: {} texts", mistaken.len());
    }
}
