//! What goes wrong with an upstream, and what follows from it.
//!
//! Its words go to the log, so there is nothing in it that an upstream wrote but numbers and names.

use std::{fmt, time::Duration};

use super::chunk::ErrorSaid;
use crate::engine::request::EngineEnd;

/// Why one try gave no answer, or not the whole of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Failure {
    /// No connection; why.
    Connect(String),
    /// No first token in time.
    Silent,
    /// A response that says that something is wrong.
    Status { status: u16, kind: String, retry_after: Option<Duration> },
    /// Prompt and answer do not fit the context.
    TooLong,
    /// The connection broke.
    Cut,
    /// Nothing more came in the middle of an answer.
    Hung,
    /// What came could not be understood; why.
    Rubbish(&'static str),
}

/// Where a request may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// To any upstream.
    Anywhere,
    /// To one that has not been asked yet.
    Elsewhere,
    /// To none.
    Nowhere,
}

impl Failure {
    /// The failure that a response with this status is.
    pub(super) fn of_status(status: u16, said: ErrorSaid, retry_after: Option<Duration>) -> Self {
        // 413 is how some say it before they look at tokens.
        if said.is_about_length && matches!(status, 400 | 413 | 422) {
            return Self::TooLong;
        }
        Self::Status { status, kind: said.kind, retry_after }
    }

    /// Where the request may be sent again, as long as nobody has seen a token of the answer.
    pub(super) fn again(&self) -> Again {
        match self {
            Self::Connect(_) | Self::Cut => Again::Anywhere,
            // Whoever was silent for minutes is not waited for once more.
            Self::Silent => Again::Elsewhere,
            Self::Status { status, .. } if is_passing(*status) => Again::Anywhere,
            Self::Status { .. } | Self::TooLong | Self::Hung | Self::Rubbish(_) => Again::Nowhere,
        }
    }

    /// Whether the upstream is to be left out until it is known to be well. One that is only busy is not.
    pub(super) fn is_illness(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Silent | Self::Cut | Self::Hung => true,
            Self::Status { status, .. } => *status >= 500,
            Self::TooLong | Self::Rubbish(_) => false,
        }
    }

    /// How long the upstream asks to be left alone.
    pub(super) fn retry_after(&self) -> Duration {
        match self {
            Self::Status { retry_after, .. } => retry_after.unwrap_or_default(),
            Self::Connect(_) | Self::Silent | Self::TooLong | Self::Cut | Self::Hung | Self::Rubbish(_) => {
                Duration::ZERO
            }
        }
    }

    /// How an answer ends with it.
    pub(super) fn end(&self) -> EngineEnd {
        match self {
            Self::Connect(_) | Self::Silent | Self::Status { status: 408 | 429 | 502 | 503 | 504, .. } => {
                EngineEnd::UpstreamUnreachable
            }
            Self::Status { status, .. } if *status < 500 => EngineEnd::UpstreamRefused,
            Self::TooLong => EngineEnd::UpstreamTooLong,
            Self::Status { .. } | Self::Cut | Self::Hung | Self::Rubbish(_) => EngineEnd::UpstreamBroke,
        }
    }
}

/// Whether a request may be taken later that was refused with this status.
fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 429) || status >= 500
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(why) => write!(f, "it cannot be reached: {why}"),
            Self::Silent => f.write_str("no token came in time"),
            Self::Status { status, kind, .. } if kind.is_empty() => write!(f, "it answered with status {status}"),
            Self::Status { status, kind, .. } => write!(f, "it answered with status {status}, {kind}"),
            Self::TooLong => f.write_str("prompt and answer do not fit its context"),
            Self::Cut => f.write_str("the connection broke"),
            Self::Hung => f.write_str("nothing more came in the middle of an answer"),
            Self::Rubbish(what) => write!(f, "it sent {what}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: u16) -> Failure {
        Failure::of_status(status, ErrorSaid::default(), None)
    }

    #[test]
    fn what_may_pass_is_tried_again_and_what_was_refused_is_not() {
        for passing in [408, 429, 500, 502, 503, 504] {
            assert_eq!(status(passing).again(), Again::Anywhere, "{passing}");
        }
        for refused in [301, 400, 401, 403, 404, 422] {
            assert_eq!(status(refused).again(), Again::Nowhere, "{refused}");
            assert_eq!(status(refused).end(), EngineEnd::UpstreamRefused, "{refused}");
        }
        assert!(!status(429).is_illness() && status(503).is_illness());
    }

    #[test]
    fn a_status_about_length_is_no_refusal() {
        let said = ErrorSaid { is_about_length: true, ..ErrorSaid::default() };
        assert_eq!(Failure::of_status(400, said.clone(), None), Failure::TooLong);
        assert_ne!(Failure::of_status(500, said, None), Failure::TooLong);
    }
}
