//! The conversation that is looked at: its tree of messages, and what was asked but not yet confirmed.
//!
//! A pure reducer: knows no network and no DOM. How an answer grows is `answer`'s. **Architecture Invariant:** a command's
//! outcome is taken in only while that command is the pending one, so that an outcome which comes after the reader went
//! elsewhere changes nothing.

use crate::chat::{
    command::Started,
    conversation::Tree,
    ids::{ConversationId, MessageId, RequestId},
    info::ConversationView,
    message::{MessageView, Role},
};

/// What was asked of the server and is shown already.
#[derive(Debug, Clone, PartialEq)]
pub struct Pending {
    /// The command's name.
    pub request: RequestId,
    /// The message after which it stands, `None` at the beginning.
    pub after: Option<MessageId>,
    /// Who says what; `None` where an answer is asked for again.
    pub said: Option<(Role, String)>,
}

/// What can happen to a transcript.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "an action is taken in as soon as it is made")]
pub enum Action {
    /// Another conversation is looked at, or none yet.
    Opened(Option<ConversationView>),
    /// A command has left.
    Asked(Pending),
    /// A command was carried out, in this conversation.
    Begun(ConversationId, RequestId, Started),
    /// A command was refused.
    Refused(RequestId),
    /// The branch through this message is looked at.
    LookedAt(MessageId),
}

/// The conversation that is looked at.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Transcript {
    conversation: Option<ConversationId>,
    tree: Tree<MessageView>,
    pending: Option<Pending>,
}

impl Transcript {
    /// A conversation as the server gave it; empty where there is none yet.
    #[must_use]
    pub fn open(conversation: Option<ConversationView>) -> Self {
        let Some(view) = conversation else { return Self::default() };
        let mut tree = Tree::default();
        for message in view.messages {
            // One without its parent could not be shown anywhere.
            let _ = tree.push(message);
        }
        if let Some(leaf) = view.leaf {
            tree.look_at(leaf);
        }
        Self { conversation: Some(view.id), tree, pending: None }
    }

    /// Takes one action in.
    pub fn apply(&mut self, action: Action) {
        match action {
            Action::Opened(conversation) => *self = Self::open(conversation),
            Action::Asked(pending) => self.pending = Some(pending),
            Action::Begun(conversation, request, started) => {
                if self.settle(request) {
                    self.conversation = Some(conversation);
                    self.begin(started);
                }
            }
            Action::Refused(request) => {
                self.settle(request);
            }
            Action::LookedAt(message) => self.tree.look_at(message),
        }
    }

    /// The conversation's name, `None` before the first message was taken.
    #[must_use]
    pub fn conversation(&self) -> Option<ConversationId> {
        self.conversation
    }

    /// What was asked and not yet confirmed.
    #[must_use]
    pub fn pending(&self) -> Option<&Pending> {
        self.pending.as_ref()
    }

    /// One message.
    #[must_use]
    pub fn message(&self, id: MessageId) -> Option<&MessageView> {
        self.tree.get(id)
    }

    /// The messages that are shown, oldest first: the branch that is looked at, up to where something pending stands.
    #[must_use]
    pub fn path(&self) -> Vec<&MessageView> {
        match &self.pending {
            Some(pending) => pending.after.map_or_else(Vec::new, |leaf| self.tree.path_to(leaf)),
            None => self.tree.path(),
        }
    }

    /// The newest message that is shown.
    #[must_use]
    pub fn leaf(&self) -> Option<&MessageView> {
        self.path().last().copied()
    }

    /// Where a message stands among its siblings: its place counted from 1, how many there are, and its neighbours.
    #[must_use]
    pub fn branch(&self, id: MessageId) -> Branch {
        let siblings = self.tree.siblings(id);
        let place = siblings.iter().position(|sibling| *sibling == id).unwrap_or_default();
        Branch {
            place: place + 1,
            count: siblings.len(),
            previous: place.checked_sub(1).and_then(|before| siblings.get(before)).copied(),
            next: siblings.get(place + 1).copied(),
        }
    }

    /// Whether there is nothing to show.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pending.is_none() && self.tree.messages().is_empty()
    }

    /// The first line of the first message, as the conversation's heading.
    #[must_use]
    pub fn heading(&self) -> Option<String> {
        const MAX_CHARS: usize = 40;
        let pending = self.pending.as_ref().and_then(|pending| pending.said.as_ref()).map(|(_, text)| text.as_str());
        let text = self.tree.messages().first().map(|message| message.text.as_str()).or(pending)?;
        let line = text.trim().lines().next()?;
        let mut heading: String = line.chars().take(MAX_CHARS).collect();
        if line.chars().nth(MAX_CHARS).is_some() {
            heading.push('…');
        }
        Some(heading)
    }

    fn settle(&mut self, request: RequestId) -> bool {
        let is_pending = self.pending.as_ref().is_some_and(|pending| pending.request == request);
        if is_pending {
            self.pending = None;
        }
        is_pending
    }

    fn begin(&mut self, started: Started) {
        for message in started.message.into_iter().chain([started.answer]) {
            if self.tree.get(message.id).is_none() {
                // A parent that is missing here was said in another tab; a reload shows it.
                let _ = self.tree.push(message);
            }
        }
    }
}

/// Where a message stands among its siblings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Branch {
    /// From 1.
    pub place: usize,
    /// How many siblings there are, itself counted.
    pub count: usize,
    /// The one before.
    pub previous: Option<MessageId>,
    /// The one after.
    pub next: Option<MessageId>,
}

#[cfg(test)]
#[path = "transcript/tests.rs"]
mod tests;
