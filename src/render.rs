//! Markdown to `chat::markup` blocks, incrementally.

use crate::chat::markup::Block;

/// Parses a whole text.
#[must_use]
pub fn markdown(text: &str) -> Vec<Block> {
    todo!("{text}")
}

/// What an addition to a text changed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Update {
    /// Blocks that are final now, in order, after those that were final before.
    pub finished: Vec<Block>,
    /// Everything after the final blocks, replacing the tail before it.
    pub tail: Vec<Block>,
}

/// A text that grows.
#[derive(Debug, Default)]
pub struct Growing {
    text: String,
}

impl Growing {
    /// Adds text. However the text is divided, the blocks at the end are those of [`markdown`] over the whole.
    pub fn push(&mut self, text: &str) -> Update {
        self.text.push_str(text);
        todo!()
    }

    /// The last blocks: nothing more comes.
    pub fn finish(&mut self) -> Update {
        todo!()
    }

    /// The whole text so far.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}
