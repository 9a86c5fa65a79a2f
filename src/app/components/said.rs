//! What a person said: as typed, in a light bubble; a tool's result as a labelled card.

use super::{
    actions::branches,
    button::{copy_button, icon_button},
    edit::edit_field,
    icon::{Icon, glyph},
};
use crate::{
    app::{
        i18n::Texts,
        platform,
        state::memo,
        store::Store,
        view::{Element, element, shown_while},
    },
    chat::{ids::MessageId, message::Role},
};

/// A message that is on the server.
pub fn said(store: Store, id: MessageId, role: Role) -> Element {
    let text = store
        .transcript
        .with_untracked(|transcript| transcript.message(id).map(|message| message.text.clone()))
        .unwrap_or_default();
    let is_edited = memo(move || store.edited.with(|edited| edited.contains(&id)));
    let bubble = {
        let text = text.clone();
        move || bubble(text.clone()).into()
    };
    let actions = move || {
        let text = text.clone();
        let copy = copy_button(store.texts, move |_| Some(text.clone())).handle("copy");
        let edit = icon_button(store.texts.answer.edit)
            .handle("edit")
            .with("id", format!("edit-{id}"))
            .on("click", move |_| {
                store.edit(id);
                platform::order_soon(format!("edit-field-{id}"), "focus");
            })
            .child(glyph(Icon::Pen));
        element("div").class("actions").child(copy).child(edit).child(branches(store, id)).into()
    };
    turn_said(store.texts, role)
        .child(shown_while(move || !is_edited.get(), bubble))
        .child(shown_while(move || !is_edited.get(), actions))
        .child(shown_while(move || is_edited.get(), move || edit_field(store, id).into()))
}

/// A message that is on its way there.
pub fn said_now(texts: &'static Texts, role: Role, text: String) -> Element {
    turn_said(texts, role).child(bubble(text))
}

fn turn_said(texts: &'static Texts, role: Role) -> Element {
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
}

fn bubble(text: String) -> Element {
    element("div").class("bubble").handle("message-body").with("dir", "auto").text(text)
}
