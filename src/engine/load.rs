//! From folders and flags to a model that is ready to run.

use std::{path::PathBuf, sync::Arc};

use super::{backend::Backend, prompt::PromptBuilder, tokenizer::ChatTokenizer};
use crate::chat::info::{ModelInfo, PromptFormat};

/// What to load and how.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Folder with `config.json` and weights.
    pub model_path: PathBuf,
    /// Folder with `tokenizer.json`.
    pub tokenizer_path: PathBuf,
    /// Which backend and device.
    pub device: DeviceChoice,
    /// `None` for what the vocabulary says.
    pub prompt_format: Option<PromptFormat>,
    /// GiB for keys and values; `None` for what suits the model.
    pub kv_memory_gib: Option<f64>,
    /// Threads that compute; `None` for one less than there are cores.
    pub threads: Option<usize>,
    /// Whether this is the mini model that ships with the project.
    pub is_mini: bool,
}

/// Which backend runs the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The best there is.
    Auto,
    /// This machine's cores.
    Cpu,
    /// candle-transformers' Llama on this machine's cores: slow and plain, the oracle.
    Reference,
    /// A CUDA card.
    Cuda(usize),
}

/// A model that is ready to run.
pub struct Loaded {
    /// The device with the weights on it.
    pub backend: Box<dyn Backend>,
    /// Text to ids and back.
    pub tokenizer: Arc<ChatTokenizer>,
    /// Conversations to prompts.
    pub prompts: PromptBuilder,
    /// What is said of it.
    pub info: ModelInfo,
    /// The id that ends an answer.
    pub eos_token_id: u32,
}

/// Why a model was refused.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// `config.json`.
    #[error(transparent)]
    Config(#[from] super::config::ConfigError),
    /// `generation_config.json`.
    #[error(transparent)]
    GenerationConfig(#[from] super::generation_config::GenerationConfigError),
    /// The weights.
    #[error(transparent)]
    Checkpoint(#[from] super::checkpoint::CheckpointError),
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] super::tokenizer::TokenizerError),
    /// Config and tokenizer do not belong together.
    #[error(
        "the tokenizer has {tokenizer} tokens, config.json says vocab_size {config}\nhint: --tokenizer_path must lead to the tokenizer of this checkpoint"
    )]
    VocabularyMismatch {
        /// Of the tokenizer.
        tokenizer: usize,
        /// Of the config.
        config: usize,
    },
    /// The device does not do it.
    #[error("{0}")]
    Device(String),
    /// The backend failed while it took the weights.
    #[error("the weights could not be loaded: {0}")]
    Backend(#[from] candle_core::Error),
}

/// Loads a model; takes seconds to minutes, so call it from a thread that may block.
///
/// # Errors
/// [`LoadError`], with what was found, what was expected and a hint.
pub fn load(options: &LoadOptions) -> Result<Loaded, LoadError> {
    todo!("{options:?}")
}
