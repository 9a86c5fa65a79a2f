//! What is there before a conversation is: a greeting, the model, and openers.

use leptos::{ev, wasm_bindgen::JsCast};

use super::button::button;
use crate::{
    app::{
        format,
        starters::{self, N_SHOWN, Starter},
        state::State,
        store::{Draft, Store},
        view::{Element, element, several, shown_while},
    },
    chat::{
        info::EngineStatus,
        message::{MessageText, Role},
    },
};

/// The empty conversation.
pub fn start(store: Store) -> Element {
    let texts = &store.texts.start;
    let (first, rest) = starters::of(store.texts.language).split_at(N_SHOWN);
    let more = State::new(false);
    let buttons =
        move |starters: &'static [Starter]| starters.iter().map(move |starter| starter_button(store, starter));
    let rest = shown_while(move || more.get(), move || several(buttons(rest).map(Into::into).collect()));
    let ask_for_more =
        move || button().class("starters-more").on("click", move |_| more.set(true)).text(texts.more).into();
    element("div")
        .class("start")
        .child(element("h2").text(texts.greeting))
        .child(element("p").class("start-model").live_text(move || model_line(store)))
        .child(element("p").text(texts.invitation))
        .child(element("div").class("starters").children(buttons(first)).child(rest))
        .child(shown_while(move || !more.get(), ask_for_more))
}

fn model_line(store: Store) -> String {
    let texts = &store.texts.engine;
    store.engine.with(|engine| match engine {
        EngineStatus::Loading => format!("{} {}", texts.loading, texts.loading_hint),
        EngineStatus::Unavailable { message } => format!("{} · {message}", texts.unavailable),
        EngineStatus::Ready { model, running, waiting } => [
            Some(model.name.clone()),
            model.n_parameters.map(format::parameters),
            Some(model.device.clone()),
            model.dtype.clone(),
            Some((texts.n_tokens)(&format::count(model.context_length.into()))),
            Some((texts.running_waiting)(*running, *waiting)),
        ]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(" · "),
    })
}

fn starter_button(store: Store, starter: &'static Starter) -> Element {
    let choose = move |event: ev::Event| {
        if event.dyn_ref::<ev::MouseEvent>().is_some_and(ev::MouseEvent::alt_key) {
            store.draft.set(Some(Draft::Append(starter.text.to_owned())));
        } else if let Ok(text) = MessageText::parse(starter.text) {
            store.say(Role::User, text);
        }
    };
    button()
        .class("starter")
        .handle("starter")
        .on("click", choose)
        .child(element("span").class("starter-category").text(starter.category))
        .child(element("span").class("starter-text").with("dir", "auto").text(starter.text))
}
