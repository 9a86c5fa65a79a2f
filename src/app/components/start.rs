//! What is there before a conversation is: a greeting, the model, and openers.

use leptos::{ev, prelude::*};

use crate::{
    app::{
        format,
        starters::{self, N_SHOWN, Starter},
        store::{Draft, use_store},
    },
    chat::{
        info::EngineStatus,
        message::{MessageText, Role},
    },
};

/// The empty conversation.
#[component]
pub fn Start() -> impl IntoView {
    let store = use_store();
    let texts = store.texts;
    let (first, rest) = starters::of(texts.language).split_at(N_SHOWN);
    let more = RwSignal::new(false);
    view! {
        <div class="start">
            <h2>{texts.start.greeting}</h2>
            <p class="start-model">{model_line}</p>
            <p>{texts.start.invitation}</p>
            <div class="starters">
                {first.iter().map(|starter| view! { <StarterButton starter/> }).collect_view()}
                <Show when=move || more.get()>
                    {rest.iter().map(|starter| view! { <StarterButton starter/> }).collect_view()}
                </Show>
            </div>
            <Show when=move || !more.get()>
                <button type="button" class="starters-more" on:click=move |_| more.set(true)>
                    {texts.start.more}
                </button>
            </Show>
        </div>
    }
    .into_any()
}

fn model_line() -> String {
    let store = use_store();
    let texts = &store.texts.engine;
    store.engine.with(|engine| match engine {
        EngineStatus::Loading => format!("{} {}", texts.loading, texts.loading_hint),
        EngineStatus::Unavailable { message } => format!("{} · {message}", texts.unavailable),
        EngineStatus::Ready { model, running, waiting } => [
            model.name.clone(),
            format::parameters(model.n_parameters),
            model.device.clone(),
            model.dtype.clone(),
            (texts.n_tokens)(&format::count(model.context_length.into())),
            (texts.running_waiting)(*running, *waiting),
        ]
        .join(" · "),
    })
}

#[component]
fn StarterButton(starter: &'static Starter) -> impl IntoView {
    let store = use_store();
    let choose = move |event: ev::MouseEvent| {
        if event.alt_key() {
            store.draft.set(Some(Draft::Fill(starter.text.to_owned())));
        } else if let Ok(text) = MessageText::parse(starter.text) {
            store.say(Role::User, text);
        }
    };
    view! {
        <button type="button" class="starter" data-testid="starter" on:click=choose>
            <span class="starter-category">{starter.category}</span>
            <span class="starter-text" dir="auto">{starter.text}</span>
        </button>
    }
    .into_any()
}
