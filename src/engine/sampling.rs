//! Drawing a token from logits, in the order of Hugging Face transformers: repetition penalty over prompt and output,
//! temperature, top-k, softmax, top-p, draw.

pub mod philox;

use super::request::TokenLogprobs;
use crate::chat::settings::Sampling;

/// How to draw one token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draw {
    /// The settings.
    pub sampling: Sampling,
    /// The answer's seed.
    pub seed: u64,
    /// Which draw of the answer this is, from 0.
    pub index: u64,
}

/// Why no token can be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SamplingError {
    /// NaN, or nothing finite to choose from.
    #[error("the model's logits are not numbers")]
    NotANumber,
}

/// Draws one token; `seen` are all ids of prompt and output so far.
///
/// # Errors
/// [`SamplingError`].
pub fn draw(logits: &[f32], seen: &[u32], draw: &Draw) -> Result<u32, SamplingError> {
    todo!("{logits:?} {seen:?} {draw:?}")
}

/// Log-probability of `token` under the unmodified distribution, with the `n` likeliest tokens.
#[must_use]
pub fn logprobs(logits: &[f32], token: u32, n: u32) -> TokenLogprobs {
    todo!("{logits:?} {token} {n}")
}
