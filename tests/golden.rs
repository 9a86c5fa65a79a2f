//! The engine against Hugging Face transformers: logits, greedy answers, sampling, tokenizer and prompts.
//!
//! The golden files come from `examples/golden`; see the README there. One binary, because each one links the whole engine.

#![cfg(feature = "ssr")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/support.rs"]
mod support;

#[path = "golden/driver.rs"]
mod driver;
#[path = "golden/encodings.rs"]
mod encodings;
#[path = "golden/equivalence.rs"]
mod equivalence;
#[path = "golden/files.rs"]
mod files;
#[path = "golden/formats.rs"]
mod formats;
#[path = "golden/judge.rs"]
mod judge;
#[path = "golden/logits.rs"]
mod logits;
#[path = "golden/mutations.rs"]
mod mutations;
#[path = "golden/plain_backend.rs"]
mod plain_backend;
#[path = "golden/prompts.rs"]
mod prompts;
#[path = "golden/sampling.rs"]
mod sampling;
