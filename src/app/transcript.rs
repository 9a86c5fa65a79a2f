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
    list::made_title,
    message::{MessageView, Role},
};

/// What was asked of the server and is shown already.
#[derive(Debug, Clone, PartialEq)]
pub struct Pending {
    /// The command's name.
    pub request: RequestId,
    /// The message after which it stands, `None` at the beginning.
    pub after: Option<MessageId>,
    /// What was asked for.
    pub wish: Wish,
}

/// What is asked of the server.
#[derive(Debug, Clone, PartialEq)]
pub enum Wish {
    /// An answer to what this one says.
    Answer(Role, String),
    /// An answer to what this one says in the place of something else.
    Instead(Role, String),
    /// Another answer.
    Again,
    /// More of the answer after which it stands.
    More,
}

impl Wish {
    /// Who says what.
    #[must_use]
    pub fn said(&self) -> Option<(Role, &str)> {
        match self {
            Self::Answer(role, text) | Self::Instead(role, text) => Some((*role, text)),
            Self::Again | Self::More => None,
        }
    }
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
    /// The conversation is called something else.
    Titled(String),
}

/// The conversation that is looked at.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Transcript {
    conversation: Option<ConversationId>,
    title: String,
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
        Self { conversation: Some(view.id), title: view.title, tree, pending: None }
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
            Action::Titled(title) => self.title = title,
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

    /// The newest place of those shown where there is more than one branch.
    #[must_use]
    pub fn fork(&self) -> Option<Branch> {
        let branches = self.path().into_iter().rev().map(|message| self.branch(message.id));
        branches.into_iter().find(|branch| branch.count > 1)
    }

    /// Whether there is nothing to show.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pending.is_none() && self.tree.messages().is_empty()
    }

    /// What the conversation is called; `None` before anything was said.
    #[must_use]
    pub fn title(&self) -> Option<String> {
        let pending = || Some(made_title(self.pending.as_ref()?.wish.said()?.1));
        if self.title.is_empty() { pending() } else { Some(self.title.clone()) }
    }

    fn settle(&mut self, request: RequestId) -> bool {
        let is_pending = self.pending.as_ref().is_some_and(|pending| pending.request == request);
        if is_pending {
            self.pending = None;
        }
        is_pending
    }

    fn begin(&mut self, started: Started) {
        if let Some(message) = started.message.as_ref().filter(|_| self.title.is_empty()) {
            self.title = made_title(&message.text);
        }
        for message in started.message.into_iter().chain([started.answer]) {
            match self.tree.get_mut(message.id) {
                Some(known) => *known = message,
                // A parent that is missing here was said in another tab; a reload shows it.
                None => {
                    let _ = self.tree.push(message);
                }
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
