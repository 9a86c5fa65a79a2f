//! The page's addresses: what one asks for, and how the browser's address and history keep in step with what is shown.
//!
//! There are two, so the page needs no router: a link of its own is followed without loading the document again, back and
//! forward open what they name, and a new conversation gets its address without being drawn again.

use leptos::{ev, prelude::*};

use super::{platform, store::Store, view::effect};
use crate::chat::ids::ConversationId;

/// What an address asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// A new conversation.
    Start,
    /// A conversation, which may or may not be there.
    Conversation(ConversationId),
    /// Nothing that there is.
    Unknown,
}

impl Address {
    /// What a path asks for.
    #[must_use]
    pub fn parse(path: &str) -> Self {
        match path.trim_matches('/') {
            "" => Self::Start,
            path => path.strip_prefix("c/").and_then(|id| id.parse().ok()).map_or(Self::Unknown, Self::Conversation),
        }
    }
}

/// Keeps address and store in step, until the owner is cleaned up.
pub fn keep(store: Store) {
    effect(move || {
        if let Some(id) = store.place.get().conversation
            && Address::parse(&platform::path()) != Address::Conversation(id)
        {
            platform::push_path(&format!("/c/{id}"));
        }
    });
    effect(move || {
        let on_history = window_event_listener(ev::popstate, move |_| show(store, Address::parse(&platform::path())));
        let on_click = window_event_listener(ev::click, move |event| {
            if let Some(path) = platform::followed_link(&event) {
                event.prevent_default();
                go(store, &path);
            }
        });
        on_cleanup(move || {
            on_history.remove();
            on_click.remove();
        });
    });
}

/// Goes to one of the page's own addresses, and closes the list that led there; nothing else happens where one is there
/// already.
pub fn go(store: Store, path: &str) {
    platform::order("chats", "hidePopover");
    open(store, path);
}

/// Opens one of the page's own addresses; nothing happens where one is there already.
pub fn open(store: Store, path: &str) {
    let address = Address::parse(path);
    if address != Address::parse(&platform::path()) {
        platform::push_path(path);
        show(store, address);
    }
}

fn show(store: Store, address: Address) {
    let shown = store.place.with_untracked(|place| place.conversation);
    match address {
        Address::Start => store.open(None),
        Address::Conversation(id) if shown == Some(id) => {}
        Address::Conversation(id) => store.open(Some(id)),
        Address::Unknown => {
            store.open(None);
            store.is_missing.set(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_a_conversation_or_nothing() {
        let id = ConversationId::random();
        assert_eq!(Address::parse("/"), Address::Start);
        assert_eq!(Address::parse(&format!("/c/{id}")), Address::Conversation(id));
        for path in ["/c/", "/c/nonsense", "/elsewhere", &format!("/c/{id}/more")] {
            assert_eq!(Address::parse(path), Address::Unknown, "{path}");
        }
    }
}
