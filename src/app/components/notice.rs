//! What the page says beside the conversation: notices for the eye, and one quiet voice for screen readers.

use leptos::prelude::*;

use super::{
    button::{icon_button, quiet_button},
    icon::{Icon, glyph},
};
use crate::app::{
    store::{Notice, Store},
    view::{Element, element, live, nothing, several, shown_while},
};

/// The notice above the composer, and a message that waits.
pub fn notices(store: Store) -> AnyView {
    let notice = shown_while(move || store.notice.with(Option::is_some), move || notice(store).into());
    let held = shown_while(move || store.held.with(Option::is_some), move || held(store).into());
    let unsaved = shown_while(move || !store.is_saved.get(), move || unsaved(store).into());
    let notices = element("div").class("notices").with("role", "alert").child(notice).child(unsaved);
    several(vec![notices.into(), held])
}

fn unsaved(store: Store) -> Element {
    let text = element("p").text(store.texts.unsaved);
    element("div").class("notice").handle("notice").with("data-kind", "unsaved").child(text)
}

fn notice(store: Store) -> Element {
    let words = move || match store.notice.get() {
        Some(Notice::Error(text)) => text.into_any(),
        Some(Notice::Reconnecting) => store.texts.reconnecting.into_any(),
        Some(Notice::Elsewhere(id)) => {
            element("a").with("href", format!("/c/{id}")).text(store.texts.answered_elsewhere).into()
        }
        None => nothing(),
    };
    let kind = move || match store.notice.get() {
        Some(Notice::Error(_)) => "error",
        Some(Notice::Reconnecting | Notice::Elsewhere(_)) | None => "info",
    };
    let close = icon_button(store.texts.close).on("click", move |_| store.notice.set(None)).child(glyph(Icon::Cross));
    element("div")
        .class("notice")
        .handle("notice")
        .bind("data-kind", kind)
        .child(element("p").child(live(words)))
        .child(close)
}

fn held(store: Store) -> Element {
    let texts = &store.texts.composer;
    let text = move || store.held.get().map(|held| String::from(held.text)).unwrap_or_default();
    element("div").class("held").children([
        element("span").class("held-label").text(texts.held),
        element("span").class("held-text").with("dir", "auto").live_text(text),
        quiet_button().on("click", move |_| store.take_back()).text(texts.held_cancel),
    ])
}

/// The one live region.
pub fn announcer(store: Store) -> Element {
    element("p")
        .class("visually-hidden")
        .with("role", "status")
        .with("aria-live", "polite")
        .live_text(move || store.announcement.get())
}
