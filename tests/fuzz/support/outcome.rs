//! How an input ended that broke no promise.

/// Whether an input was what its target takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was, all of it.
    Taken,
    /// It was not, and that was said.
    Refused,
}

impl Outcome {
    /// By whether all of it was taken.
    #[must_use]
    pub fn of(is_taken: bool) -> Self {
        if is_taken { Self::Taken } else { Self::Refused }
    }
}
