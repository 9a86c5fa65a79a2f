//! The engine's thread and the handle to it.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{
    backend::Backend,
    request::{EngineEvent, GenerationRequest, SubmitError},
    stats::EngineStats,
    tokenizer::ChatTokenizer,
};

/// Limits and pace of the engine.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Most sequences computed at once.
    pub max_running: usize,
    /// Most requests that wait.
    pub max_waiting: usize,
    /// Most prompt tokens a step reads while others decode.
    pub prefill_chunk: usize,
    /// Slowest pace of steps in milliseconds, for tests and demonstrations; 0 for none.
    pub min_step_ms: u64,
}

/// The way to the engine; cheap to clone.
#[derive(Debug, Clone)]
pub struct EngineHandle {
    stats: Arc<EngineStats>,
}

/// The events of one request. Dropping it cancels the request.
#[derive(Debug)]
pub struct Generation {
    events: mpsc::Receiver<EngineEvent>,
}

impl EngineHandle {
    /// Starts the thread that owns `backend`. `eos_token_id` ends answers.
    #[must_use]
    pub fn spawn(
        backend: Box<dyn Backend>,
        tokenizer: Arc<ChatTokenizer>,
        eos_token_id: u32,
        options: EngineOptions,
    ) -> Self {
        let _ = (backend.spec(), tokenizer, eos_token_id, options);
        todo!()
    }

    /// Asks for an answer.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing was begun then.
    pub fn submit(&self, request: GenerationRequest) -> Result<Generation, SubmitError> {
        todo!("{request:?}")
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> &Arc<EngineStats> {
        &self.stats
    }

    /// Whether the thread has shown a sign of life within the last five seconds.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        todo!()
    }

    /// Ends all requests with [`super::request::EngineEnd::ShuttingDown`] and the thread with them.
    pub fn shut_down(&self) {
        todo!()
    }
}

impl Generation {
    /// The next event; `None` after the end.
    pub async fn next(&mut self) -> Option<EngineEvent> {
        self.events.recv().await
    }

    /// Asks for the end; the remaining events still come, [`EngineEvent::End`] among them.
    pub fn cancel(&self) {
        todo!()
    }
}
