//! What is changed in a `tokenizer.json` before the library sees it, and which decoders are let in.

use serde_json::{Value, json};

use super::TokenizerError;

/// Makes files of older libraries loadable and takes out what would cut or pad a text.
///
/// A `Metaspace` with `add_prefix_space` false and no `prepend_scheme`, as XVERSE ships it, is refused today, because an
/// absent scheme counts as "always". What it means is "never".
pub(super) fn repair(tokenizer: &mut Value) {
    for part in ["pre_tokenizer", "decoder"] {
        if let Some(part) = tokenizer.get_mut(part) {
            repair_metaspace(part);
        }
    }
    if let Some(object) = tokenizer.as_object_mut() {
        object.insert("truncation".to_owned(), Value::Null);
        object.insert("padding".to_owned(), Value::Null);
    }
}

fn repair_metaspace(value: &mut Value) {
    match value {
        Value::Object(object) => {
            let is_metaspace = object.get("type") == Some(&json!("Metaspace"));
            let is_bare = object.get("add_prefix_space") == Some(&json!(false))
                && object.get("prepend_scheme").is_none_or(Value::is_null);
            if is_metaspace && is_bare {
                object.insert("prepend_scheme".to_owned(), json!("never"));
            }
            object.values_mut().for_each(repair_metaspace);
        }
        Value::Array(items) => items.iter_mut().for_each(repair_metaspace),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Marks added tokens that look like control tokens as special ones, so that text does not become them; whether there
/// were any.
pub(super) fn mark_control_tokens(tokenizer: &mut Value) -> bool {
    let mut marked = false;
    for token in tokenizer.get_mut("added_tokens").and_then(Value::as_array_mut).into_iter().flatten() {
        let looks_like_control = token["content"].as_str().is_some_and(looks_like_control);
        if looks_like_control && token["special"] != json!(true) {
            token["special"] = json!(true);
            marked = true;
        }
    }
    marked
}

/// `<|endoftext|>`, `</s>` and the like; neither byte tokens nor anything that is mere punctuation.
fn looks_like_control(content: &str) -> bool {
    content.starts_with('<')
        && content.ends_with('>')
        && content.contains(char::is_alphabetic)
        && !content.contains(char::is_whitespace)
        && !is_byte(content)
}

/// Whether a token is written as a byte, by the library's own measure.
pub(super) fn is_byte(token: &str) -> bool {
    byte(token).is_some()
}

/// The byte that a token is written as.
pub(super) fn byte(token: &str) -> Option<u8> {
    let hex = token.strip_prefix("<0x")?.strip_suffix('>').filter(|hex| hex.len() == 2)?;
    u8::from_str_radix(hex, 16).ok()
}

/// Checks that a token's text depends on nothing but whether it is the first, byte tokens aside; whether there are byte
/// tokens.
pub(super) fn check_decoder(decoder: &Value) -> Result<bool, TokenizerError> {
    let mut stages = Vec::new();
    flatten(decoder, &mut stages);
    let (mut is_fused, mut has_byte_tokens) = (false, false);
    for stage in stages {
        let is_let_in = match stage["type"].as_str() {
            Some("ByteFallback") => {
                has_byte_tokens = true;
                !is_fused
            }
            Some("Fuse") => {
                is_fused = true;
                true
            }
            Some("Metaspace") => !is_fused || stage["prepend_scheme"] == json!("never"),
            Some("Replace") => stage["pattern"]["String"].as_str().is_some_and(|text| text.chars().count() == 1),
            Some("Strip") => stage["stop"] == json!(0) && stage["start"].as_u64().is_some_and(|start| start <= 1),
            _ => false,
        };
        if !is_let_in {
            return Err(TokenizerError::Decoder { found: stage.to_string() });
        }
    }
    Ok(has_byte_tokens)
}

fn flatten<'v>(decoder: &'v Value, stages: &mut Vec<&'v Value>) {
    if decoder["type"] == json!("Sequence") {
        decoder["decoders"].as_array().into_iter().flatten().for_each(|inner| flatten(inner, stages));
    } else {
        stages.push(decoder);
    }
}
