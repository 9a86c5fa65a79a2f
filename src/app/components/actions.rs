//! What can be done with a message: ask again or for more, look at another branch.

use leptos::prelude::*;

use super::{
    button::{icon_button, quiet_button},
    icon::{Icon, glyph},
};
use crate::{
    app::{
        state::memo,
        store::Store,
        view::{Element, element, shown_while},
    },
    chat::ids::MessageId,
};

/// Asks for another answer beside this one.
pub fn regenerate(store: Store, id: MessageId) -> Element {
    icon_button(store.texts.answer.regenerate)
        .handle("regenerate")
        .bind("disabled", move || store.is_busy())
        .on("click", move |_| store.regenerate(id))
        .child(glyph(Icon::Again))
}

/// Asks for more of an answer that broke off.
pub fn go_on(store: Store, id: MessageId) -> Element {
    quiet_button()
        .handle("continue")
        .bind("disabled", move || store.is_busy())
        .on("click", move |_| store.go_on(id))
        .child(glyph(Icon::Onward))
        .text(store.texts.answer.go_on)
}

/// Which of several siblings is looked at, and the way to the others; nothing where there is one alone.
pub fn branches(store: Store, id: MessageId) -> AnyView {
    let texts = store.texts;
    let branch = memo(move || store.transcript.with(|transcript| transcript.branch(id)));
    let look = move |at: Option<MessageId>| {
        if let Some(at) = at {
            store.look(at);
        }
    };
    let draw = move || {
        let previous = icon_button(texts.answer.previous)
            .handle("branch-prev")
            .bind("disabled", move || branch.get().previous.is_none())
            .on("click", move |_| look(branch.get_untracked().previous))
            .child(glyph(Icon::Left));
        let place = element("span")
            .handle("branch-count")
            .live_text(move || format!("{}/{}", branch.get().place, branch.get().count));
        let next = icon_button(texts.answer.next)
            .handle("branch-next")
            .bind("disabled", move || branch.get().next.is_none())
            .on("click", move |_| look(branch.get_untracked().next))
            .child(glyph(Icon::Right));
        element("div").class("branches").children([previous, place, next]).into()
    };
    shown_while(move || branch.get().count > 1, draw)
}
