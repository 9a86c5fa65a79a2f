//! What the server promises at its edge: streaming, limits, refusals, what the program says when it cannot start, and how it
//! ends.
//!
//! The router is asked without a socket, over a real engine whose device is a script.

#![cfg(feature = "ssr")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that finds nothing fails")]

#[path = "server/client.rs"]
mod client;
#[path = "server/edge.rs"]
mod edge;
#[path = "server/house.rs"]
mod house;
#[path = "server/limits.rs"]
mod limits;
#[path = "server/process.rs"]
mod process;
#[path = "server/program.rs"]
mod program;
#[path = "server/scripted.rs"]
mod scripted;
#[path = "server/streaming.rs"]
mod streaming;
