//! Branches: which one is looked at, and messages that are edited, which makes another one.
//!
//! Owns an edit's way from the first key to its outcome. **Architecture Invariant:** nothing is changed or deleted by an
//! edit, and its text is kept from when it is written until the server has it.

use leptos::task::spawn_local;

use super::Store;
use crate::{
    api,
    app::{
        drafts::{self, Kind},
        transcript::{Action, Transcript},
    },
    chat::{
        command::Started,
        error::{ChatError, ErrorCode},
        ids::{ConversationId, MessageId},
        message::{MessageText, Role},
    },
};

impl Store {
    /// Looks at the branch through this message.
    pub fn look(self, message: MessageId) {
        self.apply(Action::LookedAt(message));
        if let Some(conversation) = self.transcript.with_untracked(Transcript::conversation) {
            spawn_local(async move {
                // Where it is not remembered, another branch is looked at after a reload: all of them are still there.
                let _ = api::look(conversation, message).await;
            });
        }
    }

    /// Opens the edits that were not sent yet.
    pub fn take_up_edits(self) {
        let conversation = self.place.with_untracked(|place| place.conversation);
        self.edited.set(conversation.map(drafts::edited).unwrap_or_default());
    }

    /// Begins to edit a message.
    pub fn edit(self, id: MessageId) {
        self.edited.update(|edited| {
            if !edited.contains(&id) {
                edited.push(id);
            }
        });
    }

    /// Leaves a message as it is.
    pub fn leave(self, id: MessageId) {
        drafts::forget(Kind::Edit(id), self.place.with_untracked(|place| place.conversation));
        self.edited.update(|edited| edited.retain(|other| *other != id));
    }

    /// Says something in the place of an earlier message, which stays as a branch beside it. Gives the reason where that
    /// cannot be.
    pub fn say_instead(self, id: MessageId, text: &str) {
        let role = self.transcript.with_untracked(|transcript| transcript.message(id).map(|message| message.role));
        let (Some((_, parent)), Some(role)) = (self.found(id), role) else { return };
        match MessageText::parse(text) {
            Ok(text) => {
                self.keep_edit(id, text.as_str());
                self.edited.update(|edited| edited.retain(|other| *other != id));
                self.send_after(parent, role, text, Some(id));
            }
            Err(error) if error.code == ErrorCode::MessageEmpty => {}
            Err(error) => self.fail(&error),
        }
    }

    /// What was edited and sent is kept until it is on the server, and open again where it did not get there.
    pub(super) fn settle_edit(self, conversation: ConversationId, id: MessageId, outcome: &Result<Started, ChatError>) {
        if outcome.is_ok() {
            drafts::forget(Kind::Edit(id), Some(conversation));
        } else if self.place.with_untracked(|place| place.conversation == Some(conversation)) {
            self.edit(id);
        }
    }

    /// What is written in the place of a message: as it was left, or as it was said.
    #[must_use]
    pub fn edit_text(self, id: MessageId) -> String {
        let said = || self.transcript.with_untracked(|transcript| Some(transcript.message(id)?.text.clone()));
        drafts::kept(Kind::Edit(id), self.place.with_untracked(|place| place.conversation))
            .or_else(said)
            .unwrap_or_default()
    }

    /// Keeps what is written in the place of a message.
    pub fn keep_edit(self, id: MessageId, text: &str) {
        drafts::keep(Kind::Edit(id), self.place.with_untracked(|place| place.conversation), text);
    }

    /// Begins to edit what the person said last, which is told.
    pub fn edit_last(self) -> Option<MessageId> {
        let last = self.transcript.with_untracked(|transcript| {
            let mut said = transcript.path().into_iter().rev().filter(|message| message.role != Role::Assistant);
            said.next().map(|message| message.id)
        });
        last.inspect(|id| self.edit(*id))
    }

    /// Looks at the branch beside the newest one that has any; whether there is one.
    pub fn look_beside(self, side: Side) -> bool {
        let branch = self.transcript.with_untracked(Transcript::fork);
        let beside = branch.and_then(|branch| match side {
            Side::Previous => branch.previous,
            Side::Next => branch.next,
        });
        if let Some(message) = beside {
            self.look(message);
        }
        beside.is_some()
    }
}

/// Which of two neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The older one.
    Previous,
    /// The newer one.
    Next,
}
