//! One setting: a slider and a number that say the same, the server's default, and the way back to it.

use leptos::prelude::*;

use super::icon::{Glyph, Icon};
use crate::{
    app::{i18n::SettingText, store::use_store},
    chat::settings::{MAX_SEED, Sampling, Settings},
};

/// What a slider changes, and within which bounds.
#[derive(Debug, Clone, Copy)]
pub struct Dial {
    /// The setting's name on the wire.
    pub name: &'static str,
    /// Smallest value.
    pub min: f32,
    /// Largest value.
    pub max: f32,
    /// Distance of two neighbouring values.
    pub step: f32,
    /// The default.
    pub default: fn(&Sampling) -> f32,
    /// What was set.
    pub get: fn(&Settings) -> Option<f32>,
    /// Sets it, or goes back to the default.
    pub set: fn(&mut Settings, Option<f32>),
}

impl Dial {
    /// A number that somebody typed, where this setting can take it.
    fn parse(&self, text: &str) -> Option<f32> {
        let value: f32 = text.trim().replace(['，', ','], ".").parse().ok()?;
        let is_whole = self.step < 1.0 || value.fract() == 0.0;
        (value >= self.min && value <= self.max && is_whole).then_some(value)
    }
}

/// A setting that is a number.
#[component]
pub fn DialSetting(
    /// Which one.
    #[prop(into)]
    dial: Signal<Dial>,
    /// Its words.
    text: &'static SettingText,
) -> impl IntoView {
    let store = use_store();
    let texts = &store.texts.settings;
    let default = move || (dial.get().default)(&store.model().map(|model| model.defaults).unwrap_or_default());
    let value = move || store.settings.with(dial.get().get);
    // What is being typed, where it isn't (yet) a number that can be taken.
    let rejected = RwSignal::new(None::<String>);
    let change = move |value: Option<f32>| {
        rejected.set(None);
        store.settings.update(|settings| (dial.get_untracked().set)(settings, value));
    };
    let typed = move |raw: String| match dial.get_untracked().parse(&raw) {
        // A number that is still being written, such as `0.`, must not be rewritten as `0`.
        Some(value) if value.to_string() == raw.trim() => change(Some(value)),
        Some(value) => {
            change(Some(value));
            rejected.set(Some(raw));
        }
        None => rejected.set(Some(raw)),
    };
    let number = move || value().unwrap_or_else(default).to_string();
    let shown = move || rejected.get().unwrap_or_else(number);
    let is_invalid = move || rejected.with(|raw| raw.as_ref().is_some_and(|raw| dial.get().parse(raw).is_none()));
    let name = dial.get_untracked().name;
    let id = format!("setting-{name}");
    let marks = format!("{id}-default");
    let range = move || (texts.out_of_range)(&dial.get().min.to_string(), &dial.get().max.to_string());
    view! {
        <div class="setting">
            <div class="setting-head">
                <label for=id.clone()>{text.name}</label>
                <span class="setting-default">{move || (texts.default)(&default().to_string())}</span>
                <ResetButton is_shown=Signal::derive(move || value().is_some()) reset=move || change(None)/>
            </div>
            <div class="setting-body">
                <input
                    type="range"
                    aria-label=text.name
                    list=marks.clone()
                    min=move || dial.get().min.to_string()
                    max=move || dial.get().max.to_string()
                    step=move || dial.get().step.to_string()
                    prop:value=number
                    on:input=move |event| change(dial.get_untracked().parse(&event_target_value(&event)))
                />
                <datalist id=marks><option value=move || default().to_string()></option></datalist>
                <input
                    type="text"
                    inputmode="decimal"
                    autocomplete="off"
                    id=id.clone()
                    data-testid=id
                    aria-invalid=move || if is_invalid() { "true" } else { "false" }
                    value=number
                    prop:value=shown
                    on:input=move |event| typed(event_target_value(&event))
                    on:change=move |_| if !untrack(is_invalid) { rejected.set(None) }
                />
            </div>
            <p class="setting-help">{text.help}</p>
            <Show when=is_invalid>
                <p class="setting-error" role="alert">{range}</p>
            </Show>
        </div>
    }
    .into_any()
}

/// The seed: a whole number, or empty for a fresh one each time.
#[component]
pub fn SeedSetting() -> impl IntoView {
    let store = use_store();
    let texts = &store.texts.settings;
    let rejected = RwSignal::new(None::<String>);
    let seed = move || store.settings.with(|settings| settings.seed);
    let typed = move |raw: String| {
        let text = raw.trim();
        let parsed = text.parse::<u64>().ok().filter(|seed| *seed <= MAX_SEED);
        if parsed.is_some() || text.is_empty() {
            rejected.set(None);
            store.settings.update(|settings| settings.seed = parsed);
        } else {
            rejected.set(Some(raw));
        }
    };
    let number = move || seed().map(|seed| seed.to_string()).unwrap_or_default();
    let reset = move || {
        rejected.set(None);
        store.settings.update(|settings| settings.seed = None);
    };
    view! {
        <div class="setting">
            <div class="setting-head">
                <label for="setting-seed">{texts.seed.name}</label>
                <span class="setting-default">{(texts.default)(texts.seed_random)}</span>
                <ResetButton is_shown=Signal::derive(move || seed().is_some()) reset/>
            </div>
            <input
                type="text"
                inputmode="numeric"
                autocomplete="off"
                id="setting-seed"
                data-testid="setting-seed"
                placeholder=texts.seed_random
                aria-invalid=move || if rejected.get().is_some() { "true" } else { "false" }
                prop:value=move || rejected.get().unwrap_or_else(number)
                on:input=move |event| typed(event_target_value(&event))
            />
            <p class="setting-help">{texts.seed.help}</p>
            <Show when=move || rejected.get().is_some()>
                <p class="setting-error" role="alert">{(texts.out_of_range)("0", &MAX_SEED.to_string())}</p>
            </Show>
        </div>
    }
    .into_any()
}

#[component]
fn ResetButton<F>(is_shown: Signal<bool>, reset: F) -> impl IntoView
where
    F: Fn() + Copy + Send + Sync + 'static,
{
    let label = use_store().texts.settings.reset;
    view! {
        <Show when=move || is_shown.get()>
            <button type="button" class="quiet" title=label aria-label=label on:click=move |_| reset()>
                <Glyph icon=Icon::Again/>
            </button>
        </Show>
    }
    .into_any()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dial(step: f32) -> Dial {
        Dial { name: "any", min: 0.0, max: 2.0, step, default: |_| 1.0, get: |_| None, set: |_, _| {} }
    }

    #[test]
    fn only_numbers_within_the_bounds_are_taken() {
        for (text, value) in [
            ("0.7", Some(0.7)),
            (" 2 ", Some(2.0)),
            ("0,5", Some(0.5)),
            ("2.1", None),
            ("-1", None),
            ("NaN", None),
            ("", None),
            ("much", None),
        ] {
            assert_eq!(dial(0.05).parse(text), value, "{text:?}");
        }
    }

    #[test]
    fn a_whole_number_has_no_fraction() {
        assert_eq!(dial(1.0).parse("1.5"), None);
        assert_eq!(dial(1.0).parse("1"), Some(1.0));
    }
}
