//! The conversation as a scrolling log.
//!
//! Owns the scroll container and writes its position; whether it follows is decided in `scroll`.

use leptos::{html, prelude::*};

use super::{
    answer::AnswerTurn,
    icon::{Glyph, Icon},
    said::{Bubble, Said},
    start::Start,
};
use crate::{
    app::{
        platform::{self, ResizeWatch},
        scroll::{Follow, Position},
        store::use_store,
    },
    chat::{
        ids::MessageId,
        message::{MessageView, Role},
    },
};

#[derive(Clone, Copy)]
struct Scroll {
    node: NodeRef<html::Div>,
    follow: StoredValue<Follow>,
    is_following: RwSignal<bool>,
    /// Content was added below while nobody followed.
    is_fresh: RwSignal<bool>,
}

impl Scroll {
    fn new() -> Self {
        Self {
            node: NodeRef::new(),
            follow: StoredValue::new(Follow::default()),
            is_following: RwSignal::new(true),
            is_fresh: RwSignal::new(false),
        }
    }

    fn position(self) -> Option<Position> {
        let node = self.node.get_untracked()?;
        Some(Position { top: node.scroll_top(), seen: node.client_height(), content: node.scroll_height() })
    }

    fn moved(self) {
        let Some(position) = self.position() else { return };
        self.follow.update_value(|follow| follow.moved(position));
        self.show();
    }

    /// Goes to the end where it is followed.
    fn stick(self) {
        let Some(node) = self.node.get_untracked() else { return };
        if platform::has_selection(&node) {
            self.follow.update_value(Follow::leave);
        }
        if self.follow.get_value().is_following() {
            node.set_scroll_top(node.scroll_height());
            self.moved();
        } else {
            self.show();
            self.is_fresh.set(true);
        }
    }

    fn rejoin(self) {
        self.follow.update_value(Follow::rejoin);
        self.stick();
    }

    fn show(self) {
        let is_following = self.follow.get_value().is_following();
        if self.is_following.get_untracked() != is_following {
            self.is_following.set(is_following);
            self.is_fresh.set(false);
        }
    }
}

/// The conversation, or what is there before it.
#[component]
pub fn TranscriptPane() -> impl IntoView {
    let store = use_store();
    let texts = store.texts;
    let scroll = Scroll::new();
    let content = NodeRef::<html::Div>::new();
    // The effect keeps the watch: it is the browser's alone.
    Effect::new(move |_: Option<Option<ResizeWatch>>| {
        let elements = [(*scroll.node.get()?).clone().into(), (*content.get()?).clone().into()];
        ResizeWatch::new(&elements, move || scroll.stick())
    });
    // Whoever sends or opens something wants to see it.
    let asked = Memo::new(move |_| {
        let request = store.transcript.with(|transcript| transcript.pending().map(|pending| pending.request));
        (request, store.place.get().visit)
    });
    Effect::new(move |before: Option<_>| {
        let asked = asked.get();
        if before.is_some_and(|before| before != asked) {
            scroll.rejoin();
        }
        asked
    });
    view! {
        <main class="middle">
            <div
                class="transcript"
                data-testid="transcript"
                role="log"
                aria-live="off"
                aria-label=texts.transcript
                tabindex="0"
                node_ref=scroll.node
                on:scroll=move |_| scroll.moved()
            >
                <div class="column" node_ref=content>
                    <Content/>
                </div>
            </div>
            <Show when=move || !scroll.is_following.get()>
                <button
                    type="button"
                    class="jump"
                    data-testid="jump-latest"
                    data-fresh=move || scroll.is_fresh.get().then_some("true")
                    on:click=move |_| scroll.rejoin()
                >
                    <Glyph icon=Icon::ArrowDown/>
                    {texts.jump_latest}
                </button>
            </Show>
        </main>
    }
    .into_any()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scene {
    Missing,
    Opening,
    Start,
    Turns,
}

#[component]
fn Content() -> impl IntoView {
    let store = use_store();
    let texts = store.texts;
    let scene = Memo::new(move |_| {
        if store.is_missing.get() {
            Scene::Missing
        } else if store.is_opening.get() {
            Scene::Opening
        } else if store.transcript.with(crate::app::transcript::Transcript::is_empty) {
            Scene::Start
        } else {
            Scene::Turns
        }
    });
    move || match scene.get() {
        Scene::Missing => view! {
            <div class="start" data-testid="missing">
                <h2>{texts.missing_title}</h2>
                <p>{texts.missing_text}</p>
                <p>
                    <a href="/">{texts.new_chat}</a>
                </p>
            </div>
        }
        .into_any(),
        Scene::Opening => ().into_any(),
        Scene::Start => view! { <Start/> }.into_any(),
        Scene::Turns => view! { <Turns/> }.into_any(),
    }
}

#[component]
fn Turns() -> impl IntoView {
    let store = use_store();
    let shown = Memo::new(move |_| {
        let key = |message: &MessageView| (message.id, message.role);
        store.transcript.with(|transcript| transcript.path().into_iter().map(key).collect::<Vec<_>>())
    });
    let pending = Memo::new(move |_| store.transcript.with(|transcript| transcript.pending().cloned()));
    view! {
        <For each=move || shown.get() key=|(id, _)| *id let((id, role))>
            <Turn id role/>
        </For>
        {move || {
            pending
                .get()
                .map(|pending| {
                    view! {
                        {pending.said.map(|(role, text)| view! { <Bubble role text>""</Bubble> })}
                        <Sending/>
                    }
                })
        }}
    }
    .into_any()
}

#[component]
fn Turn(id: MessageId, role: Role) -> impl IntoView {
    match role {
        Role::Assistant => view! { <AnswerTurn id/> }.into_any(),
        Role::System | Role::User | Role::Exec => view! { <Said id role/> }.into_any(),
    }
}

/// The answer to what is on its way to the server.
#[component]
fn Sending() -> impl IntoView {
    let texts = use_store().texts;
    view! {
        <article
            class="turn turn-answer"
            data-testid="message-assistant"
            data-state="queued"
            aria-busy="true"
            aria-label=texts.assistant
        >
            <div class="prose" data-testid="message-body"></div>
            <div class="progress">
                <p class="status" data-testid="queue-status">{texts.answer.sending}</p>
            </div>
        </article>
    }
    .into_any()
}
