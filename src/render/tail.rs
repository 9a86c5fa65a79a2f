//! The unfinished end of a text, made fit to be looked at.
//!
//! What is open is closed, and what may yet become syntax is held back, so that no bare `**` flashes by. This works on
//! source text and only for the eye: blocks are final from the text itself.
//! **Architecture Invariant:** the outcome begins as the text does; only its last paragraph differs.

use std::borrow::Cow;

use super::sections::{Inside, list_marker};

/// How many open emphases are followed; a text with more is not one that people write.
const MAX_OPEN: usize = 16;

/// The section to show instead of one that still grows.
pub fn preview(section: &str, inside: Inside) -> Cow<'_, str> {
    let (lines, last) = section.split_at(section.rfind('\n').map_or(0, |at| at + 1));
    match inside {
        Inside::Fence(fence) => {
            let may_close = !last.trim().is_empty() && last.trim().chars().all(|char| char == fence.marker);
            Cow::Borrowed(if may_close { lines } else { section })
        }
        Inside::Math(delimiter) => {
            let body = section.trim().strip_prefix(delimiter.opener()).unwrap_or_default();
            let half = delimiter.closer().chars().next().unwrap_or_default();
            let source = body.strip_suffix(half).unwrap_or(body).trim();
            let is_empty = source.is_empty();
            Cow::Owned(if is_empty { String::new() } else { [delimiter.opener(), source, delimiter.closer()].concat() })
        }
        Inside::Flow if ends_in_nested_fence(section) => {
            Cow::Borrowed(if may_become_marker(last) { lines } else { section })
        }
        Inside::Flow => preview_flow(if may_become_marker(last) { lines } else { section }),
    }
}

fn preview_flow(section: &str) -> Cow<'_, str> {
    let (before, paragraph) = section.split_at(last_paragraph(section));
    if paragraph.trim().is_empty() {
        return Cow::Borrowed(section);
    }
    if let Some(table) = growing_table(paragraph) {
        return Cow::Owned(format!("{before}{table}"));
    }
    Cow::Owned(format!("{before}{}", close_inlines(paragraph)))
}

/// A text without quotation marks, bullets and numbers at its beginning.
fn content(line: &str) -> &str {
    let mut rest = line;
    loop {
        let text = rest.trim_start_matches([' ', '\t', '>']);
        rest = match list_marker(text) {
            Some((_, after)) if after.starts_with([' ', '\t']) => after,
            _ => return text,
        };
    }
}

/// Whether a line so far could be nothing but syntax.
fn may_become_marker(line: &str) -> bool {
    let rest = content(line.trim_end());
    let is_number = list_marker(rest).is_some_and(|(_, after)| after.is_empty());
    !line.is_empty() && (is_number || rest.chars().all(|char| "#`~-=*_+|:$\\<![ ".contains(char)))
}

/// Whether a fence is open that stands in a list or a quotation.
fn ends_in_nested_fence(section: &str) -> bool {
    let is_fence = |line: &&str| content(line).starts_with("```") || content(line).starts_with("~~~");
    section.lines().filter(is_fence).count() % 2 == 1
}

/// Where the last paragraph, list item's text, heading or table begins.
fn last_paragraph(section: &str) -> usize {
    let mut start = section.len();
    for line in section.split_inclusive('\n').rev() {
        let text = content(line);
        if text.trim().is_empty() {
            break;
        }
        start -= line.len();
        if text.len() < line.trim_start().len() || text.starts_with('#') {
            return start + line.len() - text.len();
        }
    }
    start
}

/// A table whose delimiter row isn't complete yet, with one that is.
fn growing_table(paragraph: &str) -> Option<String> {
    let (header, delimiters) = paragraph.split_once('\n').unwrap_or((paragraph, ""));
    let is_partial = delimiters.chars().all(|char| "|:- ".contains(char));
    if !header.starts_with('|') || !is_partial {
        return None;
    }
    let row = header.trim_end().trim_end_matches('|');
    let row = row.strip_prefix('|').filter(|row| !row.trim().is_empty())?;
    let columns = row.replace(r"\|", "").matches('|').count() + 1;
    Some(format!("|{}|\n|{}", close_inlines(row), "---|".repeat(columns)))
}

/// An opener whose closer hasn't come.
struct Open {
    marker: char,
    length: usize,
    /// Where the text after it begins.
    content: usize,
}

/// A paragraph's text with its open code, mathematics, emphasis and last link closed.
fn close_inlines(paragraph: &str) -> String {
    let mut scan = Scan { text: paragraph, at: 0, open: Vec::new(), brackets: Vec::new(), end: None };
    while scan.end.is_none() && scan.at < paragraph.len() {
        scan.step();
    }
    scan.closed()
}

/// How a scan ended before the end of its text.
enum End {
    /// Cut there.
    Cut { at: usize },
    /// Cut there, and closed.
    Closed { at: usize, closer: String },
    /// A link's target has begun: what it shows is kept.
    Link { opener: usize, label: usize },
}

struct Scan<'text> {
    text: &'text str,
    at: usize,
    open: Vec<Open>,
    /// Where link texts begin.
    brackets: Vec<usize>,
    end: Option<End>,
}

impl<'text> Scan<'text> {
    fn rest(&self) -> &'text str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn step(&mut self) {
        let rest = self.rest();
        let Some(char) = rest.chars().next() else { return };
        let run = || rest.len() - rest.trim_start_matches(char).len();
        match char {
            '\\' => self.escape(rest),
            '`' => self.span(&"`".repeat(run()), run()),
            '$' if rest.starts_with("$$") => self.span("$$", 2),
            '*' | '_' | '~' => self.delimiters(char, run()),
            '[' => {
                self.brackets.push(self.at);
                self.at += 1;
            }
            ']' => self.bracket(rest),
            _ => self.at += char.len_utf8(),
        }
    }

    fn escape(&mut self, rest: &str) {
        match rest.chars().nth(1) {
            None => self.end = Some(End::Cut { at: self.at }),
            Some('(') => self.span(r"\)", 2),
            Some('[') => self.span(r"\]", 2),
            Some(escaped) => self.at += 1 + escaped.len_utf8(),
        }
    }

    /// Code or mathematics: nothing inside is syntax.
    fn span(&mut self, closer: &str, opener: usize) {
        let body = self.at + opener;
        let rest = self.text.get(body..).unwrap_or_default();
        if let Some(found) = find_closer(rest, closer) {
            self.at = body + found + closer.len();
            return;
        }
        let half = closer.chars().next().unwrap_or_default();
        let shown = rest.trim_end().trim_end_matches(half);
        self.end = Some(if shown.trim().is_empty() {
            End::Cut { at: self.at }
        } else {
            End::Closed { at: body + shown.len(), closer: closer.to_owned() }
        });
    }

    fn delimiters(&mut self, marker: char, run: usize) {
        let before = self.text.get(..self.at).and_then(|text| text.chars().next_back());
        let after = self.text.get(self.at + run..).and_then(|text| text.chars().next());
        let start = self.at;
        self.at += run;
        let mut left = run;
        if before.is_some_and(|char| !char.is_whitespace()) {
            while let Some(at) = self.open.iter().rposition(|open| open.marker == marker && open.length <= left) {
                left -= self.open.get(at).map_or(0, |open| open.length);
                self.open.truncate(at);
            }
        }
        if left == 0 {
            return;
        }
        match after {
            None => self.end = Some(End::Cut { at: start + run - left }),
            Some(after) if !after.is_whitespace() && opens(marker, left, before) && self.open.len() < MAX_OPEN => {
                self.open.push(Open { marker, length: left.min(3), content: self.at });
            }
            Some(_) => {}
        }
    }

    fn bracket(&mut self, rest: &str) {
        self.at += 1;
        let Some(opener) = self.brackets.pop() else { return };
        let Some(target) = rest.strip_prefix("](") else { return };
        match target.find([')', '\n']) {
            Some(end) => self.at += 1 + end,
            None => self.end = Some(End::Link { opener, label: self.at - 1 }),
        }
    }

    fn closed(mut self) -> String {
        let mut shown = match &self.end {
            None => self.text.trim_end().to_owned(),
            Some(End::Cut { at }) => self.text.get(..*at).unwrap_or_default().trim_end().to_owned(),
            Some(End::Closed { at, closer }) => {
                format!("{}{closer}", self.text.get(..*at).unwrap_or_default())
            }
            Some(End::Link { opener, label }) => {
                let before = self.text.get(..*opener).unwrap_or_default();
                let before = before.strip_suffix('!').unwrap_or(before);
                let removed = opener + 1 - before.len();
                self.open.iter_mut().filter(|open| open.content > *opener).for_each(|open| open.content -= removed);
                format!("{before}{}", self.text.get(opener + 1..*label).unwrap_or_default())
            }
        };
        for open in self.open.iter().rev() {
            if shown.len() <= open.content {
                shown.truncate(open.content - open.length);
                shown.truncate(shown.trim_end().len());
            } else {
                shown.extend(std::iter::repeat_n(open.marker, open.length));
            }
        }
        shown
    }
}

/// Whether a run of markers before text is likely to be emphasis: `2*3` and `snake_case` are not.
fn opens(marker: char, run: usize, before: Option<char>) -> bool {
    let in_word = before.is_some_and(|char| char.is_ascii_alphanumeric());
    match (marker, run) {
        ('*', 1 | 3) | ('_', 1..=3) => !in_word,
        ('*' | '~', 2) => true,
        _ => false,
    }
}

/// Where a closer stands; one of backticks only where there is exactly that many of them.
fn find_closer(text: &str, closer: &str) -> Option<usize> {
    if !closer.starts_with('`') {
        return text.find(closer);
    }
    let mut at = 0;
    while let Some(found) = text.get(at..)?.find('`') {
        let start = at + found;
        let rest = text.get(start..)?;
        let run = rest.len() - rest.trim_start_matches('`').len();
        if run == closer.len() {
            return Some(start);
        }
        at = start + run;
    }
    None
}
