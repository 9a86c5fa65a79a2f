//! What can be done with a message: copy it, ask again, look at another branch.

use leptos::{ev, prelude::*, task::spawn_local};

use super::{
    icon::{Glyph, Icon},
    markup::CopyButton,
};
use crate::{
    app::{platform, store::use_store, transcript::Action},
    chat::ids::MessageId,
};

/// Copies a message's text.
#[component]
pub fn CopyMessage<F>(
    /// Its text.
    text: F,
) -> impl IntoView
where
    F: Fn() -> String + 'static,
{
    let texts = use_store().texts;
    let outcome = RwSignal::new(None);
    let copy = move |_: ev::MouseEvent| {
        let text = text();
        spawn_local(async move { outcome.set(Some(platform::copy(text).await)) });
    };
    view! { <CopyButton outcome texts on_click=copy test_id="copy"/> }.into_any()
}

/// Asks for another answer.
#[component]
pub fn Regenerate(
    /// Beside which one.
    id: MessageId,
) -> impl IntoView {
    let store = use_store();
    let label = store.texts.answer.regenerate;
    view! {
        <button
            type="button"
            class="quiet"
            data-testid="regenerate"
            title=label
            aria-label=label
            disabled=move || store.is_busy()
            on:click=move |_| store.regenerate(id)
        >
            <Glyph icon=Icon::Again/>
        </button>
    }
    .into_any()
}

/// Which of several siblings is looked at, and the way to the others; nothing where there is one alone.
#[component]
pub fn Branches(
    /// Of which message.
    id: MessageId,
) -> impl IntoView {
    let store = use_store();
    let texts = store.texts;
    let branch = Memo::new(move |_| store.transcript.with(|transcript| transcript.branch(id)));
    let look = move |at: Option<MessageId>| {
        if let Some(at) = at {
            store.apply(Action::LookedAt(at));
        }
    };
    view! {
        <Show when=move || { branch.get().count > 1 }>
            <div class="branches">
                <button
                    type="button"
                    class="quiet"
                    data-testid="branch-prev"
                    title=texts.answer.previous
                    aria-label=texts.answer.previous
                    disabled=move || branch.get().previous.is_none()
                    on:click=move |_| look(branch.get_untracked().previous)
                >
                    <Glyph icon=Icon::Left/>
                </button>
                <span data-testid="branch-count">
                    {move || format!("{}/{}", branch.get().place, branch.get().count)}
                </span>
                <button
                    type="button"
                    class="quiet"
                    data-testid="branch-next"
                    title=texts.answer.next
                    aria-label=texts.answer.next
                    disabled=move || branch.get().next.is_none()
                    on:click=move |_| look(branch.get_untracked().next)
                >
                    <Glyph icon=Icon::Right/>
                </button>
            </div>
        </Show>
    }
    .into_any()
}
