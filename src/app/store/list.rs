//! The list of conversations: what is asked of the server about it, and what becomes of that.
//!
//! Owns the list's signals; how lists are joined is worked out by `chats`. **Architecture Invariant:** a reply changes
//! nothing once the same was asked for again or a title was changed meanwhile.

use std::time::Duration;

use leptos::{prelude::*, task::spawn_local};

use super::{Notice, Store, commands::insist};
use crate::{
    api,
    app::{
        address,
        chats::Chats,
        drafts, platform,
        state::State,
        timer::Timer,
        transcript::{Action, Transcript},
        view::effect,
    },
    chat::{
        error::ErrorCode,
        ids::ConversationId,
        list::{ChatList, ChatSummary, ListQuery, OwnerLink, chosen_title},
    },
};

/// How long a delete can be taken back.
const UNDO_TIME: Duration = Duration::from_secs(8);

/// Pause in typing after which is searched.
const SEARCH_PAUSE: Duration = Duration::from_millis(250);

/// How often is asked whether what is answered elsewhere is over.
const FOLLOW_PAUSE: Duration = Duration::from_secs(5);

/// A conversation that was just deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deleted {
    /// Which.
    pub id: ConversationId,
    /// What it was called.
    pub title: String,
    /// Whether it was looked at.
    pub was_open: bool,
    /// Whether the server has deleted it: before, there is nothing to take back.
    pub is_done: bool,
}

/// The signals of the list.
#[derive(Clone, Copy)]
pub struct List {
    /// The conversations.
    pub chats: State<Chats>,
    /// What is searched for.
    pub search: State<String>,
    /// The one that is being given another title.
    pub renamed: State<Option<ConversationId>>,
    /// Those whose deleting can be taken back.
    pub deleted: State<Vec<Deleted>>,
    /// A link that was made for another device.
    pub link: State<Option<OwnerLink>>,
    /// The code of the link that the page was opened with.
    pub offered: State<Option<String>>,
    /// Counts how often the newest ones were asked for.
    n_newest: State<u32>,
    /// Counts how often others were.
    n_other: State<u32>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The newest conversations.
    Newest,
    /// What was searched for, or more of what is shown.
    Other,
}

impl List {
    /// The list of a page that was just loaded.
    #[must_use]
    pub fn new(chats: ChatList) -> Self {
        Self {
            chats: State::new(Chats::new(chats)),
            search: State::new(String::new()),
            renamed: State::new(None),
            deleted: State::new(Vec::new()),
            link: State::new(None),
            offered: State::new(None),
            n_newest: State::new(0),
            n_other: State::new(0),
        }
    }

    fn n_asked(self, kind: Kind) -> State<u32> {
        match kind {
            Kind::Newest => self.n_newest,
            Kind::Other => self.n_other,
        }
    }

    /// Makes a number for a question of this kind, which makes the one before it stale.
    fn number(self, kind: Kind) -> u32 {
        let number = self.n_asked(kind).get_untracked().wrapping_add(1);
        self.n_asked(kind).set(number);
        number
    }
}

/// Keeps the list in step with the server, the search field and the drafts, until the owner is cleaned up.
pub fn keep(store: Store) {
    let list = store.list;
    keep_found(store);
    let timer = Timer::new();
    // Each reply leads to the next question, so that a server that is gone is not asked without end.
    effect(move || {
        let open = store.place.get().conversation;
        let is_elsewhere = |chat: &ChatSummary| chat.is_running && Some(chat.id) != open;
        timer.stop();
        if list.chats.with(|chats| chats.shown().any(is_elsewhere)) {
            timer.start(FOLLOW_PAUSE, move || {
                if !platform::is_hidden() {
                    store.refresh_chats();
                }
            });
        }
    });
    effect(move || {
        let focused = window_event_listener_untyped("focus", move |_| store.refresh_chats());
        on_cleanup(move || focused.remove());
    });
    let mut known = list.chats.with_untracked(Chats::all);
    effect(move || {
        if let Some(known) = known.take() {
            let open = store.place.get_untracked().conversation;
            drafts::forget_all(|id| !known.contains(&id) && Some(id) != open);
        }
    });
}

fn keep_found(store: Store) {
    let list = store.list;
    let timer = Timer::new();
    effect(move || {
        let search = list.search.with(|search| search.trim().to_owned());
        timer.stop();
        if search.is_empty() {
            list.chats.update(Chats::find_nothing);
        } else {
            timer.start(SEARCH_PAUSE, move || store.ask_for_chats(ListQuery { search, after: None }));
        }
    });
}

impl Store {
    /// Asks for the newest conversations again.
    pub fn refresh_chats(self) {
        self.ask_for_chats(ListQuery::default());
    }

    /// Asks for more of what is shown.
    pub fn more_chats(self) {
        let after = self.list.chats.with_untracked(Chats::more);
        let search = self.list.search.with_untracked(|search| search.trim().to_owned());
        self.ask_for_chats(ListQuery { search, after });
    }

    fn ask_for_chats(self, query: ListQuery) {
        let kind = if query == ListQuery::default() { Kind::Newest } else { Kind::Other };
        let number = self.list.number(kind);
        spawn_local(async move {
            let reply = api::chats(query.clone()).await;
            let is_wanted =
                query.search.is_empty() || self.list.search.with_untracked(|now| now.trim() == query.search);
            if self.list.n_asked(kind).get_untracked() != number || !is_wanted {
                return;
            }
            match reply {
                Ok(list) => self.join_chats(&query, list),
                Err(error) if kind == Kind::Other => self.fail(&error),
                Err(_) => {}
            }
        });
    }

    /// Takes in the newest conversations as they came with something else.
    pub fn take_chats(self, list: ChatList) {
        self.list.number(Kind::Newest);
        self.join_chats(&ListQuery::default(), list);
    }

    fn join_chats(self, query: &ListQuery, reply: ChatList) {
        self.list.chats.update(|chats| chats.take(query, reply));
        // It may have been given another title elsewhere.
        let Some(open) = self.transcript.with_untracked(Transcript::conversation) else { return };
        let title = self.list.chats.with_untracked(|chats| Some(chats.get(open)?.title.clone()));
        if let Some(title) =
            title.filter(|title| self.transcript.with_untracked(Transcript::title).as_ref() != Some(title))
        {
            self.apply(Action::Titled(title));
        }
    }

    /// Gives a conversation another title; nothing happens where it is blank.
    pub fn rename(self, id: ConversationId, text: &str) {
        let before = self.list.chats.with_untracked(|chats| Some(chats.get(id)?.title.clone())).unwrap_or_default();
        match chosen_title(text) {
            Ok(title) if title != before => {
                self.call(id, &title);
                spawn_local(async move {
                    if let Err(error) = insist(|| api::rename(id, title.clone())).await {
                        self.call(id, &before);
                        self.fail(&error);
                    }
                });
            }
            Err(error) if error.code != ErrorCode::MessageEmpty => self.fail(&error),
            Ok(_) | Err(_) => {}
        }
    }

    fn call(self, id: ConversationId, title: &str) {
        self.list.number(Kind::Newest);
        self.list.number(Kind::Other);
        self.list.chats.update(|chats| chats.rename(id, title));
        if self.transcript.with_untracked(Transcript::conversation) == Some(id) {
            self.apply(Action::Titled(title.to_owned()));
        }
    }

    /// Deletes a conversation; for a while that can be taken back.
    pub fn delete(self, id: ConversationId) {
        let List { chats, deleted, .. } = self.list;
        let title = chats.with_untracked(|chats| Some(chats.get(id)?.title.clone())).unwrap_or_default();
        let was_open = self.place.with_untracked(|place| place.conversation) == Some(id);
        chats.update(|chats| chats.hide(id));
        deleted.update(|deleted| deleted.push(Deleted { id, title, was_open, is_done: false }));
        spawn_local(async move {
            match insist(|| api::delete(id)).await {
                Err(error) if error.code != ErrorCode::NotFound => {
                    self.undelete(id);
                    self.fail(&error);
                }
                Ok(()) | Err(_) => {
                    deleted.update(|deleted| {
                        deleted
                            .iter_mut()
                            .filter(|deleted| deleted.id == id)
                            .for_each(|deleted| deleted.is_done = true);
                    });
                    platform::pause(UNDO_TIME).await;
                    if deleted.with_untracked(|deleted| deleted.iter().any(|deleted| deleted.id == id)) {
                        deleted.update(|deleted| deleted.retain(|deleted| deleted.id != id));
                        drafts::forget_all(|gone| gone == id);
                    }
                }
            }
        });
    }

    /// Takes a delete back.
    pub fn restore(self, id: ConversationId) {
        let was_open = self
            .list
            .deleted
            .with_untracked(|deleted| deleted.iter().any(|deleted| deleted.id == id && deleted.was_open));
        self.undelete(id);
        spawn_local(async move {
            match api::restore(id).await {
                Ok(()) if was_open && self.place.with_untracked(|place| place.conversation.is_none()) => {
                    address::go(self, &format!("/c/{id}"));
                }
                Ok(()) => {}
                Err(error) => self.fail(&error),
            }
            self.refresh_chats();
        });
    }

    fn undelete(self, id: ConversationId) {
        self.list.chats.update(|chats| chats.unhide(id));
        self.list.deleted.update(|deleted| deleted.retain(|deleted| deleted.id != id));
    }

    /// Makes a link for another device.
    pub fn make_link(self) {
        spawn_local(async move {
            match api::owner_link().await {
                Ok(link) => self.list.link.set(Some(link)),
                Err(error) => self.fail(&error),
            }
        });
    }

    /// Takes the link that the page was opened with.
    pub fn take_link(self, code: String) {
        spawn_local(async move {
            match api::take_link(code).await {
                Ok(()) => platform::reload(),
                Err(error) if error.code == ErrorCode::NotFound => {
                    self.notice.set(Some(Notice::Error(self.texts.list.link_gone.to_owned())));
                }
                Err(error) => self.fail(&error),
            }
        });
    }
}
