//! The list of conversations: at the side where there is room for it, a drawer where there is not.
//!
//! One element for both, so that it is there with the first paint. Knows nothing of how lists come to be.

use leptos::{ev, prelude::*, wasm_bindgen::JsCast, web_sys};

use super::{
    button::{button, icon_button, quiet_button},
    device::device_link,
    icon::{Icon, glyph},
    writing::Writing,
};
use crate::{
    app::{
        address,
        chats::Chats,
        platform,
        state::{Derived, memo},
        store::{Store, list::Deleted},
        view::{Element, Item, each, element, live, nothing, several, shown_while},
    },
    chat::{
        ids::ConversationId,
        limits::{MAX_SEARCH_CHARS, MAX_TITLE_CHARS},
        list::ChatSummary,
    },
};

/// The list, with what leads to a new conversation, to others and to other devices.
pub fn chat_list(store: Store) -> Element {
    let texts = &store.texts.list;
    let list = store.list;
    let shown = memo(move || list.chats.with(|chats| chats.shown().map(|chat| chat.id).collect::<Vec<_>>()));
    let item = move |id: ConversationId| Item::new(id.as_u128(), move || chat_item(store, id).into());
    let none = move || {
        let is_found = list.chats.with(Chats::is_found);
        element("p").class("chats-none").text(if is_found { texts.nothing_found } else { texts.empty }).into()
    };
    let more = move || {
        button().class("plain").handle("chats-more").on("click", move |_| store.more_chats()).text(texts.more).into()
    };
    let found = element("div")
        .class("chats-found")
        .child(element("ul").child(each(move || shown.get().into_iter().map(item).collect())))
        .child(shown_while(move || shown.with(Vec::is_empty), none))
        .child(shown_while(move || list.chats.with(|chats| chats.more().is_some()), more));
    element("nav")
        .class("chats")
        .with("id", "chats")
        .with("popover", "auto")
        .with("tabindex", "-1")
        .handle("chat-list")
        .with("aria-label", texts.title)
        .child(element("p").class("chats-title").text(store.title.get_untracked()))
        .child(new_chat(store))
        .child(search_field(store))
        .child(found)
        .child(undos(store))
        .child(device_link(store))
}

/// The link to a new conversation.
pub fn new_chat(store: Store) -> Element {
    element("a")
        .class("quiet new-chat")
        .with("href", "/")
        .handle("new-chat")
        .with("title", store.texts.new_chat)
        .child(glyph(Icon::Plus))
        .child(element("span").text(store.texts.new_chat))
}

fn search_field(store: Store) -> Element {
    let texts = &store.texts.list;
    let writing = Writing::new();
    let take = move |event: ev::Event| store.list.search.set(event_target_value(&event));
    let typed = move |event| {
        if !writing.is_composing() {
            take(event);
        }
    };
    let field = element("input")
        .with("type", "search")
        .with("id", "chat-search")
        .handle("chat-search")
        .with("autocomplete", "off")
        .with("maxlength", MAX_SEARCH_CHARS.to_string())
        .with("placeholder", texts.search)
        .with("aria-label", texts.search)
        .on("input", typed)
        .on("compositionend", take);
    writing.watch(field, move |event| {
        let field = event.target().and_then(|target| target.dyn_into::<web_sys::Element>().ok());
        if event.key() == "Escape"
            && let Some(field) = field.filter(|_| store.list.search.with_untracked(|search| !search.is_empty()))
        {
            event.prevent_default();
            platform::write_again(&field, String::new());
        }
    })
}

fn chat_item(store: Store, id: ConversationId) -> Element {
    let chat = memo(move || store.list.chats.with(|chats| chats.get(id).cloned()));
    let is_renamed = memo(move || store.list.renamed.get() == Some(id));
    let content = move || {
        if is_renamed.get() {
            rename_field(store, id, chat.with_untracked(title)).into()
        } else {
            several(vec![link(store, id, chat).into(), buttons(store, id).into()])
        }
    };
    element("li").class("chat").handle("chat-item").child(live(content))
}

#[expect(clippy::ref_option, reason = "as a signal hands its value out")]
fn title(chat: &Option<ChatSummary>) -> String {
    chat.as_ref().map(|chat| chat.title.clone()).unwrap_or_default()
}

fn link(store: Store, id: ConversationId, chat: Derived<Option<ChatSummary>>) -> Element {
    let is_open = memo(move || store.place.get().conversation == Some(id));
    // Of the one that is looked at the page knows more than the list.
    let is_running = move || {
        if is_open.get() {
            store.running().is_some()
        } else {
            chat.with(|chat| chat.as_ref().is_some_and(|chat| chat.is_running))
        }
    };
    let running = move || {
        let name = element("span").class("visually-hidden").text(store.texts.list.running);
        element("span").class("chat-running").handle("chat-running").child(name).into()
    };
    let found = move || {
        let Some(found) = chat.get().and_then(|chat| chat.found) else { return nothing() };
        let hit = element("mark").text(found.hit);
        element("span").class("chat-found").with("dir", "auto").text(found.before).child(hit).text(found.after).into()
    };
    element("a")
        .class("chat-link")
        .with("id", format!("chat-{id}"))
        .with("href", format!("/c/{id}"))
        .bind("aria-current", move || is_open.get().then_some("page"))
        .bind("title", move || chat.with(title))
        .child(element("span").class("chat-title").with("dir", "auto").live_text(move || chat.with(title)))
        .child(shown_while(is_running, running))
        .child(live(found))
}

fn buttons(store: Store, id: ConversationId) -> Element {
    let texts = &store.texts.list;
    let rename = move |_| {
        store.list.renamed.set(Some(id));
        platform::order_soon("rename".to_owned(), "focus");
    };
    let delete = move |_| {
        let is_open = store.place.get_untracked().conversation == Some(id);
        store.delete(id);
        if is_open {
            // The list stays, for that is where it can be taken back.
            address::open(store, "/");
        }
        platform::order_soon("chats".to_owned(), "focus");
    };
    element("div").class("chat-buttons").children([
        icon_button(texts.rename).handle("rename").on("click", rename).child(glyph(Icon::Pen)),
        icon_button(texts.delete).handle("delete").on("click", delete).child(glyph(Icon::Bin)),
    ])
}

fn rename_field(store: Store, id: ConversationId, title: String) -> Element {
    // What takes the field away may take its focus first: then it is over already.
    let finish = move |text: Option<String>| {
        let is_open = store.list.renamed.get_untracked() == Some(id);
        if is_open {
            store.list.renamed.set(None);
            if let Some(text) = text {
                store.rename(id, &text);
            }
        }
    };
    let field = element("input")
        .class("chat-rename")
        .with("type", "text")
        .with("id", "rename")
        .handle("rename-field")
        .with("autocomplete", "off")
        .with("dir", "auto")
        .with("maxlength", MAX_TITLE_CHARS.to_string())
        .with("aria-label", store.texts.list.rename)
        .value(move || title.clone())
        .on("focus", |_| platform::order("rename", "select"))
        .on("blur", move |event| finish(Some(event_target_value(&event))));
    Writing::new().watch(field, move |event| {
        let text = match event.key().as_str() {
            "Enter" => Some(event_target_value(event)),
            "Escape" => None,
            _ => return,
        };
        event.prevent_default();
        finish(text);
        platform::order_soon(format!("chat-{id}"), "focus");
    })
}

/// Conversations whose deleting can be taken back.
fn undos(store: Store) -> Element {
    let item = move |deleted: Deleted| Item::new(deleted.id.as_u128(), move || undo(store, deleted).into());
    let items = move || store.list.deleted.get().into_iter().map(item).collect();
    element("div").class("undos").with("aria-live", "polite").child(each(items))
}

fn undo(store: Store, deleted: Deleted) -> Element {
    let texts = &store.texts.list;
    let Deleted { id, title, .. } = deleted;
    let is_done =
        move || store.list.deleted.with(|deleted| deleted.iter().any(|deleted| deleted.id == id && deleted.is_done));
    let undo = quiet_button()
        .handle("undo")
        .bind("disabled", move || !is_done())
        .on("click", move |_| store.restore(id))
        .text(texts.undo);
    element("div").class("undo").children([
        element("span").class("undo-what").text(texts.deleted),
        element("span").class("undo-title").with("dir", "auto").text(title),
        undo,
    ])
}
