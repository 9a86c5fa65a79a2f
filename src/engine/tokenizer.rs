//! `tokenizer.json`, repaired where today's library would refuse it.

use std::path::Path;

/// Text to ids and back; text never becomes a special token.
#[derive(Debug)]
pub struct ChatTokenizer;

/// Why a tokenizer was refused, or a text could not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// To be refined.
    #[error("{0}")]
    Invalid(String),
}

impl ChatTokenizer {
    /// Reads `tokenizer.json.update` or `tokenizer.json` in `dir`.
    ///
    /// # Errors
    /// [`TokenizerError`], with what was found, what was expected and a hint.
    pub fn open(dir: &Path) -> Result<Self, TokenizerError> {
        todo!("{dir:?}")
    }

    /// Encodes text that people wrote: no special token comes out of it, none is added.
    ///
    /// # Errors
    /// [`TokenizerError`] where the library fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        todo!("{text}")
    }

    /// Decodes ids, leaving special tokens out.
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> String {
        todo!("{ids:?}")
    }

    /// How many ids there are, added tokens included.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        todo!()
    }
}
