//! Ids to text, one at a time: what is certain comes at once, nothing comes twice, no character comes in halves.

use std::sync::Arc;

use super::tokenizer::ChatTokenizer;

/// The text of one growing sequence.
#[derive(Debug)]
pub struct Detokenizer;

impl Detokenizer {
    /// Begins a text.
    #[must_use]
    pub fn new(tokenizer: Arc<ChatTokenizer>) -> Self {
        todo!("{tokenizer:?}")
    }

    /// The text that token `id` makes certain; special tokens give none.
    pub fn push(&mut self, id: u32) -> String {
        todo!("{id}")
    }

    /// What was held back, at the end.
    pub fn finish(&mut self) -> String {
        todo!()
    }
}
