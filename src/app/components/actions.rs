//! What can be done with a message: ask again, look at another branch.

use leptos::prelude::*;

use super::{
    button::icon_button,
    icon::{Icon, glyph},
};
use crate::{
    app::{
        store::Store,
        transcript::Action,
        view::{Element, element, memo, shown_while},
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

/// Which of several siblings is looked at, and the way to the others; nothing where there is one alone.
pub fn branches(store: Store, id: MessageId) -> AnyView {
    let texts = store.texts;
    let branch = memo(move || store.transcript.with(|transcript| transcript.branch(id)));
    let look = move |at: Option<MessageId>| {
        if let Some(at) = at {
            store.apply(Action::LookedAt(at));
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
