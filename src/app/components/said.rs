//! What a person said: as typed, in a light bubble; a tool's result as a labelled card.

use leptos::prelude::*;

use super::{actions::branches, button::copy_button};
use crate::{
    app::{
        i18n::Texts,
        store::Store,
        view::{Element, element},
    },
    chat::{ids::MessageId, message::Role},
};

/// A message that is on the server.
pub fn said(store: Store, id: MessageId, role: Role) -> Element {
    let text = store
        .transcript
        .with_untracked(|transcript| transcript.message(id).map(|message| message.text.clone()))
        .unwrap_or_default();
    let bubble = bubble(store.texts, role, text.clone());
    let copy = copy_button(store.texts, move |_| Some(text.clone())).handle("copy");
    bubble.child(element("div").class("actions").child(copy).child(branches(store, id)))
}

/// The bubble alone.
pub fn bubble(texts: &'static Texts, role: Role, text: String) -> Element {
    let (name, label) = match role {
        Role::Exec => ("exec", texts.exec),
        Role::System | Role::User | Role::Assistant => ("user", texts.you),
    };
    element("article")
        .class("turn turn-said")
        .handle("message-user")
        .with("data-role", name)
        .with("aria-label", label)
        .children((role == Role::Exec).then(|| element("p").class("said-label").text(label)))
        .child(element("div").class("bubble").handle("message-body").with("dir", "auto").text(text))
}
