//! The page: loads what it shows, provides the store, and keeps the address in step.
//!
//! Owns the wiring between address, store and event streams. Knows nothing of how parts look.

use std::time::Duration;

use leptos::{ev, prelude::*, serde_json, task::spawn_local};
use leptos_meta::Title;
use leptos_router::{
    NavigateOptions,
    hooks::{use_location, use_navigate},
};
use serde::{Deserialize, Serialize};

use super::{
    components::{
        composer::Composer,
        header::Header,
        notice::{Announcer, Notices},
        settings::SettingsDrawer,
        transcript::TranscriptPane,
    },
    events,
    i18n::Texts,
    platform,
    store::Store,
    transcript::Transcript,
};
use crate::{
    api,
    chat::{
        error::{ChatError, ErrorCode},
        ids::ConversationId,
        info::{EngineStatus, PageData},
        settings::Settings,
    },
};

/// Where changed settings are kept in the browser.
const SETTINGS_KEY: &str = "settings";

/// Pause between two questions whether the model has been loaded.
const LOADING_POLL: Duration = Duration::from_millis(1000);

/// What an address asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Address {
    Start,
    Conversation(ConversationId),
    Unknown,
}

impl Address {
    fn parse(path: &str) -> Self {
        match path.trim_matches('/') {
            "" => Self::Start,
            path => path.strip_prefix("c/").and_then(|id| id.parse().ok()).map_or(Self::Unknown, Self::Conversation),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Loaded {
    page: PageData,
    is_missing: bool,
}

async fn load(address: Address) -> Result<Loaded, ChatError> {
    if let Address::Conversation(id) = address {
        match api::page(Some(id)).await {
            Ok(page) => return Ok(Loaded { page, is_missing: false }),
            Err(error) if error.code == ErrorCode::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Loaded { page: api::page(None).await?, is_missing: address != Address::Start })
}

/// Everything between the document's body tags.
#[component]
pub fn Page() -> impl IntoView {
    let path = use_location().pathname;
    let address = Memo::new(move |_| path.with(|path| Address::parse(path)));
    let first = address.get_untracked();
    let loaded = Resource::new_blocking(|| (), move |()| load(first));
    view! {
        <Suspense>
            {move || Suspend::new(async move { view! { <Chat loaded=loaded.await address/> } })}
        </Suspense>
    }
    .into_any()
}

#[component]
fn Chat(loaded: Result<Loaded, ChatError>, address: Memo<Address>) -> impl IntoView {
    let texts = Texts::of(platform::preferences().language);
    let Loaded { page, is_missing } = loaded.unwrap_or_else(|error| Loaded {
        page: PageData {
            title: "XVERSE Chat".to_owned(),
            engine: EngineStatus::Unavailable { message: texts.error(&error) },
            conversation: None,
        },
        is_missing: false,
    });
    if is_missing {
        platform::not_found();
    }
    let store = Store::new(texts, page, is_missing);
    provide_context(store);
    keep_address(store, address);
    keep_settings(store);
    wait_for_model(store);
    Effect::new(move |_| events::follow(store));
    Effect::new(move |_| store.release());
    Effect::new(move |_| listen_to_keys(store));
    let title = move || {
        let title = store.title.get_value();
        match store.transcript.with(Transcript::heading) {
            Some(heading) => format!("{heading} · {title}"),
            None => title,
        }
    };
    view! {
        <Title text=title/>
        <div class="page">
            <Header/>
            <TranscriptPane/>
            <div class="dock">
                <Notices/>
                <Composer/>
            </div>
            <SettingsDrawer/>
            <Announcer/>
        </div>
    }
    .into_any()
}

/// Opens what the address names, and gives a conversation that was begun here its address.
fn keep_address(store: Store, address: Memo<Address>) {
    Effect::new(move |before: Option<Address>| {
        let address = address.get();
        let shown = store.place.with_untracked(|place| place.conversation);
        match address {
            _ if before.is_none_or(|before| before == address) => {}
            Address::Start => store.open(None),
            Address::Conversation(id) if shown != Some(id) => store.open(Some(id)),
            Address::Conversation(_) => {}
            Address::Unknown => {
                store.open(None);
                store.is_missing.set(true);
            }
        }
        address
    });
    let navigate = use_navigate();
    Effect::new(move |_| {
        if let Some(id) = store.place.get().conversation
            && address.get_untracked() != Address::Conversation(id)
        {
            navigate(&format!("/c/{id}"), NavigateOptions { scroll: false, ..NavigateOptions::default() });
        }
    });
}

fn keep_settings(store: Store) {
    Effect::new(move |before: Option<()>| {
        if before.is_none()
            && let Some(kept) = platform::stored(SETTINGS_KEY)
            && let Ok(settings) = serde_json::from_str(&kept)
        {
            store.settings.set(settings);
        }
        let settings = store.settings.get();
        let is_changed = settings != Settings::default();
        let text = is_changed.then(|| serde_json::to_string(&settings).ok()).flatten();
        platform::store(SETTINGS_KEY, &text.unwrap_or_default());
    });
}

fn wait_for_model(store: Store) {
    let timer = StoredValue::new(None::<TimeoutHandle>);
    let asked = RwSignal::new(0_u32);
    let ask = move || {
        spawn_local(async move {
            if let Ok(page) = api::page(None).await {
                store.engine.set(page.engine);
            }
            let _ = asked.try_update(|asked| *asked = asked.wrapping_add(1));
        });
    };
    Effect::new(move |_| {
        asked.track();
        let is_ready = store.engine.with(|engine| matches!(engine, EngineStatus::Ready { .. }));
        if let Some(timer) = timer.get_value() {
            timer.clear();
        }
        timer.set_value(if is_ready { None } else { set_timeout_with_handle(ask, LOADING_POLL).ok() });
    });
}

fn listen_to_keys(store: Store) {
    let navigate = use_navigate();
    let listener = window_event_listener(ev::keydown, move |event| {
        if event.is_composing() || event.default_prevented() {
            return;
        }
        let is_command = event.ctrl_key() || event.meta_key();
        match event.key().as_str() {
            "Escape" if !platform::is_anything_open() => store.stop(),
            "o" | "O" if is_command && event.shift_key() => {
                event.prevent_default();
                navigate("/", NavigateOptions::default());
            }
            _ => {}
        }
    });
    on_cleanup(move || listener.remove());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_a_conversation_or_nothing() {
        let id = ConversationId::random();
        assert_eq!(Address::parse("/"), Address::Start);
        assert_eq!(Address::parse(&format!("/c/{id}")), Address::Conversation(id));
        for path in ["/c/", "/c/nonsense", "/elsewhere", &format!("/c/{id}/more")] {
            assert_eq!(Address::parse(path), Address::Unknown, "{path}");
        }
    }
}
