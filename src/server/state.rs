//! What requests share: one value, given to the router and found in its context by the commands.
//!
//! Owns the engine once it is loaded, the library and the generations. It carries nothing out itself.

use std::{
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
};

use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    clock,
    config::Limits,
    generations::Generations,
    generator::Generator,
    library::Library,
    metrics::ServerMetrics,
    rates::{RateLimiter, Slots},
    service::once::Commands,
    session::Owners,
    watchdog::Abandon,
};
use crate::{
    chat::{
        error::{ChatError, ErrorCode},
        info::{EngineStatus, ModelInfo},
    },
    engine::fingerprint::Fingerprint,
    storage::{database::Storage, record::Owner},
};

/// Prompts that are made at once: tokenising long texts takes a core each.
const PROMPTS_AT_ONCE: usize = 2;

/// The server's state.
#[derive(Debug)]
pub struct Server {
    /// Of the page.
    pub title: String,
    /// When it began, in milliseconds since 1970.
    pub started_ms: u64,
    /// Bounds.
    pub limits: Arc<Limits>,
    /// Conversations.
    pub library: Arc<Library>,
    /// Generations, running and just over.
    pub generations: Generations,
    /// Owners of the cookies that were seen lately.
    pub owners: Owners,
    /// How often each owner asks for an answer.
    pub asked: RateLimiter<Owner>,
    /// How often each owner asks for anything.
    pub requests: RateLimiter<Owner>,
    /// How often newcomers come from each address of another machine.
    pub newcomers: RateLimiter<IpAddr>,
    /// How many answers each owner has written at once.
    pub answers: Slots<Owner>,
    /// What the server counts.
    pub metrics: ServerMetrics,
    /// Commands that have been carried out.
    pub commands: Commands,
    /// Room for prompts being made.
    pub prompts: Semaphore,
    /// The generations' tasks.
    pub tasks: TaskTracker,
    /// Cancelled when the server goes down: nothing new is begun then.
    pub draining: CancellationToken,
    /// Ends answers that the engine does not end.
    pub abandon: Abandon,
    engine: RwLock<Engine>,
}

#[derive(Debug)]
enum Engine {
    Loading,
    Ready(Arc<Ready>),
    Unavailable(String),
}

/// A model that takes requests.
#[derive(Debug)]
pub struct Ready {
    /// What generates.
    pub engine: Generator,
    /// What is said of it.
    pub model: ModelInfo,
    /// Which checkpoint it is, or which upstream servers' model.
    pub fingerprint: Fingerprint,
}

impl Server {
    /// A server over this storage, whose model is still being loaded.
    #[must_use]
    pub fn new(title: String, limits: Limits, storage: Storage) -> Arc<Self> {
        Arc::new(Self {
            title,
            started_ms: clock::now_ms(),
            library: Arc::new(Library::new(storage, limits.conversations_per_owner)),
            asked: RateLimiter::new(limits.answers),
            requests: RateLimiter::new(limits.requests),
            newcomers: RateLimiter::new(limits.newcomers),
            answers: Slots::new(limits.answers_per_owner),
            limits: Arc::new(limits),
            owners: Owners::default(),
            generations: Generations::default(),
            metrics: ServerMetrics::default(),
            commands: Commands::default(),
            prompts: Semaphore::new(PROMPTS_AT_ONCE),
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
            abandon: Abandon::default(),
            engine: RwLock::new(Engine::Loading),
        })
    }

    /// The model has been loaded. Its longest answer is from here on no longer than the limits allow.
    pub fn set_ready(&self, mut ready: Ready) {
        ready.model.longest_answer = ready.model.longest_answer.min(self.limits.max_new_tokens);
        *self.engine.write().unwrap_or_else(PoisonError::into_inner) = Engine::Ready(Arc::new(ready));
    }

    /// There will be no model, for a reason in one sentence.
    pub fn set_unavailable(&self, reason: impl Into<String>) {
        *self.engine.write().unwrap_or_else(PoisonError::into_inner) = Engine::Unavailable(reason.into());
    }

    /// The model, where it has been loaded, also while the server goes down.
    #[must_use]
    pub fn loaded(&self) -> Option<Arc<Ready>> {
        match &*self.engine.read().unwrap_or_else(PoisonError::into_inner) {
            Engine::Ready(ready) => Some(ready.clone()),
            Engine::Loading | Engine::Unavailable(_) => None,
        }
    }

    /// The model, where it takes requests. One that is busy with a long step takes them too, and they wait.
    ///
    /// # Errors
    /// [`ErrorCode::ModelLoading`], [`ErrorCode::ShuttingDown`], [`ErrorCode::EngineStalled`] or
    /// [`ErrorCode::UpstreamUnreachable`], each with a time.
    pub fn ready(&self) -> Result<Arc<Ready>, ChatError> {
        if self.draining.is_cancelled() {
            return Err(ChatError::new(ErrorCode::ShuttingDown, "the server is shutting down").retry_after(10));
        }
        match &*self.engine.read().unwrap_or_else(PoisonError::into_inner) {
            Engine::Ready(ready) => ready.engine.check().map(|()| ready.clone()),
            Engine::Loading => {
                Err(ChatError::new(ErrorCode::ModelLoading, "the model is still being loaded").retry_after(2))
            }
            Engine::Unavailable(reason) => Err(ChatError::new(ErrorCode::ModelLoading, reason.clone()).retry_after(60)),
        }
    }

    /// What the page says about the engine.
    #[must_use]
    pub fn engine_status(&self) -> EngineStatus {
        match self.ready() {
            Ok(ready) => {
                let stats = ready.engine.stats();
                let (running, waiting) = (stats.running.get() as u32, stats.waiting.get() as u32);
                EngineStatus::Ready { model: ready.model.clone(), running, waiting }
            }
            Err(_) if self.is_loading() => EngineStatus::Loading,
            Err(error) => EngineStatus::Unavailable { message: error.message },
        }
    }

    fn is_loading(&self) -> bool {
        !self.draining.is_cancelled()
            && matches!(*self.engine.read().unwrap_or_else(PoisonError::into_inner), Engine::Loading)
    }
}
