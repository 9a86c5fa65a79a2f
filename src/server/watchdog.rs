//! The watchdog: sees that a step of the engine has stalled, and ends the answers that wait for it.
//!
//! The engine's thread cannot do so itself: it is in the step. Knows no conversations and no events; each answer's task ends
//! its own answer, so that its text is kept like any other's. Only the monotonic clock is asked.
//! **Architecture Invariant:** no answer outlives a stall by more than `TICK` and the time it takes to write its end.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use super::{generator::Generator, state::Server};
use crate::chat::{error::ErrorCode, event::EndReason};

/// How often the watchdog looks.
const TICK: Duration = Duration::from_secs(1);

/// Tells all answers that run to end without the engine.
#[derive(Debug, Default)]
pub struct Abandon(watch::Sender<Option<EndReason>>);

/// Hears what an [`Abandon`] tells.
#[derive(Debug)]
pub struct Abandoned(watch::Receiver<Option<EndReason>>);

impl Abandon {
    /// Tells those who listen now that they end for this reason.
    pub fn all(&self, reason: EndReason) {
        self.0.send_replace(Some(reason));
    }

    /// Listens from now on.
    #[must_use]
    pub fn listen(&self) -> Abandoned {
        Abandoned(self.0.subscribe())
    }
}

impl Abandoned {
    /// Waits until it is told; the reason.
    pub async fn told(&mut self) -> EndReason {
        while self.0.changed().await.is_ok() {
            if let Some(reason) = *self.0.borrow_and_update() {
                return reason;
            }
        }
        // Nobody is left who could tell.
        std::future::pending().await
    }
}

/// Watches the engine until it is over.
pub async fn watch(server: Arc<Server>, engine: Generator) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_stalled = false;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = engine.over() => return,
        }
        let is_stalled = engine.is_stalled();
        match (was_stalled, is_stalled) {
            (false, true) => tracing::error!("a step of the engine takes far longer than steps do; its answers end"),
            (true, false) => tracing::warn!("the step that had stalled is over; the engine takes requests again"),
            (true, true) | (false, false) => {}
        }
        if is_stalled {
            // Again at each tick, for what began in between.
            server.abandon.all(EndReason::Failed { code: ErrorCode::EngineStalled });
        }
        was_stalled = is_stalled;
    }
}
