//! The page: takes what it shows, provides the store, and keeps settings, title and the model's state in step.
//!
//! Owns the wiring between store, address and event streams. Knows nothing of how parts look.

use std::{
    fmt::{self, Display},
    str::FromStr,
    time::Duration,
};

use leptos::{prelude::*, serde_json, task::spawn_local};
use serde::{Deserialize, Serialize};

use super::{
    address,
    components::{
        chats::chat_list,
        composer::composer,
        device::offer,
        header::header,
        notice::{announcer, notices},
        settings::settings_drawer,
        transcript::transcript_pane,
    },
    drafts::{self, Kind},
    events,
    i18n::Texts,
    json, platform, shortcuts,
    state::State,
    store::{Opening, Place, Store, list},
    timer::Timer,
    view::{effect, element},
};
use crate::{
    api,
    chat::{
        info::{EngineStatus, PageData},
        list::ChatList,
        settings::Settings,
    },
};

/// Where changed settings are kept in the browser.
const SETTINGS_KEY: &str = "settings";

/// Pause between two questions whether the model has been loaded.
const LOADING_POLL: Duration = Duration::from_secs(1);

/// What a page request is answered with, before anything is drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Loaded {
    /// What is drawn.
    pub page: PageData,
    /// Whether the address names something that isn't there.
    pub is_missing: bool,
}

impl Default for Loaded {
    /// A page that knows nothing yet and asks for itself.
    fn default() -> Self {
        let page = PageData {
            title: "XVERSE Chat".to_owned(),
            engine: EngineStatus::Loading,
            // Nobody knows yet which there are.
            chats: ChatList { chats: Vec::new(), has_more: true },
            conversation: None,
        };
        Self { page, is_missing: false }
    }
}

/// As JSON, the way it travels inside the document.
impl Display for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

/// From JSON.
impl FromStr for Loaded {
    type Err = serde_json::Error;

    fn from_str(json: &str) -> Result<Self, serde_json::Error> {
        json::read(json)
    }
}

impl Loaded {
    /// The document's title.
    #[must_use]
    pub fn title(self) -> String {
        document_title(self.page.conversation.map(|view| view.title), self.page.title)
    }
}

fn document_title(heading: Option<String>, title: String) -> String {
    match heading {
        Some(heading) => format!("{heading} · {title}"),
        None => title,
    }
}

/// Everything between the document's body tags. The server finds what it shows in its context and writes it into the
/// document, where the browser finds it.
#[component]
pub fn Page() -> impl IntoView {
    let loaded = SharedValue::new_str(|| use_context::<Loaded>().unwrap_or_default());
    let Loaded { page, is_missing } = loaded.into_inner();
    if is_missing {
        platform::not_found();
    }
    let store = Store::new(Texts::of(platform::preferences().language), page, is_missing);
    address::keep(store);
    keep_settings(store);
    keep_system(store);
    list::keep(store);
    wait_for_model(store);
    effect(move || events::follow(store));
    effect(move || store.release());
    effect(move || store.take_up_edits());
    effect(move || shortcuts::listen(store));
    effect(move || {
        platform::set_title(&document_title(store.heading(), store.title.get_untracked()));
    });
    let screen = element("div")
        .class("screen")
        .child(header(store))
        .child(transcript_pane(store))
        .child(element("div").class("dock").child(notices(store)).child(composer(store)));
    element("div").class("page").children([
        chat_list(store),
        screen,
        settings_drawer(store),
        offer(store),
        announcer(store),
    ])
}

fn keep_settings(store: Store) {
    let mut has_begun = false;
    effect(move || {
        if !std::mem::replace(&mut has_begun, true)
            && let Some(kept) = platform::stored(SETTINGS_KEY)
            && let Ok(settings) = json::read(&kept)
        {
            store.settings.set(settings);
        }
        let settings = store.settings.get();
        let is_changed = settings != Settings::default();
        let text = is_changed.then(|| serde_json::to_string(&settings).ok()).flatten();
        platform::store(SETTINGS_KEY, text.as_deref());
    });
}

/// Keeps a system prompt that the server doesn't have yet, as the composer keeps its draft.
fn keep_system(store: Store) {
    let mut before = None::<Place>;
    effect(move || {
        let place = store.place.get();
        let is_known = move || store.known_system.with(|known| store.system.with(|system| known == system));
        match before.replace(place) {
            None if untrack(is_known) => {
                if let Some(kept) = drafts::kept(Kind::System, place.conversation) {
                    store.system.set(kept);
                }
            }
            Some(before) if before.conversation != place.conversation && before.visit == place.visit => {
                drafts::forget(Kind::System, before.conversation);
                untrack(|| store.join_kept_system());
            }
            None | Some(_) => {}
        }
        // Of a conversation that is not there it is not known yet: what was removed there stays removed.
        let is_there = store.opening.get() == Opening::Done;
        if is_known() && (is_there || drafts::kept(Kind::System, place.conversation).is_none()) {
            drafts::forget(Kind::System, place.conversation);
        } else {
            drafts::keep(Kind::System, place.conversation, &store.system.get());
        }
    });
}

fn wait_for_model(store: Store) {
    let timer = Timer::new();
    let asked = State::new(0_u32);
    let ask = move || {
        spawn_local(async move {
            if let Ok(mut page) = api::page(None).await {
                store.take_around(&mut page);
            }
            asked.update(|asked| *asked = asked.wrapping_add(1));
        });
    };
    effect(move || {
        asked.track();
        if store.engine.with(|engine| matches!(engine, EngineStatus::Ready { .. })) {
            timer.stop();
        } else {
            timer.start(LOADING_POLL, ask);
        }
    });
}
