//! An answer while it comes: read token by token by a thread that may block, or awaited.
//!
//! Owns the text so far, counts and times. Knows no conversation. **Architecture Invariant:** the texts of all tokens, one
//! after the other, are the answer's text, and after the last one there is an end.

use std::{
    future::poll_fn,
    iter::FusedIterator,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use futures::Stream;

use super::{
    prompt::Turn,
    request::{EngineEnd, EngineEvent},
    worker::{Canceller, Generation},
};
use crate::chat::{event::EndReason, message::AnswerStats};

/// An answer that is being computed, as [`super::Engine::chat`] gives it. Dropped before its end, it is cancelled.
///
/// As an iterator it gives the tokens to a thread that may block; within an async runtime, where that would panic, await
/// [`Self::next_token`] or take [`Self::into_stream`]. Tokens that nobody has read yet are kept, so a slow reader slows
/// nothing down.
#[derive(Debug)]
pub struct Answer {
    events: Generation,
    text: String,
    stats: AnswerStats,
    end: Option<EndReason>,
    arrived: Instant,
    first_token: Option<Instant>,
    last_token: Instant,
}

/// A token of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The text that is certain since the token before: may be empty, never holds half a character.
    pub text: String,
    /// Its id; `None` for text that was held back, as the beginning of a stop string is, and is certain at the end.
    pub id: Option<u32>,
}

/// The tokens of an answer as a stream, for any async runtime.
#[derive(Debug)]
pub struct AnswerStream {
    answer: Answer,
}

impl Answer {
    pub(super) fn new(events: Generation, stats: AnswerStats, arrived: Instant) -> Self {
        let (text, end, first_token) = (String::new(), None, None);
        Self { events, text, stats, end, arrived, first_token, last_token: arrived }
    }

    /// The next token, awaited; `None` after the end. Nothing is lost where the future is dropped.
    pub async fn next_token(&mut self) -> Option<Token> {
        poll_fn(|context| self.poll_token(context)).await
    }

    /// The tokens that are still to come, as a stream.
    #[must_use]
    pub fn into_stream(self) -> AnswerStream {
        AnswerStream { answer: self }
    }

    /// The text of all tokens that were read.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The same as a turn, to go on from.
    #[must_use]
    pub fn turn(&self) -> Turn {
        Turn::assistant(self.text.as_str())
    }

    /// Why it is over; `None` as long as there may be tokens.
    #[must_use]
    pub fn end(&self) -> Option<EndReason> {
        self.end
    }

    /// Counts, and times in milliseconds and tokens a second, of what was read so far.
    #[must_use]
    pub fn stats(&self) -> AnswerStats {
        let Some(first) = self.first_token else { return self.stats };
        let seconds = self.last_token.duration_since(first).as_secs_f32();
        let n_after_first = self.stats.generated_tokens.saturating_sub(1) as f32;
        AnswerStats {
            first_token_ms: first.duration_since(self.arrived).as_secs_f32() * 1e3,
            tokens_per_second: if seconds > 0.0 { n_after_first / seconds } else { 0.0 },
            ..self.stats
        }
    }

    /// Asks for the end, which comes within a step, after the tokens that are there already.
    pub fn cancel(&self) {
        self.events.cancel();
    }

    /// A way to ask for the end from another thread or task.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        self.events.canceller()
    }

    fn poll_token(&mut self, context: &mut Context<'_>) -> Poll<Option<Token>> {
        while self.end.is_none() {
            let event = ready!(self.events.poll_next(context));
            if let Some(token) = self.take(event) {
                return Poll::Ready(Some(token));
            }
        }
        Poll::Ready(None)
    }

    /// What an event brings to be read.
    fn take(&mut self, event: Option<EngineEvent>) -> Option<Token> {
        let token = match event {
            Some(EngineEvent::Token { id, text, .. }) => {
                self.last_token = Instant::now();
                self.first_token.get_or_insert(self.last_token);
                self.stats.generated_tokens += 1;
                Some(Token { text, id: Some(id) })
            }
            Some(EngineEvent::Prefilled { reused, .. }) => {
                self.stats.reused_tokens = reused;
                None
            }
            Some(
                EngineEvent::Queued { .. }
                | EngineEvent::PromptLogprobs(_)
                | EngineEvent::EndToken(_)
                // What only upstream servers say.
                | EngineEvent::Text { .. }
                | EngineEvent::LeftOut { .. }
                | EngineEvent::Counted { .. },
            ) => None,
            Some(EngineEvent::End { reason, text }) => {
                self.end = Some(reason.into());
                (!text.is_empty()).then_some(Token { text, id: None })
            }
            // The engine's thread is gone.
            None => {
                self.end = Some(EngineEnd::StepFailed.into());
                None
            }
        };
        if let Some(token) = &token {
            self.text.push_str(&token.text);
        }
        token
    }
}

impl Iterator for Answer {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        while self.end.is_none() {
            let event = self.events.blocking_next();
            if let Some(token) = self.take(event) {
                return Some(token);
            }
        }
        None
    }
}

impl FusedIterator for Answer {}

impl AnswerStream {
    /// The answer as far as it was read.
    #[must_use]
    pub fn answer(&self) -> &Answer {
        &self.answer
    }
}

impl Stream for AnswerStream {
    type Item = Token;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Token>> {
        self.answer.poll_token(context)
    }
}

#[cfg(test)]
mod tests;
