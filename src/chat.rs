//! The domain: what a conversation is, on both sides of the wire.
//!
//! Plain data and pure functions, the same in the browser and on the server: no I/O, no `cfg`, no tensors, no DOM.
//! **Architecture Invariant:** `chat` knows no other module of this crate.

pub mod command;
pub mod conversation;
pub mod error;
pub mod event;
pub mod ids;
pub mod info;
pub mod limits;
pub mod list;
pub mod markup;
pub mod message;
pub mod settings;
