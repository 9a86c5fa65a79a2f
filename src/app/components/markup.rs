//! Blocks and inlines as nodes.
//!
//! Every string of the model ends up in a text node or in a checked link target; nothing is parsed here.

use leptos::{attr::custom::custom_attribute, ev, prelude::*, task::spawn_local, web_sys::Element};

use super::icon::{Glyph, Icon};
use crate::{
    app::{i18n::Texts, platform},
    chat::markup::{Alignment, Block, Inline, ListItem},
};

/// One block.
pub fn block(block: &Block, texts: &'static Texts) -> AnyView {
    match block {
        Block::Paragraph { inlines: content } => view! { <p dir="auto">{inlines(content)}</p> }.into_any(),
        Block::Heading { level, inlines: content } => {
            // The page has the first level.
            let outline = custom_attribute("aria-level", (level + 1).to_string());
            view! {
                <div class="heading" data-level=level.to_string() role="heading" dir="auto" {..outline}>
                    {inlines(content)}
                </div>
            }
            .into_any()
        }
        Block::Code { language, code } => {
            view! { <CodeBlock language=language.clone() code=code.clone() texts/> }.into_any()
        }
        Block::Quote { blocks } => {
            view! { <blockquote>{blocks.iter().map(|inner| self::block(inner, texts)).collect_view()}</blockquote> }
                .into_any()
        }
        Block::List { start, items } => list(*start, items, texts),
        Block::Table { alignments, header, rows } => table(alignments, header, rows),
        Block::Math { source } => view! { <div class="math math-block" dir="ltr">{source.clone()}</div> }.into_any(),
        Block::Rule => view! { <hr/> }.into_any(),
    }
}

fn list(start: Option<u32>, items: &[ListItem], texts: &'static Texts) -> AnyView {
    let items = items.iter().map(|item| list_item(item, texts)).collect_view();
    match start {
        Some(start) => view! { <ol start=start.to_string() dir="auto">{items}</ol> }.into_any(),
        None => view! { <ul dir="auto">{items}</ul> }.into_any(),
    }
}

fn list_item(item: &ListItem, texts: &'static Texts) -> impl IntoView + use<> {
    let tick = item.checked.map(|checked| view! { <input type="checkbox" disabled checked=checked/> });
    let content = item.blocks.iter().map(|inner| block(inner, texts)).collect_view();
    view! { <li class:task=item.checked.is_some()>{tick} {content}</li> }
}

fn table(alignments: &[Alignment], header: &[Vec<Inline>], rows: &[Vec<Vec<Inline>>]) -> AnyView {
    let align = |column: usize| match alignments.get(column) {
        None | Some(Alignment::None) => None,
        Some(Alignment::Left) => Some("left"),
        Some(Alignment::Center) => Some("center"),
        Some(Alignment::Right) => Some("right"),
    };
    let head = header.iter().enumerate().map(|(column, cell)| {
        view! { <th scope="col" data-align=align(column) dir="auto">{inlines(cell)}</th> }
    });
    let body = rows.iter().map(|row| {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            view! { <td data-align=align(column) dir="auto">{inlines(cell)}</td> }
        });
        view! { <tr>{cells.collect_view()}</tr> }
    });
    view! {
        <div class="table" tabindex="0">
            <table>
                <thead>
                    <tr>{head.collect_view()}</tr>
                </thead>
                <tbody>{body.collect_view()}</tbody>
            </table>
        </div>
    }
    .into_any()
}

fn inlines(content: &[Inline]) -> Vec<AnyView> {
    content.iter().map(inline).collect()
}

fn inline(content: &Inline) -> AnyView {
    match content {
        Inline::Text { text } => text.clone().into_any(),
        Inline::Code { code } => view! { <code dir="ltr">{code.clone()}</code> }.into_any(),
        Inline::Strong { inlines: inner } => view! { <strong>{inlines(inner)}</strong> }.into_any(),
        Inline::Emphasis { inlines: inner } => view! { <em>{inlines(inner)}</em> }.into_any(),
        Inline::Strikethrough { inlines: inner } => view! { <del>{inlines(inner)}</del> }.into_any(),
        Inline::Link { target, inlines: inner } => view! {
            <a href=target.as_str().to_owned() target="_blank" rel="noopener noreferrer nofollow">
                {inlines(inner)}
            </a>
        }
        .into_any(),
        Inline::Math { source } => view! { <span class="math" dir="ltr">{source.clone()}</span> }.into_any(),
        // Models break lines where they mean a break, as in verse; and between two Chinese characters a space would be
        // wrong anyway.
        Inline::SoftBreak | Inline::LineBreak => view! { <br/> }.into_any(),
    }
}

#[component]
fn CodeBlock(language: String, code: String, texts: &'static Texts) -> impl IntoView {
    let label = if language.is_empty() { "text".to_owned() } else { language };
    view! {
        <figure class="code">
            <figcaption>
                <span>{label.clone()}</span>
                <CopyCode texts/>
            </figcaption>
            <pre dir="ltr" tabindex="0" aria-label=label>
                <code>{code}</code>
            </pre>
        </figure>
    }
    .into_any()
}

/// Copies the code of the block it stands in, as it is at that moment.
#[component]
fn CopyCode(texts: &'static Texts) -> impl IntoView {
    let outcome = RwSignal::new(None);
    let copy = move |event: ev::MouseEvent| {
        let button: Element = event_target(&event);
        if let Some(code) = platform::code_beside(&button) {
            spawn_local(async move { outcome.set(Some(platform::copy(code).await)) });
        }
    };
    view! { <CopyButton outcome texts on_click=copy test_id="copy-code"/> }.into_any()
}

/// A button that says whether copying worked, for a while.
#[component]
pub fn CopyButton<F>(
    /// Whether the last copying worked; empty before, and after a while.
    outcome: RwSignal<Option<bool>>,
    /// The interface's words.
    texts: &'static Texts,
    /// Copies.
    on_click: F,
    /// Its handle.
    test_id: &'static str,
) -> impl IntoView
where
    F: Fn(ev::MouseEvent) + 'static,
{
    Effect::new(move |_| {
        if outcome.get().is_some() {
            set_timeout(
                move || {
                    let _ = outcome.try_set(None);
                },
                std::time::Duration::from_secs(2),
            );
        }
    });
    let icon = Signal::derive(move || match outcome.get() {
        None => Icon::Copy,
        Some(true) => Icon::Check,
        Some(false) => Icon::Cross,
    });
    let label = move || match outcome.get() {
        None => texts.answer.copy,
        Some(true) => texts.answer.copied,
        Some(false) => texts.answer.copy_failed,
    };
    view! {
        <button
            type="button"
            class="quiet"
            data-testid=test_id
            title=label
            aria-label=label
            data-outcome=move || outcome.get().map(|worked| if worked { "worked" } else { "failed" })
            on:click=on_click
        >
            <Glyph icon/>
        </button>
    }
    .into_any()
}
