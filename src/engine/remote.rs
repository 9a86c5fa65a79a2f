//! Upstream servers: an OpenAI-compatible server generates instead of this program's own engine.
//!
//! To whoever asks it is an engine like the other: the same queue, the same events, the same way to cancel. What it does not
//! have are token ids: its text comes as [`super::request::EngineEvent::Text`]. It knows no users and no conversations.
//!
//! **Architecture Invariant:** each request is one task, and dropping its [`Generation`] closes the connection; each gets exactly
//! one end.

pub mod address;
pub mod body;
pub mod pool;

mod chunk;
mod failure;
mod logprobs;
mod models;
mod queue;
mod sse;
mod task;
mod transport;

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures::future::join_all;
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
    time::interval,
};
use tokio_util::sync::CancellationToken;

use self::{
    address::{Address, Key},
    body::RemotePrompt,
    models::Found,
    pool::{Health, Pool, Standing},
    queue::Queue,
    task::Task,
    transport::Transport,
};
use super::{fingerprint::Fingerprint, request::SubmitError, stats::EngineStats, worker::Generation};
use crate::chat::{
    info::{ModelInfo, PromptFormat},
    settings::Sampling,
};

/// Which upstreams, and how many requests.
#[derive(Debug, Clone)]
pub struct RemoteOptions {
    /// Where they are, at least one.
    pub addresses: Vec<Address>,
    /// What they ask for.
    pub key: Option<Key>,
    /// Most requests at the upstreams at once, all together.
    pub max_running: usize,
    /// Most requests that wait beyond those.
    pub max_waiting: usize,
    /// How long what may take.
    pub patience: Patience,
}

/// How long upstreams are waited for, and how often they are asked again.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a connection. Within a data centre it takes milliseconds.
    pub connect: Duration,
    /// For the first token. A full queue or a long prompt over there takes minutes at worst.
    pub first_token: Duration,
    /// For more of an answer in its middle, where tokens come many a second.
    pub between: Duration,
    /// For what comes after the answer's end: counts, and the stream's own end.
    pub after_finish: Duration,
    /// How often each request is sent at most.
    pub tries: u32,
    /// Before the second try; twice as long before each one after it.
    pub first_pause: Duration,
    /// The longest pause, whatever an upstream asks for.
    pub longest_pause: Duration,
    /// How often each upstream is checked.
    pub check_every: Duration,
    /// For the answer to a check.
    pub check_time: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            first_token: Duration::from_mins(5),
            between: Duration::from_mins(1),
            after_finish: Duration::from_secs(2),
            tries: 5,
            first_pause: Duration::from_millis(250),
            longest_pause: Duration::from_secs(10),
            check_every: Duration::from_secs(2),
            check_time: Duration::from_secs(2),
        }
    }
}

/// One answer to be asked for.
#[derive(Debug, Clone)]
pub struct RemoteRequest {
    /// What is to be answered.
    pub prompt: RemotePrompt,
    /// How to draw.
    pub sampling: Sampling,
    /// Whether somebody asked for that many tokens. Where nobody did, a text is gone on with by as many as fit.
    pub is_bounded: bool,
    /// Seeds the draws; what that means is for the upstream to say.
    pub seed: u64,
    /// Whether the end token does not end the answer.
    pub ignore_eos: bool,
    /// Texts that end the answer; not part of it.
    pub stop: Vec<String>,
    /// With each token its log-probability and those of so many of the likeliest ones.
    pub logprobs: Option<u32>,
}

/// Why upstreams cannot be asked at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// The client cannot be made.
    #[error(
        "upstream servers cannot be asked: {0}; expected certificates that this machine trusts\nhint: install them (on Debian, ca-certificates), or use an address with http://"
    )]
    Client(String),
}

/// The way to the upstreams; cheap to clone. Requests end when it is shut down.
#[derive(Debug, Clone)]
pub struct RemoteEngine {
    shared: Arc<Shared>,
}

/// What the handle and the tasks both see.
#[derive(Debug)]
struct Shared {
    transport: Transport,
    pool: Pool,
    queue: Arc<Queue>,
    stats: Arc<EngineStats>,
    patience: Patience,
    closed: CancellationToken,
    /// As the page is told; `None` before anything is known.
    model: watch::Sender<Option<ModelInfo>>,
    runtime: Handle,
}

/// Events that a request's channel has room for; whoever sends more waits for the reader.
const ROOM: usize = 256;

impl RemoteEngine {
    /// Makes ready to ask these upstreams; none of them is asked yet. Call it within a runtime.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn open(options: RemoteOptions) -> Result<Self, RemoteError> {
        let transport = Transport::new(&options)?;
        let stats = Arc::<EngineStats>::default();
        let shared = Arc::new(Shared {
            transport,
            pool: Pool::new(options.addresses),
            queue: Queue::new(options.max_running, options.max_waiting, stats.clone()),
            stats,
            patience: options.patience,
            closed: CancellationToken::new(),
            model: watch::Sender::new(None),
            runtime: Handle::current(),
        });
        Ok(Self { shared })
    }

    /// Waits until at least one upstream has answered, however long that takes, and checks all of them from then on. `tell`
    /// hears what is waited for, whenever that changes.
    pub async fn connect(
        &self,
        prompt_format: PromptFormat,
        defaults: Sampling,
        mut tell: impl FnMut(&str),
    ) -> ModelInfo {
        let mut told = String::new();
        let mut ticks = interval(self.shared.patience.check_every);
        let info = move |found: &[Found]| models::info(found, prompt_format, defaults);
        let model = loop {
            ticks.tick().await;
            let problems = self.shared.check().await;
            let known = self.shared.pool.known();
            if !known.is_empty() {
                break info(&known);
            }
            let waiting = format!("waiting for an upstream server: {}", problems.join("; "));
            if waiting != told {
                tell(&waiting);
                told = waiting;
            }
        };
        self.shared.model.send_replace(Some(model.clone()));
        let (shared, closed) = (Arc::downgrade(&self.shared), self.shared.closed.clone());
        self.shared.runtime.spawn(keep_checking(shared, closed, info));
        model
    }

    /// Waits until the upstreams say something else of their model than this, as after a start with another context.
    pub async fn other_model(&self, than: &ModelInfo) -> ModelInfo {
        let mut model = self.shared.model.subscribe();
        let other = model.wait_for(|model| model.as_ref().is_some_and(|model| model != than)).await;
        match other.ok().and_then(|model| model.clone()) {
            Some(other) => other,
            // What tells it lives as long as this does.
            None => std::future::pending().await,
        }
    }

    /// Asks for an answer.
    ///
    /// # Errors
    /// [`SubmitError::QueueFull`] or [`SubmitError::ShuttingDown`]; nothing was begun then.
    pub fn submit(&self, request: RemoteRequest) -> Result<Generation, SubmitError> {
        if self.shared.closed.is_cancelled() {
            return Err(SubmitError::ShuttingDown);
        }
        let ticket = self.shared.queue.enter()?;
        self.shared.stats.submitted.add(1);
        let (sender, events) = mpsc::channel(ROOM);
        let cancelled = CancellationToken::new();
        let task = Task::new(self.shared.clone(), request, sender, ticket);
        self.shared.runtime.spawn(task.run(cancelled.clone()));
        Ok(Generation::of_task(events, cancelled))
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> &Arc<EngineStats> {
        &self.shared.stats
    }

    /// Whether it is worth asking: it was not told to end, and not all upstreams are down.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.shared.closed.is_cancelled() && !self.is_down()
    }

    /// Whether no upstream answers any more, not to checks either.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.shared.pool.best() == Health::Down
    }

    /// Waits until it is told to end.
    pub async fn over(&self) -> String {
        self.shared.closed.cancelled().await;
        "the engine was told to end".to_owned()
    }

    /// Ends all requests with [`super::request::EngineEnd::ShuttingDown`].
    pub fn shut_down(&self) {
        self.shared.closed.cancel();
    }

    /// Where the upstreams are.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        self.shared.pool.addresses()
    }

    /// How each upstream stands, in the order in which they were named.
    #[must_use]
    pub fn standings(&self) -> Vec<Standing> {
        self.shared.pool.standings()
    }

    /// What tells these upstreams with this model from others.
    #[must_use]
    pub fn fingerprint(&self, model: &str) -> Fingerprint {
        let addresses: Vec<String> = self.addresses().iter().map(ToString::to_string).collect();
        Fingerprint::of_upstreams(model, &addresses)
    }
}

impl Shared {
    fn context_length(&self) -> u32 {
        self.model.borrow().as_ref().map_or(0, |model| model.context_length)
    }

    /// Takes over what the upstreams say of their model now.
    fn take_over(&self, now: ModelInfo) {
        let context_length = now.context_length;
        let is_other = self.model.send_if_modified(|model| {
            let is_other = model.as_ref() != Some(&now);
            *model = Some(now);
            is_other
        });
        if is_other {
            tracing::warn!(context_length, "the upstream servers say something else of their model than before");
        }
    }

    /// Checks all upstreams at once; what is wrong with those that are not well.
    async fn check(&self) -> Vec<String> {
        let checks = self.pool.addresses().iter().enumerate().map(|(at, address)| async move {
            let found = self.transport.found(address).await;
            let problem = found.as_ref().err().map(ToString::to_string);
            self.note(at, address, found.ok(), problem.as_deref());
            problem.map(|problem| format!("{address}, {problem}"))
        });
        join_all(checks).await.into_iter().flatten().collect()
    }

    fn note(&self, at: usize, upstream: &Address, found: Option<Found>, problem: Option<&str>) {
        let problem = problem.unwrap_or_default();
        match self.pool.checked(at, found) {
            (Health::Doubtful | Health::Down, Health::Well) => tracing::info!(%upstream, "an upstream server answers"),
            (Health::Well, Health::Doubtful) => tracing::warn!(%upstream, problem, "an upstream server failed a check"),
            (Health::Doubtful, Health::Down) => tracing::error!(%upstream, problem, "an upstream server is down"),
            _ => {}
        }
    }
}

/// Checks all upstreams now and then, as long as there is anybody who could ask them, and takes over what they say.
async fn keep_checking(shared: Weak<Shared>, closed: CancellationToken, info: impl Fn(&[Found]) -> ModelInfo) {
    let Some(every) = shared.upgrade().map(|shared| shared.patience.check_every) else { return };
    let mut ticks = interval(every);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = closed.cancelled() => return,
        }
        let Some(shared) = shared.upgrade() else { return };
        shared.check().await;
        shared.take_over(info(&shared.pool.known()));
    }
}
