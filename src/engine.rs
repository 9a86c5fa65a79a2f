//! The engine: token ids in, token ids and text out.
//!
//! One OS thread owns the device; around it are pure parts that need none. Or an upstream server generates (`remote`), which is the
//! one part that knows HTTP. It knows no users and no storage.
//! [`Engine`] puts them together for programs that use this crate as a library: a model is loaded once, and conversations
//! are turned into answers that come token by token. The server goes the same way step by step, since it keeps what lies
//! between the steps.
//! **Architecture Invariant:** tensors exist only below this module.

pub mod answer;
pub mod backend;
pub mod bench;
pub mod block_format;
pub mod checkpoint;
pub mod config;
pub mod convert;
pub mod copies;
pub mod detokenizer;
pub mod end_tokens;
pub mod fingerprint;
pub mod format;
pub mod generation_config;
pub mod kv;
pub mod kv_type;
pub mod load;
pub mod logits;
pub mod mean;
pub mod memory;
pub mod model_name;
pub mod offsets;
pub mod perplexity;
pub mod precision;
pub mod prompt;
pub mod reading;
mod regular_file;
pub mod remote;
pub mod request;
pub mod room;
pub mod same_file;
pub mod sampling;
pub mod scheduler;
mod small_file;
pub mod stats;
pub mod stop;
pub mod target;
pub mod tokenizer;
pub mod weights;
pub mod worker;

use std::{sync::Arc, time::Instant};

use self::{
    answer::Answer,
    load::{LoadError, LoadOptions},
    prompt::{PromptBuilder, PromptError, Turn},
    request::{CacheScope, GenerationRequest, LogprobsRequest, SubmitError},
    worker::{EngineHandle, EngineOptions},
};
use crate::chat::{
    ids::ConversationId,
    info::ModelInfo,
    message::{AnswerStats, Role},
    settings::{OutOfRange, Settings},
};

/// A model that has been loaded and answers.
///
/// Cheap to clone; clones share the model, and what they ask at the same time is computed together, which changes no answer.
/// The model is given up when the last clone and the last [`Answer`] are dropped.
///
/// ```
/// use xverse_chat::{
///     chat::settings::Settings,
///     engine::{ChatOptions, Engine, EngineError, prompt::Turn},
/// };
///
/// # fn main() -> Result<(), EngineError> {
/// let engine = Engine::load("models/xverse-mini")?;
/// let settings = Settings { temperature: Some(0.0), max_new_tokens: Some(40), ..Settings::default() };
/// let options = ChatOptions { settings, stop: vec!["\n".into()], ..ChatOptions::conversation() };
/// let mut turns = vec![Turn::user("你好")];
/// let mut answer = engine.chat_with(&turns, &options)?;
/// while answer.next().is_some() {}
/// turns.extend([answer.turn(), Turn::user("谢谢")]);
/// // Reads only what is new: the turns before are still known.
/// println!("{}", engine.chat_with(&turns, &options)?.map(|token| token.text).collect::<String>());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Engine {
    handle: EngineHandle,
    prompts: Arc<PromptBuilder>,
    model: Arc<ModelInfo>,
}

/// How an answer is asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChatOptions {
    /// How to draw, and with which seed; what is absent is as the checkpoint says, the seed random.
    pub settings: Settings,
    /// Texts that end the answer and are not part of it.
    pub stop: Vec<String>,
    /// Answers that are asked for under the same number share what was computed of the same beginning: a long history is
    /// read once. `None` shares with no other answer.
    pub conversation: Option<ConversationId>,
}

/// Why there is no engine or no answer. The text says what was found and what was expected; where there is something to be
/// done about it, a line `hint: …` follows, in words of the program's flags.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The model was refused.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A setting is outside its bounds.
    #[error(transparent)]
    Settings(#[from] OutOfRange),
    /// The turns cannot be made into a prompt: the last one is too long, or they are none of a conversation's.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The engine did not take the request: too many wait already, or it is over.
    #[error(transparent)]
    Submit(#[from] SubmitError),
}

impl ChatOptions {
    /// The options of a new conversation: what its answers have in common is computed once.
    #[must_use]
    pub fn conversation() -> Self {
        Self { conversation: Some(ConversationId::random()), ..Self::default() }
    }
}

impl Engine {
    /// Loads a model, named by its folder, its GGUF file, or [`LoadOptions`] that say more. Takes seconds to minutes, and
    /// blocks meanwhile.
    ///
    /// # Errors
    /// [`EngineError::Load`].
    pub fn load(options: impl Into<LoadOptions>) -> Result<Self, EngineError> {
        Self::load_with(options, EngineOptions::default())
    }

    /// The same with other limits and another pace.
    ///
    /// # Errors
    /// [`EngineError::Load`].
    pub fn load_with(options: impl Into<LoadOptions>, engine: EngineOptions) -> Result<Self, EngineError> {
        let loaded = load::load(&options.into())?;
        let handle = EngineHandle::spawn(loaded.backend, loaded.tokenizer, loaded.eos_token_id, engine);
        Ok(Self { handle, prompts: Arc::new(loaded.prompts), model: Arc::new(loaded.info) })
    }

    /// Asks for an answer to the last of `turns`, which come oldest first, drawn as the checkpoint says.
    ///
    /// Whole rounds of a history that does not fit the context are left out, the oldest first, and the system turn with
    /// them; [`Answer::stats`] tells how many. An answer has no more tokens than the context leaves.
    ///
    /// # Errors
    /// [`EngineError`], except for [`EngineError::Load`]; nothing was begun then.
    pub fn chat(&self, turns: &[Turn]) -> Result<Answer, EngineError> {
        self.chat_with(turns, &ChatOptions::default())
    }

    /// The same with settings, stop strings, or what was computed for earlier turns.
    ///
    /// # Errors
    /// As [`Self::chat`].
    pub fn chat_with(&self, turns: &[Turn], options: &ChatOptions) -> Result<Answer, EngineError> {
        let arrived = Instant::now();
        let sampling = options.settings.resolve(&self.model.defaults, self.model.longest_answer)?;
        let prompt = self.prompts.build(turns, sampling.max_new_tokens as usize)?;
        let stats = AnswerStats {
            prompt_tokens: prompt.ids.len() as u32,
            dropped_rounds: prompt.dropped_rounds as u32,
            dropped_system: prompt.dropped_system,
            ..AnswerStats::default()
        };
        let request = GenerationRequest {
            sampling: self.prompts.sampling_beside(prompt.ids.len(), sampling),
            prompt_ids: prompt.ids.into(),
            continued_ids: Arc::default(),
            seed: options.settings.seed_or_random(),
            ignore_eos: false,
            stop: options.stop.clone(),
            logprobs: LogprobsRequest::default(),
            scope: options.conversation.map_or(CacheScope::Alone, |id| CacheScope::Shared(id.as_u128())),
        };
        Ok(Answer::new(self.handle.submit(request)?, stats, arrived))
    }

    /// The model that was loaded, and how it runs.
    #[must_use]
    pub fn model(&self) -> &ModelInfo {
        &self.model
    }

    /// Whether a turn of this role can be in a conversation with the model.
    #[must_use]
    pub fn supports(&self, role: Role) -> bool {
        self.model.prompt_format.supports(role)
    }

    /// What turns conversations into token ids.
    #[must_use]
    pub fn prompts(&self) -> &PromptBuilder {
        &self.prompts
    }

    /// The way to the engine's thread, for requests of token ids and log-probabilities, counters, and an orderly end.
    #[must_use]
    pub fn handle(&self) -> &EngineHandle {
        &self.handle
    }
}
