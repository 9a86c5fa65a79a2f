//! The bar at the top: title, new conversation, model, and the page's own preferences.

use leptos::prelude::*;

use super::{
    engine::EngineInfo,
    icon::{Glyph, Icon},
};
use crate::{
    app::{
        platform,
        preferences::{LANGUAGE_COOKIE, THEME_COOKIE, Theme},
        store::use_store,
    },
    chat::{info::EngineStatus, settings::Settings},
};

/// The bar at the top, with the mini model's banner under it.
#[component]
pub fn Header() -> impl IntoView {
    let store = use_store();
    let texts = store.texts;
    let is_mini = Memo::new(move |_| {
        store.engine.with(|engine| matches!(engine, EngineStatus::Ready { model, .. } if model.is_mini))
    });
    let is_changed = Memo::new(move |_| store.settings.get() != Settings::default());
    let settings_label = move || match is_changed.get() {
        true => format!("{} ({})", texts.settings.title, texts.settings.changed),
        false => texts.settings.title.to_owned(),
    };
    view! {
        <header class="top">
            <a class="quiet new-chat" href="/" data-testid="new-chat" title=texts.new_chat>
                <Glyph icon=Icon::Plus/>
                <span>{texts.new_chat}</span>
            </a>
            <h1>{store.title.get_value()}</h1>
            <div class="top-end">
                <EngineInfo/>
                <LanguageButton/>
                <ThemeButton/>
                <button
                    type="button"
                    class="quiet"
                    data-testid="settings"
                    popovertarget="settings"
                    data-changed=move || is_changed.get().then_some("true")
                    title=settings_label
                    aria-label=settings_label
                >
                    <Glyph icon=Icon::Sliders/>
                </button>
            </div>
        </header>
        <Show when=move || is_mini.get()>
            <p class="mini-banner" data-testid="mini-model-banner">{texts.start.mini_banner}</p>
        </Show>
    }
    .into_any()
}

/// The other language. The document is loaded again in it: what is running goes on, and what was typed is kept.
#[component]
fn LanguageButton() -> impl IntoView {
    let texts = use_store().texts;
    let change = move |_| {
        platform::set_cookie(LANGUAGE_COOKIE, texts.language.other().tag());
        platform::reload();
    };
    view! {
        <button
            type="button"
            class="quiet language"
            data-testid="language"
            lang=texts.language.other().tag()
            on:click=change
        >
            {texts.other_language}
        </button>
    }
    .into_any()
}

#[component]
fn ThemeButton() -> impl IntoView {
    let texts = use_store().texts;
    let theme = RwSignal::new(platform::preferences().theme);
    let icon = Signal::derive(move || match theme.get() {
        Theme::System => Icon::Screen,
        Theme::Light => Icon::Sun,
        Theme::Dark => Icon::Moon,
    });
    let label = move || {
        let name = match theme.get() {
            Theme::System => texts.theme_system,
            Theme::Light => texts.theme_light,
            Theme::Dark => texts.theme_dark,
        };
        format!("{}: {name}", texts.theme)
    };
    let change = move |_| {
        theme.update(|theme| *theme = theme.next());
        let theme = theme.get_untracked();
        platform::show_theme(theme);
        platform::set_cookie(THEME_COOKIE, theme.name());
    };
    view! {
        <button
            type="button"
            class="quiet"
            data-testid="theme"
            data-theme-name=move || theme.get().name()
            title=label
            aria-label=label
            on:click=change
        >
            <Glyph icon/>
        </button>
    }
    .into_any()
}
