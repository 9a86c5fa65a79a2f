//! The commands: what is said, asked again and stopped, and what becomes of it.
//!
//! Owns a command's way from the press of a button to its outcome. Knows no network beyond `api`.
//! **Architecture Invariant:** a message whose command was refused goes back into the composer.

use std::time::Duration;

use leptos::{prelude::*, task::spawn_local};

use super::{Draft, Held, Notice, Opening, Store};
use crate::{
    api,
    app::{
        drafts, platform,
        transcript::{Action, Pending, Transcript},
    },
    chat::{
        command::{RegenerateCommand, SendCommand, Started},
        error::{ChatError, ErrorCode},
        ids::{ConversationId, MessageId, RequestId},
        message::{MessageText, Role},
        settings::Settings,
    },
};

/// How long a server that could not be reached is given before it is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(800);

impl Store {
    /// Says something: now, or once the answer before it is over, the model loaded and its conversation there.
    pub fn say(self, role: Role, text: MessageText) {
        self.notice.set(None);
        if untrack(|| self.is_busy()) {
            self.take_back();
            let after = untrack(|| self.leaf());
            let visit = self.place.with_untracked(|place| place.visit);
            self.held.set(Some(Held { role, text, after, visit }));
            if self.opening.get_untracked() == Opening::Failed {
                self.fetch();
            }
        } else {
            self.send(role, text);
        }
    }

    fn send(self, role: Role, text: MessageText) {
        let request = RequestId::random();
        let parent = untrack(|| self.leaf());
        let place = self.place.get_untracked();
        let conversation = self.transcript.with_untracked(Transcript::conversation);
        let conversation = conversation.unwrap_or_else(ConversationId::random);
        let system = self.system_in_force();
        let command = SendCommand {
            request,
            conversation,
            parent,
            role,
            text: text.as_str().to_owned(),
            system: system.clone(),
            settings: self.settings_in_force(),
        };
        self.is_missing.set(false);
        self.apply(Action::Asked(Pending { request, after: parent, said: Some((role, text.as_str().to_owned())) }));
        self.stop_early.set_value(false);
        self.announcement.set(self.texts.announce_answering.to_owned());
        spawn_local(async move {
            match insist(|| api::send_message(command.clone())).await {
                Ok(started) => self.begin(conversation, &system, request, started),
                Err(error) if self.is_pending(request) => self.refuse(request, text.as_str(), &error),
                Err(error) if self.place.with_untracked(|now| now.conversation == place.conversation) => {
                    self.put_back(text.as_str());
                    self.fail(&error);
                }
                // It waits where it was said.
                Err(_) => drafts::put_back(place.conversation, text.as_str()),
            }
        });
    }

    /// Asks for another answer beside this one.
    pub fn regenerate(self, answer: MessageId) {
        let place = self
            .transcript
            .with_untracked(|transcript| Some((transcript.conversation()?, transcript.message(answer)?.parent)));
        let Some((conversation, after)) = place else { return };
        if untrack(|| self.is_busy()) {
            return;
        }
        self.notice.set(None);
        let request = RequestId::random();
        let system = self.system_in_force();
        let command = RegenerateCommand {
            request,
            conversation,
            answer,
            system: system.clone(),
            settings: self.settings_in_force(),
        };
        self.apply(Action::Asked(Pending { request, after, said: None }));
        self.stop_early.set_value(false);
        self.announcement.set(self.texts.announce_answering.to_owned());
        spawn_local(async move {
            match insist(|| api::regenerate(command.clone())).await {
                Ok(started) => self.begin(conversation, &system, request, started),
                Err(error) if self.is_pending(request) => self.refuse(request, "", &error),
                Err(_) => {}
            }
        });
    }

    fn is_pending(self, request: RequestId) -> bool {
        let is_it = |pending: &Pending| pending.request == request;
        self.transcript.with_untracked(|transcript| transcript.pending().is_some_and(is_it))
    }

    fn begin(self, conversation: ConversationId, system: &str, request: RequestId, started: Started) {
        if !self.is_pending(request) {
            return self.begin_unseen(conversation, &started);
        }
        self.put_behind(untrack(|| self.leaf()), Some(started.answer.id));
        self.apply(Action::Begun(conversation, request, started));
        self.known_system.set(system.to_owned());
        self.place.update(|place| place.conversation = Some(conversation));
        if self.stop_early.get_value() {
            self.stop();
        }
    }

    /// Somebody who went elsewhere meanwhile is not taken back; whoever came back was shown the conversation without it.
    fn begin_unseen(self, conversation: ConversationId, started: &Started) {
        let is_first = started.message.as_ref().is_some_and(|message| message.parent.is_none());
        if self.place.with_untracked(|place| place.conversation == Some(conversation)) {
            self.fetch();
        } else if is_first {
            // Its address is known nowhere else.
            self.notice.set(Some(Notice::Elsewhere(conversation)));
        }
    }

    /// What waited behind a message that was refused does not go without it.
    fn refuse(self, request: RequestId, said: &str, error: &ChatError) {
        self.apply(Action::Refused(request));
        let held = self.unhold();
        self.put_back(&drafts::joined(&[said, &held]));
        self.fail(error);
    }

    /// Stops the answer that is running, or about to.
    pub fn stop(self) {
        if self.transcript.with_untracked(|transcript| transcript.pending().is_some()) {
            self.stop_early.set_value(true);
            return;
        }
        let Some(id) = untrack(|| self.running()) else { return };
        let Some(generation) = self.answer(id).and_then(|answer| answer.with_untracked(|answer| answer.generation))
        else {
            return;
        };
        self.stopping.set(Some(id));
        spawn_local(async move {
            if let Err(error) = insist(|| api::stop(generation)).await {
                self.stopping.set(None);
                self.fail(&error);
            }
        });
    }

    /// Gives what waits back to the composer.
    pub fn take_back(self) {
        let held = self.unhold();
        self.put_back(&held);
    }

    /// What waited, which waits no more.
    fn unhold(self) -> String {
        let held = self.held.get_untracked();
        self.held.set(None);
        held.map(|held| held.text.into()).unwrap_or_default()
    }

    fn put_back(self, text: &str) {
        if !text.is_empty() {
            self.draft.set(Some(Draft::PutBack(text.to_owned())));
        }
    }

    /// Lets what waits behind one message wait behind another.
    pub(super) fn put_behind(self, before: Option<MessageId>, after: Option<MessageId>) {
        self.held.update(|held| {
            if let Some(held) = held.as_mut().filter(|held| held.after == before) {
                held.after = after;
            }
        });
    }

    /// Sends what waits, where nothing stands against it any more and the message before it is still the newest.
    pub fn release(self) {
        let (leaf, visit) = (self.leaf(), self.place.with(|place| place.visit));
        if !self.is_busy()
            && let Some(held) = self.held.get()
            && (held.after, held.visit) == (leaf, visit)
        {
            self.held.set(None);
            untrack(|| self.send(held.role, held.text));
        }
    }

    /// An answer length that was set with another model goes as far as this one's.
    fn settings_in_force(self) -> Settings {
        let mut settings = self.settings.get_untracked();
        if let (Some(tokens), Some(model)) = (&mut settings.max_new_tokens, untrack(|| self.model())) {
            *tokens = model.longest_answer.min(*tokens);
        }
        settings
    }

    fn system_in_force(self) -> String {
        untrack(|| if self.supports(Role::System) { self.system.get() } else { String::new() })
    }
}

/// Sends a command, and once more where the server could not be reached: it may have got there all the same, and is not
/// carried out twice.
async fn insist<T, F: Future<Output = Result<T, ChatError>>>(send: impl Fn() -> F) -> Result<T, ChatError> {
    let mut may_repeat = true;
    loop {
        match send().await {
            Err(error) if error.code == ErrorCode::Unreachable && std::mem::take(&mut may_repeat) => {
                platform::pause(RETRY_PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use super::*;

    fn sent(outcomes: &[Result<u8, ErrorCode>]) -> (Result<u8, ErrorCode>, usize) {
        let count = Cell::new(0);
        let send = || {
            let outcome = outcomes[count.replace(count.get() + 1)];
            async move { outcome.map_err(|code| ChatError::new(code, "")) }
        };
        // Nothing is waited for outside a browser.
        let Poll::Ready(outcome) = pin!(insist(send)).poll(&mut Context::from_waker(Waker::noop())) else {
            panic!("it waits for something");
        };
        (outcome.map_err(|error| error.code), count.get())
    }

    #[test]
    fn a_command_that_did_not_arrive_is_sent_once_more() {
        let lost = Err(ErrorCode::Unreachable);
        assert_eq!(sent(&[lost, Ok(7)]), (Ok(7), 2));
        assert_eq!(sent(&[lost, lost, Ok(7)]), (lost, 2));
    }

    #[test]
    fn a_command_that_was_answered_is_not_repeated() {
        for outcome in [Ok(7), Err(ErrorCode::QueueFull)] {
            assert_eq!(sent(&[outcome, Ok(8)]), (outcome, 1));
        }
    }
}
