//! The engine: token ids in, token ids and text out.
//!
//! One OS thread owns the device; around it are pure parts that need none. It knows no users, no HTTP, no storage.
//! **Architecture Invariant:** tensors exist only below this module.

pub mod backend;
pub mod bench;
pub mod block_format;
pub mod checkpoint;
pub mod config;
pub mod convert;
pub mod copies;
pub mod detokenizer;
pub mod fingerprint;
pub mod format;
pub mod generation_config;
pub mod kv;
pub mod kv_type;
pub mod load;
pub mod logits;
pub mod memory;
pub mod precision;
pub mod prompt;
pub mod request;
pub mod room;
pub mod sampling;
pub mod scheduler;
mod small_file;
pub mod stats;
pub mod stop;
pub mod target;
pub mod tokenizer;
pub mod weights;
pub mod worker;
