//! The fuzzers' corpus, replayed: small inputs that once mattered, through the same functions that `scripts/fuzz.sh` fuzzes.
//!
//! Knows no fuzzer. Invariant: a target without a corpus, a fuzzer or a line in the list below fails.

#![cfg(feature = "ssr")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "server/house.rs"]
#[allow(dead_code, reason = "one target uses a part of it")]
mod house;
#[path = "support/stage.rs"]
mod stage;

#[path = "fuzz/support/blocks.rs"]
mod blocks;
#[path = "fuzz/support/choices.rs"]
mod choices;
#[path = "fuzz/support/memory.rs"]
mod memory;
#[path = "fuzz/support/outcome.rs"]
mod outcome;
#[path = "fuzz/support/pace.rs"]
mod pace;
#[path = "fuzz/support/tiny_weights.rs"]
mod tiny_weights;
#[path = "fuzz/support/tokenizers.rs"]
mod tokenizers;

#[path = "fuzz/targets/config_json.rs"]
mod config_json;
#[path = "fuzz/targets/detokenizer.rs"]
mod detokenizer;
#[path = "fuzz/targets/event_reader.rs"]
mod event_reader;
#[path = "fuzz/targets/index_json.rs"]
mod index_json;
#[path = "fuzz/targets/leptos_toml.rs"]
mod leptos_toml;
#[path = "fuzz/targets/markdown_blocks.rs"]
mod markdown_blocks;
#[path = "fuzz/targets/prompt_builder.rs"]
mod prompt_builder;
#[path = "fuzz/targets/safetensors_header.rs"]
mod safetensors_header;
#[path = "fuzz/targets/server_fn_body.rs"]
mod server_fn_body;
#[path = "fuzz/targets/tokenizer_round_trip.rs"]
mod tokenizer_round_trip;

use std::{
    collections::BTreeSet,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use xverse_chat::chat::markup::{Block, Inline};

use crate::outcome::Outcome;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

type Target = (&'static str, fn(&[u8]) -> Outcome);

/// Each target by its name, which is also that of its corpus' folder and of its fuzzer.
const TARGETS: [Target; 10] = [
    ("config_json", config_json::target),
    ("detokenizer", detokenizer::target),
    ("event_reader", event_reader::target),
    ("index_json", index_json::target),
    ("leptos_toml", leptos_toml::target),
    ("markdown_blocks", markdown_blocks::target),
    ("prompt_builder", prompt_builder::target),
    ("safetensors_header", safetensors_header::target),
    ("server_fn_body", server_fn_body::target),
    ("tokenizer_round_trip", tokenizer_round_trip::target),
];

/// Inputs that are right. Where they no longer are, because what is right has changed, the corpus has to follow: it would
/// be replayed and reach nothing.
const RIGHT: [(&str, &[&str]); 7] = [
    ("config_json", &["xverse-13b-chat", "xverse-13b-2-chat", "llama-in-small"]),
    ("event_reader", &["a-whole-answer", "after-what-the-page-began-with", "failed", "gone-on-with"]),
    ("index_json", &["all-that-there-is", "one-claim-a-file"]),
    ("leptos_toml", &["as-shipped", "the-least", "for-everybody"]),
    ("prompt_builder", &["several-rounds", "first-format", "rounds-that-do-not-fit", "control-tokens-in-texts"]),
    ("safetensors_header", &["a-whole-file", "in-short", "in-short-with-other-types"]),
    (
        "server_fn_body",
        &[
            "page",
            "send-twice-the-same",
            "send-and-go-on",
            "send-and-regenerate",
            "send-and-continue",
            "send-and-stop",
            "send-and-search",
            "delete-and-restore",
            "a-link-to-oneself",
        ],
    ),
];

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(folder);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn stems(folder: &str) -> BTreeSet<String> {
    files(folder).iter().map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect()
}

#[test]
fn every_input_that_once_mattered_keeps_its_promise() {
    let mut broken = Vec::new();
    for (name, target) in TARGETS {
        let inputs = files(&format!("corpus/{name}"));
        assert!(inputs.len() >= 3, "{name}: {} inputs", inputs.len());
        for input in inputs {
            let data = fs::read(&input).unwrap();
            if catch_unwind(AssertUnwindSafe(|| target(&data))).is_err() {
                broken.push(input);
            }
        }
    }
    assert!(broken.is_empty(), "the panics above came from {broken:#?}");
}

#[test]
fn every_target_is_fuzzed_and_replayed() {
    let listed: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(listed, stems("targets"), "tests/fuzz/targets");
    assert_eq!(listed, stems("src/bin"), "tests/fuzz/src/bin");
    assert_eq!(listed, stems("corpus"), "tests/fuzz/corpus");
}

#[test]
fn what_is_right_is_taken() {
    let mut refused = Vec::new();
    for (name, inputs) in RIGHT {
        let (_, target) = TARGETS.into_iter().find(|(listed, _)| *listed == name).unwrap();
        for input in inputs {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name).join(input);
            if target(&fs::read(&path).unwrap()) == Outcome::Refused {
                refused.push(path);
            }
        }
    }
    assert!(refused.is_empty(), "{refused:#?}");
}

#[test]
fn memory_that_an_input_does_not_account_for_is_noticed() {
    let ((), peak) = memory::peak_of(|| drop(vec![1_u8; 3 << 20]));
    assert!((3 << 20..4 << 20).contains(&peak), "{peak}");
    let taken = |n_bytes| catch_unwind(|| memory::within_reason(100, || drop(vec![1_u8; n_bytes]))).is_ok();
    assert!(taken(1 << 20));
    assert!(!taken(2 << 20));
}

#[test]
fn broken_blocks_are_noticed() {
    let text = |text: &str| Inline::Text { text: text.to_owned() };
    let paragraph = |inlines| vec![Block::Paragraph { inlines }];
    for blocks in [
        paragraph(vec![]),
        paragraph(vec![text("a\rb")]),
        paragraph(vec![Inline::Strong { inlines: vec![Inline::Code { code: "\0".to_owned() }] }]),
        vec![Block::Quote { blocks: vec![Block::Heading { level: 7, inlines: vec![] }] }],
        vec![Block::Table { alignments: vec![], header: vec![], rows: vec![] }],
    ] {
        assert!(catch_unwind(|| blocks::check(&blocks)).is_err(), "{blocks:?}");
    }
    blocks::check(&paragraph(vec![text("a")]));
}
