//! From an answer's event stream into the store.
//!
//! Opens a stream for each running answer that is shown, from where it was last read, and closes it at the end, when the
//! page is hidden, and with the page. Takes what has arrived in once a frame. **Architecture Invariant:** a stream is
//! always opened from the answer's cursor, so that nothing is lost or doubled however often it is cut off.

use std::{cell::RefCell, rc::Rc, time::Duration};

use leptos::{prelude::*, task::spawn_local};

use super::{
    answer::Phase,
    json,
    platform::{self, EventStream},
    store::{Notice, Store},
    view::effect,
};
use crate::chat::{
    error::ErrorCode,
    event::{EndReason, Event},
    ids::MessageId,
};

/// Longest wait between two attempts, in milliseconds.
const MAX_BACKOFF_MS: f64 = 10_000.0;

/// Failures in a row before the person hears of it.
const QUIET_FAILURES: u32 = 1;

/// Why a stream ended before the answer did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The connection broke.
    CutOff,
    /// The server answered with something that is no stream.
    Refused,
}

/// What a stream calls.
pub struct Handlers {
    /// It is open.
    pub opened: Box<dyn FnMut()>,
    /// A message's data arrived.
    pub message: Box<dyn FnMut(&str)>,
    /// It is closed, and will not open again by itself.
    pub failed: Box<dyn FnMut(Trouble)>,
}

/// Milliseconds to wait after so many failures in a row; `spread` from 0 to 1 keeps many pages from coming at once.
#[must_use]
pub fn backoff_ms(failures: u32, spread: f64) -> f64 {
    let full = (250.0 * 2_f64.powf(f64::from(failures.min(16)))).min(MAX_BACKOFF_MS);
    full * (0.5 + 0.5 * spread)
}

#[derive(Default)]
struct Subscription {
    stream: Option<EventStream>,
    arrived: Vec<Event>,
    failures: u32,
    is_flush_due: bool,
}

/// Keeps the streams of the answers that are shown.
#[derive(Clone)]
pub struct Streams {
    store: Store,
    open: Rc<RefCell<Vec<(MessageId, Subscription)>>>,
}

/// Follows every running answer that is shown, until the owner is cleaned up.
pub fn follow(store: Store) {
    let streams = StoredValue::new_local(Streams { store, open: Rc::default() });
    effect(move || {
        let leaf = store.running();
        streams.with_value(|streams| streams.watch(leaf));
    });
    let on_visibility = window_event_listener_untyped("visibilitychange", move |_| {
        streams.with_value(Streams::visibility_changed);
    });
    on_cleanup(move || on_visibility.remove());
}

impl Streams {
    fn watch(&self, running: Option<MessageId>) {
        let dropped: Vec<_> = {
            let mut open = self.open.borrow_mut();
            let (kept, over) = open.drain(..).partition(|(id, _)| Some(*id) == running);
            *open = kept;
            over
        };
        if !dropped.is_empty() {
            self.calm();
        }
        drop(dropped);
        if let Some(id) = running
            && self.with(id, |_| ()).is_none()
        {
            self.open.borrow_mut().push((id, Subscription::default()));
            self.connect(id);
        }
    }

    fn visibility_changed(&self) {
        let ids: Vec<_> = self.open.borrow().iter().map(|(id, _)| *id).collect();
        for id in ids {
            if platform::is_hidden() {
                self.flush(id);
                self.with(id, |subscription| subscription.stream.take());
            } else {
                self.connect(id);
            }
        }
    }

    fn connect(&self, id: MessageId) {
        let place = self
            .store
            .answer(id)
            .and_then(|answer| answer.with_untracked(|answer| Some((answer.generation?, answer.cursor))));
        let Some((generation, cursor)) = place else { return };
        let is_open = self.with(id, |subscription| subscription.stream.is_some()).unwrap_or(true);
        if is_open || platform::is_hidden() {
            return;
        }
        let handlers = Handlers {
            opened: Box::new({
                let streams = self.clone();
                move || streams.opened(id)
            }),
            message: Box::new({
                let streams = self.clone();
                move |data| streams.arrived(id, data)
            }),
            failed: Box::new({
                let streams = self.clone();
                move |trouble| streams.failed(id, trouble)
            }),
        };
        let stream = EventStream::open(&format!("/generations/{generation}/events?after={cursor}"), handlers);
        self.with(id, |subscription| subscription.stream = stream);
    }

    fn opened(&self, id: MessageId) {
        self.with(id, |subscription| subscription.failures = 0);
        self.calm();
    }

    /// Nothing is being opened again any more.
    fn calm(&self) {
        if self.store.notice.get_untracked() == Some(Notice::Reconnecting) {
            self.store.notice.set(None);
        }
    }

    fn arrived(&self, id: MessageId, data: &str) {
        let Ok(event) = json::read::<Event>(data) else {
            leptos::logging::warn!("an event could not be read: {data}");
            return;
        };
        let is_first = self.with(id, |subscription| {
            subscription.arrived.push(event);
            !std::mem::replace(&mut subscription.is_flush_due, true)
        });
        if is_first == Some(true) {
            let streams = self.clone();
            request_animation_frame(move || streams.flush(id));
        }
    }

    fn flush(&self, id: MessageId) {
        let arrived = self.with(id, |subscription| {
            subscription.is_flush_due = false;
            std::mem::take(&mut subscription.arrived)
        });
        let (Some(arrived), Some(answer)) = (arrived, self.store.answer(id)) else { return };
        if arrived.is_empty() {
            return;
        }
        answer.update(|answer| arrived.into_iter().for_each(|event| answer.apply(event)));
        self.close_if_over(id);
    }

    fn close_if_over(&self, id: MessageId) -> bool {
        let known = self.store.answer(id).map(|answer| answer.with_untracked(|answer| (answer.phase, answer.is_saved)));
        let Some((Phase::Ended { reason }, is_saved)) = known else { return false };
        self.store.is_saved.set(is_saved);
        self.close(id);
        self.calm();
        self.ended(reason);
        true
    }

    fn ended(&self, reason: EndReason) {
        let (texts, store) = (self.store.texts, self.store);
        store.stopping.set(None);
        store.announcement.set(texts.announce_end(reason));
    }

    fn failed(&self, id: MessageId, trouble: Trouble) {
        self.flush(id);
        let failures = self.with(id, |subscription| {
            subscription.failures += 1;
            subscription.failures
        });
        let Some(failures) = failures else { return };
        if failures > QUIET_FAILURES {
            self.store.notice.set(Some(Notice::Reconnecting));
        }
        let streams = self.clone();
        let wait = backoff_ms(failures, platform::random());
        set_timeout(move || streams.retry(id, trouble), Duration::from_millis(wait as u64));
    }

    fn retry(&self, id: MessageId, trouble: Trouble) {
        let known = self.with(id, |subscription| subscription.stream.take());
        if known.is_none() {
            return;
        }
        match (trouble, self.store.transcript.with_untracked(super::transcript::Transcript::conversation)) {
            (Trouble::Refused, Some(conversation)) => {
                let streams = self.clone();
                spawn_local(async move {
                    match streams.store.ask_again(conversation).await {
                        Err(error) if error.code == ErrorCode::NotFound => streams.lose(id),
                        Ok(()) if streams.close_if_over(id) => {}
                        Ok(()) | Err(_) => streams.connect(id),
                    }
                });
            }
            (Trouble::CutOff, _) | (Trouble::Refused, None) => self.connect(id),
        }
    }

    fn lose(&self, id: MessageId) {
        self.close(id);
        if let Some(answer) = self.store.answer(id) {
            answer.update(super::answer::Answer::lose);
        }
        self.store.notice.set(Some(Notice::Error(self.store.texts.server_forgot.to_owned())));
        self.ended(EndReason::Interrupted);
    }

    fn close(&self, id: MessageId) {
        let mut open = self.open.borrow_mut();
        let closed = open.iter().position(|(other, _)| *other == id).map(|place| open.remove(place));
        drop(open);
        drop(closed);
    }

    fn with<T>(&self, id: MessageId, change: impl FnOnce(&mut Subscription) -> T) -> Option<T> {
        self.open.borrow_mut().iter_mut().find(|(other, _)| *other == id).map(|(_, subscription)| change(subscription))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_bound_and_is_spread() {
        assert_eq!(backoff_ms(1, 1.0), 500.0);
        assert_eq!(backoff_ms(1, 0.0), 250.0);
        assert_eq!(backoff_ms(3, 1.0), 2000.0);
        assert_eq!(backoff_ms(40, 1.0), MAX_BACKOFF_MS);
    }
}
