//! Conversations on disk: one `SQLite` file, one thread that writes, two that read.
//!
//! Owns every word of SQL. Knows no engine, no HTTP and no page: it keeps what it is given and finds it again.
//! **Architecture Invariant:** what a call says is written has been committed and synced; and nobody's conversation is
//! read or changed but by its owner.

pub mod conversations;
pub mod database;
pub mod error;
pub mod links;
pub mod list;
pub mod record;

mod code;
mod migrations;
mod threads;
