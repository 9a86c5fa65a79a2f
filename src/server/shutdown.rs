//! Going down: who asks for it, and how long running answers may go on.
//!
//! `cargo leptos serve` sends SIGINT, service managers SIGTERM; both mean the same. **Architecture Invariant:** no stream is
//! left without its end, and the second signal does not wait for anything.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{failure::Failure, generator::Generator, state::Server};
use crate::chat::event::EndReason;

/// What the engine and the tasks get to write their ends, once told to.
const END_TIME: Duration = Duration::from_secs(1);

/// The signals that ask the program to end.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes the signals over from their default, which is to end at once.
    ///
    /// # Errors
    /// Where the system does not allow it.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The next one.
    pub async fn next(&mut self) {
        self.next_kind().await;
    }

    /// The next one, and which it is.
    pub async fn next_kind(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
        }
    }
}

/// Serves until told to end: drains on the first signal, comes back at once on the second. Cancels `closed` where
/// connections are to be closed in order.
///
/// # Errors
/// [`Failure::Device`] where the engine ended without being told to; its answers have their ends then, too.
pub async fn until_told(
    server: &Arc<Server>,
    engine: &Generator,
    signals: &mut Signals,
    closed: &CancellationToken,
) -> Result<(), Failure> {
    tokio::select! {
        () = signals.next() => {}
        why = engine.over() => {
            server.set_unavailable("the engine has ended");
            end_answers(server).await;
            closed.cancel();
            return Err(Failure::Device(format!("{why}; expected an engine that goes on\nhint: start the program again")));
        }
    }
    // Whoever reads the line finds it true.
    server.draining.cancel();
    println!("ending; running answers have {} s", server.limits.drain.as_secs());
    tokio::select! {
        () = drain(server) => closed.cancel(),
        () = signals.next() => {}
    }
    Ok(())
}

/// Lets running answers end by themselves for as long as the limits say, then ends them as interrupted. Nothing new is
/// begun from the first moment on.
pub async fn drain(server: &Arc<Server>) {
    server.draining.cancel();
    server.tasks.close();
    if timeout(server.limits.drain, server.tasks.wait()).await.is_ok() {
        return;
    }
    if let Some(ready) = server.loaded() {
        ready.engine.shut_down();
    }
    end_answers(server).await;
}

/// Waits until all answers have their ends, once the engine is over or has been told to be and nothing new is begun.
async fn end_answers(server: &Arc<Server>) {
    server.tasks.close();
    if timeout(END_TIME, server.tasks.wait()).await.is_ok() {
        return;
    }
    // In the middle of a long step, or of one that never ends.
    server.abandon.all(EndReason::Interrupted);
    if timeout(END_TIME, server.tasks.wait()).await.is_err() {
        tracing::error!("some answers have not ended, their tasks do not answer");
    }
}
