//! Log-probabilities as upstreams write them, in one way for conversations and in another for texts.
//!
//! Pure. Where bytes of a token are not said they are made of its label, or left unknown: never made up.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::engine::request::{TextLogprobs, TextToken};

/// Stands before the bytes of a token that is no text by itself: OpenAI's way to name one.
const BYTES_LABEL: &str = "bytes:";

#[derive(Deserialize)]
#[serde(untagged)]
enum Logprobs {
    Chat {
        content: Vec<ChatToken>,
    },
    Text {
        tokens: Vec<String>,
        token_logprobs: Vec<Option<f32>>,
        top_logprobs: Option<Vec<Option<BTreeMap<String, f32>>>>,
        text_offset: Option<Vec<Value>>,
    },
}

#[derive(Deserialize)]
struct ChatToken {
    token: String,
    logprob: f32,
    bytes: Option<Vec<u8>>,
    #[serde(default)]
    top_logprobs: Vec<TopToken>,
}

#[derive(Deserialize)]
struct TopToken {
    token: String,
    logprob: f32,
    bytes: Option<Vec<u8>>,
}

/// Reads those of one part of an answer. What is of no known shape is left out: the answer counts for more.
pub(super) fn read(json: Value) -> Vec<TextLogprobs> {
    match serde_json::from_value(json) {
        Ok(Logprobs::Chat { content }) => content
            .into_iter()
            .map(|of| {
                let top = of.top_logprobs.into_iter().map(|top| (token(top.token, top.bytes), top.logprob)).collect();
                TextLogprobs { token: token(of.token, of.bytes), logprob: of.logprob, top, text_offset: None }
            })
            .collect(),
        Ok(Logprobs::Text { tokens, token_logprobs, top_logprobs, text_offset }) => {
            let tops = top_logprobs.unwrap_or_default().into_iter().chain(std::iter::repeat(None));
            let offsets = text_offset.unwrap_or_default().into_iter().map(|offset| offset.as_u64()?.try_into().ok());
            let offsets = offsets.chain(std::iter::repeat(None));
            let told = tokens.into_iter().zip(token_logprobs).zip(tops).zip(offsets);
            told.filter_map(|(((label, logprob), top), text_offset)| {
                let mut top: Vec<(String, f32)> = top.unwrap_or_default().into_iter().collect();
                top.sort_by(|one, other| other.1.total_cmp(&one.1));
                let top = top.into_iter().map(|(label, logprob)| (token(label, None), logprob)).collect();
                Some(TextLogprobs { token: token(label, None), logprob: logprob?, top, text_offset })
            })
            .collect()
        }
        Err(_) => Vec::new(),
    }
}

fn token(text: String, bytes: Option<Vec<u8>>) -> TextToken {
    // Half a character has come through a decoder that could not write it, and its bytes are lost.
    let of_text = || (!text.contains(char::REPLACEMENT_CHARACTER)).then(|| text.clone().into_bytes());
    let bytes = bytes.or_else(|| of_label(&text)).or_else(of_text);
    TextToken { text, bytes }
}

/// The bytes that a label such as `bytes:\xe4\xbd` names.
fn of_label(label: &str) -> Option<Vec<u8>> {
    let numbers = label.strip_prefix(BYTES_LABEL)?.strip_prefix("\\x")?;
    let byte = |number: &str| {
        let is_two_digits = number.len() == 2 && number.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_two_digits.then(|| u8::from_str_radix(number, 16).ok()).flatten()
    };
    numbers.split("\\x").map(byte).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn known(text: &str) -> TextToken {
        TextToken { text: text.to_owned(), bytes: Some(text.as_bytes().to_vec()) }
    }

    #[test]
    fn they_come_in_two_shapes() {
        let told = |text_offset| TextLogprobs {
            token: known("a"),
            logprob: -0.5,
            top: vec![(known("a"), -0.5), (known("b"), -2.0)],
            text_offset,
        };
        let top = json!([{ "token": "a", "logprob": -0.5 }, { "token": "b", "logprob": -2.0 }]);
        let chat = json!({ "content": [{ "token": "a", "logprob": -0.5, "top_logprobs": top }] });
        assert_eq!(read(chat), [told(None)]);
        let text = json!({ "tokens": ["a"], "token_logprobs": [-0.5], "text_offset": [7],
                           "top_logprobs": [{ "b": -2.0, "a": -0.5 }] });
        assert_eq!(read(text), [told(Some(7))]);
        let bare = json!({ "tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": null, "text_offset": [null] });
        assert_eq!(read(bare), [TextLogprobs { top: Vec::new(), ..told(None) }]);
        assert_eq!(read(json!([1])), []);
    }

    #[test]
    fn bytes_are_what_the_upstream_says_and_otherwise_what_the_label_says() {
        let entry = |token: &str, bytes: Value| json!({ "token": token, "logprob": -1, "bytes": bytes });
        let entries = [
            entry("bytes:\\xe4\\xBD", Value::Null),
            entry("\u{fffd}", json!([0xa0])),
            entry("\u{fffd}", Value::Null),
            entry("字", Value::Null),
            entry("bytes:\\xzz", Value::Null),
            entry("bytes:", Value::Null),
        ];
        let expected = [
            Some(vec![0xe4, 0xbd]),
            Some(vec![0xa0]),
            None,
            Some("字".as_bytes().to_vec()),
            Some(b"bytes:\\xzz".to_vec()),
            Some(b"bytes:".to_vec()),
        ];
        let bytes = |told: Vec<TextLogprobs>| told.into_iter().map(|told| told.token.bytes).collect::<Vec<_>>();
        assert_eq!(bytes(read(json!({ "content": entries }))), expected);
        let top = json!({ "content": [{ "token": "a", "logprob": -1, "top_logprobs": entries }] });
        let top: Vec<_> = read(top).remove(0).top.into_iter().map(|(token, _)| token.bytes).collect();
        assert_eq!(top, expected);
        let text = json!({ "tokens": ["bytes:\\xE8"], "token_logprobs": [-1] });
        assert_eq!(bytes(read(text)), [Some(vec![0xe8])]);
    }
}
