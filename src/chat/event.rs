//! Events of one answer: what `/generations/{id}/events` carries.
//!
//! Each has a sequence number; a reader that has seen number n asks for what comes after n. Numbers grow strictly, with
//! gaps where a tail or progress ([`EventKind::Tail`], [`EventKind::Queued`], [`EventKind::Reading`]) was replaced by a
//! later one before this reader came to it: nothing else is ever left out. **Architecture Invariant:** exactly one [`EventKind::End`], and it is the last.

use serde::{Deserialize, Serialize};

use super::{error::ErrorCode, markup::Block, message::AnswerStats};

/// One event with its place in the answer's log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Starts at 1.
    pub seq: u64,
    /// What happened.
    pub kind: EventKind,
}

/// What happened to an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// It waits.
    Queued {
        /// 1 is next.
        place: u32,
    },
    /// The prompt is being read.
    Reading {
        /// Prompt tokens read, reused ones counted.
        done: u32,
        /// Prompt tokens in all.
        total: u32,
    },
    /// Block number `index` of the answer is final.
    Block {
        /// Counts from 0, each exactly once, in order.
        index: u32,
        /// The block.
        block: Block,
    },
    /// Everything after the final blocks, replacing the tail before it.
    Tail {
        /// Usually one block, the one that grows.
        blocks: Vec<Block>,
    },
    /// It is over; all blocks are final.
    End {
        /// Why.
        reason: EndReason,
        /// Counts and times.
        stats: AnswerStats,
        /// The whole text, as copied and as sent back to the model.
        text: String,
        /// Whether it is kept beyond the server's end.
        is_saved: bool,
    },
}

/// Why an answer is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The model said its end token.
    EndOfText,
    /// As many tokens as `max_new_tokens` allowed.
    Length,
    /// A stop string came up.
    StopString,
    /// Somebody pressed stop.
    Stopped,
    /// The server went down while it ran.
    Interrupted,
    /// It failed.
    Failed {
        /// Why.
        code: ErrorCode,
    },
}
