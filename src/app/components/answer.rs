//! An answer: its blocks as they grow, and the row under it.

use leptos::prelude::*;

use super::{
    actions::{branches, go_on, regenerate},
    button::copy_button,
    markup,
    status::{progress, status},
};
use crate::{
    app::{
        answer::Answer,
        state::{Shared, memo},
        store::Store,
        view::{Element, Item, each, element, live, nothing, several, shown_while},
    },
    chat::ids::MessageId,
};

/// An answer, running or over; nothing where the message is none.
pub fn answer_turn(store: Store, id: MessageId) -> AnyView {
    let Some(answer) = store.answer(id) else { return nothing() };
    let phase = memo({
        let answer = answer.clone();
        move || answer.with(|answer| answer.phase)
    });
    let foot = {
        let answer = answer.clone();
        move || several(vec![status(store, id, &answer).into(), actions(store, id, &answer).into()])
    };
    element("article")
        .class("turn turn-answer")
        .handle("message-assistant")
        .bind("data-state", move || phase.get().name())
        .bind("aria-busy", move || if phase.get().is_over() { "false" } else { "true" })
        .with("aria-label", store.texts.assistant)
        .child(body(store, answer))
        .child(shown_while(move || !phase.get().is_over(), move || progress(store, id, phase).into()))
        .child(shown_while(move || phase.get().is_over(), foot))
        .into()
}

/// The blocks. One that is final is drawn for the last time then, and keeps its nodes.
fn body(store: Store, answer: Shared<Answer>) -> Element {
    // Their names change as well, where it is gone on with.
    let n_blocks = memo({
        let answer = answer.clone();
        move || answer.with(|answer| (answer.n_blocks(), answer.thawed.len()))
    });
    let blocks = move || {
        let item = |index: usize| {
            let key = answer.with_untracked(|answer| answer.block_key(index));
            let answer = answer.clone();
            Item::new(key, move || live(move || block(store, &answer, index)))
        };
        (0..n_blocks.get().0).map(item).collect()
    };
    element("div").class("prose").handle("message-body").child(each(blocks))
}

fn block(store: Store, answer: &Shared<Answer>, index: usize) -> AnyView {
    if !answer.with_untracked(|answer| answer.is_final(index)) {
        answer.track();
    }
    answer
        .with_untracked(|answer| answer.block(index).map(|block| markup::block(block, store.texts).into()))
        .unwrap_or_else(nothing)
}

fn actions(store: Store, id: MessageId, answer: &Shared<Answer>) -> Element {
    let answer = answer.clone();
    let is_cut_off = {
        let answer = answer.clone();
        move || answer.with(Answer::is_cut_off) && store.leaf() == Some(id) && store.knows_tokens()
    };
    let has_text = {
        let answer = answer.clone();
        move || answer.with(|answer| !answer.text.is_empty())
    };
    let copy = move || {
        let answer = answer.clone();
        let text = move |_| Some(answer.with_untracked(|answer| answer.text.clone()));
        copy_button(store.texts, text).handle("copy").into()
    };
    element("div")
        .class("actions")
        .child(shown_while(is_cut_off, move || go_on(store, id).into()))
        .child(shown_while(has_text, copy))
        .child(regenerate(store, id))
        .child(branches(store, id))
}
