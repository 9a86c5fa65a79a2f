//! The tokenizers that the targets choose from.
//!
//! Two that bring back any text, because bytes stand in for what they have no token for, and one that doesn't. Invariant:
//! each is read once a process.

use std::sync::{Arc, LazyLock};

use xverse_chat::engine::tokenizer::ChatTokenizer;

/// A tokenizer and what can be said of it.
#[derive(Debug, Clone)]
pub struct Known {
    pub tokenizer: Arc<ChatTokenizer>,
    /// Whether every text comes back from its ids.
    pub is_lossless: bool,
    /// The end id.
    pub eos: u32,
}

static ALL: LazyLock<[Known; 3]> = LazyLock::new(|| {
    let known = |json: &[u8], is_lossless| Known {
        tokenizer: Arc::new(ChatTokenizer::from_json(json).expect("the project's own tokenizers are right")),
        is_lossless,
        eos: 3,
    };
    [
        known(include_bytes!("../../../models/xverse-mini/tokenizer.json"), true),
        known(include_bytes!("../../golden/data/tokenizer-v2/tokenizer.json"), true),
        known(include_bytes!("../../golden/data/tokenizer-v1/tokenizer.json"), false),
    ]
});

/// The tokenizer of this number, counted round.
#[must_use]
pub fn choose(number: u8) -> &'static Known {
    &ALL[usize::from(number) % ALL.len()]
}

/// What a text looks like after encoding and decoding.
#[must_use]
pub fn after_a_round_trip(text: &str) -> String {
    // The sign by which SentencePiece writes a space cannot be told from one.
    text.replace('▁', " ")
}
