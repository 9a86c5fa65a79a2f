//! What the page says beside the conversation: notices for the eye, and one quiet voice for screen readers.

use leptos::prelude::*;

use super::icon::{Glyph, Icon};
use crate::app::store::{Draft, Notice, use_store};

/// The notice above the composer, and a message that waits.
#[component]
pub fn Notices() -> impl IntoView {
    let store = use_store();
    let texts = store.texts;
    let words = move || {
        store.notice.get().map(|notice| match notice {
            Notice::Error(text) => text,
            Notice::Reconnecting => texts.reconnecting.to_owned(),
        })
    };
    let kind = move || match store.notice.get() {
        Some(Notice::Error(_)) => "error",
        Some(Notice::Reconnecting) | None => "info",
    };
    let take_back = move |_| {
        if let Some(held) = store.held.get_untracked() {
            store.held.set(None);
            store.draft.set(Some(Draft::PutBack(held.text.into())));
        }
    };
    view! {
        <div class="notices" role="alert">
            <Show when=move || store.notice.with(Option::is_some)>
                <div class="notice" data-testid="notice" data-kind=kind>
                    <p>{words}</p>
                    <button
                        type="button"
                        class="quiet"
                        title=texts.close
                        aria-label=texts.close
                        on:click=move |_| store.notice.set(None)
                    >
                        <Glyph icon=Icon::Cross/>
                    </button>
                </div>
            </Show>
        </div>
        <Show when=move || store.held.with(Option::is_some)>
            <div class="held">
                <span class="held-label">{texts.composer.held}</span>
                <span class="held-text" dir="auto">
                    {move || store.held.get().map(|held| String::from(held.text))}
                </span>
                <button type="button" class="quiet" on:click=take_back>
                    {texts.composer.held_cancel}
                </button>
            </div>
        </Show>
    }
    .into_any()
}

/// The one live region.
#[component]
pub fn Announcer() -> impl IntoView {
    let store = use_store();
    view! {
        <p class="visually-hidden" role="status" aria-live="polite">
            {move || store.announcement.get()}
        </p>
    }
    .into_any()
}
