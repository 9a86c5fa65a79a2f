//! One section of Markdown to blocks: comrak reads, this turns its tree into ours.
//!
//! Raw HTML becomes text, images become links, links that lead elsewhere than [`LinkTarget`] allows become what they
//! show. Link reference definitions are text. This knows one section, never what came before it.
//! **Architecture Invariant:** recursion is bounded by [`MAX_DEPTH`]; what is nested deeper is shown flat.

use std::{borrow::Cow, cell::Cell};

use comrak::{
    Arena, Node, Options,
    nodes::{ListType, NodeValue, TableAlignment},
    try_parse_document,
};

use super::sections::MathDelimiter;
use crate::chat::markup::{Alignment, Block, Inline, LinkTarget, ListItem};

/// How deep blocks nest in blocks, and inlines in inlines: JSON readers give up at 128 levels, and a list takes four.
const MAX_DEPTH: usize = 12;

/// How often mathematics may begin in one section: for each beginning, comrak looks through all the rest for the end.
const MAX_MATH: usize = 1000;

/// Stands before a bracket that begins a line, so that it can't define a link reference; no text keeps it.
const GUARD: char = '\u{FDD0}';

/// The blocks of one section.
pub fn blocks(section: &str) -> Vec<Block> {
    if section.trim().is_empty() {
        return Vec::new();
    }
    if let Some(source) = displayed_math(section) {
        return vec![Block::Math { source: clean(source).into_owned() }];
    }
    let guarded = guard_definitions(section);
    let arena = Arena::new();
    match try_parse_document(&arena, &guarded, &options(&guarded), &step_budget(guarded.len())) {
        Ok(root) => blocks_of(root, 0),
        Err(_) => vec![plain(section)],
    }
}

fn options(section: &str) -> Options<'static> {
    let mut options = Options::default();
    options.extension.table = true;
    options.extension.strikethrough = true;
    options.extension.tasklist = true;
    options.extension.autolink = true;
    options.extension.math_dollars = section.matches('$').count() <= MAX_MATH;
    options.extension.math_latex = section.matches('\\').count() <= MAX_MATH;
    options.extension.cjk_friendly_emphasis = true;
    options
}

/// Ends a parse that takes far more steps than its text has bytes. Steps, not time, so that the outcome is repeatable.
fn step_budget(length: usize) -> impl Fn() -> bool {
    const STEPS_PER_CALL: usize = 256;
    let calls_left = Cell::new(length * 8 / STEPS_PER_CALL + 1000);
    move || {
        calls_left.set(calls_left.get().saturating_sub(1));
        calls_left.get() == 0
    }
}

/// The source of a section that is nothing but displayed mathematics.
fn displayed_math(section: &str) -> Option<&str> {
    let section = section.trim();
    [MathDelimiter::Dollars, MathDelimiter::Brackets].into_iter().find_map(|delimiter| {
        let source = section.strip_prefix(delimiter.opener())?.strip_suffix(delimiter.closer())?;
        let alone = !source.contains(delimiter.closer()) && !source.lines().skip(1).any(|line| line.trim().is_empty());
        (alone && !source.trim().is_empty()).then(|| source.trim())
    })
}

fn guard_definitions(section: &str) -> Cow<'_, str> {
    if !section.contains("]:") {
        return Cow::Borrowed(section);
    }
    let mut guarded = String::with_capacity(section.len() + 16);
    for line in section.split_inclusive('\n') {
        let content = line.trim_start_matches(|char: char| " \t>-+*.)".contains(char) || char.is_ascii_digit());
        let (before, _) = line.split_at(line.len() - content.len());
        let is_task = ["[ ] ", "[x] ", "[X] "].iter().any(|tick| content.starts_with(tick));
        guarded.push_str(before);
        if content.starts_with('[') && !is_task {
            guarded.push(GUARD);
        }
        guarded.push_str(content);
    }
    Cow::Owned(guarded)
}

/// A text as it may be shown: without the guard, and with nothing that an HTML parser would change.
fn clean(text: &str) -> Cow<'_, str> {
    if text.contains([GUARD, '\0', '\r']) {
        Cow::Owned(text.replace(GUARD, "").replace('\0', "\u{FFFD}").replace("\r\n", "\n").replace('\r', "\n"))
    } else {
        Cow::Borrowed(text)
    }
}

/// A text as one paragraph, line for line.
fn plain(text: &str) -> Block {
    let mut inlines = Vec::new();
    for (index, line) in text.trim_end().lines().enumerate() {
        if index > 0 {
            inlines.push(Inline::LineBreak);
        }
        push_text(&mut inlines, line);
    }
    Block::Paragraph { inlines }
}

/// All the text inside a node, however deep.
fn flat_text(node: Node<'_>) -> String {
    let mut text = String::new();
    for inner in node.descendants() {
        match &inner.data().value {
            NodeValue::Text(literal) => text.push_str(literal),
            NodeValue::Code(code) => text.push_str(&code.literal),
            NodeValue::Math(math) => text.push_str(&math.literal),
            NodeValue::HtmlInline(html) => text.push_str(html),
            NodeValue::CodeBlock(code) => text.push_str(&code.literal),
            NodeValue::HtmlBlock(html) => text.push_str(&html.literal),
            NodeValue::SoftBreak | NodeValue::LineBreak | NodeValue::Item(_) | NodeValue::Paragraph
                if !text.is_empty() =>
            {
                text.push('\n');
            }
            _ => {}
        }
    }
    text
}

fn blocks_of(parent: Node<'_>, depth: usize) -> Vec<Block> {
    let mut blocks = Vec::new();
    for node in parent.children() {
        push_block(&mut blocks, node, depth);
    }
    blocks
}

fn push_block(blocks: &mut Vec<Block>, node: Node<'_>, depth: usize) {
    match &node.data().value {
        NodeValue::Paragraph => push_paragraph(blocks, node),
        NodeValue::Heading(heading) => {
            blocks.push(Block::Heading { level: heading.level, inlines: inlines_of(node, Place::TOP) });
        }
        NodeValue::CodeBlock(code) => {
            let info = clean(&code.info);
            let literal = clean(&code.literal);
            blocks.push(Block::Code {
                language: info.split_whitespace().next().unwrap_or_default().to_owned(),
                code: literal.strip_suffix('\n').unwrap_or(&literal).to_owned(),
            });
        }
        NodeValue::HtmlBlock(html) => blocks.push(plain(&clean(&html.literal))),
        NodeValue::ThematicBreak => blocks.push(Block::Rule),
        NodeValue::Table(table) => blocks.push(table_of(node, &table.alignments)),
        NodeValue::BlockQuote if depth < MAX_DEPTH => {
            blocks.push(Block::Quote { blocks: blocks_of(node, depth + 1) });
        }
        NodeValue::List(list) if depth < MAX_DEPTH => {
            let start = (list.list_type == ListType::Ordered).then(|| u32::try_from(list.start).unwrap_or(u32::MAX));
            blocks.push(Block::List { start, items: node.children().map(|item| item_of(item, depth)).collect() });
        }
        _ => {
            let text = flat_text(node);
            if !text.trim().is_empty() {
                blocks.push(plain(&clean(&text)));
            }
        }
    }
}

fn item_of(node: Node<'_>, depth: usize) -> ListItem {
    let checked = match &node.data().value {
        NodeValue::TaskItem(task) => Some(task.symbol.is_some()),
        _ => None,
    };
    ListItem { checked, blocks: blocks_of(node, depth + 1) }
}

/// Displayed mathematics inside a paragraph is a block of its own, between what stands before and after it.
fn push_paragraph(blocks: &mut Vec<Block>, node: Node<'_>) {
    let mut inlines = Vec::new();
    for child in node.children() {
        match &child.data().value {
            NodeValue::Math(math) if math.display_math && !math.literal.trim().is_empty() => {
                push_trimmed(blocks, std::mem::take(&mut inlines));
                blocks.push(Block::Math { source: clean(math.literal.trim()).into_owned() });
            }
            _ => push_inline(&mut inlines, child, Place::TOP),
        }
    }
    push_trimmed(blocks, inlines);
}

fn push_trimmed(blocks: &mut Vec<Block>, mut inlines: Vec<Inline>) {
    let is_space = |inline: &Inline| match inline {
        Inline::Text { text } => text.trim().is_empty(),
        Inline::SoftBreak | Inline::LineBreak => true,
        _ => false,
    };
    let leading = inlines.iter().take_while(|inline| is_space(inline)).count();
    inlines.drain(..leading);
    while inlines.last().is_some_and(is_space) {
        inlines.pop();
    }
    if !inlines.is_empty() {
        blocks.push(Block::Paragraph { inlines });
    }
}

fn table_of(node: Node<'_>, alignments: &[TableAlignment]) -> Block {
    let mut lines = node.children().map(|row| {
        let mut cells: Vec<_> = row.children().map(|cell| inlines_of(cell, Place::TOP)).collect();
        cells.resize_with(alignments.len(), Vec::new);
        cells
    });
    let header = lines.next().unwrap_or_default();
    let rows = lines.collect();
    let alignments = alignments
        .iter()
        .map(|alignment| match alignment {
            TableAlignment::None => Alignment::None,
            TableAlignment::Left => Alignment::Left,
            TableAlignment::Center => Alignment::Center,
            TableAlignment::Right => Alignment::Right,
        })
        .collect();
    Block::Table { alignments, header, rows }
}

/// Where an inline stands.
#[derive(Debug, Clone, Copy)]
struct Place {
    depth: usize,
    /// A link can't hold another.
    in_link: bool,
}

impl Place {
    const TOP: Self = Self { depth: 0, in_link: false };

    fn deeper(self) -> Self {
        Self { depth: self.depth + 1, ..self }
    }
}

fn inlines_of(parent: Node<'_>, place: Place) -> Vec<Inline> {
    let mut inlines = Vec::new();
    for node in parent.children() {
        push_inline(&mut inlines, node, place);
    }
    inlines
}

fn push_inline(inlines: &mut Vec<Inline>, node: Node<'_>, place: Place) {
    let deep = place.depth >= MAX_DEPTH;
    match &node.data().value {
        NodeValue::Text(text) => push_text(inlines, text),
        NodeValue::Code(code) => inlines.push(Inline::Code { code: clean(&code.literal).into_owned() }),
        NodeValue::Math(math) => inlines.push(Inline::Math { source: clean(math.literal.trim()).into_owned() }),
        NodeValue::SoftBreak => inlines.push(Inline::SoftBreak),
        NodeValue::LineBreak => inlines.push(Inline::LineBreak),
        NodeValue::HtmlInline(html) if is_line_break(html) => inlines.push(Inline::LineBreak),
        NodeValue::HtmlInline(html) => push_text(inlines, html),
        NodeValue::Strong if !deep => inlines.push(Inline::Strong { inlines: inlines_of(node, place.deeper()) }),
        NodeValue::Emph if !deep => inlines.push(Inline::Emphasis { inlines: inlines_of(node, place.deeper()) }),
        NodeValue::Strikethrough if !deep => {
            inlines.push(Inline::Strikethrough { inlines: inlines_of(node, place.deeper()) });
        }
        NodeValue::Link(link) | NodeValue::Image(link) if !deep => push_link(inlines, node, &link.url, place),
        _ => push_text(inlines, &flat_text(node)),
    }
}

/// Models write it inside table cells, where there is no other way to break a line.
fn is_line_break(html: &str) -> bool {
    ["<br>", "<br/>", "<br />"].iter().any(|tag| html.eq_ignore_ascii_case(tag))
}

fn push_text(inlines: &mut Vec<Inline>, added: &str) {
    let added = clean(added);
    if added.is_empty() {
        return;
    }
    if let Some(Inline::Text { text }) = inlines.last_mut() {
        text.push_str(&added);
    } else {
        inlines.push(Inline::Text { text: added.into_owned() });
    }
}

fn push_link(inlines: &mut Vec<Inline>, node: Node<'_>, url: &str, place: Place) {
    let url = clean(url);
    let mut shown = inlines_of(node, Place { in_link: true, ..place.deeper() });
    if shown.is_empty() {
        push_text(&mut shown, &url);
    }
    let (url, after) = match shown.as_slice() {
        [Inline::Text { text }] if url.ends_with(text.as_str()) => split_bare_url(&url, text),
        _ => (url.as_ref(), None),
    };
    let after = after.map(str::to_owned);
    if let (Some(after), [Inline::Text { text }]) = (&after, shown.as_mut_slice()) {
        text.truncate(text.len() - after.len());
    }
    match LinkTarget::parse(url) {
        Ok(target) if !place.in_link => inlines.push(Inline::Link { target, inlines: shown }),
        _ => shown.into_iter().for_each(|inline| match inline {
            Inline::Text { text } => push_text(inlines, &text),
            other => inlines.push(other),
        }),
    }
    if let Some(after) = after {
        push_text(inlines, &after);
    }
}

/// A bare URL ends at Chinese punctuation, which nobody means as a part of it: `见https://example.com，谢谢`.
fn split_bare_url<'url>(url: &'url str, shown: &str) -> (&'url str, Option<&'url str>) {
    const ENDS: &str = "，。；：！？、（）《》〈〉「」『』【】“”‘’…　";
    match shown.find(|char| ENDS.contains(char)) {
        Some(at) if at > 0 => {
            let (url, after) = url.split_at(url.len() - (shown.len() - at));
            (url, Some(after))
        }
        _ => (url, None),
    }
}
