//! `config.json` of an XVERSE checkpoint, read into what the engine needs.

use std::path::Path;

/// The model's shape, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward block.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; a divisor of the query heads.
    pub num_key_value_heads: usize,
    /// `hidden_size / num_attention_heads`.
    pub head_dim: usize,
    /// How many token ids there are.
    pub vocab_size: usize,
    /// The context length.
    pub max_position_embeddings: usize,
    /// Most prompt tokens, where the checkpoint says so (v2).
    pub max_tokenizer_truncation: Option<usize>,
    /// Added to the mean square before its root.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Padding id.
    pub pad_token_id: u32,
    /// Begin id; XVERSE prompts do not use it.
    pub bos_token_id: u32,
    /// End id.
    pub eos_token_id: u32,
    /// Whether `lm_head` is the embedding table.
    pub tie_word_embeddings: bool,
}

/// Why a `config.json` was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// To be refined.
    #[error("{0}")]
    Invalid(String),
}

impl ModelConfig {
    /// Reads and checks `config.json` in `dir`.
    ///
    /// # Errors
    /// [`ConfigError`], with what was found, what was expected and a hint.
    pub fn read(dir: &Path) -> Result<Self, ConfigError> {
        todo!("{dir:?}")
    }
}
