//! Where messages come from: a person at the terminal, or a pipe.

use std::{io, thread};

use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::{
    editor::Editor,
    lines::{self, LineError},
};
use crate::server::failure::Failure;

/// Lines that are read ahead of the answers.
const LINES_AHEAD: usize = 1;

/// Where messages come from.
pub(super) enum Source {
    Terminal(Box<Editor>),
    Piped(Pipe),
}

/// A thread that reads, since nobody else may wait for a pipe and a signal at once.
pub(super) struct Pipe {
    lines: mpsc::Receiver<Result<String, LineError>>,
    is_whole: bool,
    n_lines: usize,
}

/// What came.
pub(super) enum Heard {
    /// A line, and where it stands where that is worth telling.
    Line { place: String, text: String },
    /// All there is, as one message.
    Whole(String),
    /// Something that is no message.
    Unreadable { place: String, why: String },
    /// Somebody would like to end something, and there is nothing to end.
    Interrupt,
    /// There is no more.
    End,
}

impl Source {
    /// The person at the terminal.
    pub(super) fn terminal() -> Result<Self, Failure> {
        Ok(Self::Terminal(Box::new(Editor::new()?)))
    }

    /// Standard input, line by line or as a whole.
    pub(super) fn piped(is_whole: bool) -> Self {
        let (sender, lines) = mpsc::channel(LINES_AHEAD);
        thread::spawn(move || {
            let mut input = lines::without_mark(io::stdin().lock());
            if is_whole {
                // Nobody listens where the program is ending.
                let _ = sender.blocking_send(lines::whole(&mut input));
                return;
            }
            while let Some(line) = lines::line(&mut input) {
                let is_last = matches!(line, Err(LineError::Unreadable(_)));
                if sender.blocking_send(line).is_err() || is_last {
                    return;
                }
            }
        });
        Self::Piped(Pipe { lines, is_whole, n_lines: 0 })
    }

    /// Waits for what comes next.
    pub(super) fn next(&mut self, runtime: &Runtime) -> Result<Heard, Failure> {
        match self {
            Self::Terminal(editor) => editor.next(),
            Self::Piped(pipe) => runtime.block_on(pipe.next()),
        }
    }
}

impl Pipe {
    /// An interrupt while it waits is the end.
    async fn next(&mut self) -> Result<Heard, Failure> {
        let mut interrupts = signal(SignalKind::interrupt())
            .map_err(|error| Failure::Device(format!("signals cannot be listened to: {error}")))?;
        let line = tokio::select! {
            line = self.lines.recv() => line,
            _ = interrupts.recv() => None,
        };
        self.n_lines += 1;
        let place = if self.is_whole { String::new() } else { format!("line {}: ", self.n_lines) };
        Ok(match line {
            None => Heard::End,
            Some(Ok(text)) if self.is_whole => Heard::Whole(text),
            Some(Ok(text)) => Heard::Line { place, text },
            Some(Err(error)) => Heard::Unreadable { place, why: error.to_string() },
        })
    }
}
