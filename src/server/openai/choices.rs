//! The answers that a request asks for, all of them in the engine's queue, their events as one stream.
//!
//! Knows no JSON. **Architecture Invariant:** dropped, it cancels whatever is not over.

use std::{collections::VecDeque, sync::Arc, time::Duration, time::Instant};

use futures::{StreamExt, stream::BoxStream, stream::SelectAll};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::error::ApiError;
use crate::{
    chat::{
        error::{ChatError, ErrorCode},
        event::EndReason,
    },
    engine::{
        remote::{RemoteEngine, RemoteRequest},
        request::{EngineEnd, EngineEvent, GenerationRequest, SubmitError},
        worker::{EngineHandle, Generation},
    },
    server::{
        metrics::{Source, Stopwatch},
        service::ask::submit_error,
        state::Server,
        watchdog::Abandoned,
    },
};

/// Most answers of one request that are in the queue at once.
const AT_ONCE: usize = 8;

/// Pause before a full queue is asked again for a request that has begun.
const QUEUE_PAUSE: Duration = Duration::from_millis(50);

/// What is asked of whom.
#[derive(Debug, Clone)]
pub(super) enum Request {
    /// Of the engine in this program.
    Local(EngineHandle, GenerationRequest),
    /// Of upstream servers.
    Upstream(RemoteEngine, RemoteRequest),
}

/// Answers on their way.
pub(super) struct Choices {
    server: Arc<Server>,
    arrived: Instant,
    waiting: VecDeque<(usize, Request)>,
    running: SelectAll<BoxStream<'static, (usize, EngineEvent)>>,
    /// Answers that the engine has taken on and whose end was not heard yet.
    n_open: usize,
    /// Whether one of them failed, or could not be asked for: what becomes of the others is not the client's doing.
    has_failed: bool,
    /// When the queue, which was full, is asked again.
    ask_again_at: Option<Instant>,
    abandoned: Abandoned,
    /// Whoever waits for the server's tasks to end waits for this.
    _task: TaskTrackerToken,
}

/// One answer that the engine has taken on.
struct Taken {
    index: usize,
    generation: Generation,
    stopwatch: Stopwatch,
    server: Arc<Server>,
    is_over: bool,
}

impl Choices {
    /// Asks the engine for the first of these; the others follow as those end, or as there is room in the queue.
    ///
    /// # Errors
    /// Where the queue has room for none of them or the server goes down.
    pub(super) fn begin(server: &Arc<Server>, requests: Vec<Request>, arrived: Instant) -> Result<Self, ApiError> {
        let task = server.tasks.token();
        let abandoned = server.abandon.listen();
        server.ready()?;
        let mut choices = Self {
            server: server.clone(),
            arrived,
            waiting: requests.into_iter().enumerate().collect(),
            running: SelectAll::new(),
            n_open: 0,
            has_failed: false,
            ask_again_at: None,
            abandoned,
            _task: task,
        };
        match choices.fill() {
            // Where one of them has its place the others have time.
            Err(error) if choices.n_open == 0 || !matches!(error, SubmitError::QueueFull { .. }) => {
                Err(choices.fail(submit_error(error)))
            }
            Ok(()) | Err(_) => Ok(choices),
        }
    }

    /// What happens next, and to which of the answers; `None` when all are over.
    ///
    /// # Errors
    /// Where the engine failed: nothing comes after that.
    pub(super) async fn next(&mut self) -> Option<Result<(usize, EngineEvent), ApiError>> {
        loop {
            if self.running.is_empty()
                && let Some(at) = self.ask_again_at
            {
                tokio::time::sleep_until(at.into()).await;
            }
            match self.fill() {
                Err(SubmitError::QueueFull { .. }) if self.running.is_empty() => continue,
                Ok(()) | Err(SubmitError::QueueFull { .. }) => {}
                Err(error) => return Some(Err(self.fail(submit_error(error)))),
            }
            tokio::select! {
                // What the engine has said already comes first.
                biased;
                event = self.running.next() => match event {
                    // Those that ran are over; others may wait.
                    None if !self.waiting.is_empty() => {}
                    None => return None,
                    Some(event) => {
                        self.note(&event.1);
                        return Some(Ok(event));
                    }
                },
                reason = self.abandoned.told() => return Some(Err(self.fail(failure(reason)))),
            }
        }
    }

    fn note(&mut self, event: &EngineEvent) {
        if let EngineEvent::End { reason, .. } = event {
            self.n_open -= 1;
            let reason = EndReason::from(*reason);
            self.has_failed |= matches!(reason, EndReason::Failed { .. } | EndReason::Interrupted);
        }
    }

    fn fail(&mut self, error: ChatError) -> ApiError {
        self.has_failed = true;
        error.into()
    }

    /// Asks the engine for as many of those that wait as it takes on, unless it said a moment ago that it takes none.
    fn fill(&mut self) -> Result<(), SubmitError> {
        if self.ask_again_at.is_some_and(|at| Instant::now() < at) {
            return Ok(());
        }
        self.ask_again_at = None;
        while self.running.len() < AT_ONCE && !self.waiting.is_empty() {
            self.submit().inspect_err(|_| self.ask_again_at = Some(Instant::now() + QUEUE_PAUSE))?;
        }
        Ok(())
    }

    fn submit(&mut self) -> Result<(), SubmitError> {
        let Some((index, request)) = self.waiting.pop_front() else { return Ok(()) };
        let submitted = match &request {
            Request::Local(engine, request) => engine.submit(request.clone()),
            Request::Upstream(upstream, request) => upstream.submit(request.clone()),
        };
        match submitted {
            Ok(generation) => {
                let stopwatch = Stopwatch::new(self.arrived);
                let taken = Taken { index, generation, stopwatch, server: self.server.clone(), is_over: false };
                self.running.push(taken.events());
                self.n_open += 1;
                Ok(())
            }
            Err(error) => {
                self.waiting.push_front((index, request));
                Err(error)
            }
        }
    }
}

impl Taken {
    fn events(self) -> BoxStream<'static, (usize, EngineEvent)> {
        futures::stream::unfold(self, async |mut taken| {
            if taken.is_over {
                return None;
            }
            // Where the thread broke off there is no end, and nothing more to come.
            let lost = EngineEvent::End { reason: EngineEnd::StepFailed, text: String::new() };
            let event = taken.generation.next().await.unwrap_or(lost);
            taken.note(&event);
            Some(((taken.index, event), taken))
        })
        .boxed()
    }

    fn note(&mut self, event: &EngineEvent) {
        let metrics = &self.server.metrics;
        self.stopwatch.note(event, metrics);
        if let EngineEvent::End { reason, .. } = event {
            self.is_over = true;
            metrics.ended(Source::Api, EndReason::from(*reason));
        }
    }
}

impl Drop for Choices {
    fn drop(&mut self) {
        for _ in 0..self.n_open {
            self.server.metrics.given_up(self.has_failed);
        }
    }
}

/// What is told where an answer does not come to an end of its own.
pub(super) fn failure(reason: EndReason) -> ChatError {
    let told = |code, message: &str| ChatError::new(code, message).retry_after(5);
    match reason {
        EndReason::Failed { code: ErrorCode::NotANumber } => {
            ChatError::new(ErrorCode::NotANumber, "the model gave numbers that are none; its weights may be damaged")
        }
        EndReason::Failed { code: ErrorCode::EngineStalled } => {
            told(ErrorCode::EngineStalled, "a step of the engine takes far longer than steps do")
        }
        EndReason::Failed { code: ErrorCode::UpstreamUnreachable } => {
            told(ErrorCode::UpstreamUnreachable, "no upstream server could be reached, or all had too much to do")
        }
        EndReason::Failed { code: ErrorCode::UpstreamRefused } => {
            ChatError::new(ErrorCode::UpstreamRefused, "the upstream server refused the request")
        }
        EndReason::Failed { code: ErrorCode::UpstreamRejected } => ChatError::new(
            ErrorCode::UpstreamRejected,
            "the upstream server does not take the request as it is; its own log says why",
        ),
        EndReason::Failed { code: ErrorCode::UpstreamBroke } => {
            told(ErrorCode::UpstreamBroke, "the upstream server failed or broke off in the middle of the answer")
        }
        EndReason::Failed { code: ErrorCode::PromptTooLong } => ChatError::new(
            ErrorCode::PromptTooLong,
            "the prompt does not fit the upstream server's context beside the answer, expected less of either",
        ),
        EndReason::Failed { code } => told(code, "a step of the engine failed, and the answer with it; ask again"),
        EndReason::Interrupted | EndReason::Stopped => told(ErrorCode::ShuttingDown, "the server is shutting down"),
        EndReason::EndOfText | EndReason::Length | EndReason::StopString => {
            ChatError::new(ErrorCode::Internal, "the answer is over")
        }
    }
}
