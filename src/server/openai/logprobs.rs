//! Log-probabilities as OpenAI writes them, in one way for conversations and in another for texts.

use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::engine::{
    offsets::Offsets,
    request::{TextLogprobs, TextToken, TokenLogprobs},
    tokenizer::{ChatTokenizer, Piece},
};

/// What stands for a probability of nothing: JSON has no infinity.
const NOTHING: f32 = -9999.0;

/// Of one token, all of them by what they say instead of by their ids.
#[derive(Debug)]
pub(super) struct Named {
    token: Piece,
    /// `None` of the first token of a prompt, which follows on nothing.
    told: Option<NamedProbabilities>,
}

#[derive(Debug)]
struct NamedProbabilities {
    logprob: f32,
    top: Vec<(Piece, f32)>,
}

impl Named {
    pub(super) fn of(tokenizer: &ChatTokenizer, told: &TokenLogprobs) -> Self {
        let top = told.top.iter().map(|(id, logprob)| (tokenizer.piece(*id), *logprob)).collect();
        Self { token: tokenizer.piece(told.token), told: Some(NamedProbabilities { logprob: told.logprob, top }) }
    }

    pub(super) fn first(token: Piece) -> Self {
        Self { token, told: None }
    }

    /// Characters of the token by itself.
    pub(super) fn n_chars(&self) -> usize {
        self.token.text.chars().count()
    }
}

impl From<TextLogprobs> for Named {
    fn from(told: TextLogprobs) -> Self {
        let piece = |token: TextToken| Piece { bytes: token.bytes.unwrap_or_default(), text: token.text };
        let top = told.top.into_iter().map(|(token, logprob)| (piece(token), logprob)).collect();
        Self { token: piece(told.token), told: Some(NamedProbabilities { logprob: told.logprob, top }) }
    }
}

/// Of tokens one after the other.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Told {
    /// As `choices[].logprobs` of a conversation.
    Chat { content: Vec<ChatToken>, refusal: () },
    /// As `choices[].logprobs` of a text.
    Text(Lists),
}

/// One token of a conversation.
#[derive(Debug, Serialize)]
pub(super) struct ChatToken {
    #[serde(flatten)]
    entry: Entry,
    top_logprobs: Vec<Entry>,
}

#[derive(Debug, Serialize)]
struct Entry {
    token: Box<str>,
    logprob: f32,
    /// Of an upstream server's token they may be unknown.
    bytes: Option<Box<[u8]>>,
}

/// One entry a token in each list.
#[derive(Debug, Default, Serialize)]
pub(super) struct Lists {
    tokens: Vec<Box<str>>,
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Vec<Option<Top>>,
    text_offset: Vec<usize>,
}

/// The likeliest tokens at one place, each text once; written as an object.
#[derive(Debug)]
struct Top(Box<[(Box<str>, f32)]>);

impl Serialize for Top {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(text, logprob)| (text, logprob)))
    }
}

impl Told {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Chat { content, .. } => content.is_empty(),
            Self::Text(lists) => lists.is_empty(),
        }
    }

    pub(super) fn add(&mut self, more: Self) {
        match (self, more) {
            (Self::Chat { content, .. }, Self::Chat { content: more, .. }) => content.extend(more),
            (Self::Text(all), Self::Text(more)) => {
                all.tokens.extend(more.tokens);
                all.token_logprobs.extend(more.token_logprobs);
                all.top_logprobs.extend(more.top_logprobs);
                all.text_offset.extend(more.text_offset);
            }
            (Self::Chat { .. }, Self::Text(_)) | (Self::Text(_), Self::Chat { .. }) => {}
        }
    }
}

impl ChatToken {
    pub(super) fn of(named: Named) -> Self {
        let entry = |piece: Piece, logprob: f32| Entry {
            token: piece.text.into(),
            logprob: logprob.max(NOTHING),
            bytes: (!piece.bytes.is_empty()).then(|| piece.bytes.into()),
        };
        let (logprob, top) = named.told.map_or((NOTHING, Vec::new()), |told| (told.logprob, told.top));
        let top_logprobs = top.into_iter().map(|(piece, logprob)| entry(piece, logprob)).collect();
        Self { entry: entry(named.token, logprob), top_logprobs }
    }
}

impl Lists {
    /// Adds a token that stands `offset` characters after the text's beginning.
    pub(super) fn push(&mut self, named: Named, offset: usize) {
        let token: Box<str> = named.token.text.into();
        self.token_logprobs.push(named.told.as_ref().map(|told| told.logprob.max(NOTHING)));
        self.top_logprobs.push(named.told.map(|told| {
            let mut top: Vec<(Box<str>, f32)> = Vec::with_capacity(told.top.len() + 1);
            let all = told.top.into_iter().map(|(piece, logprob)| (piece.text.into(), logprob));
            for (text, logprob) in all.chain([(token.clone(), told.logprob)]) {
                // Of several tokens with one text the likeliest counts.
                if !top.iter().any(|(other, _)| *other == text) {
                    top.push((text, logprob.max(NOTHING)));
                }
            }
            Top(top.into())
        }));
        self.tokens.push(token);
        self.text_offset.push(offset);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}

/// Tokens of a text on their way to where they stand in it.
#[derive(Debug)]
pub(super) struct Places {
    offsets: Offsets,
    waiting: Vec<Named>,
}

impl Places {
    /// Of a text that begins after so many characters.
    pub(super) fn new(tokenizer: &Arc<ChatTokenizer>, n_chars: usize) -> Self {
        Self { offsets: Offsets::new(tokenizer.clone(), n_chars), waiting: Vec::new() }
    }

    /// Adds a token; it comes with the ones before it as soon as all of their places are certain.
    pub(super) fn push(&mut self, id: u32, named: Named, lists: &mut Lists) {
        self.waiting.push(named);
        let offsets = self.offsets.push(id);
        self.place(offsets, lists);
    }

    /// Those that wait, where nothing more comes.
    pub(super) fn finish(&mut self, lists: &mut Lists) {
        let offsets = self.offsets.finish();
        self.place(offsets, lists);
    }

    fn place(&mut self, offsets: Vec<usize>, lists: &mut Lists) {
        for (named, offset) in self.waiting.drain(..offsets.len()).zip(offsets) {
            lists.push(named, offset);
        }
    }
}
