//! The settings drawer.

use leptos::prelude::*;

use super::{
    icon::{Glyph, Icon},
    setting::{Dial, DialSetting, SeedSetting},
};
use crate::{
    app::store::use_store,
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
    // Bounded by the model's context once it is known.
    max: 8192.0,
    step: 1.0,
    default: |defaults| defaults.max_new_tokens as f32,
    get: |settings| settings.max_new_tokens.map(|value| value as f32),
    set: |settings, value| settings.max_new_tokens = value.map(|value| value as u32),
};

/// The drawer: sampling values, then the system prompt.
#[component]
pub fn SettingsDrawer() -> impl IntoView {
    let store = use_store();
    let texts = &store.texts.settings;
    let longest = Signal::derive(move || {
        let context = store.model().map_or(MAX_NEW_TOKENS.max, |model| model.context_length as f32);
        Dial { max: context, ..MAX_NEW_TOKENS }
    });
    let is_changed = Memo::new(move |_| store.settings.get() != Settings::default());
    view! {
        <aside class="popover drawer" id="settings" popover="auto" aria-label=texts.title>
            <div class="drawer-head">
                <h2>{texts.title}</h2>
                <button
                    type="button"
                    class="quiet"
                    popovertarget="settings"
                    popovertargetaction="hide"
                    title=store.texts.close
                    aria-label=store.texts.close
                >
                    <Glyph icon=Icon::Cross/>
                </button>
            </div>
            <SystemSetting/>
            <DialSetting dial=TEMPERATURE text=&texts.temperature/>
            <DialSetting dial=TOP_K text=&texts.top_k/>
            <DialSetting dial=TOP_P text=&texts.top_p/>
            <DialSetting dial=REPETITION_PENALTY text=&texts.repetition_penalty/>
            <DialSetting dial=longest text=&texts.max_new_tokens/>
            <SeedSetting/>
            <button
                type="button"
                class="reset-all"
                disabled=move || !is_changed.get()
                on:click=move |_| store.settings.set(Settings::default())
            >
                {texts.reset_all}
            </button>
        </aside>
    }
    .into_any()
}

/// The system prompt, greyed with the reason where the prompt format has none.
#[component]
fn SystemSetting() -> impl IntoView {
    let store = use_store();
    let texts = &store.texts.settings;
    let is_off = Memo::new(move |_| !store.supports(Role::System));
    let help = move || match store.model() {
        Some(_) if is_off.get() => texts.system_unsupported,
        Some(_) | None => texts.system.help,
    };
    view! {
        <div class="setting">
            <div class="setting-head">
                <label for="setting-system">{texts.system.name}</label>
            </div>
            <textarea
                id="setting-system"
                data-testid="setting-system"
                rows="3"
                dir="auto"
                placeholder=texts.system_placeholder
                disabled=move || is_off.get()
                aria-describedby="setting-system-help"
                prop:value=move || store.system.get()
                on:input=move |event| store.system.set(event_target_value(&event))
            ></textarea>
            <p class="setting-help" id="setting-system-help">{help}</p>
        </div>
    }
    .into_any()
}
