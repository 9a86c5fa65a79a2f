//! What was said, being changed: a field in the place of the bubble.
//!
//! Owns the field while it is open; what is written in it is kept by the store. **Architecture Invariant:** what was said
//! stays as it is: sending makes a branch beside it.

use leptos::{html, prelude::*};

use super::{
    button::button,
    writing::{Writing, sends},
};
use crate::{
    app::{
        platform,
        store::Store,
        view::{Element, effect, element},
    },
    chat::ids::MessageId,
};

/// The field, and what can be done with it.
pub fn edit_field(store: Store, id: MessageId) -> Element {
    let texts = &store.texts.answer;
    let node = NodeRef::<html::Textarea>::new();
    let fit = move || {
        if let Some(node) = node.get_untracked() {
            platform::fit_height(&node);
        }
    };
    effect(move || {
        if node.get().is_some() {
            request_animation_frame(fit);
        }
    });
    let written = move || node.get_untracked().map(|node| node.value()).unwrap_or_default();
    let send = move || store.say_instead(id, &written());
    let leave = move || {
        store.leave(id);
        platform::order_soon(format!("edit-{id}"), "focus");
    };
    let text = store.edit_text(id);
    let field = element("textarea")
        .handle("edit-field")
        .with("id", format!("edit-field-{id}"))
        .with("rows", "1")
        .with("dir", "auto")
        .with("aria-label", texts.edit)
        .value(move || text.clone())
        .node(node)
        .on("input", move |_| {
            fit();
            store.keep_edit(id, &written());
        });
    let field = Writing::new().watch(field, move |event| {
        if sends(event) {
            event.prevent_default();
            send();
        } else if event.key() == "Escape" {
            event.prevent_default();
            leave();
        }
    });
    let row = element("div").class("edit-row").children([
        button().class("plain").handle("edit-cancel").on("click", move |_| leave()).text(texts.cancel),
        button()
            .class("plain strong")
            .handle("edit-send")
            .bind("disabled", move || store.is_busy())
            .on("click", move |_| send())
            .text(texts.say_instead),
    ]);
    element("div").class("edit").child(field).child(row)
}
