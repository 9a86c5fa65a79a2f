//! Small tokenizers of the XVERSE kinds for tests: same parts, same special tokens, tiny vocabulary.

use serde_json::{Map, Value, json};

use super::ChatTokenizer;

/// Of the second kind: byte tokens, no normaliser, the bare Metaspace that needs repair.
pub fn v2_json() -> Value {
    let mut tokens = specials();
    tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    tokens.extend(characters());
    let metaspace = json!({"type": "Metaspace", "replacement": "▁", "add_prefix_space": false});
    let mut tokenizer = shell(tokens, &metaspace);
    tokenizer["model"]["byte_fallback"] = json!(true);
    tokenizer["decoder"] = json!({"type": "Sequence", "decoders": [{"type": "ByteFallback"}, metaspace]});
    tokenizer
}

/// Of the first kind: no byte tokens, NFKC, an unknown token.
pub fn v1_json() -> Value {
    let mut tokens = specials();
    tokens.extend(characters());
    let metaspace = json!({"type": "Metaspace", "replacement": "▁", "add_prefix_space": false});
    let mut tokenizer = shell(tokens, &metaspace);
    tokenizer["normalizer"] = json!({"type": "NFKC"});
    tokenizer["model"]["unk_token"] = json!("<unk>");
    tokenizer["decoder"] = metaspace;
    tokenizer
}

/// The tokenizer of a fixture.
///
/// # Panics
/// Where the fixture is wrong.
pub fn tokenizer(json: &Value) -> ChatTokenizer {
    ChatTokenizer::from_json(json.to_string().as_bytes()).unwrap()
}

/// A tokenizer of these tokens alone, ids in order, of which the first `n_special` are special.
pub fn of_tokens(tokens: Vec<String>, n_special: usize, decoder: Value) -> ChatTokenizer {
    let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never"});
    let mut json = shell(Vec::new(), &metaspace);
    json["added_tokens"] =
        tokens.iter().take(n_special).enumerate().map(|(id, token)| added(id, token, true)).collect();
    json["model"]["merges"] = json!([]);
    json["model"]["vocab"] = vocab(tokens);
    json["decoder"] = decoder;
    tokenizer(&json)
}

/// An entry of `added_tokens`.
pub fn added(id: usize, content: &str, special: bool) -> Value {
    json!({
        "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": special
    })
}

fn specials() -> Vec<String> {
    ["<unk>", "<pad>", "<|startoftext|>", "<|endoftext|>"].map(str::to_owned).to_vec()
}

fn characters() -> Vec<String> {
    let ascii = (' '..='~').map(|c| if c == ' ' { '▁' } else { c });
    ascii.chain("\n，。你好世界吗".chars()).map(String::from).collect()
}

/// With merges that make `Human`, `▁w` and `你好`.
fn shell(mut tokens: Vec<String>, metaspace: &Value) -> Value {
    let merges = [("H", "u"), ("m", "a"), ("Hu", "ma"), ("Huma", "n"), ("▁", "w"), ("你", "好")];
    tokens.extend(merges.iter().map(|(left, right)| format!("{left}{right}")));
    let merges: Vec<String> = merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
    let digits = json!({"type": "Digits", "individual_digits": true});
    json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": {
            "strategy": {"Fixed": 16}, "direction": "Left", "pad_to_multiple_of": null, "pad_id": 1, "pad_type_id": 0,
            "pad_token": "<pad>"
        },
        "added_tokens": [added(1, "<pad>", true), added(2, "<|startoftext|>", true), added(3, "<|endoftext|>", true)],
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, metaspace]},
        "post_processor": null,
        "decoder": null,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab(tokens), "merges": merges
        }
    })
}

fn vocab(tokens: Vec<String>) -> Value {
    let mut vocab = Map::new();
    for token in tokens {
        let id = vocab.len();
        vocab.entry(token).or_insert(json!(id));
    }
    Value::Object(vocab)
}
