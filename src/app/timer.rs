//! Something that is to happen a little later, unless it is put off or called off.
//!
//! Knows nothing of what that is. **Architecture Invariant:** of one timer at most one run is pending.

use std::time::Duration;

use leptos::prelude::*;

use super::state::State;

/// At most one run that is pending.
#[derive(Clone, Copy)]
pub struct Timer(State<Option<TimeoutHandle>>);

impl Timer {
    /// Nothing is pending.
    #[must_use]
    pub fn new() -> Self {
        Self(State::new(None))
    }

    /// Runs this after a while, and not what was pending before.
    pub fn start(self, pause: Duration, run: impl FnOnce() + 'static) {
        self.stop();
        self.0.set(set_timeout_with_handle(run, pause).ok());
    }

    /// Runs nothing.
    pub fn stop(self) {
        if let Some(pending) = self.0.try_get_untracked().flatten() {
            pending.clear();
        }
    }
}
