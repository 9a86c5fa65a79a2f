//! `generation_config.json`: the checkpoint's own sampling defaults.

use std::path::Path;

use super::config::ModelConfig;
use crate::chat::settings::Sampling;

/// Why a `generation_config.json` was refused.
#[derive(Debug, thiserror::Error)]
pub enum GenerationConfigError {
    /// To be refined.
    #[error("{0}")]
    Invalid(String),
}

/// Reads the defaults in `dir`; where there is no such file, XVERSE-13B-Chat's own.
///
/// # Errors
/// [`GenerationConfigError`] where the file is there and wrong.
pub fn read(dir: &Path, config: &ModelConfig) -> Result<Sampling, GenerationConfigError> {
    todo!("{dir:?} {config:?}")
}
