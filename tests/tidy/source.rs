//! A source file as the rules see it: its lines, with comments and the contents of strings blanked out.
//!
//! Knows enough of Rust's tokens for that and no grammar. Invariant: the code view has the lines and columns of the text.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// One file.
pub struct Source {
    /// From the repository's root.
    pub path: String,
    /// As written.
    pub text: String,
    /// The text with spaces for comments and for what strings hold.
    pub code: String,
}

impl Source {
    /// A file with this text.
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), code: code_view(text) }
    }

    /// The room a file under `src/` belongs to: `engine` for `src/engine.rs` and all of `src/engine/`.
    pub fn room(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        let room = inside.split('/').next()?.trim_end_matches(".rs");
        (!matches!(room, "lib" | "main")).then_some(room)
    }

    /// The lines of the code view, numbered from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(idx, line)| (idx + 1, line))
    }

    /// The first line of the tests beside the code, or one past the end.
    pub fn first_test_line(&self) -> usize {
        if !self.path.starts_with("src/") || self.path.ends_with("/tests.rs") {
            return 1;
        }
        let lines: Vec<&str> = self.code.lines().collect();
        let declared =
            |idx: usize| lines.get(idx + 1).is_some_and(|next| next.starts_with("mod ") && next.ends_with('{'));
        (0..lines.len()).find(|&idx| lines[idx] == "#[cfg(test)]" && declared(idx)).unwrap_or(lines.len()) + 1
    }

    /// The line of a byte offset into the code view.
    pub fn line_at(&self, offset: usize) -> usize {
        self.code[..offset].matches('\n').count() + 1
    }

    /// Byte offsets of a name where it stands as a whole word.
    pub fn words(&self, word: &str) -> Vec<usize> {
        let code = &self.code;
        let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let whole = |at: usize| !part(code[..at].chars().next_back()) && !part(code[at + word.len()..].chars().next());
        code.match_indices(word).map(|(at, _)| at).filter(|&at| whole(at)).collect()
    }
}

/// Every Rust file of the project.
pub fn all() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    for folder in ["src", "tests", "benches", "examples"] {
        collect(&root.join(folder), &mut paths);
    }
    paths.sort();
    let read = |path: &PathBuf| {
        let text = fs::read_to_string(path).expect("the project's sources are readable");
        let inside = path.strip_prefix(root).expect("the files were found below the root");
        Source::new(&inside.to_string_lossy(), &text)
    };
    paths.iter().map(read).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

fn code_view(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (kept, blanked) = token(rest, &code);
        let end = kept + blanked;
        if end == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        code.push_str(&rest[..kept]);
        code.extend(rest[kept..end].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
        rest = &rest[end..];
    }
    code
}

/// Bytes to keep and bytes to blank at the start of `rest`; both 0 where it starts with neither comment, string nor character.
fn token(rest: &str, before: &str) -> (usize, usize) {
    if rest.starts_with("//") {
        return (0, rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return (0, block_comment(rest));
    }
    if let Some(text) = rest.strip_prefix('"') {
        return (1, quoted(text, '"'));
    }
    let word_goes_on = before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
    if let Some(hashes) = raw_string(rest).filter(|_| !word_goes_on || before.ends_with('b')) {
        let start = 2 + hashes;
        let close = format!("\"{}", "#".repeat(hashes));
        let length = rest[start..].find(&close).map_or(rest.len() - start, |at| at + close.len());
        return (start, length);
    }
    if rest.starts_with('\'') && is_character(rest) {
        return (1, quoted(&rest[1..], '\''));
    }
    (0, 0)
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// Bytes up to and with the closing quote.
fn quoted(inside: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in inside.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    inside.len()
}

/// The number of hashes of a raw string that starts here.
fn raw_string(rest: &str) -> Option<usize> {
    let inside = rest.strip_prefix('r')?;
    let hashes = inside.len() - inside.trim_start_matches('#').len();
    inside[hashes..].starts_with('"').then_some(hashes)
}

/// A character and not a lifetime: `'a'` or `'\n'`, but `'a` is a lifetime.
fn is_character(rest: &str) -> bool {
    let mut chars = rest.chars().skip(1);
    match chars.next() {
        Some('\\') => true,
        Some(_) => chars.next() == Some('\''),
        None => false,
    }
}
