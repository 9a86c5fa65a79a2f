//! What the server promises at its edge: streaming, limits, refusals, what the program says when it cannot start, and how it
//! ends.
//!
//! The router is asked without a socket, over a real engine whose device is a script; the wall before it by real sockets.

#![cfg(feature = "ssr")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that finds nothing fails")]

#[path = "server/authorisation.rs"]
mod authorisation;
#[path = "server/broken_models.rs"]
mod broken_models;
#[cfg(feature = "cuda")]
#[path = "server/cards.rs"]
mod cards;
#[path = "server/client.rs"]
mod client;
#[path = "server/crash.rs"]
mod crash;
#[path = "server/drops.rs"]
mod drops;
#[path = "server/edge.rs"]
mod edge;
#[path = "server/faults.rs"]
mod faults;
#[path = "server/house.rs"]
mod house;
#[path = "server/judging.rs"]
mod judging;
#[path = "server/keeping.rs"]
mod keeping;
#[path = "server/limits.rs"]
mod limits;
#[path = "server/openai.rs"]
mod openai;
#[path = "server/openai_clients.rs"]
mod openai_clients;
#[path = "server/process.rs"]
mod process;
#[path = "server/program.rs"]
mod program;
#[path = "server/same_words.rs"]
mod same_words;
#[path = "server/soak.rs"]
mod soak;
#[path = "support/stage.rs"]
mod stage;
#[path = "server/streaming.rs"]
mod streaming;
#[path = "server/stub.rs"]
mod stub;
#[path = "support/support.rs"]
mod support;
#[path = "server/terminal.rs"]
mod terminal;
#[path = "server/token.rs"]
mod token;
#[path = "server/upstream.rs"]
mod upstream;
#[path = "server/upstream_api.rs"]
mod upstream_api;
#[path = "server/upstream_faults.rs"]
mod upstream_faults;
#[path = "server/wall.rs"]
mod wall;
