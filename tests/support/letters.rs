//! A tokenizer for scripts: a token for each character that tests use, and bytes for every other.
//!
//! No token joins another and nothing is normalised, so that any text passes through unchanged and its length can be
//! counted by eye.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use xverse_chat::engine::tokenizer::ChatTokenizer;

const SPECIAL: [&str; 4] = ["<unk>", "<pad>", "<|startoftext|>", "<|endoftext|>"];

/// The id that ends an answer.
pub const END: u32 = 3;

/// The tokenizer.
pub fn tokenizer() -> Arc<ChatTokenizer> {
    Arc::new(ChatTokenizer::from_json(json().to_string().as_bytes()).unwrap())
}

fn json() -> Value {
    let special = SPECIAL.into_iter().map(str::to_owned);
    let characters = (' '..='~').chain("\n，。你好世界".chars()).map(String::from);
    let bytes = (0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>"));
    let vocab: Map<String, Value> =
        special.chain(characters).chain(bytes).zip(0u32..).map(|(token, id)| (token, json!(id))).collect();
    let added: Vec<Value> = SPECIAL
        .iter()
        .enumerate()
        .map(|(id, content)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        })
        .collect();
    let decoder = json!({"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": decoder,
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": true, "vocab": vocab, "merges": []}
    })
}
