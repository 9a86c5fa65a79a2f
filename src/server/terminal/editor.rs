//! A line that is typed: editing it, and going back to earlier ones.
//!
//! What was typed is kept in memory alone. Whenever this gives something back, the terminal is as it was before.

use std::{
    cell::Cell,
    io::{self, IsTerminal},
};

use rustyline::{
    Behavior, Config, Context, Editor as Rustyline, Helper, completion::Completer, error::ReadlineError,
    highlight::Highlighter, hint::Hinter, history::DefaultHistory, validate::Validator,
};

use super::source::Heard;
use crate::server::failure::Failure;

/// Stands before what is typed.
const MARK: &str = "> ";

/// The person at the terminal.
pub(super) struct Editor {
    rustyline: Rustyline<Watch, DefaultHistory>,
}

/// Sees each state of the line, since an interrupt does not tell what it interrupted.
#[derive(Default)]
struct Watch {
    holds_text: Cell<bool>,
}

impl Editor {
    /// Edits at the terminal that is standard input; where answers go elsewhere, the line does not go with them.
    pub(super) fn new() -> Result<Self, Failure> {
        let behavior = if io::stdout().is_terminal() { Behavior::Stdio } else { Behavior::PreferTerm };
        let rustyline = Rustyline::with_default(Config::builder().behavior(behavior).build());
        rustyline.map(|rustyline| Self { rustyline }).map_err(|error| failure(&error))
    }

    /// Waits for a line.
    pub(super) fn next(&mut self) -> Result<Heard, Failure> {
        loop {
            self.watch(|watch| watch.holds_text.set(false));
            match self.rustyline.readline(MARK) {
                Ok(text) => {
                    // Only files can fail, and there is none.
                    let _ = self.rustyline.add_history_entry(text.as_str());
                    return Ok(Heard::Line { place: String::new(), text });
                }
                // Throws the line away.
                Err(ReadlineError::Interrupted) if self.watch(|watch| watch.holds_text.get()) == Some(true) => {}
                Err(ReadlineError::Interrupted) => return Ok(Heard::Interrupt),
                Err(ReadlineError::Eof) => return Ok(Heard::End),
                Err(error) => return Err(failure(&error)),
            }
        }
    }

    fn watch<T>(&self, look: impl FnOnce(&Watch) -> T) -> Option<T> {
        self.rustyline.helper().map(look)
    }
}

fn failure(error: &ReadlineError) -> Failure {
    Failure::Device(format!(
        "the terminal cannot be read: {error}; expected one to type at\nhint: pipe the messages in, one a line"
    ))
}

impl Hinter for Watch {
    type Hint = String;

    fn hint(&self, line: &str, _: usize, _: &Context<'_>) -> Option<String> {
        self.holds_text.set(!line.is_empty());
        None
    }
}

impl Completer for Watch {
    type Candidate = String;
}

impl Highlighter for Watch {}

impl Validator for Watch {}

impl Helper for Watch {}
