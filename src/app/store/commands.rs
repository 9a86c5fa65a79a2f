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
        answer::Answer,
        drafts, platform,
        transcript::{Action, Pending, Transcript, Wish},
    },
    chat::{
        command::{ContinueCommand, RegenerateCommand, SendCommand, Started},
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
        let parent = untrack(|| self.leaf());
        self.send_after(parent, role, text, None);
    }

    /// Sends a message, in the place of the one that was edited where it is one.
    pub(super) fn send_after(
        self,
        parent: Option<MessageId>,
        role: Role,
        text: MessageText,
        edited: Option<MessageId>,
    ) {
        let place = self.place.get_untracked();
        let conversation = self.transcript.with_untracked(Transcript::conversation);
        let conversation = conversation.unwrap_or_else(ConversationId::random);
        let system = self.system_in_force();
        let text = String::from(text);
        let wish = if edited.is_some() { Wish::Instead } else { Wish::Answer };
        let request = self.ask(parent, wish(role, text.clone()));
        let command = SendCommand {
            request,
            conversation,
            parent,
            role,
            text: text.clone(),
            system: system.clone(),
            settings: self.settings_in_force(),
        };
        self.is_missing.set(false);
        spawn_local(async move {
            let outcome = insist(|| api::send_message(command.clone())).await;
            if let Some(message) = edited {
                self.settle_edit(conversation, message, &outcome);
            }
            // What was edited waits as it was edited, and does not go into the composer.
            let text = if edited.is_some() { "" } else { &text };
            match outcome {
                Ok(started) => self.begin(conversation, Some(&system), request, started),
                Err(error) if self.is_pending(request) => self.refuse(request, text, &error),
                Err(error) if self.place.with_untracked(|now| now.conversation == place.conversation) => {
                    self.put_back(text);
                    self.fail(&error);
                }
                // It waits where it was said.
                Err(_) => drafts::put_back(place.conversation, text),
            }
        });
    }

    /// Asks for another answer beside this one.
    pub fn regenerate(self, answer: MessageId) {
        let Some((conversation, after)) = self.found(answer) else { return };
        let system = self.system_in_force();
        let settings = self.settings_in_force();
        let request = self.ask(after, Wish::Again);
        let command = RegenerateCommand { request, conversation, answer, system: system.clone(), settings };
        spawn_local(async move {
            let outcome = insist(|| api::regenerate(command.clone())).await;
            self.end_wish(conversation, Some(&system), request, outcome);
        });
    }

    /// Asks for more of an answer that broke off.
    pub fn go_on(self, answer: MessageId) {
        let Some((conversation, _)) = self.found(answer) else { return };
        let request = self.ask(Some(answer), Wish::More);
        let max_new_tokens = self.settings_in_force().max_new_tokens;
        let command = ContinueCommand { request, conversation, answer, max_new_tokens };
        spawn_local(async move {
            let outcome = insist(|| api::continue_answer(command.clone())).await;
            self.end_wish(conversation, None, request, outcome);
        });
    }

    /// Where a message is, unless it has to be left alone for now.
    pub(super) fn found(self, id: MessageId) -> Option<(ConversationId, Option<MessageId>)> {
        let place = self
            .transcript
            .with_untracked(|transcript| Some((transcript.conversation()?, transcript.message(id)?.parent)));
        place.filter(|_| !untrack(|| self.is_busy()))
    }

    /// Shows what is asked for.
    fn ask(self, after: Option<MessageId>, wish: Wish) -> RequestId {
        let request = RequestId::random();
        self.notice.set(None);
        self.apply(Action::Asked(Pending { request, after, wish }));
        self.stop_early.set(false);
        self.announcement.set(self.texts.announce_answering.to_owned());
        request
    }

    fn end_wish(
        self,
        conversation: ConversationId,
        system: Option<&str>,
        request: RequestId,
        outcome: Result<Started, ChatError>,
    ) {
        match outcome {
            Ok(started) => self.begin(conversation, system, request, started),
            Err(error) if self.is_pending(request) => self.refuse(request, "", &error),
            Err(_) => {}
        }
    }

    fn is_pending(self, request: RequestId) -> bool {
        let is_it = |pending: &Pending| pending.request == request;
        self.transcript.with_untracked(|transcript| transcript.pending().is_some_and(is_it))
    }

    fn begin(self, conversation: ConversationId, system: Option<&str>, request: RequestId, started: Started) {
        self.refresh_chats();
        if !self.is_pending(request) {
            return self.begin_unseen(conversation, &started);
        }
        self.is_saved.set(started.is_saved);
        self.put_behind(untrack(|| self.leaf()), Some(started.answer.id));
        let known = self.known_answer(started.answer.id);
        let fresh = Answer::from_message(&started.answer);
        self.apply(Action::Begun(conversation, request, started));
        if let (Some(known), Some(fresh)) = (known, fresh) {
            known.update(|known| known.take_up(fresh));
        }
        if let Some(system) = system {
            self.known_system.set(system.to_owned());
        }
        self.place.update(|place| place.conversation = Some(conversation));
        if self.stop_early.get_untracked() {
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
            self.stop_early.set(true);
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
pub(super) async fn insist<T, F: Future<Output = Result<T, ChatError>>>(send: impl Fn() -> F) -> Result<T, ChatError> {
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
