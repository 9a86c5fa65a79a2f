//! What was written and not sent yet, kept in the browser for each conversation.
//!
//! Owns where it is kept; knows neither fields nor store. **Architecture Invariant:** texts that come together are joined,
//! so that keeping one never overwrites another.

use super::platform;
use crate::chat::ids::{ConversationId, MessageId};

/// What a draft is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The next message.
    Message,
    /// The system prompt from the next message on.
    System,
    /// This message, as it is to be said instead.
    Edit(MessageId),
}

/// The draft of a conversation, `None` for one that is not begun.
#[must_use]
pub fn kept(kind: Kind, conversation: Option<ConversationId>) -> Option<String> {
    platform::stored(&key(kind, conversation))
}

/// This text behind the draft that is kept, unless the two are the same.
#[must_use]
pub fn behind_kept(kind: Kind, conversation: Option<ConversationId>, text: &str) -> String {
    behind(kept(kind, conversation).as_deref(), text)
}

/// Keeps a draft. An empty message is none; an empty system prompt is one that was removed.
pub fn keep(kind: Kind, conversation: Option<ConversationId>, text: &str) {
    let is_draft = kind == Kind::System || !text.is_empty();
    platform::store(&key(kind, conversation), is_draft.then_some(text));
}

/// Forgets a draft.
pub fn forget(kind: Kind, conversation: Option<ConversationId>) {
    platform::store(&key(kind, conversation), None);
}

/// The messages of a conversation that are being edited.
#[must_use]
pub fn edited(conversation: ConversationId) -> Vec<MessageId> {
    let keys = platform::stored_keys().into_iter();
    keys.filter_map(|key| key.strip_prefix(&format!("edit:{conversation}:"))?.parse().ok()).collect()
}

/// Forgets all drafts of these conversations.
pub fn forget_all(is_gone: impl Fn(ConversationId) -> bool) {
    for key in platform::stored_keys() {
        if owner(&key).is_some_and(&is_gone) {
            platform::store(&key, None);
        }
    }
}

/// Puts a message that could not be sent before the draft of a conversation that nobody looks at.
pub fn put_back(conversation: Option<ConversationId>, message: &str) {
    let draft = kept(Kind::Message, conversation).unwrap_or_default();
    keep(Kind::Message, conversation, &joined(&[message, &draft]));
}

/// Texts one after the other, blank ones left out.
#[must_use]
pub fn joined(texts: &[&str]) -> String {
    let texts: Vec<_> = texts.iter().copied().filter(|text| !text.trim().is_empty()).collect();
    texts.join("\n\n")
}

fn behind(kept: Option<&str>, text: &str) -> String {
    match kept {
        Some(kept) if kept != text => joined(&[kept, text]),
        Some(_) | None => text.to_owned(),
    }
}

fn key(kind: Kind, conversation: Option<ConversationId>) -> String {
    let conversation = conversation.map_or_else(|| "new".to_owned(), |id| id.to_string());
    match kind {
        Kind::Message => format!("draft:{conversation}"),
        Kind::System => format!("system:{conversation}"),
        Kind::Edit(message) => format!("edit:{conversation}:{message}"),
    }
}

/// The conversation that a key belongs to; `None` for one that is not begun, and for what is no draft.
fn owner(key: &str) -> Option<ConversationId> {
    let mut parts = key.split(':');
    parts.next().filter(|kind| matches!(*kind, "draft" | "system" | "edit"))?;
    parts.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_texts_stand_apart_and_blank_ones_leave_no_gap() {
        assert_eq!(joined(&["one", " \n", "two"]), "one\n\ntwo");
        assert_eq!(joined(&["", " two "]), " two ");
        assert_eq!(joined(&["", " "]), "");
    }

    #[test]
    fn a_text_comes_behind_what_is_kept_and_is_there_once_where_the_two_are_the_same() {
        assert_eq!(behind(Some("one"), "two"), "one\n\ntwo");
        assert_eq!(behind(Some("one"), "one"), "one");
        assert_eq!(behind(Some("one"), ""), "one");
        assert_eq!(behind(Some(""), "two"), "two");
        assert_eq!(behind(None, " "), " ");
    }

    #[test]
    fn each_conversation_has_a_place_of_its_own_for_each_draft() {
        let kinds = [Kind::Message, Kind::System, Kind::Edit(MessageId::random()), Kind::Edit(MessageId::random())];
        let ids = [None, Some(ConversationId::random()), Some(ConversationId::random())];
        let mut keys = Vec::new();
        for id in ids {
            keys.extend(kinds.map(|kind| key(kind, id)));
            assert!(kinds.iter().all(|kind| owner(&key(*kind, id)) == id));
        }
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), ids.len() * kinds.len());
        assert_eq!(owner("settings"), None);
    }
}
