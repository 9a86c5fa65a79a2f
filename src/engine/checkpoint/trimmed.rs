//! Weights without the rows of a padded vocabulary.
//!
//! Who trains may round a vocabulary up, so that embeddings and head have rows without a token. They are left out before a backend
//! sees them: none of these rows is drawn, and probabilities are over the tokens there are. **Architecture Invariant:** the rows
//! that are left have the bits that are stored.

use std::{ops::Range, sync::Arc};

use super::layout::{EMBEDDINGS, LM_HEAD};
use crate::engine::{
    backend::cpu::quantized::QuantizedMatrix,
    weights::{TensorInfo, Weights, WeightsError},
};

/// Weights of which embeddings and head end after so many rows.
pub(super) struct Trimmed {
    pub(super) inner: Arc<dyn Weights>,
    pub(super) n_tokens: usize,
}

fn is_trimmed(name: &str) -> bool {
    name == EMBEDDINGS || name == LM_HEAD
}

impl Weights for Trimmed {
    fn info(&self, name: &str) -> Option<TensorInfo> {
        let info = self.inner.info(name)?;
        let n_rows = if is_trimmed(name) { info.n_rows.min(self.n_tokens) } else { info.n_rows };
        Some(TensorInfo { n_rows, ..info })
    }

    fn read(&self, name: &str, rows: Range<usize>, bytes: &mut [u8]) -> Result<(), WeightsError> {
        self.inner.read(name, rows, bytes)
    }

    fn packed(&self, name: &str) -> Result<Option<QuantizedMatrix>, WeightsError> {
        if is_trimmed(name) { Ok(None) } else { self.inner.packed(name) }
    }

    fn content(&self, name: &str) -> String {
        self.inner.content(name)
    }
}
