//! What is written: answers to standard output, everything else to standard error.
//!
//! **Architecture Invariant:** no control character of an answer reaches a terminal, but for line ends and tabs.

use std::{
    borrow::Cow,
    ffi::OsString,
    io::{self, IsTerminal, Write},
};

use crate::server::report::printable;

/// Where answers go.
pub(super) struct Output {
    to: io::Stdout,
    is_terminal: bool,
}

/// Where everything else goes. What cannot be written there is lost.
pub(super) struct Notes {
    is_terminal: bool,
    is_dim: bool,
}

impl Output {
    pub(super) fn new() -> Self {
        let to = io::stdout();
        Self { is_terminal: to.is_terminal(), to }
    }

    /// Writes a part of an answer, so that it is seen at once.
    pub(super) fn write(&mut self, text: &str) -> io::Result<()> {
        let text = if self.is_terminal { visible(text) } else { Cow::Borrowed(text) };
        self.to.write_all(text.as_bytes())?;
        self.to.flush()
    }

    /// Writes what stands behind an answer: the end of its line.
    pub(super) fn end_answer(&mut self) -> io::Result<()> {
        self.write("\n")
    }
}

impl Notes {
    pub(super) fn new() -> Self {
        let is_terminal = io::stderr().is_terminal();
        Self { is_terminal, is_dim: is_terminal && knows_colors(|name| std::env::var_os(name)) }
    }

    /// Says what is not wrong.
    pub(super) fn say(&self, text: &str) {
        let (dim, plain) = if self.is_dim { ("\u{1b}[2m", "\u{1b}[0m") } else { ("", "") };
        let _ = writeln!(io::stderr(), "{dim}{}{plain}", printable(text));
    }

    /// Says what only somebody who watches wants to know.
    pub(super) fn aside(&self, text: &str) {
        if self.is_terminal {
            self.say(text);
        }
    }

    /// Says what is wrong.
    pub(super) fn error(text: &str) {
        let _ = writeln!(io::stderr(), "{}", printable(text));
    }
}

/// Whether a terminal obeys what changes how text looks, and is to be told to.
fn knows_colors(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    set("NO_COLOR").is_none() && set("TERM").is_some_and(|term| term != "dumb")
}

/// The text with pictures instead of what a terminal would obey.
fn visible(text: &str) -> Cow<'_, str> {
    let is_obeyed = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let shown = |c: char| match c {
        c if !is_obeyed(c) => c,
        '\u{7f}' => '␡',
        '\0'..='\u{1f}' => char::from_u32(0x2400 + u32::from(c)).unwrap_or(char::REPLACEMENT_CHARACTER),
        _ => char::REPLACEMENT_CHARACTER,
    };
    Cow::Owned(text.chars().map(shown).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_terminal_that_is_known_to_obey_is_told_how_text_looks() {
        for (term, no_color, expected) in [
            (Some("xterm-256color"), None, true),
            (Some("xterm"), Some(""), true),
            (Some("xterm"), Some("1"), false),
            (Some("dumb"), None, false),
            (Some(""), None, false),
            (None, None, false),
        ] {
            let variable = |name: &str| if name == "TERM" { term } else { no_color }.map(OsString::from);
            assert_eq!(knows_colors(variable), expected, "{term:?} {no_color:?}");
        }
    }

    #[test]
    fn a_terminal_obeys_nothing_that_the_model_says() {
        assert_eq!(visible("\u{1b}]0;x\u{7}\r\u{9b}2J\u{7f}\0"), "␛]0;x␇␍\u{fffd}2J␡␀");
        assert_eq!(visible("一\n\t二"), "一\n\t二");
        assert!(
            !('\0'..='\u{9f}')
                .any(|c| visible(&c.to_string()).contains(|c: char| c.is_control() && c != '\n' && c != '\t'))
        );
    }
}
