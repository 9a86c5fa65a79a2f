//! The targets, as the fuzzer builds them: the same files that `tests/corpus.rs` replays the corpus through.

#[path = "../../server/house.rs"]
#[allow(dead_code, reason = "one target uses a part of it")]
mod house;
#[path = "../../support/stage.rs"]
mod stage;

#[path = "../support/blocks.rs"]
mod blocks;
#[path = "../support/choices.rs"]
mod choices;
#[path = "../support/memory.rs"]
mod memory;
#[path = "../support/outcome.rs"]
mod outcome;
#[path = "../support/pace.rs"]
mod pace;
#[path = "../support/tiny_weights.rs"]
mod tiny_weights;
#[path = "../support/tokenizers.rs"]
mod tokenizers;

#[path = "../targets/config_json.rs"]
pub mod config_json;
#[path = "../targets/detokenizer.rs"]
pub mod detokenizer;
#[path = "../targets/event_reader.rs"]
pub mod event_reader;
#[path = "../targets/index_json.rs"]
pub mod index_json;
#[path = "../targets/leptos_toml.rs"]
pub mod leptos_toml;
#[path = "../targets/markdown_blocks.rs"]
pub mod markdown_blocks;
#[path = "../targets/prompt_builder.rs"]
pub mod prompt_builder;
#[path = "../targets/safetensors_header.rs"]
pub mod safetensors_header;
#[path = "../targets/server_fn_body.rs"]
pub mod server_fn_body;
#[path = "../targets/tokenizer_round_trip.rs"]
pub mod tokenizer_round_trip;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;
