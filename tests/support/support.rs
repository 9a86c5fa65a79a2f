//! What several test binaries need: numbers without files, a checkpoint to load, the model in plain words.
//!
//! Taken in with `#[path = "support/support.rs"] mod support;`, because a file `tests/support.rs` would be a test itself.

#![allow(dead_code, reason = "no test binary uses all of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

pub mod generator;
pub mod plain_model;
pub mod tiny_checkpoint;
