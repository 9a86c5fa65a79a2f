//! An answer: its blocks as they grow, and the row under it.

use leptos::prelude::*;

use super::{
    actions::{Branches, CopyMessage, Regenerate},
    markup,
    status::{Progress, Status},
};
use crate::{
    app::{answer::Answer, store::use_store},
    chat::ids::MessageId,
};

/// An answer, running or over.
#[component]
pub fn AnswerTurn(
    /// Which message.
    id: MessageId,
) -> impl IntoView {
    let store = use_store();
    let texts = store.texts;
    store.answer(id).map(|answer| {
        let phase = Memo::new({
            let answer = answer.clone();
            move |_| answer.with(|answer| answer.phase)
        });
        let has_text = Memo::new({
            let answer = answer.clone();
            move |_| answer.with(|answer| !answer.text.is_empty())
        });
        let text = {
            let answer = answer.clone();
            move || answer.with_untracked(|answer| answer.text.clone())
        };
        let status = answer.clone();
        view! {
            <article
                class="turn turn-answer"
                data-testid="message-assistant"
                data-state=move || phase.get().name()
                aria-busy=move || if phase.get().is_over() { "false" } else { "true" }
                aria-label=texts.assistant
            >
                <Body answer/>
                <Show when=move || !phase.get().is_over()>
                    <Progress id phase/>
                </Show>
                <Show when=move || phase.get().is_over()>
                    <Status id answer=status.clone()/>
                    <div class="actions">
                        {
                            let text = text.clone();
                            move || has_text.get().then(|| view! { <CopyMessage text=text.clone()/> })
                        }
                        <Regenerate id/>
                        <Branches id/>
                    </div>
                </Show>
            </article>
        }
        .into_any()
    })
}

/// The blocks. One that is final is drawn for the last time then, and keeps its nodes.
#[component]
fn Body(answer: ArcRwSignal<Answer>) -> impl IntoView {
    let texts = use_store().texts;
    let n_blocks = Memo::new({
        let answer = answer.clone();
        move |_| answer.with(Answer::n_blocks)
    });
    let draw = move |index: usize| {
        let answer = answer.clone();
        move || {
            if !answer.with_untracked(|answer| answer.is_final(index)) {
                answer.track();
            }
            answer.with_untracked(|answer| answer.block(index).map(|block| markup::block(block, texts)))
        }
    };
    view! {
        <div class="prose" data-testid="message-body">
            <For each=move || 0..n_blocks.get() key=|index| *index children=draw/>
        </div>
    }
    .into_any()
}
