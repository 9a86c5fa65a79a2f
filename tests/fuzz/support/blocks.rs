//! What must hold of every tree of blocks, wherever it comes from.
//!
//! Looks at the tree alone, and asks nobody how it was made. Invariant: each rule is written out here, not called from the
//! code that keeps it.

use xverse_chat::chat::markup::{Block, Inline, LinkTarget};

/// Holds blocks that were made of Markdown to all rules.
///
/// # Panics
/// At the first that is broken.
pub fn check(blocks: &[Block]) {
    each_inline(blocks, &mut |inline| match inline {
        Inline::Text { text } => {
            assert!(!text.is_empty(), "an empty text");
            is_clean(text);
        }
        Inline::Code { code } => is_clean(code),
        Inline::Math { source } => is_clean(source),
        Inline::Link { target, inlines } => {
            leads_to_a_safe_place(target);
            is_clean(target.as_str());
            assert!(!inlines.is_empty(), "a link that shows nothing");
            holds_no_link(inlines);
        }
        Inline::Strong { .. }
        | Inline::Emphasis { .. }
        | Inline::Strikethrough { .. }
        | Inline::SoftBreak
        | Inline::LineBreak => {}
    });
    each_block(blocks, &mut |block| match block {
        Block::Paragraph { inlines } => assert!(!inlines.is_empty(), "an empty paragraph"),
        Block::Heading { level, .. } => assert!((1..=6).contains(level), "a heading of level {level}"),
        Block::Code { language, code } => {
            assert!(!language.contains(char::is_whitespace), "a language of several words: {language:?}");
            is_clean(language);
            is_clean(code);
        }
        Block::Table { alignments, header, rows } => {
            assert!(!alignments.is_empty(), "a table without columns");
            for row in rows.iter().chain([header]) {
                assert_eq!(row.len(), alignments.len(), "cells of a row");
            }
        }
        Block::Math { source } => is_clean(source),
        Block::Quote { .. } | Block::List { .. } | Block::Rule => {}
    });
}

/// Holds the links of blocks to the schemes that are allowed.
///
/// # Panics
/// Where one is not.
pub fn links_lead_to_safe_places(blocks: &[Block]) {
    each_inline(blocks, &mut |inline| {
        if let Inline::Link { target, .. } = inline {
            leads_to_a_safe_place(target);
        }
    });
}

fn leads_to_a_safe_place(target: &LinkTarget) {
    let url = target.as_str();
    let scheme = url.split(':').next().unwrap_or_default().to_ascii_lowercase();
    assert!(matches!(scheme.as_str(), "http" | "https" | "mailto"), "a link to {url:?}");
    assert!(!url.chars().any(char::is_control), "control characters in {url:?}");
}

/// Nothing that an HTML parser would change, and no mark of the parser's own.
fn is_clean(text: &str) {
    assert!(!text.contains(['\0', '\r', '\u{FDD0}']), "an unclean text: {text:?}");
}

fn holds_no_link(inlines: &[Inline]) {
    for inline in inlines {
        assert!(!matches!(inline, Inline::Link { .. }), "a link in a link");
        holds_no_link(inner(inline));
    }
}

fn each_block(blocks: &[Block], look: &mut impl FnMut(&Block)) {
    for block in blocks {
        look(block);
        match block {
            Block::Quote { blocks } => each_block(blocks, look),
            Block::List { items, .. } => items.iter().for_each(|item| each_block(&item.blocks, look)),
            Block::Paragraph { .. }
            | Block::Heading { .. }
            | Block::Code { .. }
            | Block::Table { .. }
            | Block::Math { .. }
            | Block::Rule => {}
        }
    }
}

fn each_inline(blocks: &[Block], look: &mut impl FnMut(&Inline)) {
    each_block(blocks, &mut |block| match block {
        Block::Paragraph { inlines } | Block::Heading { inlines, .. } => each_of(inlines, look),
        Block::Table { header, rows, .. } => {
            rows.iter().chain([header]).flatten().for_each(|cell| each_of(cell, look));
        }
        Block::Code { .. } | Block::Quote { .. } | Block::List { .. } | Block::Math { .. } | Block::Rule => {}
    });
}

fn each_of(inlines: &[Inline], look: &mut impl FnMut(&Inline)) {
    for inline in inlines {
        look(inline);
        each_of(inner(inline), look);
    }
}

fn inner(inline: &Inline) -> &[Inline] {
    match inline {
        Inline::Strong { inlines }
        | Inline::Emphasis { inlines }
        | Inline::Strikethrough { inlines }
        | Inline::Link { inlines, .. } => inlines,
        Inline::Text { .. } | Inline::Code { .. } | Inline::Math { .. } | Inline::SoftBreak | Inline::LineBreak => &[],
    }
}
