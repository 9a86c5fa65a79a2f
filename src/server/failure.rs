//! Why the program ends, and the exit status that says so.
//!
//! Owns the mapping from reasons to statuses; the words come from whoever failed.

use std::process::ExitCode;

use super::report::printable;

/// The program cannot start or go on. Its text is what stands on the terminal: lowercase, what was found, what was
/// expected, then a line `hint: …`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Flags, however they were given, do not go together.
    #[error("{}", printable(.0))]
    Usage(String),
    /// The address cannot be listened on.
    #[error("{}", printable(.0))]
    Address(String),
    /// The device or the server itself failed while it ran.
    #[error("{}", printable(.0))]
    Device(String),
    /// Some of what was piped in was not answered.
    #[error("{}", printable(.0))]
    Input(String),
    /// The model, the tokenizer or the configuration was refused.
    #[error("{}", printable(.0))]
    Refused(String),
}

impl Failure {
    /// The status as a number: 2 for usage; 65, 69, 70 or 78, as in `sysexits.h`.
    #[must_use]
    pub fn status(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Input(_) => 65,
            Self::Address(_) => 69,
            Self::Device(_) => 70,
            Self::Refused(_) => 78,
        }
    }

    /// The status as the process gives it.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.status())
    }
}
