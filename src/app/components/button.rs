//! Buttons: quiet ones with an icon, and the one that copies.

use std::time::Duration;

use leptos::{ev, prelude::*, task::spawn_local};

use super::icon::{Icon, live_glyph};
use crate::app::{
    i18n::Texts,
    platform,
    state::State,
    view::{Element, effect, element},
};

/// How long a button says whether copying worked.
const OUTCOME_TIME: Duration = Duration::from_secs(2);

/// A button; what it does and what is on it is added to it.
pub fn button() -> Element {
    element("button").with("type", "button")
}

/// A button without a border.
pub fn quiet_button() -> Element {
    button().class("quiet")
}

/// A button without a border or words, named by a label.
pub fn icon_button(label: &'static str) -> Element {
    quiet_button().with("title", label).with("aria-label", label)
}

/// A button that copies what `text` finds when it is pressed, and says for a while whether that worked.
pub fn copy_button(texts: &'static Texts, text: impl Fn(ev::Event) -> Option<String> + Send + 'static) -> Element {
    let outcome = State::new(None);
    effect(move || {
        if outcome.get().is_some() {
            set_timeout(
                move || {
                    outcome.set(None);
                },
                OUTCOME_TIME,
            );
        }
    });
    let copy = move |event| {
        if let Some(text) = text(event) {
            spawn_local(async move {
                let worked = platform::copy(text).await;
                outcome.set(Some(worked));
            });
        }
    };
    let label = move || match outcome.get() {
        None => texts.answer.copy,
        Some(true) => texts.answer.copied,
        Some(false) => texts.answer.copy_failed,
    };
    let icon = move || match outcome.get() {
        None => Icon::Copy,
        Some(true) => Icon::Check,
        Some(false) => Icon::Cross,
    };
    quiet_button()
        .bind("title", label)
        .bind("aria-label", label)
        .bind("data-outcome", move || outcome.get().map(|worked| if worked { "worked" } else { "failed" }))
        .on("click", copy)
        .child(live_glyph(icon))
}
