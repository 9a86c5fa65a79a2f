//! Where a message is written and sent.
//!
//! Owns the text field. The field is the truth about its text: nothing writes it while somebody types.
//! **Architecture Invariant:** a text that was typed is in the field, in the store or on the server; never nowhere.

use std::time::Duration;

use leptos::{ev, html, prelude::*};

use super::{
    button::button,
    icon::{Icon, live_glyph},
    writing::{Writing, sends},
};
use crate::{
    app::{
        drafts::{self, Kind},
        platform,
        state::{State, memo},
        store::{Draft, Place, Store},
        timer::Timer,
        transcript::Wish,
        view::{Element, effect, element, several},
    },
    chat::{
        error::ErrorCode,
        ids::ConversationId,
        message::{MessageText, Role},
    },
};

/// Pause in typing after which the draft is kept.
const DRAFT_PAUSE: Duration = Duration::from_millis(300);

#[derive(Clone, Copy)]
struct Field {
    store: Store,
    node: NodeRef<html::Textarea>,
    is_empty: State<bool>,
    /// Whose draft it is.
    owner: State<Option<ConversationId>>,
    timer: Timer,
}

impl Field {
    fn new(store: Store) -> Self {
        Self {
            store,
            node: NodeRef::new(),
            is_empty: State::new(true),
            owner: State::new(store.place.get_untracked().conversation),
            timer: Timer::new(),
        }
    }

    fn text(self) -> String {
        self.node.get_untracked().map(|node| node.value()).unwrap_or_default()
    }

    /// All that would be lost with the page: what is on its way to the server, what waits and what is in the field.
    fn unsent(self) -> String {
        let said = self.store.transcript.with_untracked(|transcript| match transcript.pending()?.wish {
            Wish::Answer(_, ref text) => Some(text.clone()),
            // It is kept where it is edited.
            Wish::Instead(..) | Wish::Again | Wish::More => None,
        });
        let held = self.store.held.get_untracked().map(|held| String::from(held.text));
        drafts::joined(&[&said.unwrap_or_default(), &held.unwrap_or_default(), &self.text()])
    }

    fn focus(self) {
        if let Some(node) = self.node.get_untracked() {
            let _ = node.focus();
        }
    }

    fn put(self, text: &str) {
        if let Some(node) = self.node.get_untracked() {
            node.set_value(text);
        }
        self.typed();
        self.keep_draft();
    }

    fn typed(self) {
        self.is_empty.set(MessageText::is_blank(&self.text()));
        if let Some(node) = self.node.get_untracked() {
            platform::fit_height(&node);
        }
        self.timer.start(DRAFT_PAUSE, move || self.keep_draft());
    }

    fn keep_draft(self) {
        if let (Some(owner), Some(_)) = (self.owner.try_get_untracked(), self.node.try_get_untracked().flatten()) {
            drafts::keep(Kind::Message, owner, &self.unsent());
        }
    }

    fn send(self) {
        match MessageText::parse(&self.text()) {
            Ok(text) => {
                self.put("");
                self.store.say(self.store.role.get_untracked(), text);
            }
            Err(error) if error.code == ErrorCode::MessageEmpty => {}
            Err(error) => self.store.fail(&error),
        }
    }

    fn take(self, draft: &Draft) {
        let typed = self.text();
        match draft {
            Draft::Append(text) => self.put(&drafts::joined(&[&typed, text])),
            Draft::PutBack(text) => self.put(&drafts::joined(&[text, &typed])),
        }
        self.focus();
    }

    fn key_pressed(self, event: &ev::KeyboardEvent) {
        if sends(event) {
            event.prevent_default();
            self.send();
        } else if event.key() == "ArrowUp" && self.text().is_empty() {
            event.prevent_default();
            if let Some(id) = self.store.edit_last() {
                platform::order_soon(format!("edit-field-{id}"), "focus");
            }
        }
    }

    /// The draft comes back, before what was typed until the page came alive.
    fn begin(self) {
        self.put(&drafts::behind_kept(Kind::Message, self.owner.get_untracked(), &self.text()));
        if !platform::is_touch_first() {
            self.focus();
        }
    }

    /// Keeps the draft with its conversation, whether one was opened or this one just got or lost its name.
    fn go(self, from: Place, to: Place) {
        if from.visit == to.visit {
            drafts::forget(Kind::Message, from.conversation);
            self.owner.set(to.conversation);
            self.put(&drafts::behind_kept(Kind::Message, to.conversation, &self.text()));
        } else {
            self.keep_draft();
            self.owner.set(to.conversation);
            // It belongs to the draft that was just kept.
            self.store.held.set(None);
            self.put(&drafts::kept(Kind::Message, to.conversation).unwrap_or_default());
        }
    }

    fn attend(self) {
        let store = self.store;
        let mut has_begun = false;
        effect(move || {
            if self.node.get().is_some() && !has_begun {
                has_begun = true;
                untrack(|| self.begin());
            }
        });
        let mut before = store.place.get_untracked();
        effect(move || {
            let place = store.place.get();
            if before != place {
                untrack(|| self.go(before, place));
                before = place;
            }
        });
        effect(move || {
            store.held.track();
            store.transcript.with(|transcript| transcript.pending().is_some());
            self.keep_draft();
        });
        // Whatever was pressed to ask, one goes on by writing.
        effect(move || {
            let is_asking = store.transcript.with(|transcript| transcript.pending().is_some());
            if is_asking && !platform::is_touch_first() {
                self.focus();
            }
        });
        effect(move || {
            if let Some(draft) = store.draft.get() {
                store.draft.set(None);
                untrack(|| self.take(&draft));
            }
        });
        effect(move || {
            let listener = window_event_listener_untyped("pagehide", move |_| self.keep_draft());
            on_cleanup(move || listener.remove());
        });
    }
}

/// The field, who speaks, and the one button.
pub fn composer(store: Store) -> AnyView {
    let texts = &store.texts.composer;
    let field = Field::new(store);
    field.attend();
    let placeholder = move || match store.role.get() {
        Role::Exec => texts.placeholder_exec,
        Role::System | Role::User | Role::Assistant => texts.placeholder,
    };
    let text = element("textarea")
        .handle("composer")
        .with("rows", "1")
        .with("dir", "auto")
        .with("autocomplete", "off")
        .with("aria-label", texts.label)
        .bind("placeholder", placeholder)
        .node(field.node)
        .on("input", move |_| field.typed());
    let text = Writing::new().watch(text, move |event| field.key_pressed(event));
    let row = element("div").class("composer-row").child(role_selector(store)).child(action_button(field));
    several(vec![
        element("div").class("composer").child(text).child(row).into(),
        element("p").class("caution").text(texts.caution).into(),
    ])
}

/// Sends, or stops what is running. One button, so that the focus stays where it is.
fn action_button(field: Field) -> Element {
    let store = field.store;
    let texts = &store.texts.composer;
    let is_answering =
        memo(move || store.running().is_some() || store.transcript.with(|transcript| transcript.pending().is_some()));
    let label = move || if is_answering.get() { texts.stop } else { texts.send };
    let press = move |_| {
        if is_answering.get_untracked() {
            store.stop();
        } else {
            field.send();
        }
    };
    button()
        .class("act")
        .bind("data-testid", move || if is_answering.get() { "stop" } else { "send" })
        .bind("title", label)
        .bind("aria-label", label)
        .bind("disabled", move || !is_answering.get() && field.is_empty.get())
        // The field keeps the focus, and a phone its keyboard.
        .on("mousedown", |event| event.prevent_default())
        .on("click", press)
        .child(live_glyph(move || if is_answering.get() { Icon::Square } else { Icon::ArrowUp }))
}

/// Who speaks: a selector instead of a second field, so that nothing typed is ever left out.
fn role_selector(store: Store) -> Element {
    let texts = &store.texts.composer;
    let is_off = memo(move || !store.supports(Role::Exec));
    let name = move || match store.role.get() {
        Role::Exec => "exec",
        Role::System | Role::User | Role::Assistant => "user",
    };
    let choose = move |event: ev::Event| {
        let role = if event_target_value(&event) == "exec" { Role::Exec } else { Role::User };
        store.role.set(role);
    };
    let option = |value: &'static str, name: &'static str| element("option").with("value", value).text(name);
    let selector = element("select")
        .handle("role")
        .bind("disabled", move || is_off.get())
        .value(name)
        .on("change", choose)
        .children([option("user", texts.role_user), option("exec", texts.role_exec)]);
    element("label")
        .class("role")
        .bind("title", move || (is_off.get() && store.model().is_some()).then_some(texts.role_unsupported))
        .child(element("span").class("visually-hidden").text(texts.role))
        .child(selector)
}
