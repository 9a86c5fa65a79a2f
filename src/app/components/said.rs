//! What a person said: as typed, in a light bubble; a tool's result as a labelled card.

use leptos::prelude::*;

use super::actions::{Branches, CopyMessage};
use crate::{
    app::store::use_store,
    chat::{ids::MessageId, message::Role},
};

/// A message that is on the server.
#[component]
pub fn Said(
    /// Which one.
    id: MessageId,
    /// Who says it.
    role: Role,
) -> impl IntoView {
    let store = use_store();
    let text = store
        .transcript
        .with_untracked(|transcript| transcript.message(id).map(|message| message.text.clone()))
        .unwrap_or_default();
    let to_copy = text.clone();
    view! {
        <Bubble role text>
            <div class="actions">
                <CopyMessage text=move || to_copy.clone()/>
                <Branches id/>
            </div>
        </Bubble>
    }
    .into_any()
}

/// The bubble alone.
#[component]
pub fn Bubble(
    /// Who says it.
    role: Role,
    /// What is said.
    text: String,
    /// What stands under it.
    children: Children,
) -> impl IntoView {
    let texts = use_store().texts;
    let (name, label) = match role {
        Role::Exec => ("exec", texts.exec),
        Role::System | Role::User | Role::Assistant => ("user", texts.you),
    };
    view! {
        <article class="turn turn-said" data-testid="message-user" data-role=name aria-label=label>
            {(role == Role::Exec).then(|| view! { <p class="said-label">{label}</p> })}
            <div class="bubble" data-testid="message-body" dir="auto">
                {text}
            </div>
            {children()}
        </article>
    }
    .into_any()
}
