//! Log-probabilities as OpenAI writes them, in one way for conversations and in another for texts.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::engine::{request::TokenLogprobs, tokenizer::ChatTokenizer};

/// What stands for a probability of nothing: JSON has no infinity.
const NOTHING: f32 = -9999.0;

/// Of tokens one after the other.
#[derive(Debug, Clone)]
pub(super) enum Told {
    /// As `choices[].logprobs.content` of a conversation.
    Chat(Vec<Value>),
    /// As `choices[].logprobs` of a text.
    Text(TextLogprobs),
}

/// One entry a token in each list.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct TextLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Vec<Option<Map<String, Value>>>,
    text_offset: Vec<usize>,
}

impl Told {
    pub(super) fn add(&mut self, more: Self) {
        match (self, more) {
            (Self::Chat(all), Self::Chat(more)) => all.extend(more),
            (Self::Text(all), Self::Text(more)) => {
                all.tokens.extend(more.tokens);
                all.token_logprobs.extend(more.token_logprobs);
                all.top_logprobs.extend(more.top_logprobs);
                all.text_offset.extend(more.text_offset);
            }
            (Self::Chat(_), Self::Text(_)) | (Self::Text(_), Self::Chat(_)) => {}
        }
    }

    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Chat(content) => json!({ "content": content, "refusal": null }),
            Self::Text(lists) => json!(lists),
        }
    }
}

/// Of one token of a conversation.
pub(super) fn of_chat(tokenizer: &ChatTokenizer, told: &TokenLogprobs) -> Told {
    let entry = |id: u32, logprob: f32| {
        let piece = tokenizer.piece(id);
        json!({ "token": piece.text, "logprob": logprob.max(NOTHING), "bytes": piece.bytes })
    };
    let top: Vec<Value> = told.top.iter().map(|(id, logprob)| entry(*id, *logprob)).collect();
    let mut told = entry(told.token, told.logprob);
    told["top_logprobs"] = top.into();
    Told::Chat(vec![told])
}

impl TextLogprobs {
    /// Adds a token that stands `offset` characters after the text's beginning. The first of a prompt has no probability.
    pub(super) fn push(&mut self, tokenizer: &ChatTokenizer, token: u32, told: Option<&TokenLogprobs>, offset: usize) {
        let text = tokenizer.piece(token).text;
        let top = told.map(|told| {
            let mut top: Map<String, Value> = Map::new();
            for (id, logprob) in told.top.iter().copied().chain([(token, told.logprob)]) {
                // Of several tokens with one text the likeliest counts.
                top.entry(tokenizer.piece(id).text).or_insert_with(|| json!(logprob.max(NOTHING)));
            }
            top
        });
        self.tokens.push(text);
        self.token_logprobs.push(told.map(|told| told.logprob.max(NOTHING)));
        self.top_logprobs.push(top);
        self.text_offset.push(offset);
    }
}
