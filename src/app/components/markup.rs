//! Blocks and inlines as nodes.
//!
//! Every string of the model ends up in a text node or in a checked link target; nothing is parsed here.

use leptos::{ev, prelude::*, web_sys};

use super::button::copy_button;
use crate::{
    app::{
        i18n::Texts,
        platform,
        view::{Element, element},
    },
    chat::markup::{Alignment, Block, Inline, ListItem},
};

/// One block.
pub fn block(block: &Block, texts: &'static Texts) -> Element {
    match block {
        Block::Paragraph { inlines: content } => prose("p", content),
        Block::Heading { level, inlines: content } => prose("div", content)
            .class("heading")
            .with("role", "heading")
            .with("data-level", level.to_string())
            // The page has the first level.
            .with("aria-level", (level + 1).to_string()),
        Block::Code { language, code } => code_block(language, code, texts),
        Block::Quote { blocks } => element("blockquote").children(blocks.iter().map(|inner| self::block(inner, texts))),
        Block::List { start, items } => list(*start, items, texts),
        Block::Table { alignments, header, rows } => table(alignments, header, rows),
        Block::Math { source } => element("div").class("math math-block").with("dir", "ltr").text(source.as_str()),
        Block::Rule => element("hr"),
    }
}

fn list(start: Option<u32>, items: &[ListItem], texts: &'static Texts) -> Element {
    let list = match start {
        Some(start) => element("ol").with("start", start.to_string()),
        None => element("ul"),
    };
    list.with("dir", "auto").children(items.iter().map(|item| list_item(item, texts)))
}

fn list_item(item: &ListItem, texts: &'static Texts) -> Element {
    let tick = item
        .checked
        .map(|is_done| element("input").with("type", "checkbox").with("disabled", true).with("checked", is_done));
    element("li")
        .with("class", item.checked.map(|_| "task"))
        .children(tick)
        .children(item.blocks.iter().map(|inner| block(inner, texts)))
}

fn table(alignments: &[Alignment], header: &[Vec<Inline>], rows: &[Vec<Vec<Inline>>]) -> Element {
    let cell = |tag: &'static str, column: usize, content: &[Inline]| {
        prose(tag, content).with("data-align", align(alignments.get(column)))
    };
    let head = header.iter().enumerate().map(|(column, content)| cell("th", column, content).with("scope", "col"));
    let body = rows
        .iter()
        .map(|row| element("tr").children(row.iter().enumerate().map(|(column, content)| cell("td", column, content))));
    let table = element("table")
        .child(element("thead").child(element("tr").children(head)))
        .child(element("tbody").children(body));
    element("div").class("table").with("tabindex", "0").child(table)
}

fn align(alignment: Option<&Alignment>) -> Option<&'static str> {
    match alignment {
        None | Some(Alignment::None) => None,
        Some(Alignment::Left) => Some("left"),
        Some(Alignment::Center) => Some("center"),
        Some(Alignment::Right) => Some("right"),
    }
}

/// An element of running text, in the direction that the text says.
fn prose(tag: &'static str, content: &[Inline]) -> Element {
    element(tag).with("dir", "auto").children(content.iter().map(inline))
}

fn inline(content: &Inline) -> AnyView {
    let styled = |tag: &'static str, inner: &[Inline]| element(tag).children(inner.iter().map(inline));
    let element = match content {
        Inline::Text { text } => return text.clone().into_any(),
        Inline::Code { code } => element("code").with("dir", "ltr").text(code.as_str()),
        Inline::Strong { inlines } => styled("strong", inlines),
        Inline::Emphasis { inlines } => styled("em", inlines),
        Inline::Strikethrough { inlines } => styled("del", inlines),
        Inline::Link { target, inlines } => styled("a", inlines)
            .with("href", target.as_str().to_owned())
            .with("target", "_blank")
            .with("rel", "noopener noreferrer nofollow"),
        Inline::Math { source } => element("span").class("math").with("dir", "ltr").text(source.as_str()),
        // Models break lines where they mean a break, as in verse; and between two Chinese characters a space would be
        // wrong anyway.
        Inline::SoftBreak | Inline::LineBreak => element("br"),
    };
    element.into()
}

fn code_block(language: &str, code: &str, texts: &'static Texts) -> Element {
    let label = if language.is_empty() { "text" } else { language };
    // As it is when the button is pressed: it may have grown.
    let text = |event: ev::Event| platform::code_beside(&event_target::<web_sys::Element>(&event));
    let caption =
        element("figcaption").child(element("span").text(label)).child(copy_button(texts, text).handle("copy-code"));
    let code = element("pre")
        .with("dir", "ltr")
        .with("tabindex", "0")
        .with("aria-label", label.to_owned())
        .child(element("code").text(code));
    element("figure").class("code").child(caption).child(code)
}
