//! Log-probabilities as OpenAI writes them, in one way for conversations and in another for texts.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::engine::{
    request::{TextLogprobs, TextToken, TokenLogprobs},
    tokenizer::{ChatTokenizer, Piece},
};

/// What stands for a probability of nothing: JSON has no infinity.
const NOTHING: f32 = -9999.0;

/// Of one token, all of them by what they say instead of by their ids.
#[derive(Debug)]
pub(super) struct Named {
    token: Piece,
    logprob: f32,
    top: Vec<(Piece, f32)>,
}

impl Named {
    pub(super) fn of(tokenizer: &ChatTokenizer, told: &TokenLogprobs) -> Self {
        let top = told.top.iter().map(|(id, logprob)| (tokenizer.piece(*id), *logprob)).collect();
        Self { token: tokenizer.piece(told.token), logprob: told.logprob, top }
    }
}

impl From<TextLogprobs> for Named {
    fn from(told: TextLogprobs) -> Self {
        let piece = |token: TextToken| Piece { bytes: token.bytes.unwrap_or_default(), text: token.text };
        let top = told.top.into_iter().map(|(token, logprob)| (piece(token), logprob)).collect();
        Self { token: piece(told.token), logprob: told.logprob, top }
    }
}

/// Of tokens one after the other.
#[derive(Debug, Clone)]
pub(super) enum Told {
    /// As `choices[].logprobs.content` of a conversation.
    Chat(Vec<Value>),
    /// As `choices[].logprobs` of a text.
    Text(Lists),
}

/// One entry a token in each list.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Lists {
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
pub(super) fn of_chat(told: Named) -> Told {
    let entry = |piece: Piece, logprob: f32| {
        // Of an upstream server's token they may be unknown, which is told as null.
        let bytes = (!piece.bytes.is_empty()).then_some(piece.bytes);
        json!({ "token": piece.text, "logprob": logprob.max(NOTHING), "bytes": bytes })
    };
    let top: Vec<Value> = told.top.into_iter().map(|(piece, logprob)| entry(piece, logprob)).collect();
    let mut content = entry(told.token, told.logprob);
    content["top_logprobs"] = top.into();
    Told::Chat(vec![content])
}

impl Lists {
    /// Adds a token that stands `offset` characters after the text's beginning.
    pub(super) fn push(&mut self, told: Named, offset: usize) {
        let mut top: Map<String, Value> = Map::new();
        let token = told.token.text;
        for (text, logprob) in
            told.top.into_iter().map(|(piece, logprob)| (piece.text, logprob)).chain([(token.clone(), told.logprob)])
        {
            // Of several tokens with one text the likeliest counts.
            top.entry(text).or_insert_with(|| json!(logprob.max(NOTHING)));
        }
        self.tokens.push(token);
        self.token_logprobs.push(Some(told.logprob.max(NOTHING)));
        self.top_logprobs.push(Some(top));
        self.text_offset.push(offset);
    }

    /// Adds the first token of a prompt, which follows on nothing and has no probability.
    pub(super) fn push_first(&mut self, token: Piece) {
        self.tokens.push(token.text);
        self.token_logprobs.push(None);
        self.top_logprobs.push(None);
        self.text_offset.push(0);
    }
}
