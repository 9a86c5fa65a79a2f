//! The bar at the top: title, new conversation, model, and the page's own preferences.

use leptos::prelude::*;

use super::{
    button::{button, quiet_button},
    chats::new_chat,
    engine::engine_info,
    icon::{Icon, glyph, live_glyph},
};
use crate::{
    app::{
        platform,
        preferences::{DOCK_COOKIE, Dock, LANGUAGE_COOKIE, THEME_COOKIE, Theme},
        state::{State, memo},
        store::Store,
        view::{Element, element, several, shown_while},
    },
    chat::{info::EngineStatus, message::Role, settings::Settings},
};

/// The bar at the top, with the mini model's banner under it.
pub fn header(store: Store) -> AnyView {
    let texts = store.texts;
    let is_mini =
        move || store.engine.with(|engine| matches!(engine, EngineStatus::Ready { model, .. } if model.is_mini));
    let start = element("div").class("top-start").children(list_buttons(store)).child(new_chat(store));
    let end = element("div").class("top-end").child(engine_info(store)).children([
        language_button(store),
        theme_button(store),
        settings_button(store),
    ]);
    let title = element("h1")
        .with("dir", "auto")
        .live_text(move || store.heading().unwrap_or_else(|| store.title.get_untracked()));
    let banner =
        move || element("p").class("mini-banner").handle("mini-model-banner").text(texts.start.mini_banner).into();
    several(vec![element("header").class("top").children([start, title, end]).into(), shown_while(is_mini, banner)])
}

/// Two of which one is seen: where there is room, the list is put away and back, otherwise it opens over the page.
fn list_buttons(store: Store) -> [Element; 2] {
    let label = store.texts.list.toggle;
    let list_button = |id: &'static str| {
        quiet_button()
            .with("id", id)
            .with("data-list", id)
            .with("title", label)
            .with("aria-label", label)
            .with("aria-controls", "chats")
            .child(glyph(Icon::Panel))
    };
    let list = State::new(platform::preferences().list);
    let change = move |_| {
        let other = list.get_untracked().other();
        list.set(other);
        platform::show_list(other);
        platform::set_cookie(DOCK_COOKIE, other.name());
    };
    let is_open = move || if list.get() == Dock::Open { "true" } else { "false" };
    [
        list_button("list-dock").bind("aria-expanded", is_open).on("click", change),
        list_button("list-drawer").with("popovertarget", "chats"),
    ]
}

fn settings_button(store: Store) -> Element {
    let texts = &store.texts.settings;
    let has_system = move || store.supports(Role::System) && store.system.with(|system| !system.is_empty());
    let is_changed = memo(move || store.settings.get() != Settings::default() || has_system());
    let label = move || {
        if is_changed.get() { format!("{} ({})", texts.title, texts.changed) } else { texts.title.to_owned() }
    };
    quiet_button()
        .handle("settings")
        .with("popovertarget", "settings")
        .bind("data-changed", move || is_changed.get().then_some("true"))
        .bind("title", label)
        .bind("aria-label", label)
        .child(glyph(Icon::Sliders))
}

/// The other language. The document is loaded again in it: what is running goes on, and what was typed is kept.
fn language_button(store: Store) -> Element {
    let other = store.texts.language.other().tag();
    let change = move |_| {
        platform::set_cookie(LANGUAGE_COOKIE, other);
        platform::reload();
    };
    button()
        .class("quiet language")
        .handle("language")
        .with("lang", other)
        .on("click", change)
        .text(store.texts.other_language)
}

fn theme_button(store: Store) -> Element {
    let texts = store.texts;
    let theme = State::new(platform::preferences().theme);
    let icon = move || match theme.get() {
        Theme::System => Icon::Screen,
        Theme::Light => Icon::Sun,
        Theme::Dark => Icon::Moon,
    };
    let label = move || {
        let name = match theme.get() {
            Theme::System => texts.theme_system,
            Theme::Light => texts.theme_light,
            Theme::Dark => texts.theme_dark,
        };
        format!("{}: {name}", texts.theme)
    };
    let change = move |_| {
        let next = theme.get_untracked().next();
        theme.set(next);
        platform::show_theme(next);
        platform::set_cookie(THEME_COOKIE, next.name());
    };
    quiet_button()
        .handle("theme")
        .bind("data-theme-name", move || theme.get().name())
        .bind("title", label)
        .bind("aria-label", label)
        .on("click", change)
        .child(live_glyph(icon))
}
