//! One request on its way: it waits for its turn, is sent to an upstream, to another one where that fails, and tells what comes.
//!
//! Owned by the runtime's task that runs it. **Architecture Invariant:** once a token was told nothing is sent again; and exactly
//! one end is told, last.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    RemoteRequest, Shared,
    body::LeftOut,
    chunk::{Finish, Length, Part, Said, Usage},
    failure::{Again, Failure},
    pool::Lease,
    queue::Ticket,
};
use crate::engine::request::{EngineEnd, EngineEvent};

/// More bytes than a token has: an answer of more than so many for each that was allowed is none.
const MAX_TOKEN_BYTES: usize = 256;

/// What the task owns.
#[derive(Debug)]
pub(super) struct Task {
    shared: Arc<Shared>,
    request: RemoteRequest,
    events: mpsc::Sender<EngineEvent>,
    ticket: Ticket,
    /// Whether a token was told.
    has_begun: bool,
    n_bytes: usize,
    n_tokens: u32,
    usage: Option<Usage>,
    left_out: LeftOut,
    /// Rounds that the upstream left out.
    n_dropped_there: u32,
}

impl Task {
    /// A request that has its place in the queue.
    pub(super) fn new(
        shared: Arc<Shared>,
        request: RemoteRequest,
        events: mpsc::Sender<EngineEvent>,
        ticket: Ticket,
    ) -> Self {
        let left_out = LeftOut { rounds: 0, system: false };
        Self {
            shared,
            request,
            events,
            ticket,
            has_begun: false,
            n_bytes: 0,
            n_tokens: 0,
            usage: None,
            left_out,
            n_dropped_there: 0,
        }
    }

    /// Goes to its end, or until it is cancelled.
    pub(super) async fn run(mut self, cancelled: CancellationToken) {
        let closed = self.shared.closed.clone();
        let reason = tokio::select! {
            biased;
            () = cancelled.cancelled() => EngineEnd::Cancelled,
            () = closed.cancelled() => EngineEnd::ShuttingDown,
            end = self.work() => end,
        };
        self.count(reason);
        let Self { events, ticket, usage, left_out, n_dropped_there, .. } = self;
        let rounds = left_out.rounds + n_dropped_there;
        // Whoever knows the end finds the place free.
        drop(ticket);
        let left_out =
            (rounds > 0 || left_out.system).then_some(EngineEvent::LeftOut { rounds, system: left_out.system });
        let counted = usage.map(|usage| EngineEvent::Counted {
            prompt: usage.prompt_tokens,
            reused: usage.reused_tokens(),
            generated: usage.completion_tokens,
        });
        let end = EngineEvent::End { reason, text: String::new() };
        for event in left_out.into_iter().chain(counted).chain([end]) {
            // A reader that is gone needs no end.
            let _ = events.send(event).await;
        }
    }

    async fn work(&mut self) -> EngineEnd {
        let events = self.events.clone();
        // Progress that a reader has no room for is left out.
        let queued = |place| drop(events.try_send(EngineEvent::Queued { place }));
        self.ticket.turn(queued).await;
        drop(self.events.try_send(EngineEvent::Prefilled { done: 0, total: 0, reused: 0 }));
        loop {
            match self.tries().await {
                Ok(end) => return end,
                Err(Failure::TooLong) if !self.has_begun => {
                    let shorter = self.request.shorter(self.shared.context_length(), self.left_out);
                    let Some((request, left_out)) = shorter else { return EngineEnd::UpstreamTooLong };
                    (self.request, self.left_out) = (request, left_out);
                }
                Err(failure) => return failure.end(),
            }
        }
    }

    /// Asks one upstream after another, until one begins to answer or nothing is to be hoped for.
    async fn tries(&mut self) -> Result<EngineEnd, Failure> {
        let shared = self.shared.clone();
        let patience = shared.patience;
        let mut tried = vec![0; shared.pool.addresses().len()];
        let mut pause = patience.first_pause;
        for n in 1.. {
            let lease = shared.pool.lease(&tried);
            let failure = match self.once(&shared, &lease).await {
                Ok(end) => return Ok(end),
                Err(failure) => failure,
            };
            let at = lease.at;
            drop(lease);
            if let Some(tried) = tried.get_mut(at) {
                *tried += 1;
            }
            if failure.is_illness() {
                shared.pool.failed(at);
            }
            let has_fresh = shared.pool.has_fresh(&tried);
            let is_tried_again = !self.has_begun
                && n < patience.tries
                && match failure.again() {
                    Again::Anywhere => true,
                    Again::Elsewhere => has_fresh,
                    Again::Nowhere => false,
                };
            if failure != Failure::TooLong {
                let upstream = shared.pool.address(at);
                tracing::warn!(%upstream, %failure, is_tried_again, "an upstream server gave no answer");
            }
            if !is_tried_again {
                return Err(failure);
            }
            if !has_fresh {
                sleep(jittered(pause).max(failure.retry_after().min(patience.longest_pause))).await;
                pause = (2 * pause).min(patience.longest_pause);
            }
        }
        // So many numbers do not come.
        Err(Failure::Silent)
    }

    async fn once(&mut self, shared: &Shared, lease: &Lease<'_>) -> Result<EngineEnd, Failure> {
        let patience = shared.patience;
        let mut until = Instant::now() + patience.first_token;
        let asked = shared.transport.ask(shared.pool.address(lease.at), &self.request, &lease.model);
        let mut events = tokio::time::timeout_at(until, asked).await.map_err(|_| Failure::Silent)??;
        let mut finish = None;
        loop {
            let missed = if self.has_begun { Failure::Hung } else { Failure::Silent };
            match (events.next(until, &missed).await, finish) {
                (Ok(Some(Said::Part(part))), _) => {
                    let is_progress = part.is_progress();
                    let ended = self.take(part).await?;
                    // What is not part of the answer, such as a comment that says it is still there, gains no time.
                    until = match (ended, finish) {
                        (Some(_), None) => Instant::now() + patience.after_finish,
                        (None, None) if is_progress => Instant::now() + patience.between,
                        (_, Some(_)) | (None, None) => until,
                    };
                    finish = ended.or(finish);
                }
                // It is over, whatever still goes wrong.
                (_, Some(Finish::Ended(end))) => return Ok(end),
                // Some leave the reason out; whoever leaves the text out too has given no answer.
                (Ok(Some(Said::Done)), None) if self.has_begun => return Ok(EngineEnd::EndOfText),
                (_, Some(Finish::Aborted)) | (Ok(None | Some(Said::Done)), None) => return Err(Failure::Cut),
                (Ok(Some(Said::Error(said))), None) => {
                    let is_worded = said.length == Length::Worded;
                    let status = said.status.unwrap_or(if is_worded { 400 } else { 500 });
                    return Err(Failure::of_status(status, said, None));
                }
                (Ok(Some(Said::Rubbish(what))), None) => return Err(Failure::Rubbish(what)),
                (Err(failure), None) => return Err(failure),
            }
        }
    }

    /// Tells a part of the answer; why it ended, where that is said.
    async fn take(&mut self, part: Part) -> Result<Option<Finish>, Failure> {
        let Part { text, logprobs, finish, usage, dropped_rounds } = part;
        self.usage = usage.or(self.usage);
        // It may be said with each part.
        self.n_dropped_there = self.n_dropped_there.max(dropped_rounds);
        if text.is_empty() && logprobs.is_empty() {
            return Ok(finish);
        }
        self.n_bytes += text.len();
        if self.n_bytes > MAX_TOKEN_BYTES * self.request.sampling.max_new_tokens as usize {
            return Err(Failure::Rubbish("more text than the tokens that it was asked for have"));
        }
        let n_tokens = logprobs.len().max(1) as u32;
        self.n_tokens += n_tokens;
        self.shared.stats.generated_tokens.add(n_tokens.into());
        self.has_begun = true;
        // A reader that is gone has cancelled the request.
        let _ = self.events.send(EngineEvent::Text { text, n_tokens, logprobs }).await;
        Ok(finish)
    }

    fn count(&self, reason: EngineEnd) {
        let stats = &self.shared.stats;
        if let Some(usage) = self.usage {
            // What came without text of its own, such as a part of a character.
            stats.generated_tokens.add(usage.completion_tokens.saturating_sub(self.n_tokens).into());
            stats.prefill_tokens.add(usage.prompt_tokens.saturating_sub(usage.reused_tokens()).into());
            stats.reused_tokens.add(usage.reused_tokens().into());
        }
        match reason {
            EngineEnd::Cancelled => stats.cancelled.add(1),
            EngineEnd::UpstreamUnreachable | EngineEnd::UpstreamRefused | EngineEnd::UpstreamBroke => {
                stats.failures.add(1);
            }
            EngineEnd::EndOfText
            | EngineEnd::Length
            | EngineEnd::StopString
            | EngineEnd::NotANumber
            | EngineEnd::StepFailed
            | EngineEnd::UpstreamTooLong
            | EngineEnd::UpstreamRejected
            | EngineEnd::ShuttingDown => {}
        }
    }
}

/// Half of the pause to all of it, so that requests that failed together do not come back together.
fn jittered(pause: Duration) -> Duration {
    let random = f64::from(uuid::Uuid::new_v4().as_u128() as u32) / f64::from(u32::MAX);
    pause.mul_f64(0.5 + 0.5 * random)
}
