//! What runs behind the page: model, device, precision, sizes.

use leptos::prelude::*;

use super::icon::{Glyph, Icon};
use crate::{
    app::{format, i18n::EngineTexts, store::use_store},
    chat::info::{EngineStatus, ModelInfo, PromptFormat},
};

/// The model's name, and everything about it one press away.
#[component]
pub fn EngineInfo() -> impl IntoView {
    let store = use_store();
    let texts = &store.texts.engine;
    let state = move || {
        store.engine.with(|engine| match engine {
            EngineStatus::Loading => "loading",
            EngineStatus::Ready { .. } => "ready",
            EngineStatus::Unavailable { .. } => "unavailable",
        })
    };
    let name = move || {
        store.engine.with(|engine| match engine {
            EngineStatus::Loading => texts.loading.to_owned(),
            EngineStatus::Ready { model, .. } => model.name.clone(),
            EngineStatus::Unavailable { .. } => texts.unavailable.to_owned(),
        })
    };
    view! {
        <div class="engine" data-testid="engine-info" data-engine=state>
            <button type="button" class="quiet engine-name" popovertarget="engine-details" title=texts.title>
                <Glyph icon=Icon::Chip/>
                <span>{name}</span>
            </button>
            <div class="popover engine-details" id="engine-details" popover="auto">
                <h2>{texts.title}</h2>
                {move || store.engine.with(|engine| details(engine, texts))}
            </div>
        </div>
    }
    .into_any()
}

fn details(engine: &EngineStatus, texts: &'static EngineTexts) -> AnyView {
    match engine {
        EngineStatus::Loading => view! { <p>{texts.loading} " " {texts.loading_hint}</p> }.into_any(),
        EngineStatus::Unavailable { message } => view! { <p>{message.clone()}</p> }.into_any(),
        EngineStatus::Ready { model, running, waiting } => {
            let load = (texts.load, (texts.running_waiting)(*running, *waiting));
            let rows = rows(model, texts).into_iter().chain([load]);
            view! {
                <dl>
                    {rows
                        .map(|(term, value)| view! { <div><dt>{term}</dt><dd>{value}</dd></div> })
                        .collect_view()}
                </dl>
            }
            .into_any()
        }
    }
}

fn rows(model: &ModelInfo, texts: &'static EngineTexts) -> Vec<(&'static str, String)> {
    let tokens = |number: u64| (texts.n_tokens)(&format::count(number));
    let dtype = match model.quantize.as_str() {
        "none" | "" => model.dtype.clone(),
        bits => format!("{} · {}", model.dtype, (texts.bits)(bits)),
    };
    let format = match model.prompt_format {
        PromptFormat::V1 => "v1",
        PromptFormat::V2 => "v2",
    };
    vec![
        (texts.model, model.name.clone()),
        (texts.parameters, format::parameters(model.n_parameters)),
        (texts.device, model.device.clone()),
        (texts.dtype, dtype),
        (texts.weights, format::bytes(model.weight_bytes)),
        (texts.context, tokens(model.context_length.into())),
        (texts.kv_capacity, tokens(model.kv_capacity_tokens)),
        (texts.prompt_format, format.to_owned()),
        (texts.load_time, format::milliseconds(model.load_seconds * 1000.0)),
    ]
}
