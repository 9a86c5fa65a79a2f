//! The task that owns one generation: from the engine's events to the log's, and at the end into the conversation.
//!
//! The first text goes out at once, later text at most every [`FLUSH_INTERVAL`]: a page draws no faster, and Markdown is
//! parsed once a flush instead of once a token. **Architecture Invariant:** however the task ends, the log has its end.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::sleep_until;

use super::Generation;
use crate::{
    chat::{
        error::ErrorCode,
        event::{EndReason, EventKind},
        markup::Block,
        message::{AnswerState, AnswerStats},
    },
    engine::{
        request::{EngineEnd, EngineEvent},
        worker,
    },
    render::Growing,
    server::{conversations::Ended, state::Server},
};

/// Text is gathered this long before it is told again.
pub const FLUSH_INTERVAL: Duration = Duration::from_millis(30);

const ENGINE_GONE: EndReason = EndReason::Failed { code: ErrorCode::EngineRestarted };

/// What the task begins with.
#[derive(Debug)]
pub struct Begin {
    /// Whose log it writes.
    pub generation: Arc<Generation>,
    /// Where the engine's events come from.
    pub events: worker::Generation,
    /// When the command came.
    pub arrived: Instant,
    /// What is known of the answer already: of its prompt.
    pub stats: AnswerStats,
}

/// Runs a generation to its end.
pub async fn run(server: Arc<Server>, begin: Begin) {
    let Begin { generation, mut events, arrived, stats } = begin;
    let mut answer = Answer {
        server,
        generation,
        growing: Growing::default(),
        pending: String::new(),
        flush_at: Instant::now(),
        token_ids: Vec::new(),
        stats,
        arrived,
        first_token: None,
        last_token: arrived,
        is_over: false,
    };
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(EngineEvent::End { reason, text }) => {
                    answer.pending.push_str(&text);
                    answer.end(end_reason(reason));
                    return;
                }
                Some(event) => answer.take(event),
                // The engine's thread is gone: told to end, or dead.
                None => {
                    let is_draining = answer.server.draining.is_cancelled();
                    answer.end(if is_draining { EndReason::Interrupted } else { ENGINE_GONE });
                    return;
                }
            },
            () = sleep_until(answer.flush_at.into()), if !answer.pending.is_empty() => answer.flush(),
        }
    }
}

fn end_reason(end: EngineEnd) -> EndReason {
    match end {
        EngineEnd::EndOfText => EndReason::EndOfText,
        EngineEnd::Length => EndReason::Length,
        EngineEnd::StopString => EndReason::StopString,
        EngineEnd::Cancelled => EndReason::Stopped,
        EngineEnd::NotANumber => EndReason::Failed { code: ErrorCode::NotANumber },
        EngineEnd::StepFailed => ENGINE_GONE,
        EngineEnd::ShuttingDown => EndReason::Interrupted,
    }
}

/// An answer while it grows. Dropped before its end, as by a panic, it ends as failed.
struct Answer {
    server: Arc<Server>,
    generation: Arc<Generation>,
    growing: Growing,
    pending: String,
    flush_at: Instant,
    token_ids: Vec<u32>,
    stats: AnswerStats,
    arrived: Instant,
    first_token: Option<Instant>,
    last_token: Instant,
    is_over: bool,
}

impl Answer {
    fn take(&mut self, event: EngineEvent) {
        match event {
            EngineEvent::Queued { place } => self.generation.progress(EventKind::Queued { place }),
            EngineEvent::Prefilled { done, total, reused } => {
                self.stats.reused_tokens = reused;
                self.generation.progress(EventKind::Reading { done, total });
            }
            EngineEvent::Token { id, text, .. } => self.token(id, &text),
            EngineEvent::PromptLogprobs(_) | EngineEvent::End { .. } => {}
        }
    }

    fn token(&mut self, id: u32, text: &str) {
        let now = Instant::now();
        if self.first_token.is_none() {
            self.first_token = Some(now);
            self.server.metrics.first_token.observe(now.duration_since(self.arrived).as_secs_f64());
        }
        self.last_token = now;
        self.token_ids.push(id);
        self.pending.push_str(text);
        if !self.pending.is_empty() && now >= self.flush_at {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let update = self.growing.push(&std::mem::take(&mut self.pending));
        self.generation.grow(update.finished, update.tail);
        self.flush_at = Instant::now() + FLUSH_INTERVAL;
    }

    fn end(&mut self, reason: EndReason) {
        if !self.pending.is_empty() {
            self.flush();
        }
        let last = self.growing.finish();
        let finished = last.finished.into_iter().chain(last.tail).collect::<Vec<_>>();
        let blocks = self.generation.blocks().into_iter().chain(finished.iter().cloned()).collect();
        let text = self.growing.text().to_owned();
        self.conclude(reason, text, blocks, finished);
    }

    /// Writes the record before the log, so that whoever has read the end finds the conversation ended.
    fn conclude(&mut self, reason: EndReason, text: String, blocks: Vec<Block>, finished: Vec<Block>) {
        self.is_over = true;
        self.finish_stats();
        let ended = Ended {
            text: text.clone(),
            blocks,
            token_ids: std::mem::take(&mut self.token_ids),
            state: AnswerState::Ended { reason },
            stats: self.stats,
        };
        self.server.conversations().end(self.generation.place, ended);
        self.generation.end(finished, EventKind::End { reason, stats: self.stats, text });
        self.server.metrics.ended(reason);
    }

    fn finish_stats(&mut self) {
        self.stats.generated_tokens = self.token_ids.len() as u32;
        let Some(first) = self.first_token else {
            return;
        };
        self.stats.first_token_ms = first.duration_since(self.arrived).as_secs_f32() * 1e3;
        let seconds = self.last_token.duration_since(first).as_secs_f32();
        if seconds > 0.0 {
            self.stats.tokens_per_second = self.token_ids.len().saturating_sub(1) as f32 / seconds;
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.is_over {
            // Whatever went wrong may have been the renderer, so it is not asked again.
            let text = format!("{}{}", self.growing.text(), self.pending);
            let blocks = self.generation.blocks();
            self.conclude(EndReason::Failed { code: ErrorCode::Internal }, text, blocks, Vec::new());
        }
    }
}
