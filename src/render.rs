//! Markdown to `chat::markup` blocks, incrementally.
//!
//! A text is cut into *sections* at places where a new top-level block certainly begins (`sections`), and each section
//! is parsed on its own: [`markdown`] is defined as that, so what [`Growing`] gives bit by bit is the same by
//! construction. Two things follow, both on purpose: link reference definitions have no effect and stay visible, and a
//! fence that was left open inside a list ends with the list. Nothing here knows who wrote the text or where it goes.
//! **Architecture Invariant:** every text gives blocks, in time linear in its length; there is no error and no panic.

use crate::chat::markup::Block;

mod parse;
mod sections;
mod tail;
#[cfg(test)]
mod tests;

use sections::{LastLine, Sections};

/// Parses a whole text.
#[must_use]
pub fn markdown(text: &str) -> Vec<Block> {
    let mut growing = Growing::default();
    growing.text.push_str(text);
    growing.finish().finished
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
    sections: Sections,
}

impl Growing {
    /// Adds text. However the text is divided, the blocks at the end are those of [`markdown`] over the whole.
    ///
    /// The tail is for looking at meanwhile: what is open in it (emphasis, code, a link) is shown as if it were closed.
    pub fn push(&mut self, text: &str) -> Update {
        self.text.push_str(text);
        let finished = self.cut(LastLine::Grows);
        let tail = tail::preview(self.sections.current(&self.text), self.sections.inside());
        Update { finished, tail: parse::blocks(&tail) }
    }

    /// The last blocks: nothing more comes.
    pub fn finish(&mut self) -> Update {
        let mut finished = self.cut(LastLine::Complete);
        finished.extend(parse::blocks(self.sections.current(&self.text)));
        self.sections.close(&self.text);
        Update { finished, tail: Vec::new() }
    }

    /// The whole text so far.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    fn cut(&mut self, last_line: LastLine) -> Vec<Block> {
        let mut finished = Vec::new();
        while let Some(section) = self.sections.next(&self.text, last_line) {
            finished.extend(parse::blocks(section));
        }
        finished
    }
}
