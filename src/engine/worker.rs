//! The engine's thread and the handle to it.
//!
//! One OS thread owns the device. Its loop: take commands in, plan, step, tell. The handle checks a request and counts it
//! against the queue's bound without asking the thread, so that a full queue answers at once. It knows no users and no
//! HTTP; whoever drops a [`Generation`] cancels it.
//!
//! **Architecture Invariant:** the thread never waits for a reader. A request's channel holds all its tokens, and what
//! only tells of progress is left out where a reader is far behind.

mod run;
mod step_times;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc as sync_mpsc,
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    backend::{Backend, SequenceId},
    end_tokens::EndTokens,
    kv::BLOCK_SIZE,
    request::{EngineEvent, GenerationRequest, SubmitError},
    stats::{EngineStats, Pulse},
    tokenizer::ChatTokenizer,
};

/// Limits and pace of the engine.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Most sequences computed at once.
    pub max_running: usize,
    /// Most requests taken beyond `max_running`. Where keys and values have no room for so many at once, more of those
    /// taken wait.
    pub max_waiting: usize,
    /// Most prompt tokens a step reads; `None` for what suits the backend.
    pub prefill_chunk: Option<usize>,
    /// Slowest pace of steps in milliseconds, for tests and demonstrations; 0 for none.
    pub min_step_ms: u64,
    /// Overwrite blocks that were given back with NaN, so that reading one shows; for tests.
    pub poison_freed_blocks: bool,
    /// No step counts as stalled before it has taken this long, however fast steps are.
    pub stall_floor: Duration,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            max_running: 32,
            max_waiting: 64,
            prefill_chunk: None,
            min_step_ms: 0,
            poison_freed_blocks: false,
            stall_floor: Duration::from_secs(30),
        }
    }
}

/// The way to the engine; cheap to clone. The thread ends when it is told to or the last handle and the last
/// [`Generation`] are gone.
#[derive(Debug, Clone)]
pub struct EngineHandle {
    commands: sync_mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

/// What handle and thread both see.
#[derive(Debug)]
struct Shared {
    stats: Arc<EngineStats>,
    /// Requests taken and not over.
    in_flight: AtomicUsize,
    next_sequence: AtomicU64,
    closed: AtomicBool,
    /// Cancelled when the thread is over, however that came.
    over: CancellationToken,
    /// What the device said when it was lost.
    lost: OnceLock<String>,
    started: Instant,
    limits: RequestLimits,
}

#[derive(Debug, Clone, Copy)]
struct RequestLimits {
    max_running: usize,
    max_waiting: usize,
    vocab_size: usize,
    max_tokens: usize,
}

#[derive(Debug)]
enum Command {
    Submit { sequence: SequenceId, request: GenerationRequest, events: mpsc::Sender<EngineEvent> },
    Cancel(SequenceId),
    ShutDown,
}

/// The events of one request. Dropping it cancels the request.
#[derive(Debug)]
pub struct Generation {
    events: mpsc::Receiver<EngineEvent>,
    cancel: Canceller,
}

/// Cancels one request, from wherever it is needed; cheap to clone.
#[derive(Debug, Clone)]
pub struct Canceller(Way);

/// How the end is asked for.
#[derive(Debug, Clone)]
enum Way {
    /// Of the thread.
    Command { sequence: SequenceId, commands: sync_mpsc::Sender<Command> },
    /// Of a task that asks an upstream.
    Token(CancellationToken),
}

/// Events beside the tokens that a channel has room for.
const PROGRESS_EVENTS: usize = 64;

impl EngineHandle {
    /// Starts the thread that owns `backend`. `end_tokens` end answers.
    #[must_use]
    pub fn spawn(
        backend: Box<dyn Backend>,
        tokenizer: Arc<ChatTokenizer>,
        end_tokens: impl Into<EndTokens>,
        options: EngineOptions,
    ) -> Self {
        let (commands, inbox) = sync_mpsc::channel();
        let spec = backend.spec();
        let shared = Arc::new(Shared {
            stats: Arc::new(EngineStats::default()),
            in_flight: AtomicUsize::new(0),
            next_sequence: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            over: CancellationToken::new(),
            lost: OnceLock::new(),
            started: Instant::now(),
            limits: RequestLimits {
                max_running: options.max_running,
                max_waiting: options.max_waiting,
                vocab_size: spec.vocab_size,
                max_tokens: spec.max_positions.min(spec.n_blocks * BLOCK_SIZE),
            },
        });
        shared.stats.kv_blocks_total.set(spec.n_blocks as u64);
        let thread = run::Thread::new(backend, tokenizer, end_tokens.into(), options, Arc::clone(&shared));
        let over = shared.over.clone().drop_guard();
        std::thread::Builder::new()
            .name("engine".into())
            .spawn(move || {
                // Dropped in the opposite order, also when the thread unwinds: the inbox before it is told that the thread is over, so
                // that nothing is asked for in vain after it, and the backend, whose device must not outlive the program's end.
                let (_over, mut thread, inbox) = (over, thread, inbox);
                thread.run(&inbox);
            })
            .expect("invariant: a program that has just started can start a thread");
        Self { commands, shared }
    }

    /// Asks for an answer.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing was begun then.
    pub fn submit(&self, request: GenerationRequest) -> Result<Generation, SubmitError> {
        self.shared.limits.check(&request)?;
        if self.shared.closed.load(Ordering::Acquire) {
            return Err(SubmitError::ShuttingDown);
        }
        self.shared.enter()?;
        let sequence = SequenceId(self.shared.next_sequence.fetch_add(1, Ordering::Relaxed));
        let room = request.sampling.max_new_tokens as usize + PROGRESS_EVENTS;
        let (sender, events) = mpsc::channel(room);
        let submit = Command::Submit { sequence, request, events: sender };
        if self.commands.send(submit).is_err() {
            self.shared.leave();
            return Err(SubmitError::ShuttingDown);
        }
        self.shared.stats.submitted.add(1);
        let way = Way::Command { sequence, commands: self.commands.clone() };
        Ok(Generation { events, cancel: Canceller(way) })
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> &Arc<EngineStats> {
        &self.shared.stats
    }

    /// Whether the thread is there and does its work: in a step that is not stalled, however long, or ticking between steps.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.shared.closed.load(Ordering::Acquire)
            && !self.shared.over.is_cancelled()
            && self.shared.stats.pulse(self.shared.now_ms()) == Pulse::Beating
    }

    /// Whether the present step has taken so much longer than such steps do that it may never end.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.shared.stats.pulse(self.shared.now_ms()) == Pulse::Stalled
    }

    /// Waits until the thread is over and says why; where nobody told it to end, nothing can be asked for any more.
    pub async fn over(&self) -> String {
        self.shared.over.cancelled().await;
        match self.shared.lost.get() {
            Some(why) => format!("the device is lost: {why}"),
            None if self.shared.closed.load(Ordering::Acquire) => "the engine was told to end".into(),
            None => "the engine's thread broke off; the lines above say where".into(),
        }
    }

    /// Ends all requests with [`super::request::EngineEnd::ShuttingDown`] and the thread with them.
    pub fn shut_down(&self) {
        self.shared.closed.store(true, Ordering::Release);
        // Where the thread is gone already there is nothing left to end.
        let _ = self.commands.send(Command::ShutDown);
    }
}

impl Generation {
    /// The events of a task that ends when the token is cancelled.
    pub(super) fn of_task(events: mpsc::Receiver<EngineEvent>, cancelled: CancellationToken) -> Self {
        Self { events, cancel: Canceller(Way::Token(cancelled)) }
    }

    /// The next event; `None` after the end.
    pub async fn next(&mut self) -> Option<EngineEvent> {
        self.events.recv().await
    }

    /// The same for whoever polls.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<EngineEvent>> {
        self.events.poll_recv(context)
    }

    /// The next event, for a thread that may block; `None` after the end.
    pub fn blocking_next(&mut self) -> Option<EngineEvent> {
        self.events.blocking_recv()
    }

    /// A way to cancel it from elsewhere.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        self.cancel.clone()
    }

    /// Asks for the end; the remaining events still come, [`EngineEvent::End`] among them.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Canceller {
    /// Cancels nothing, for tests without an engine.
    #[cfg(test)]
    pub(crate) fn of_nothing() -> Self {
        Self(Way::Token(CancellationToken::new()))
    }

    /// Asks for the end; nothing happens where it is over already.
    pub fn cancel(&self) {
        match &self.0 {
            // Where the thread is gone the request is over too.
            Way::Command { sequence, commands } => drop(commands.send(Command::Cancel(*sequence))),
            Way::Token(cancelled) => cancelled.cancel(),
        }
    }
}

impl Shared {
    /// Counts a request in, where the queue's bound allows it.
    fn enter(&self) -> Result<(), SubmitError> {
        let RequestLimits { max_running, max_waiting, .. } = self.limits;
        self.in_flight
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < max_running + max_waiting).then_some(n + 1))
            .map(|_| ())
            .map_err(|n| {
                self.stats.rejected.add(1);
                SubmitError::QueueFull { waiting: n.saturating_sub(max_running), limit: max_waiting }
            })
    }

    /// Since the engine's start.
    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

impl RequestLimits {
    fn check(&self, request: &GenerationRequest) -> Result<(), SubmitError> {
        let ids = || request.prompt_ids.iter().chain(request.continued_ids.iter());
        if request.prompt_ids.is_empty() {
            return Err(SubmitError::EmptyPrompt);
        }
        if let Some(id) = ids().find(|id| **id as usize >= self.vocab_size) {
            return Err(SubmitError::UnknownToken { id: *id, vocab_size: self.vocab_size });
        }
        let prompt = request.prompt_ids.len();
        let max_new = (request.sampling.max_new_tokens as usize).max(request.continued_ids.len());
        if prompt + max_new > self.max_tokens {
            return Err(SubmitError::TooLong { prompt, max_new, limit: self.max_tokens });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
