//! What runs behind the page: model, device, precision, sizes.

use super::{
    button::button,
    icon::{Icon, glyph},
};
use crate::{
    app::{
        format,
        i18n::EngineTexts,
        store::Store,
        view::{Element, element, live},
    },
    chat::info::{EngineStatus, ModelInfo, PromptFormat},
};

/// The model's name, and everything about it one press away.
pub fn engine_info(store: Store) -> Element {
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
    let opener = button()
        .class("quiet engine-name")
        .with("popovertarget", "engine-details")
        .with("title", texts.title)
        .child(glyph(Icon::Chip))
        .child(element("span").live_text(name));
    let popover = element("div")
        .class("popover engine-details")
        .with("id", "engine-details")
        .with("popover", "auto")
        .child(element("h2").text(texts.title))
        .child(live(move || store.engine.with(|engine| details(engine, texts).into())));
    element("div").class("engine").handle("engine-info").bind("data-engine", state).child(opener).child(popover)
}

fn details(engine: &EngineStatus, texts: &'static EngineTexts) -> Element {
    match engine {
        EngineStatus::Loading => element("p").text(format!("{} {}", texts.loading, texts.loading_hint)),
        EngineStatus::Unavailable { message } => element("p").text(message.as_str()),
        EngineStatus::Ready { model, running, waiting } => {
            let load = (texts.load, (texts.running_waiting)(*running, *waiting));
            let rows = rows(model, texts).into_iter().chain([load]);
            element("dl").children(
                rows.map(|(term, value)| {
                    element("div").child(element("dt").text(term)).child(element("dd").text(value))
                }),
            )
        }
    }
}

fn rows(model: &ModelInfo, texts: &'static EngineTexts) -> Vec<(&'static str, String)> {
    let tokens = |number: u64| (texts.n_tokens)(&format::count(number));
    let dtype = model.dtype.as_ref().map(|dtype| match model.quantize.as_deref() {
        None | Some("none" | "") => dtype.clone(),
        Some(bits) => format!("{dtype} · {}", (texts.bits)(bits)),
    });
    let format = match model.prompt_format {
        PromptFormat::V1 => "v1",
        PromptFormat::V2 => "v2",
    };
    let rows = [
        (texts.model, Some(model.name.clone())),
        (texts.parameters, model.n_parameters.map(format::parameters)),
        (texts.device, Some(model.device.clone())),
        (texts.dtype, dtype),
        (texts.weights, model.weight_bytes.map(format::bytes)),
        (texts.context, Some(tokens(model.context_length.into()))),
        (texts.kv_capacity, model.kv_capacity_tokens.map(tokens)),
        (texts.prompt_format, Some(format.to_owned())),
        (texts.load_time, model.load_seconds.map(|seconds| format::milliseconds(seconds * 1000.0))),
    ];
    // What is not known is left out.
    rows.into_iter().filter_map(|(term, value)| Some((term, value?))).collect()
}
