//! One setting: a slider and a number that say the same, the server's default, and the way back to it.

use leptos::prelude::*;

use super::{
    button::icon_button,
    icon::{Icon, glyph},
};
use crate::{
    app::{
        i18n::SettingText,
        state::State,
        store::Store,
        view::{Element, element, shown_while},
    },
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
pub fn dial_setting(store: Store, dial: fn(Store) -> Dial, text: &'static SettingText) -> Element {
    let texts = &store.texts.settings;
    let dial = move || dial(store);
    // As the server resolves it: a default beyond the bound means the bound.
    let default = move || {
        let dial = dial();
        (dial.default)(&store.model().map(|model| model.defaults).unwrap_or_default()).min(dial.max)
    };
    let value = move || store.settings.with(dial().get).map(|value| value.min(dial().max));
    // What is being typed, where it isn't (yet) a number that can be taken.
    let rejected = State::new(None::<String>);
    let change = move |value: Option<f32>| {
        rejected.set(None);
        store.settings.update(|settings| (untrack(dial).set)(settings, value));
    };
    let typed = move |raw: String| match untrack(dial).parse(&raw) {
        // A number that is still being written, such as `0.`, must not be rewritten as `0`.
        Some(value) if value.to_string() == raw.trim() => change(Some(value)),
        Some(value) => {
            change(Some(value));
            rejected.set(Some(raw));
        }
        None => rejected.set(Some(raw)),
    };
    let number = move || value().unwrap_or_else(default).to_string();
    let is_invalid = move || rejected.with(|raw| raw.as_ref().is_some_and(|raw| dial().parse(raw).is_none()));
    let id = format!("setting-{}", untrack(dial).name);
    let marks = format!("{id}-default");
    let slider = element("input")
        .with("type", "range")
        .with("aria-label", text.name)
        .with("list", marks.clone())
        .bind("min", move || dial().min.to_string())
        .bind("max", move || dial().max.to_string())
        .bind("step", move || dial().step.to_string())
        .value(number)
        .on("input", move |event| change(untrack(dial).parse(&event_target_value(&event))));
    let marks =
        element("datalist").with("id", marks).child(element("option").bind("value", move || default().to_string()));
    let field = text_field("decimal", id.clone(), is_invalid)
        .bind("value", number)
        .value(move || rejected.get().unwrap_or_else(number))
        .on("input", move |event| typed(event_target_value(&event)))
        .on("change", move |_| {
            if !untrack(is_invalid) {
                rejected.set(None);
            }
        });
    let range = move || (texts.out_of_range)(&dial().min.to_string(), &dial().max.to_string());
    let default_text =
        element("span").class("setting-default").live_text(move || (texts.default)(&default().to_string()));
    setting(
        text,
        Parts {
            label: element("label").with("for", id),
            default: default_text,
            reset: reset_button(store, move || value().is_some(), move || change(None)),
            body: element("div").class("setting-body").children([slider, marks, field]),
            error: shown_while(is_invalid, move || error_line(range()).into()),
        },
    )
}

/// The seed: a whole number, or empty for a fresh one each time.
pub fn seed_setting(store: Store) -> Element {
    let texts = &store.texts.settings;
    let rejected = State::new(None::<String>);
    let seed = move || store.settings.with(|settings| settings.seed);
    let change = move |seed: Option<u64>| {
        rejected.set(None);
        store.settings.update(|settings| settings.seed = seed);
    };
    let typed = move |raw: String| {
        let text = raw.trim();
        let parsed = text.parse::<u64>().ok().filter(|seed| *seed <= MAX_SEED);
        if parsed.is_some() || text.is_empty() {
            change(parsed);
        } else {
            rejected.set(Some(raw));
        }
    };
    let is_invalid = move || rejected.with(Option::is_some);
    let number = move || seed().map(|seed| seed.to_string()).unwrap_or_default();
    let field = text_field("numeric", "setting-seed".to_owned(), is_invalid)
        .with("placeholder", texts.seed_random)
        .value(move || rejected.get().unwrap_or_else(number))
        .on("input", move |event| typed(event_target_value(&event)));
    let error = move || error_line((texts.out_of_range)("0", &MAX_SEED.to_string())).into();
    setting(
        &texts.seed,
        Parts {
            label: element("label").with("for", "setting-seed"),
            default: element("span").class("setting-default").text((texts.default)(texts.seed_random)),
            reset: reset_button(store, move || seed().is_some(), move || change(None)),
            body: field,
            error: shown_while(is_invalid, error),
        },
    )
}

struct Parts {
    label: Element,
    default: Element,
    reset: AnyView,
    body: Element,
    error: AnyView,
}

fn setting(text: &'static SettingText, parts: Parts) -> Element {
    let head =
        element("div").class("setting-head").child(parts.label.text(text.name)).child(parts.default).child(parts.reset);
    element("div")
        .class("setting")
        .child(head)
        .child(parts.body)
        .child(element("p").class("setting-help").text(text.help))
        .child(parts.error)
}

fn text_field(input_mode: &'static str, id: String, is_invalid: impl Fn() -> bool + Send + 'static) -> Element {
    element("input")
        .with("type", "text")
        .with("inputmode", input_mode)
        .with("autocomplete", "off")
        .with("id", id.clone())
        .with("data-testid", id)
        .bind("aria-invalid", move || if is_invalid() { "true" } else { "false" })
}

fn error_line(text: String) -> Element {
    element("p").class("setting-error").with("role", "alert").text(text)
}

fn reset_button(
    store: Store,
    is_shown: impl Fn() -> bool + Send + Sync + 'static,
    reset: impl Fn() + Copy + Send + 'static,
) -> AnyView {
    let label = store.texts.settings.reset;
    shown_while(is_shown, move || icon_button(label).on("click", move |_| reset()).child(glyph(Icon::Again)).into())
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
