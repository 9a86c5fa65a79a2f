//! The settings drawer.

use leptos::prelude::*;

use super::{
    button::{button, icon_button},
    icon::{Icon, glyph},
    setting::{Dial, dial_setting, seed_setting},
};
use crate::{
    app::{
        state::memo,
        store::Store,
        view::{Element, element},
    },
    chat::{message::Role, settings::Settings},
};

const TEMPERATURE: Dial = Dial {
    name: "temperature",
    min: 0.0,
    max: 2.0,
    step: 0.05,
    default: |defaults| defaults.temperature,
    get: |settings| settings.temperature,
    set: |settings, value| settings.temperature = value,
};

const TOP_K: Dial = Dial {
    name: "top_k",
    min: 0.0,
    max: 100.0,
    step: 1.0,
    default: |defaults| defaults.top_k as f32,
    get: |settings| settings.top_k.map(|value| value as f32),
    set: |settings, value| settings.top_k = value.map(|value| value as u32),
};

const TOP_P: Dial = Dial {
    name: "top_p",
    min: 0.01,
    max: 1.0,
    step: 0.01,
    default: |defaults| defaults.top_p,
    get: |settings| settings.top_p,
    set: |settings, value| settings.top_p = value,
};

const REPETITION_PENALTY: Dial = Dial {
    name: "repetition_penalty",
    min: 0.5,
    max: 2.0,
    step: 0.05,
    default: |defaults| defaults.repetition_penalty,
    get: |settings| settings.repetition_penalty,
    set: |settings, value| settings.repetition_penalty = value,
};

const MAX_NEW_TOKENS: Dial = Dial {
    name: "max_new_tokens",
    min: 1.0,
    // Bounded by what the server allows, once that is known.
    max: 8192.0,
    step: 1.0,
    default: |defaults| defaults.max_new_tokens as f32,
    get: |settings| settings.max_new_tokens.map(|value| value as f32),
    set: |settings, value| settings.max_new_tokens = value.map(|value| value as u32),
};

/// The drawer: sampling values, then the system prompt.
pub fn settings_drawer(store: Store) -> Element {
    let texts = &store.texts.settings;
    let close = icon_button(store.texts.close)
        .with("popovertarget", "settings")
        .with("popovertargetaction", "hide")
        .child(glyph(Icon::Cross));
    let reset_all = button()
        .class("reset-all")
        .bind("disabled", move || store.settings.get() == Settings::default())
        .on("click", move |_| store.settings.set(Settings::default()))
        .text(texts.reset_all);
    element("aside")
        .class("popover drawer")
        .with("id", "settings")
        .with("popover", "auto")
        .with("aria-label", texts.title)
        .child(element("div").class("drawer-head").child(element("h2").text(texts.title)).child(close))
        .children([
            system_setting(store),
            dial_setting(store, |_| TEMPERATURE, &texts.temperature),
            dial_setting(store, |_| TOP_K, &texts.top_k),
            dial_setting(store, |_| TOP_P, &texts.top_p),
            dial_setting(store, |_| REPETITION_PENALTY, &texts.repetition_penalty),
            dial_setting(store, longest_answer, &texts.max_new_tokens),
            seed_setting(store),
            reset_all,
        ])
}

fn longest_answer(store: Store) -> Dial {
    let max = store.model().map_or(MAX_NEW_TOKENS.max, |model| model.longest_answer as f32);
    Dial { max, ..MAX_NEW_TOKENS }
}

/// The system prompt, greyed with the reason where the prompt format has none.
fn system_setting(store: Store) -> Element {
    let texts = &store.texts.settings;
    let is_off = memo(move || !store.supports(Role::System));
    let help = move || match store.model() {
        Some(_) if is_off.get() => texts.system_unsupported,
        Some(_) | None => texts.system.help,
    };
    let label = element("label").with("for", "setting-system").text(texts.system.name);
    let field = element("textarea")
        .with("id", "setting-system")
        .handle("setting-system")
        .with("rows", "3")
        .with("dir", "auto")
        .with("placeholder", texts.system_placeholder)
        .bind("disabled", move || is_off.get())
        .with("aria-describedby", "setting-system-help")
        .value(move || store.system.get())
        .on("input", move |event| store.system.set(event_target_value(&event)))
        .on("written", move |_| store.join_kept_system());
    element("div").class("setting").children([
        element("div").class("setting-head").child(label),
        field,
        element("p").class("setting-help").with("id", "setting-system-help").live_text(help),
    ])
}
