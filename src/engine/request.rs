//! What is asked of the engine and what it says back: token ids in, token ids and text out.
//!
//! Knows no users, no HTTP, no storage. **Architecture Invariant:** each request gets exactly one [`EngineEvent::End`], and
//! it is the last event.

use std::sync::Arc;

use crate::chat::{error::ErrorCode, event::EndReason, settings::Sampling};

/// One answer to be generated.
#[derive(Debug, Clone)]
pub struct GenerationRequest {
    /// Token ids of the prompt, at least one, as [`super::prompt`] made them.
    pub prompt_ids: Arc<[u32]>,
    /// Tokens that were generated before and are continued; after the prompt, and counted as generated.
    pub continued_ids: Arc<[u32]>,
    /// How to draw.
    pub sampling: Sampling,
    /// Seeds the draws: the n-th draw of a seed is always the same number.
    pub seed: u64,
    /// Whether the end token is drawn like any other instead of ending the answer.
    pub ignore_eos: bool,
    /// Texts that end the answer; not part of it.
    pub stop: Vec<String>,
    /// What is to be told of probabilities.
    pub logprobs: LogprobsRequest,
    /// Keys and values are reused only between requests of one scope: a conversation.
    pub scope: CacheScope,
}

/// Within which requests keys and values may be reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheScope {
    /// With no other request.
    Alone,
    /// With requests of the same number, such as a conversation's.
    Shared(u128),
}

/// Which log-probabilities are wanted, of the unmodified distribution; the number is how many of the likeliest tokens
/// come along.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogprobsRequest {
    /// For each generated token.
    pub generated: Option<u32>,
    /// For each prompt token but the first.
    pub prompt: Option<u32>,
}

/// Log-probability of one token at its place, and the likeliest ones there.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprobs {
    /// The token that stands there.
    pub token: u32,
    /// Its natural log-probability under the unmodified distribution.
    pub logprob: f32,
    /// The likeliest tokens with theirs, likeliest first.
    pub top: Vec<(u32, f32)>,
}

/// The same of an upstream server, which names tokens by their text.
#[derive(Debug, Clone, PartialEq)]
pub struct TextLogprobs {
    /// The token that stands there.
    pub token: TextToken,
    /// Its natural log-probability.
    pub logprob: f32,
    /// The likeliest tokens with theirs, likeliest first.
    pub top: Vec<(TextToken, f32)>,
    /// Characters of the text before it, where the upstream says.
    pub text_offset: Option<usize>,
}

/// A token of an upstream server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextToken {
    /// Its text, or what stands for it where it is none by itself.
    pub text: String,
    /// The bytes it adds to a text, where they are known.
    pub bytes: Option<Vec<u8>>,
}

/// What happens to a request, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum EngineEvent {
    /// It waits; 1 is next. Again whenever its place changes.
    Queued {
        /// How many are before it, itself counted.
        place: u32,
    },
    /// A part of the prompt has been read; the first one tells how much was reused.
    Prefilled {
        /// Prompt tokens whose keys and values are there.
        done: u32,
        /// Prompt tokens in all.
        total: u32,
        /// Of those done, how many came from an earlier request.
        reused: u32,
    },
    /// Log-probabilities of prompt tokens, where asked for: once, of all but the first.
    PromptLogprobs(Vec<TokenLogprobs>),
    /// One token was drawn.
    Token {
        /// Which.
        id: u32,
        /// The text that is certain since the token before: may be empty, never holds half a character.
        text: String,
        /// Where asked for.
        logprobs: Option<TokenLogprobs>,
    },
    /// The end token was drawn, which is no part of the answer; told only where log-probabilities were asked for.
    EndToken(TokenLogprobs),
    /// Text came from an upstream server, which does not say which tokens it is.
    Text {
        /// The text; may be empty.
        text: String,
        /// How many tokens it is, as far as that is known.
        n_tokens: u32,
        /// Of each of them where asked for and told, otherwise none.
        logprobs: Vec<TextLogprobs>,
    },
    /// What was left out of the conversation so that it fits an upstream's context; at most once, before the end.
    LeftOut {
        /// Rounds, a question and its answer each: the oldest.
        rounds: u32,
        /// Whether the system prompt was left out too.
        system: bool,
    },
    /// What an upstream counted; at most once, before the end.
    Counted {
        /// Tokens of the prompt.
        prompt: u32,
        /// Of those, how many it had from an earlier request.
        reused: u32,
        /// Tokens generated.
        generated: u32,
    },
    /// It is over.
    End {
        /// Why.
        reason: EngineEnd,
        /// Text that was held back until it was certain.
        text: String,
    },
}

/// Why a generation ended, as the engine sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineEnd {
    /// The end token was drawn.
    EndOfText,
    /// `max_new_tokens` were drawn.
    Length,
    /// A stop string came up.
    StopString,
    /// It was cancelled.
    Cancelled,
    /// Its logits were not numbers.
    NotANumber,
    /// A step failed or panicked; the engine goes on without it.
    StepFailed,
    /// The engine is shutting down.
    ShuttingDown,
    /// No upstream server could be reached, or all that could had too much to do.
    UpstreamUnreachable,
    /// An upstream server refused whoever asked, or knows neither address nor model.
    UpstreamRefused,
    /// An upstream server does not take the request as it is.
    UpstreamRejected,
    /// The newest message alone, or a text to go on with, does not fit the upstream's context.
    UpstreamTooLong,
    /// An upstream server failed, broke off, or sent what cannot be understood.
    UpstreamBroke,
}

impl From<EngineEnd> for EndReason {
    fn from(end: EngineEnd) -> Self {
        match end {
            EngineEnd::EndOfText => Self::EndOfText,
            EngineEnd::Length => Self::Length,
            EngineEnd::StopString => Self::StopString,
            EngineEnd::Cancelled => Self::Stopped,
            EngineEnd::NotANumber => Self::Failed { code: ErrorCode::NotANumber },
            EngineEnd::StepFailed => Self::Failed { code: ErrorCode::EngineRestarted },
            EngineEnd::ShuttingDown => Self::Interrupted,
            EngineEnd::UpstreamUnreachable => Self::Failed { code: ErrorCode::UpstreamUnreachable },
            EngineEnd::UpstreamRefused => Self::Failed { code: ErrorCode::UpstreamRefused },
            EngineEnd::UpstreamRejected => Self::Failed { code: ErrorCode::UpstreamRejected },
            EngineEnd::UpstreamTooLong => Self::Failed { code: ErrorCode::PromptTooLong },
            EngineEnd::UpstreamBroke => Self::Failed { code: ErrorCode::UpstreamBroke },
        }
    }
}

/// Why a request was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// As many wait as may.
    #[error("{waiting} requests are waiting, at most {limit} may")]
    QueueFull {
        /// How many wait.
        waiting: usize,
        /// How many may.
        limit: usize,
    },
    /// Prompt and answer together do not fit.
    #[error("prompt of {prompt} tokens and up to {max_new} new ones exceed {limit} tokens")]
    TooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// `max_new_tokens`.
        max_new: usize,
        /// What fits: the context, or the KV pool where that is smaller.
        limit: usize,
    },
    /// A prompt without tokens.
    #[error("the prompt has no tokens")]
    EmptyPrompt,
    /// A token id outside the vocabulary.
    #[error("token id {id} is outside the vocabulary of {vocab_size}")]
    UnknownToken {
        /// The id.
        id: u32,
        /// How many ids there are.
        vocab_size: usize,
    },
    /// The engine is shutting down or gone.
    #[error("the engine is shutting down")]
    ShuttingDown,
}
