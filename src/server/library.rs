//! Conversations wherever they are: in memory while they are in use, in storage always.
//!
//! Owns that the two agree. Where storage fails the conversation goes on in memory, is known as not saved, and is written
//! whole as soon as that works again. Knows no engine and no HTTP.
//! **Architecture Invariant:** the lock on memory is never held across an await.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{
    clock,
    memory::{InUse, Kept, Lookup, Memory},
};
use crate::{
    chat::{
        error::{ChatError, ErrorCode},
        ids::{ConversationId, MessageId, RequestId},
        list::{ChatList, ListQuery},
        markup::Block,
    },
    storage::{
        conversations::Said,
        database::Storage,
        error::StorageError,
        record::{Command, Conversation, Head, Made, Message, Owner, Progress},
    },
};

/// Conversations kept in memory, beyond those in which an answer runs.
const IN_MEMORY: usize = 256;

/// Conversations that a list has at once.
const LIST_PAGE: usize = 40;

/// All conversations of all owners.
#[derive(Debug)]
pub struct Library {
    memory: Mutex<Memory>,
    storage: Storage,
    per_owner: usize,
}

/// A conversation as it was when it was looked at.
#[derive(Debug, Clone)]
pub struct Seen {
    /// All but its messages.
    pub head: Head,
    /// All messages, parents before children.
    pub messages: Vec<Arc<Kept>>,
    /// Whether storage has all of it.
    pub is_saved: bool,
}

/// What is said in a conversation.
#[derive(Debug)]
pub struct Saying {
    /// Whose it is.
    pub owner: Owner,
    /// Where; begun where there is none.
    pub id: ConversationId,
    /// Of a conversation that is begun.
    pub title: String,
    /// The system prompt from here on.
    pub system: String,
    /// Messages that are new or have changed.
    pub messages: Vec<Message>,
    /// The command that says it.
    pub command: Command,
}

impl Library {
    /// Over this storage; each owner has `per_owner` conversations at most.
    #[must_use]
    pub fn new(storage: Storage, per_owner: usize) -> Self {
        Self { memory: Mutex::new(Memory::new(IN_MEMORY)), storage, per_owner }
    }

    /// Brings a conversation into memory. Whether there is one.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] where it is another's, or was deleted.
    pub async fn open(&self, owner: Owner, id: ConversationId) -> Result<bool, ChatError> {
        match self.memory().look_up(owner, id) {
            Lookup::Theirs(_) => return Ok(true),
            Lookup::Foreign => return Err(ChatError::not_found("conversation")),
            Lookup::Absent => {}
        }
        match self.storage.load(owner, id).await {
            Ok(Some(conversation)) => {
                self.memory().insert(owner, conversation);
                Ok(true)
            }
            Ok(None) if self.storage.is_taken(id).await.unwrap_or(false) => Err(ChatError::not_found("conversation")),
            Ok(None) | Err(StorageError::Absent) => Ok(false),
            Err(error) => Err(unreadable(&error)),
        }
    }

    /// Looks at a conversation.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] where this owner has no such conversation.
    pub async fn see(&self, owner: Owner, id: ConversationId) -> Result<Seen, ChatError> {
        self.with(owner, id, |conversation| Seen {
            head: conversation.head(),
            messages: conversation.tree.messages().to_vec(),
            is_saved: conversation.is_saved,
        })
        .await
    }

    /// Does something with a conversation, without waiting for anything.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] where this owner has no such conversation.
    pub async fn with<T>(
        &self,
        owner: Owner,
        id: ConversationId,
        work: impl FnOnce(&mut InUse) -> T,
    ) -> Result<T, ChatError> {
        self.open(owner, id).await?;
        self.memory().get(owner, id).map(work).ok_or_else(|| ChatError::not_found("conversation"))
    }

    /// How many conversations this owner has, where another may be begun.
    ///
    /// # Errors
    /// [`ErrorCode::TooManyConversations`].
    pub async fn check_count(&self, owner: Owner) -> Result<usize, ChatError> {
        let count = self.storage.count(owner).await.unwrap_or(0);
        if count >= self.per_owner {
            return Err(ChatError::new(
                ErrorCode::TooManyConversations,
                format!("there are {count} conversations, at most {} are allowed; delete one first", self.per_owner),
            ));
        }
        Ok(count)
    }

    /// Records what is said, in memory first and then in storage. Whether it is saved.
    ///
    /// # Errors
    /// What stands against it; nothing is recorded then.
    pub async fn say(&self, saying: Saying) -> Result<bool, ChatError> {
        let Saying { owner, id, title, system, messages, command } = saying;
        let is_there = self.open(owner, id).await?;
        let (head, was_saved) = {
            let mut memory = self.memory();
            if !is_there {
                let head = Head { id, title, system: String::new(), leaf: None, updated_ms: 0 };
                memory.insert(owner, Conversation { head, messages: Vec::new() });
            }
            let conversation = memory.get(owner, id).ok_or_else(|| ChatError::not_found("conversation"))?;
            let put = conversation.put(messages.clone());
            if put.is_err() && !is_there {
                memory.remove(owner, id);
            }
            put?;
            let conversation = memory.get(owner, id).ok_or_else(|| ChatError::not_found("conversation"))?;
            conversation.head.system = system;
            conversation.head.updated_ms = clock::now_ms();
            (conversation.head(), conversation.is_saved)
        };
        let said = Said { owner, head, messages, command: Some(command) };
        let saved = if was_saved { self.storage.save(said).await } else { self.save_whole(owner, id).await };
        Ok(self.note(owner, id, saved))
    }

    /// Writes how far a running answer has come. Whether it is saved.
    pub async fn progress(&self, progress: Progress) -> bool {
        self.storage.progress(progress, clock::now_ms()).await.unwrap_or(false)
    }

    /// Writes how an answer ended, in memory first and then in storage. Whether it is saved; it is on its way there also
    /// where nobody waits for that.
    pub fn end(
        self: &Arc<Self>,
        owner: Owner,
        id: ConversationId,
        progress: Progress,
        blocks: Vec<Block>,
    ) -> impl Future<Output = bool> + Send + use<> {
        let now = clock::now_ms();
        let known_saved = self.memory().get(owner, id).map(|conversation| {
            conversation.end(&progress, blocks);
            conversation.head.updated_ms = now;
            conversation.is_saved
        });
        let writing = self.storage.progress(progress, now);
        let library = self.clone();
        async move {
            let written = writing.await;
            match known_saved {
                Some(false) => {
                    let saved = library.save_whole(owner, id).await;
                    library.note(owner, id, saved)
                }
                // Let go meanwhile, as by being deleted.
                None => written.unwrap_or(false),
                Some(true) => {
                    let saved = written.and_then(|found| if found { Ok(()) } else { Err(StorageError::NotFound) });
                    library.note(owner, id, saved)
                }
            }
        }
    }

    /// What a command made that was carried out before, perhaps before the program was started again.
    pub async fn carried_out(&self, owner: Owner, request: RequestId) -> Option<Made> {
        self.storage.carried_out(owner, request).await.ok().flatten()
    }

    /// Some of an owner's conversations, newest first.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub async fn list(&self, owner: Owner, query: ListQuery) -> Result<ChatList, ChatError> {
        match self.storage.list(owner, query, LIST_PAGE).await {
            Ok(list) => Ok(list),
            Err(StorageError::Absent) => Ok(ChatList::default()),
            Err(error) => Err(unreadable(&error)),
        }
    }

    /// Gives a conversation another title.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] where this owner has no such conversation.
    pub async fn rename(&self, owner: Owner, id: ConversationId, title: String) -> Result<(), ChatError> {
        let is_saved = self
            .with(owner, id, |conversation| {
                conversation.head.title.clone_from(&title);
                conversation.is_saved
            })
            .await?;
        if is_saved { self.storage.rename(owner, id, title).await.map_err(|error| unwritable(&error)) } else { Ok(()) }
    }

    /// Looks at the branch through a message, and remembers that.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] where this owner has no such message.
    pub async fn look(&self, owner: Owner, id: ConversationId, message: MessageId) -> Result<(), ChatError> {
        let leaf = self
            .with(owner, id, |conversation| {
                conversation.tree.get(message)?;
                conversation.tree.look_at(message);
                conversation.tree.leaf().map(|leaf| (leaf, conversation.is_saved))
            })
            .await?;
        let Some((leaf, is_saved)) = leaf else { return Err(ChatError::not_found("message")) };
        if is_saved {
            self.storage.look(owner, id, leaf).await.map_err(|error| unwritable(&error))?;
        }
        Ok(())
    }

    /// Deletes a conversation; the generations that run in it are for the caller to stop.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] where this owner has no such conversation.
    pub async fn delete(&self, owner: Owner, id: ConversationId) -> Result<Vec<Arc<Kept>>, ChatError> {
        let seen = self.see(owner, id).await?;
        if seen.is_saved {
            let deleted = self.storage.set_deleted(owner, id, Some(clock::now_ms())).await;
            deleted.map_err(|error| unwritable(&error))?;
        }
        self.memory().remove(owner, id);
        Ok(seen.messages)
    }

    /// Takes a delete back.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] where there is nothing of this owner's to be taken back.
    pub async fn restore(&self, owner: Owner, id: ConversationId) -> Result<(), ChatError> {
        self.storage.set_deleted(owner, id, None).await.map_err(|error| unwritable(&error))
    }

    /// Gives all that one owner has in memory to another.
    pub fn give(&self, from: Owner, to: Owner) {
        self.memory().give(from, to);
    }

    /// Tries once more to save what is not.
    pub async fn save_the_unsaved(&self) {
        let unsaved = self.memory().unsaved();
        for (owner, id) in unsaved {
            let saved = self.save_whole(owner, id).await;
            if !self.note(owner, id, saved) {
                return;
            }
        }
    }

    /// Where conversations are kept.
    #[must_use]
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// How many conversations are in memory.
    #[must_use]
    pub fn in_memory(&self) -> usize {
        self.memory().len()
    }

    async fn save_whole(&self, owner: Owner, id: ConversationId) -> Result<(), StorageError> {
        let said = self.memory().get(owner, id).map(|conversation| Said {
            owner,
            head: conversation.head(),
            messages: conversation.tree.messages().iter().map(|kept| kept.message.clone()).collect(),
            command: None,
        });
        match said {
            Some(said) => self.storage.save(said).await,
            None => Err(StorageError::NotFound),
        }
    }

    /// Remembers whether a conversation is saved.
    fn note(&self, owner: Owner, id: ConversationId, saved: Result<(), StorageError>) -> bool {
        if let Err(error) = &saved {
            tracing::error!(%error, "a conversation is not saved");
        }
        if let Some(conversation) = self.memory().get(owner, id) {
            conversation.is_saved = saved.is_ok();
        }
        saved.is_ok()
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unreadable(error: &StorageError) -> ChatError {
    if *error == StorageError::NotFound {
        return ChatError::not_found("conversation");
    }
    tracing::error!(%error, "conversations cannot be read");
    ChatError::new(ErrorCode::Internal, "the conversations cannot be read")
}

fn unwritable(error: &StorageError) -> ChatError {
    if *error == StorageError::NotFound {
        return ChatError::not_found("conversation");
    }
    tracing::error!(%error, "a conversation cannot be changed");
    ChatError::new(ErrorCode::Internal, "the change cannot be saved")
}
