//! The task that owns one generation: from the engine's events to the log's, and at the end into the conversation.
//!
//! The first text goes out at once, later text at most every [`FLUSH_INTERVAL`]: a page draws no faster, and Markdown is
//! parsed once a flush instead of once a token. **Architecture Invariant:** however the task ends, the log has its end.

use std::{
    pin::Pin,
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
        message::AnswerStats,
    },
    engine::{
        request::{EngineEnd, EngineEvent},
        worker,
    },
    render::Growing,
    server::{
        metrics::{Source, Stopwatch},
        rates::Slot,
        state::Server,
    },
    storage::record::{Owner, Progress},
};

/// Text is gathered this long before it is told again.
pub const FLUSH_INTERVAL: Duration = Duration::from_millis(20);

/// How often a running answer is written to storage.
pub const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(1);

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
    /// The text of the tokens that were generated before, which the log has already.
    pub growing: Growing,
    /// Tokens that were generated before.
    pub token_ids: Vec<u32>,
    /// The owner's place among those who have answers written.
    pub slot: Slot<Owner>,
}

/// Runs a generation to its end.
pub async fn run(server: Arc<Server>, begin: Begin) {
    let Begin { generation, mut events, arrived, stats, growing, token_ids, slot } = begin;
    let mut abandoned = server.abandon.listen();
    let mut answer = Answer {
        server,
        generation,
        growing,
        pending: String::new(),
        flush_at: Instant::now(),
        snapshot_at: Instant::now() + SNAPSHOT_INTERVAL,
        is_ahead: false,
        n_before: token_ids.len() as u32,
        n_tokens: token_ids.len() as u32,
        token_ids,
        stats,
        arrived,
        stopwatch: Stopwatch::new(arrived),
        first_token: None,
        last_token: arrived,
        is_over: false,
        _slot: slot,
    };
    let mut writing: Option<Writing> = None;
    let reason = loop {
        tokio::select! {
            // What the engine has said already is kept, whatever comes next.
            biased;
            event = events.next() => match event {
                Some(EngineEvent::End { reason, text }) => {
                    answer.pending.push_str(&text);
                    break reason.into();
                }
                Some(event) => answer.take(event),
                // The engine's thread is gone: told to end, or dead.
                None if answer.server.draining.is_cancelled() => break EndReason::Interrupted,
                None => break EngineEnd::StepFailed.into(),
            },
            reason = abandoned.told() => break reason,
            () = sleep_until(answer.flush_at.into()), if !answer.pending.is_empty() => {
                answer.flush(answer.flush_at);
            }
            () = sleep_until(answer.snapshot_at.into()), if answer.is_ahead && writing.is_none() => {
                writing = Some(answer.write_snapshot());
            }
            () = wait_for(&mut writing), if writing.is_some() => writing = None,
        }
    };
    // Where it is not over for the engine, it is cancelled: at once, however long writing takes.
    drop(events);
    answer.end(reason).await;
}

/// A snapshot on its way to storage.
type Writing = Pin<Box<dyn Future<Output = ()> + Send>>;

async fn wait_for(writing: &mut Option<Writing>) {
    if let Some(writing) = writing {
        writing.await;
    }
}

/// An answer while it grows. Dropped before its end, as by a panic, it ends as failed.
struct Answer {
    server: Arc<Server>,
    generation: Arc<Generation>,
    growing: Growing,
    pending: String,
    flush_at: Instant,
    snapshot_at: Instant,
    /// Whether there is something that storage doesn't have.
    is_ahead: bool,
    /// Tokens that were generated before.
    n_before: u32,
    /// Tokens generated in all.
    n_tokens: u32,
    /// Which they are; of an upstream server's none are known.
    token_ids: Vec<u32>,
    stats: AnswerStats,
    arrived: Instant,
    stopwatch: Stopwatch,
    first_token: Option<Instant>,
    last_token: Instant,
    is_over: bool,
    _slot: Slot<Owner>,
}

impl Answer {
    fn take(&mut self, event: EngineEvent) {
        self.stopwatch.note(&event, &self.server.metrics);
        match event {
            EngineEvent::Queued { place } => self.generation.progress(EventKind::Queued { place }),
            EngineEvent::Prefilled { done, total, reused } => {
                self.stats.reused_tokens = reused;
                self.generation.progress(EventKind::Reading { done, total });
            }
            EngineEvent::Token { id, text, .. } => {
                self.token_ids.push(id);
                self.text(1, &text);
            }
            EngineEvent::Text { text, n_tokens, .. } => self.text(n_tokens, &text),
            EngineEvent::LeftOut { rounds, system } => {
                self.stats.dropped_rounds = rounds;
                self.stats.dropped_system = system;
            }
            EngineEvent::Counted { prompt, reused, generated } => {
                self.stats.prompt_tokens = prompt;
                self.stats.reused_tokens = reused;
                self.n_tokens = generated;
            }
            EngineEvent::PromptLogprobs(_) | EngineEvent::EndToken(_) | EngineEvent::End { .. } => {}
        }
    }

    fn text(&mut self, n_tokens: u32, text: &str) {
        let now = Instant::now();
        if self.first_token.is_none() {
            self.first_token = Some(now);
        }
        self.last_token = now;
        self.n_tokens += n_tokens;
        self.is_ahead = true;
        self.pending.push_str(text);
        if !self.pending.is_empty() && now >= self.flush_at {
            self.flush(now);
        }
    }

    /// Tells the text that was due at this moment. The next is due an interval later, however long this one takes or has
    /// waited: a token each interval is an event each interval.
    fn flush(&mut self, due: Instant) {
        let update = self.growing.push(&std::mem::take(&mut self.pending));
        self.generation.grow(update.finished, update.tail);
        self.flush_at = due + FLUSH_INTERVAL;
    }

    /// Writes how far it has come; done in the order in which it was asked for, whether waited for or not.
    fn write_snapshot(&mut self) -> Writing {
        self.is_ahead = false;
        self.snapshot_at = Instant::now() + SNAPSHOT_INTERVAL;
        self.finish_stats();
        let text = format!("{}{}", self.growing.text(), self.pending);
        let progress = self.progress(text, self.token_ids.clone(), None);
        let server = self.server.clone();
        Box::pin(async move {
            server.library.progress(progress).await;
        })
    }

    fn progress(&self, text: String, token_ids: Vec<u32>, end: Option<EndReason>) -> Progress {
        let place = self.generation.place();
        let (generation, seq, stats) = (self.generation.id, self.generation.so_far().seq, self.stats);
        Progress { answer: place.answer, generation, text, token_ids, seq, stats, end }
    }

    async fn end(&mut self, reason: EndReason) {
        if !self.pending.is_empty() {
            self.flush(self.last_token);
        }
        let last = self.growing.finish();
        let finished = last.finished.into_iter().chain(last.tail).collect::<Vec<_>>();
        let blocks = self.generation.so_far().blocks.into_iter().chain(finished.iter().cloned()).collect();
        let text = self.growing.text().to_owned();
        let writing = self.write_end(reason, &text, blocks);
        let is_saved = writing.await;
        self.tell_end(reason, text, finished, is_saved);
    }

    /// Writes the record before the log, so that whoever has read the end finds the conversation ended.
    fn write_end(
        &mut self,
        reason: EndReason,
        text: &str,
        blocks: Vec<Block>,
    ) -> impl Future<Output = bool> + Send + use<> {
        self.is_over = true;
        self.finish_stats();
        let token_ids = std::mem::take(&mut self.token_ids);
        let place = self.generation.place();
        let progress = self.progress(text.to_owned(), token_ids, Some(reason));
        self.server.library.end(place.owner, place.conversation, progress, blocks)
    }

    fn tell_end(&self, reason: EndReason, text: String, finished: Vec<Block>, is_saved: bool) {
        self.generation.end(finished, EventKind::End { reason, stats: self.stats, text, is_saved });
        self.server.generations.ended(self.generation.id);
        self.server.metrics.ended(Source::Page, reason);
    }

    fn finish_stats(&mut self) {
        self.stats.generated_tokens = self.n_tokens;
        let Some(first) = self.first_token else {
            return;
        };
        self.stats.first_token_ms = first.duration_since(self.arrived).as_secs_f32() * 1e3;
        let seconds = self.last_token.duration_since(first).as_secs_f32();
        if seconds > 0.0 {
            self.stats.tokens_per_second = self.n_tokens.saturating_sub(self.n_before + 1) as f32 / seconds;
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.is_over {
            // Whatever went wrong may have been the renderer, so it is not asked again.
            let text = format!("{}{}", self.growing.text(), self.pending);
            let reason = EndReason::Failed { code: ErrorCode::Internal };
            // On its way, and nobody is left to wait for it.
            drop(self.write_end(reason, &text, self.generation.so_far().blocks));
            self.tell_end(reason, text, Vec::new(), true);
        }
    }
}
