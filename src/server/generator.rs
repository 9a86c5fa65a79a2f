//! What generates: the engine in this program, or upstream servers.
//!
//! Has what the rest of the server asks of either; what only one of them can do is asked of that one.

use std::sync::Arc;

use crate::{
    chat::error::{ChatError, ErrorCode},
    engine::{prompt::PromptBuilder, remote::RemoteEngine, stats::EngineStats, worker::EngineHandle},
};

/// Seconds after which a stalled engine is worth another try.
const STALL_RETRY_S: u32 = 30;

/// Seconds after which upstream servers that are down are worth another try.
const DOWN_RETRY_S: u32 = 5;

/// What generates; cheap to clone.
#[derive(Debug, Clone)]
pub enum Generator {
    /// This program.
    Local(Local),
    /// Upstream servers.
    Upstream(RemoteEngine),
}

/// The engine in this program, and what makes prompts for it.
#[derive(Debug, Clone)]
pub struct Local {
    /// The way to the engine.
    pub engine: EngineHandle,
    /// Makes prompts.
    pub prompts: PromptBuilder,
}

impl Generator {
    /// The engine in this program, where it is that.
    #[must_use]
    pub fn local(&self) -> Option<&Local> {
        match self {
            Self::Local(local) => Some(local),
            Self::Upstream(_) => None,
        }
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> &Arc<EngineStats> {
        match self {
            Self::Local(local) => local.engine.stats(),
            Self::Upstream(upstream) => upstream.stats(),
        }
    }

    /// Whether it is there and does its work.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        match self {
            Self::Local(local) => local.engine.is_alive(),
            Self::Upstream(upstream) => upstream.is_alive(),
        }
    }

    /// Whether it is in a step that may never end. What upstream servers do is bound in time by whoever asks them.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        match self {
            Self::Local(local) => local.engine.is_stalled(),
            Self::Upstream(_) => false,
        }
    }

    /// Whether it takes requests.
    ///
    /// # Errors
    /// [`ErrorCode::EngineStalled`] or [`ErrorCode::UpstreamUnreachable`], each with a time.
    pub fn check(&self) -> Result<(), ChatError> {
        match self {
            Self::Local(local) if local.engine.is_stalled() => {
                let message = "the engine has not come back from a step that takes far longer than steps do";
                Err(ChatError::new(ErrorCode::EngineStalled, message).retry_after(STALL_RETRY_S))
            }
            Self::Upstream(upstream) if upstream.is_down() => {
                let message = "no upstream server answers";
                Err(ChatError::new(ErrorCode::UpstreamUnreachable, message).retry_after(DOWN_RETRY_S))
            }
            Self::Local(_) | Self::Upstream(_) => Ok(()),
        }
    }

    /// Waits until it is over and says why; where nobody told it to end, nothing can be asked for any more.
    pub async fn over(&self) -> String {
        match self {
            Self::Local(local) => local.engine.over().await,
            Self::Upstream(upstream) => upstream.over().await,
        }
    }

    /// Ends all requests as those of a server that goes down.
    pub fn shut_down(&self) {
        match self {
            Self::Local(local) => local.engine.shut_down(),
            Self::Upstream(upstream) => upstream.shut_down(),
        }
    }
}
