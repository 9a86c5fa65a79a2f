//! What goes wrong with an upstream, and what follows from it.
//!
//! Its words go to the log, so there is nothing in it that an upstream wrote but numbers and names.

use std::{fmt, time::Duration};

use super::chunk::{ErrorSaid, Length};
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
    /// The connection broke, or the answer was over before it had begun.
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
        let is_too_long = match said.length {
            // llama.cpp says so with 500 where the answer has begun.
            Length::Named => true,
            // Words alone may be about something else. 413 is how some say it before they look at tokens.
            Length::Worded => is_of_the_request(status),
            Length::Unsaid => false,
        };
        if is_too_long {
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
            Self::Status { status, .. } if is_of_the_request(*status) => EngineEnd::UpstreamRejected,
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

/// Whether this status says that something is wrong with the request itself.
fn is_of_the_request(status: u16) -> bool {
    matches!(status, 400 | 413 | 422)
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(why) => write!(f, "it cannot be reached: {why}"),
            Self::Silent => f.write_str("no token came in time"),
            Self::Status { status, kind, .. } if kind.is_empty() => write!(f, "it answered with status {status}"),
            Self::Status { status, kind, .. } => write!(f, "it answered with status {status}, {kind}"),
            Self::TooLong => f.write_str("prompt and answer do not fit its context"),
            Self::Cut => f.write_str("it broke off"),
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
        for (refused, end) in [
            (301, EngineEnd::UpstreamRefused),
            (400, EngineEnd::UpstreamRejected),
            (401, EngineEnd::UpstreamRefused),
            (403, EngineEnd::UpstreamRefused),
            (404, EngineEnd::UpstreamRefused),
            (413, EngineEnd::UpstreamRejected),
            (422, EngineEnd::UpstreamRejected),
        ] {
            assert_eq!(status(refused).again(), Again::Nowhere, "{refused}");
            assert_eq!(status(refused).end(), end, "{refused}");
        }
        assert!(!status(429).is_illness() && status(503).is_illness());
    }

    #[test]
    fn words_about_length_count_with_a_status_of_the_request_and_their_names_with_any() {
        let said = |length| ErrorSaid { length, ..ErrorSaid::default() };
        for status in [400, 413, 422, 500] {
            let of = |length| Failure::of_status(status, said(length), None) == Failure::TooLong;
            assert!(of(Length::Named) && !of(Length::Unsaid), "{status}");
            assert_eq!(of(Length::Worded), status != 500, "{status}");
        }
    }
}
