//! Conversations that are in use, in memory: trees of messages, each with whoever owns it.
//!
//! What is here came from storage or goes there; keeping the two the same is for `library`. Bounded: beyond the limit the
//! conversation that was idle longest is let go, one that is not saved last of all.
//! **Architecture Invariant:** nothing is handed out but to its owner, and a conversation in which an answer runs stays.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use crate::{
    chat::{
        conversation::{Node, Tree},
        error::{ChatError, ErrorCode},
        ids::{ConversationId, MessageId},
        limits::MAX_MESSAGES,
        markup::Block,
        message::Role,
    },
    engine::prompt::Turn,
    render,
    storage::record::{Conversation, Head, Message, Owner, Progress},
};

/// One message and what it looks like.
#[derive(Debug)]
pub struct Kept {
    /// The message.
    pub message: Message,
    blocks: OnceLock<Vec<Block>>,
}

impl Kept {
    /// A message that nobody has looked at yet.
    #[must_use]
    pub fn new(message: Message) -> Arc<Self> {
        Arc::new(Self { message, blocks: OnceLock::new() })
    }

    /// An answer's text as blocks, parsed the first time; of a person's message none. Long texts take a while.
    pub fn blocks(&self) -> &[Block] {
        self.blocks.get_or_init(|| match self.message.role {
            Role::Assistant => render::markdown(&self.message.text),
            Role::System | Role::User | Role::Exec => Vec::new(),
        })
    }
}

impl Node for Arc<Kept> {
    fn id(&self) -> MessageId {
        self.message.id
    }

    fn parent(&self) -> Option<MessageId> {
        self.message.parent
    }
}

/// A conversation in use.
#[derive(Debug)]
pub struct InUse {
    owner: Owner,
    /// All but its messages.
    pub head: Head,
    /// All messages.
    pub tree: Tree<Arc<Kept>>,
    /// Whether storage has all of it.
    pub is_saved: bool,
    last_used: u64,
}

impl InUse {
    fn new(owner: Owner, conversation: Conversation) -> Self {
        let mut tree = Tree::default();
        for message in conversation.messages {
            // One without its parent could not be shown anywhere.
            let _ = tree.push(Kept::new(message));
        }
        if let Some(leaf) = conversation.head.leaf {
            tree.look_at(leaf);
        }
        Self { owner, head: conversation.head, tree, is_saved: true, last_used: 0 }
    }

    /// All but its messages, as it is now.
    #[must_use]
    pub fn head(&self) -> Head {
        Head { leaf: self.tree.leaf(), ..self.head.clone() }
    }

    /// Whether an answer is being written.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.tree.messages().iter().any(|kept| kept.message.is_running())
    }

    /// The branch that a new message after `parent` would follow, as turns for a prompt. A round whose answer has no text
    /// is left out: there is nothing that the model could have said there.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] where there is no such message, [`ErrorCode::Conflict`] where it is an answer that runs or
    /// no answer at all.
    pub fn turns_before(&self, parent: MessageId) -> Result<Vec<Turn>, ChatError> {
        let kept = self.tree.get(parent).ok_or_else(|| ChatError::not_found("message"))?;
        let conflict = |why| Err(ChatError::new(ErrorCode::Conflict, why));
        match &kept.message.answer {
            Some(answer) if answer.end.is_none() => conflict("the answer before this message is still being written"),
            Some(_) => Ok(turns(&self.tree.path_to(parent))),
            None => conflict("a message can only follow an answer"),
        }
    }

    /// The question that `answer` answers, and the branch up to it as turns for a prompt.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] where there is no such answer.
    pub fn turns_of(&self, answer: MessageId) -> Result<(MessageId, Vec<Turn>), ChatError> {
        let kept = self.tree.get(answer).filter(|kept| kept.message.answer.is_some());
        let question = kept.and_then(|kept| kept.message.parent).ok_or_else(|| ChatError::not_found("answer"))?;
        Ok((question, turns(&self.tree.path_to(question))))
    }

    /// The answer to be gone on with.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] where there is no such answer, [`ErrorCode::Conflict`] where it runs or something was said
    /// after it.
    pub fn unfinished(&self, answer: MessageId) -> Result<Message, ChatError> {
        let kept = self.tree.get(answer).ok_or_else(|| ChatError::not_found("answer"))?;
        let Some(is_over) = kept.message.answer.as_ref().map(|answer| answer.end.is_some()) else {
            return Err(ChatError::not_found("answer"));
        };
        let conflict = |why| Err(ChatError::new(ErrorCode::Conflict, why));
        if !is_over {
            return conflict("the answer is still being written");
        }
        if self.tree.messages().iter().any(|other| other.message.parent == Some(answer)) {
            return conflict("something has been said after this answer; ask for another one instead");
        }
        Ok(kept.message.clone())
    }

    /// Whether as many more messages would still be allowed.
    ///
    /// # Errors
    /// [`ErrorCode::ConversationFull`].
    pub fn check_room(&self, more: usize) -> Result<(), ChatError> {
        let len = self.tree.messages().len();
        if len + more > MAX_MESSAGES {
            return Err(ChatError::new(
                ErrorCode::ConversationFull,
                format!("the conversation has {len} messages, at most {MAX_MESSAGES} are allowed; begin a new one"),
            ));
        }
        Ok(())
    }

    /// Adds messages, or puts them in place of those of the same name.
    ///
    /// # Errors
    /// [`ErrorCode::ConversationFull`], or [`ErrorCode::NotFound`] where the message before is gone.
    pub fn put(&mut self, messages: Vec<Message>) -> Result<(), ChatError> {
        let n_new = messages.iter().filter(|message| self.tree.get(message.id).is_none()).count();
        self.check_room(n_new)?;
        for message in messages {
            let (id, kept) = (message.id, Kept::new(message));
            match self.tree.get_mut(id) {
                Some(old) => {
                    *old = kept;
                    self.tree.look_at(id);
                }
                None => self.tree.push(kept).map_err(|_| ChatError::not_found("message"))?,
            }
        }
        Ok(())
    }

    /// Writes how an answer ended. Nothing happens where another generation writes it by now.
    pub fn end(&mut self, progress: &Progress, blocks: Vec<Block>) {
        let Some(kept) = self.tree.get_mut(progress.answer) else { return };
        let mut message = kept.message.clone();
        let Some(answer) = message.answer.as_mut().filter(|answer| answer.generation == progress.generation) else {
            return;
        };
        answer.token_ids.clone_from(&progress.token_ids);
        answer.stats = progress.stats;
        answer.end = progress.end;
        message.text.clone_from(&progress.text);
        *kept = Arc::new(Kept { message, blocks: blocks.into() });
    }
}

fn turns(path: &[&Arc<Kept>]) -> Vec<Turn> {
    let mut turns: Vec<Turn> = Vec::with_capacity(path.len());
    for kept in path {
        let message = &kept.message;
        if message.answer.is_some() && message.text.is_empty() {
            turns.pop();
        } else {
            turns.push(Turn { role: message.role, text: message.text.clone() });
        }
    }
    turns
}

/// All conversations in use.
#[derive(Debug)]
pub struct Memory {
    by_id: HashMap<ConversationId, InUse>,
    limit: usize,
    clock: u64,
}

/// Whether a conversation is in use, and by whom.
#[derive(Debug)]
pub enum Lookup<'a> {
    /// It is this owner's.
    Theirs(&'a mut InUse),
    /// It is another's.
    Foreign,
    /// It is not in use.
    Absent,
}

impl Memory {
    /// None yet, and never many more than `limit`.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { by_id: HashMap::new(), limit, clock: 0 }
    }

    /// One conversation, for its owner.
    pub fn look_up(&mut self, owner: Owner, id: ConversationId) -> Lookup<'_> {
        self.clock += 1;
        match self.by_id.get_mut(&id) {
            None => Lookup::Absent,
            Some(conversation) if conversation.owner != owner => Lookup::Foreign,
            Some(conversation) => {
                conversation.last_used = self.clock;
                Lookup::Theirs(conversation)
            }
        }
    }

    /// One conversation of this owner.
    pub fn get(&mut self, owner: Owner, id: ConversationId) -> Option<&mut InUse> {
        match self.look_up(owner, id) {
            Lookup::Theirs(conversation) => Some(conversation),
            Lookup::Foreign | Lookup::Absent => None,
        }
    }

    /// Takes one in, unless it is here already.
    pub fn insert(&mut self, owner: Owner, conversation: Conversation) {
        if self.by_id.contains_key(&conversation.head.id) {
            return;
        }
        self.make_room();
        self.clock += 1;
        let in_use = InUse { last_used: self.clock, ..InUse::new(owner, conversation) };
        self.by_id.insert(in_use.head.id, in_use);
    }

    /// Lets one go.
    pub fn remove(&mut self, owner: Owner, id: ConversationId) -> Option<InUse> {
        self.get(owner, id)?;
        self.by_id.remove(&id)
    }

    /// Those that storage does not have all of.
    #[must_use]
    pub fn unsaved(&self) -> Vec<(Owner, ConversationId)> {
        let unsaved = self.by_id.iter().filter(|(_, conversation)| !conversation.is_saved);
        unsaved.map(|(id, conversation)| (conversation.owner, *id)).collect()
    }

    /// Gives all that one owner has to another.
    pub fn give(&mut self, from: Owner, to: Owner) {
        for conversation in self.by_id.values_mut().filter(|conversation| conversation.owner == from) {
            conversation.owner = to;
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    fn make_room(&mut self) {
        if self.by_id.len() < self.limit {
            return;
        }
        let idle = self.by_id.iter().filter(|(_, conversation)| !conversation.is_running());
        let oldest = idle.min_by_key(|(_, conversation)| (!conversation.is_saved, conversation.last_used));
        if let Some(id) = oldest.map(|(id, _)| *id) {
            self.by_id.remove(&id);
        }
    }
}

#[cfg(test)]
#[path = "memory/tests.rs"]
mod tests;
