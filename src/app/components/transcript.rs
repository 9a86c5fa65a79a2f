//! The conversation as a scrolling log.
//!
//! Owns the scroll container and writes its position; whether it follows is decided in `scroll`.

use leptos::{html, prelude::*};

use super::{
    answer::answer_turn,
    button::button,
    icon::{Icon, glyph},
    said::{said, said_now},
    start::start,
    status::progress_line,
};
use crate::{
    app::{
        platform::{self, ResizeWatch},
        scroll::{Follow, Position},
        state::{State, memo},
        store::{Opening, Store},
        transcript::{Transcript, Wish},
        view::{Element, Item, each, effect, element, live, nothing, several, shown_while},
    },
    chat::{
        ids::MessageId,
        message::{MessageView, Role},
    },
};

#[derive(Clone, Copy)]
struct Scroll {
    store: Store,
    node: NodeRef<html::Div>,
    follow: State<Follow>,
    is_following: State<bool>,
    /// Content was added below while nobody followed.
    is_fresh: State<bool>,
}

impl Scroll {
    fn new(store: Store) -> Self {
        Self {
            store,
            node: NodeRef::new(),
            follow: State::new(Follow::default()),
            is_following: State::new(true),
            is_fresh: State::new(false),
        }
    }

    fn position(self) -> Option<Position> {
        let node = self.node.get_untracked()?;
        Some(Position { top: node.scroll_top(), seen: node.client_height(), content: node.scroll_height() })
    }

    /// Before the first message there is no end to be at.
    fn has_end(self) -> bool {
        !self.store.transcript.with_untracked(Transcript::is_empty)
    }

    fn moved(self) {
        let Some(position) = self.position().filter(|_| self.has_end()) else { return };
        self.follow.update(|follow| follow.moved(position));
        self.show();
    }

    /// Goes to the end where it is followed.
    fn stick(self) {
        let Some(node) = self.node.get_untracked().filter(|_| self.has_end()) else { return };
        if platform::has_selection(&node) {
            self.follow.update(Follow::leave);
        }
        if self.follow.get_untracked().is_following() {
            node.set_scroll_top(node.scroll_height());
            self.moved();
        } else {
            self.show();
            self.is_fresh.set(true);
        }
    }

    fn rejoin(self) {
        self.follow.update(Follow::rejoin);
        self.show();
        match self.node.get_untracked() {
            Some(node) if !self.has_end() => node.set_scroll_top(0),
            Some(_) | None => self.stick(),
        }
    }

    fn show(self) {
        let is_following = self.follow.get_untracked().is_following();
        if self.is_following.get_untracked() != is_following {
            self.is_following.set(is_following);
            self.is_fresh.set(false);
        }
    }
}

/// The conversation, or what is there before it.
pub fn transcript_pane(store: Store) -> Element {
    let texts = store.texts;
    let scroll = Scroll::new(store);
    let content = NodeRef::<html::Div>::new();
    attend(store, scroll, content);
    let jump = move || {
        button()
            .class("jump")
            .handle("jump-latest")
            .bind("data-fresh", move || scroll.is_fresh.get().then_some("true"))
            .on("click", move |_| scroll.rejoin())
            .child(glyph(Icon::ArrowDown))
            .text(texts.jump_latest)
            .into()
    };
    let log = element("div")
        .class("transcript")
        .handle("transcript")
        .with("role", "log")
        .with("aria-live", "off")
        .with("aria-label", texts.transcript)
        .with("tabindex", "0")
        .node(scroll.node)
        .on("scroll", move |_| scroll.moved())
        .child(element("div").class("column").node(content).child(scenes(store)));
    element("main").class("middle").child(log).child(shown_while(move || !scroll.is_following.get(), jump))
}

fn attend(store: Store, scroll: Scroll, content: NodeRef<html::Div>) {
    // The effect keeps the watch.
    let mut watch = None;
    effect(move || {
        if let (Some(node), Some(content)) = (scroll.node.get(), content.get()) {
            watch = ResizeWatch::new(&[(*node).clone().into(), (*content).clone().into()], move || scroll.stick());
        }
        let _ = &watch;
    });
    // Whoever sends or opens something wants to see it.
    let asked = memo(move || {
        let request = store.transcript.with(|transcript| transcript.pending().map(|pending| pending.request));
        (request, store.place.get().visit)
    });
    let mut before = asked.get_untracked();
    effect(move || {
        let asked = asked.get();
        if before != asked {
            before = asked;
            scroll.rejoin();
        }
    });
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scene {
    Missing,
    Opening,
    Failed,
    Start,
    Turns,
}

fn scenes(store: Store) -> AnyView {
    let scene = memo(move || match store.opening.get() {
        _ if store.is_missing.get() => Scene::Missing,
        Opening::Running => Scene::Opening,
        Opening::Failed => Scene::Failed,
        Opening::Done if store.transcript.with(Transcript::is_empty) => Scene::Start,
        Opening::Done => Scene::Turns,
    });
    live(move || match scene.get() {
        Scene::Missing => missing(store).into(),
        Scene::Opening => element("p").class("opening").text(store.texts.opening).into(),
        Scene::Failed => failed(store).into(),
        Scene::Start => start(store).into(),
        Scene::Turns => turns(store),
    })
}

fn missing(store: Store) -> Element {
    let texts = store.texts;
    element("div").class("start").handle("missing").children([
        element("h2").text(texts.missing_title),
        element("p").text(texts.missing_text),
        element("p").child(element("a").with("href", "/").text(texts.new_chat)),
    ])
}

fn failed(store: Store) -> Element {
    let try_again = button().class("starters-more").on("click", move |_| store.fetch()).text(store.texts.try_again);
    element("div").class("start").child(try_again)
}

fn turns(store: Store) -> AnyView {
    let shown = memo(move || {
        let key = |message: &MessageView| (message.id, message.role);
        store.transcript.with(|transcript| transcript.path().into_iter().map(key).collect::<Vec<_>>())
    });
    let item = move |(id, role): (MessageId, Role)| Item::new(id.as_u128(), move || turn(store, id, role));
    let pending = memo(move || store.transcript.with(|transcript| transcript.pending().cloned()));
    let sending = move || {
        let Some(pending) = pending.get() else { return nothing() };
        match pending.wish {
            Wish::Answer(role, text) | Wish::Instead(role, text) => {
                several(vec![said_now(store.texts, role, text).into(), sending(store).into()])
            }
            Wish::Again => sending(store).into(),
            Wish::More => sending_line(store).into(),
        }
    };
    several(vec![each(move || shown.get().into_iter().map(item).collect()), live(sending)])
}

fn turn(store: Store, id: MessageId, role: Role) -> AnyView {
    match role {
        Role::Assistant => answer_turn(store, id),
        Role::System | Role::User | Role::Exec => said(store, id, role).into(),
    }
}

/// The answer to what is on its way to the server.
fn sending(store: Store) -> Element {
    let texts = store.texts;
    element("article")
        .class("turn turn-answer")
        .handle("message-assistant")
        .with("data-state", "queued")
        .with("aria-busy", "true")
        .with("aria-label", texts.assistant)
        .child(element("div").class("prose").handle("message-body"))
        .child(sending_line(store))
}

fn sending_line(store: Store) -> Element {
    element("div").class("progress").child(progress_line(store.texts.answer.sending))
}
