//! The API that other programs speak already, OpenAI's: conversations, texts that are gone on with, tokens.
//!
//! Requests go to the same engine as the page's, through the same queue, and nothing of them is kept. What would change the
//! answer and is not there is refused; what else is unknown is passed over. Where OpenAI says nothing (`top_k`,
//! `repetition_penalty`, `ignore_eos`, `max_model_len`, `/tokenize`) it is as vLLM has it.
//! **Architecture Invariant:** whoever goes away cancels what was asked for.

pub mod chat;
pub mod completion;
pub mod error;
pub mod models;
pub mod tokens;

mod answer;
mod body;
mod choices;
mod fields;
mod logprobs;
mod sampling;
mod stream;

/// The API's paths, the models by name excepted.
const PATHS: [&str; 6] =
    ["/v1/models", "/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize", "/tokenizer_info"];

/// Whether a path is the API's, whose refusals have OpenAI's shape; there may be nothing at it.
#[must_use]
pub fn is_api(path: &str) -> bool {
    PATHS.contains(&path) || path == "/v1" || path.starts_with("/v1/")
}
